//! Names of spool files: what gathers there, readable back from the file name alone.
//! Guards: every file in the spool directory says whose it is, so that recovery needs no scan of the blobs.

use std::fmt;

use twinport_oci::{Algorithm, Digest, UploadId};
use uuid::Uuid;

/// Where bytes gather before they are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpoolName {
    /// An upload session: `upload-<uuid>`.
    Upload(UploadId),
    /// A blob on its way from another site: `transfer-<algorithm>-<hex>`.
    Transfer(Digest),
    /// A small whole blob: `put-<algorithm>-<hex>-<uuid>`.
    Put(Digest, Uuid),
}

impl SpoolName {
    /// The digest that the name itself states; an upload has none before its end.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Upload(_) => None,
            Self::Transfer(digest) | Self::Put(digest, _) => Some(*digest),
        }
    }

    pub(crate) fn file_name(&self) -> String {
        self.to_string()
    }

    /// Reads a file name back; none for a name that is not exactly what [`fmt::Display`] writes.
    pub fn parse(file_name: &str) -> Option<Self> {
        let name = if let Some(id) = file_name.strip_prefix("upload-") {
            Self::Upload(id.parse().ok()?)
        } else if let Some(digest) = file_name.strip_prefix("transfer-") {
            Self::Transfer(parse_digest(digest)?)
        } else {
            let rest = file_name.strip_prefix("put-")?;
            let (algorithm, rest) = rest.split_once('-')?;
            let (hex, id) = rest.split_once('-')?;
            let digest = format!("{algorithm}:{hex}").parse().ok()?;
            Self::Put(digest, Uuid::try_parse(id).ok()?)
        };
        (name.file_name() == file_name).then_some(name)
    }
}

fn parse_digest(text: &str) -> Option<Digest> {
    let (algorithm, hex) = text.split_once('-')?;
    algorithm.parse::<Algorithm>().ok()?;
    format!("{algorithm}:{hex}").parse().ok()
}

impl fmt::Display for SpoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upload(id) => write!(f, "upload-{id}"),
            Self::Transfer(digest) => write!(f, "transfer-{}-{}", digest.algorithm(), digest.hex()),
            Self::Put(digest, id) => write!(f, "put-{}-{}-{id}", digest.algorithm(), digest.hex()),
        }
    }
}

/// A spool file found on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftoverSpool {
    pub name: SpoolName,
    /// Length in bytes.
    pub len: u64,
    /// Hard links of the file: above 1 it was linked into place, though perhaps never committed.
    pub links: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_from_file_names() {
        let digest = Digest::sha256(b"layer");
        let long = Digest::of(Algorithm::Sha512, b"layer");
        let id = Uuid::from_u128(7);
        for name in [
            SpoolName::Upload(UploadId(id)),
            SpoolName::Transfer(digest),
            SpoolName::Transfer(long),
            SpoolName::Put(digest, id),
            SpoolName::Put(long, id),
        ] {
            assert_eq!(SpoolName::parse(&name.file_name()), Some(name));
        }
        let upper = SpoolName::Upload(UploadId(Uuid::from_u128(0xabc))).file_name().to_uppercase();
        for stranger in ["", "upload-", "upload-x", "put-sha256-00", "transfer-md5-00", "data", &upper] {
            assert_eq!(SpoolName::parse(stranger), None, "{stranger}");
        }
    }
}
