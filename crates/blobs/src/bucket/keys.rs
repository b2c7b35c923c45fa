//! Where everything lies in a bucket: Distribution's keys for blobs, and a prefix of Twinport's own beside them.
//! Guards: these are the keys that existing buckets are taken over with, so they never change.
//!
//! ```text
//! <root>/docker/registry/v2/blobs/sha256/ab/<hex>/data         a published blob
//! <root>/_twinport/incarnation                                 the marker of the site's incarnation
//! <root>/_twinport/uploads/<spool>/<segment>                   bytes that are still gathering
//! <root>/_twinport/uploads/<spool>/long-<uuid>                 the bytes of a segment that came in parts
//! ```

use object_store::path::Path;
use twinport_oci::{Algorithm, Digest};
use uuid::Uuid;

use crate::layout::{BLOBS, BlobPath};
use crate::{Error, Result, SpoolName};

const OWN: &str = "_twinport";
const UPLOADS: &str = "uploads";

/// The keys below one `rootdirectory`.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    root: Path,
}

impl Keys {
    pub(crate) fn new(root: &str) -> Result<Self> {
        let trimmed = root.trim_matches('/');
        let root = Path::parse(trimmed)
            .map_err(|e| Error::Settings(format!("the root directory `{root}` makes no key: {e}")))?;
        Ok(Self { root })
    }

    fn below(&self, rest: &str) -> Path {
        // Names of ours hold nothing that a key would have to escape, and the root was parsed.
        Path::from(if self.root.as_ref().is_empty() {
            rest.to_owned()
        } else {
            format!("{}/{rest}", self.root)
        })
    }

    pub(crate) fn blob(&self, digest: &Digest) -> Path {
        self.below(&format!("{BLOBS}/{}", BlobPath::of(digest).data()))
    }

    /// The prefix of all blobs of an algorithm.
    pub(crate) fn blobs(&self, algorithm: Algorithm) -> Path {
        self.below(&format!("{BLOBS}/{algorithm}"))
    }

    /// The digest that a key below [`Keys::blobs`] holds the bytes of.
    pub(crate) fn digest_of(&self, key: &Path) -> Option<Digest> {
        let blobs = self.below(BLOBS);
        let mut parts = key.prefix_match(&blobs)?;
        let (algorithm, prefix, hex) = (parts.next()?, parts.next()?, parts.next()?);
        let digest: Digest = format!("{}:{}", algorithm.as_ref(), hex.as_ref()).parse().ok()?;
        let whole = parts.next()?.as_ref() == "data" && parts.next().is_none();
        (whole && hex.as_ref().starts_with(prefix.as_ref())).then_some(digest)
    }

    pub(crate) fn incarnation(&self) -> Path {
        self.below(&format!("{OWN}/incarnation"))
    }

    /// An object that is written and removed again to see whether it can be.
    pub(crate) fn probe(&self) -> Path {
        self.below(&format!("{OWN}/probe-{}", Uuid::new_v4()))
    }

    pub(crate) fn uploads(&self) -> Path {
        self.below(&format!("{OWN}/{UPLOADS}"))
    }

    pub(crate) fn spool(&self, spool: &SpoolName) -> Path {
        self.below(&format!("{OWN}/{UPLOADS}/{spool}"))
    }

    /// The spool and the name in it that a key below [`Keys::uploads`] belongs to.
    pub(crate) fn in_spool(&self, key: &Path) -> Option<(SpoolName, String)> {
        let uploads = self.uploads();
        let mut parts = key.prefix_match(&uploads)?;
        let (spool, name) = (parts.next()?, parts.next()?);
        let spool = SpoolName::parse(spool.as_ref())?;
        parts.next().is_none().then(|| (spool, name.as_ref().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use twinport_oci::UploadId;

    use super::*;

    #[test]
    fn keys_are_those_of_distribution_below_any_root() {
        let digest = Digest::sha256(b"");
        let hex = digest.hex().to_string();
        for (root, prefix) in [("", ""), ("/", ""), ("/a/b/", "a/b/"), ("registry", "registry/")] {
            let keys = Keys::new(root).unwrap();
            let key = keys.blob(&digest);
            assert_eq!(key.as_ref(), format!("{prefix}docker/registry/v2/blobs/sha256/e3/{hex}/data"));
            assert_eq!(keys.digest_of(&key), Some(digest));
            let spool = SpoolName::Upload(UploadId(Uuid::from_u128(7)));
            let segment = keys.spool(&spool).join("name");
            assert_eq!(keys.in_spool(&segment), Some((spool, "name".to_owned())));
        }
        assert!(Keys::new("a//b").is_err());
        let keys = Keys::new("").unwrap();
        for stranger in ["docker/registry/v2/blobs/sha256/00/abc/data", "docker/registry/v2/repositories/a"] {
            assert_eq!(keys.digest_of(&Path::from(stranger)), None, "{stranger}");
        }
    }
}
