//! Where everything lies below the root: the CNCF Distribution layout, and Twinport's own corner beside it.
//! Guards: these are the paths that existing registries move in with, so they never change.
//!
//! ```text
//! <root>/docker/registry/v2/blobs/sha256/ab/<hex>/data   a published blob
//! <root>/twinport/incarnation                            the marker of the site's incarnation
//! <root>/twinport/spool/<name>                           bytes that are still gathering
//! <root>/twinport/journal/<uuid>.journal                 small blobs whose files the disk may not have yet
//! ```

use std::path::{Path, PathBuf};

use twinport_oci::{Algorithm, Digest};
use uuid::Uuid;

pub(crate) const BLOBS: &str = "docker/registry/v2/blobs";
pub(crate) const SPOOL: &str = "twinport/spool";
pub(crate) const JOURNAL: &str = "twinport/journal";
pub(crate) const INCARNATION: &str = "twinport/incarnation";
pub(crate) const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// The 256 first-level directories of an algorithm, in order.
pub(crate) fn prefixes() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|byte| format!("{byte:02x}"))
}

/// The path of one blob, relative to the blobs directory, with its two parents at hand.
#[derive(Debug, Clone)]
pub(crate) struct BlobPath {
    data: String,
    prefix_len: usize,
    directory_len: usize,
}

impl BlobPath {
    pub(crate) fn of(digest: &Digest) -> Self {
        let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
        let data = format!("{algorithm}/{}/{hex}/data", &hex[..2]);
        let prefix_len = algorithm.len() + 3;
        Self { data, prefix_len, directory_len: prefix_len + 1 + hex.len() }
    }

    /// `sha256/ab/<hex>/data`
    pub(crate) fn data(&self) -> &str {
        &self.data
    }

    /// `sha256/ab/<hex>`
    pub(crate) fn directory(&self) -> &str {
        &self.data[..self.directory_len]
    }

    /// `sha256/ab`
    pub(crate) fn prefix(&self) -> &str {
        &self.data[..self.prefix_len]
    }

    /// Where a put gathers the file before it gets its name: `sha256/ab/<hex>/<uuid>`
    pub(crate) fn beside(&self, put: Uuid) -> String {
        format!("{}/{put}", self.directory())
    }

    /// The absolute path of the data file, for messages.
    pub(crate) fn under(&self, root: &Path) -> PathBuf {
        root.join(BLOBS).join(&self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_lies_where_distribution_puts_it() {
        let digest = Digest::sha256(b"");
        let path = BlobPath::of(&digest);
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(path.data(), format!("sha256/e3/{hex}/data"));
        assert_eq!(path.directory(), format!("sha256/e3/{hex}"));
        assert_eq!(path.prefix(), "sha256/e3");
        assert_eq!(prefixes().count(), 256);
    }
}
