//! What a behaviour plays on: a fresh store, and ways to fill it.

use std::convert::Infallible;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::stream::{self, Stream, TryStreamExt};
use tempfile::TempDir;
use twinport_blobs::{Blobs, Progress, SpoolName};
use twinport_oci::{Algorithm, Digest, UploadId};

/// A store of its own, and the way to open it again as another process would.
pub(crate) struct Stage {
    pub(crate) blobs: Blobs,
    pub(crate) root: PathBuf,
    _directory: TempDir,
}

pub(crate) async fn local() -> Stage {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("blobs");
    Stage { blobs: Blobs::open_local(root.clone()).await.unwrap(), root, _directory: directory }
}

impl Stage {
    pub(crate) async fn reopened(self) -> Self {
        let Self { blobs, root, _directory } = self;
        drop(blobs);
        Self { blobs: Blobs::open_local(root.clone()).await.unwrap(), root, _directory }
    }

    /// Spools `content` and answers the name and digest it may be published under.
    pub(crate) async fn spooled(&self, content: &[u8]) -> (SpoolName, Digest) {
        let spool = SpoolName::Upload(UploadId::new());
        let appended = self.blobs.append(&spool, start(), body(content, 64 << 10), u64::MAX).await.unwrap();
        assert_eq!(appended.progress.offset, content.len() as u64);
        (spool, appended.progress.hasher.finish())
    }

    pub(crate) async fn read(&self, digest: &Digest) -> Vec<u8> {
        let file = self.blobs.open(digest).await.unwrap();
        collect(file.stream(0..file.size())).await
    }
}

pub(crate) fn start() -> Progress {
    Progress::start(Algorithm::Sha256)
}

/// Bytes that are the same for one seed and length, and like no others.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// `content` as a body of pieces of `piece` bytes.
pub(crate) fn body(
    content: &[u8],
    piece: usize,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let pieces: Vec<_> = content.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces)
}

pub(crate) async fn collect(stream: impl Stream<Item = twinport_blobs::Result<Bytes>>) -> Vec<u8> {
    stream
        .try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
        .unwrap()
}
