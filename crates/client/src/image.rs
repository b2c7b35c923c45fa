//! An image in local files: an OCI layout directory, an oci-archive or a docker-archive.
//! Nothing is unpacked: a blob is a slice of a file.

mod docker;
mod files;
mod layout;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use twinport_oci::{Descriptor, Digest, Manifest, MediaType, Tag};

use self::files::Files;
use crate::{Error, Result, Slice};

/// A whole image, ready to be pushed.
#[derive(Debug, Clone)]
pub struct Image {
    /// The tag its source names, if it names one.
    pub tag: Option<Tag>,
    /// Children before parents; the last is the image itself.
    pub manifests: Vec<ImageManifest>,
    /// Every blob of every manifest, once.
    pub blobs: Vec<ImageBlob>,
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    pub digest: Digest,
    pub media_type: MediaType,
    pub bytes: Bytes,
}

/// A config or a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageBlob {
    pub digest: Digest,
    pub slice: Slice,
}

impl Image {
    /// Reads the documents of the image at `path` and finds its blobs. Does not read blobs, except to learn the
    /// digests of a docker-archive's layers.
    pub async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let joined = tokio::task::spawn_blocking(move || open(&path)).await;
        joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// The manifest that stands for the image.
    #[must_use]
    pub fn root(&self) -> &ImageManifest {
        // Every constructor pushes the root, and pushes it last.
        &self.manifests[self.manifests.len() - 1]
    }

    /// Bytes of all blobs together.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.slice.len).sum()
    }
}

fn open(path: &Path) -> Result<Image> {
    let files = Files::open(path)?;
    if files.locate("index.json").is_some() {
        layout::read(&files)
    } else if files.locate("manifest.json").is_some() {
        docker::read(&files)
    } else {
        let reason =
            "it has neither an index.json (OCI layout, oci-archive) nor a manifest.json (docker-archive)";
        Err(Error::NotAnImage { path: path.to_owned(), reason: reason.to_owned() })
    }
}

/// Gathers manifests and blobs, each once.
struct Gathered {
    path: PathBuf,
    image: Image,
}

impl Gathered {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), image: Image { tag: None, manifests: Vec::new(), blobs: Vec::new() } }
    }

    fn manifest(&mut self, digest: Digest, manifest: &Manifest, bytes: Vec<u8>) {
        let media_type = manifest.media_type.clone();
        self.image.manifests.push(ImageManifest { digest, media_type, bytes: bytes.into() });
    }

    fn has_manifest(&self, digest: &Digest) -> bool {
        self.image.manifests.iter().any(|manifest| manifest.digest == *digest)
    }

    fn blob(&mut self, descriptor: &Descriptor, slice: Option<Slice>) -> Result<()> {
        let digest = descriptor.digest;
        if self.image.blobs.iter().any(|blob| blob.digest == digest) {
            return Ok(());
        }
        let Some(slice) = slice else {
            // The bytes of a foreign layer are fetched from where its publisher keeps them.
            if descriptor.is_foreign() {
                return Ok(());
            }
            return Err(self.broken(format!("its blob {digest} is missing")));
        };
        if descriptor.stated_size().is_some_and(|size| size != slice.len) {
            return Err(self.broken(format!(
                "its blob {digest} has {} bytes where the manifest says {}",
                slice.len, descriptor.size
            )));
        }
        self.image.blobs.push(ImageBlob { digest, slice });
        Ok(())
    }

    fn broken(&self, reason: String) -> Error {
        Error::NotAnImage { path: self.path.clone(), reason }
    }
}
