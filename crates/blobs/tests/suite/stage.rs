//! What a behaviour plays on: a fresh store, and ways to fill it.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::{self, Stream, TryStreamExt};
use tempfile::TempDir;
use twinport_blobs::{Blobs, Hidden, Progress, S3Settings, SpoolName};
use twinport_oci::{Algorithm, Digest, UploadId};
use twinport_testkit::{ObjectServer, ObjectServerKind, object_server};
use uuid::Uuid;

/// A store of its own, and the way to open it again as another process or node would.
pub(crate) struct Stage {
    pub(crate) blobs: Blobs,
    driver: Driver,
}

enum Driver {
    Local(PathBuf, #[expect(dead_code, reason = "removed with the stage")] TempDir),
    Bucket(Box<S3Settings>),
}

pub(crate) async fn local() -> Option<Stage> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("blobs");
    let blobs = Blobs::open_local(root.clone()).await.unwrap();
    Some(Stage { blobs, driver: Driver::Local(root, directory) })
}

pub(crate) async fn minio() -> Option<Stage> {
    bucket(ObjectServerKind::MinIo).await
}

pub(crate) async fn versitygw() -> Option<Stage> {
    bucket(ObjectServerKind::Versity).await
}

async fn bucket(kind: ObjectServerKind) -> Option<Stage> {
    let server = tokio::task::spawn_blocking(move || object_server(kind)).await.unwrap()?;
    let settings = S3Settings {
        endpoint: Some(server.url()),
        path_style: true,
        root: format!("/test/{}", Uuid::new_v4()),
        keys: Some((ObjectServer::ACCESS_KEY.to_owned(), Hidden::new(ObjectServer::SECRET_KEY))),
        // As small as S3 allows, so that what the suite sends comes in parts and is copied in parts.
        chunk: 5 << 20,
        copy_threshold: 6 << 20,
        copy_chunk: 10 << 20,
        ..S3Settings::new(ObjectServer::BUCKET, ObjectServer::REGION)
    };
    let blobs = Blobs::open_s3(settings.clone()).await.unwrap();
    Some(Stage { blobs, driver: Driver::Bucket(Box::new(settings)) })
}

impl Stage {
    pub(crate) async fn reopened(self) -> Self {
        let Self { blobs, driver } = self;
        drop(blobs);
        let blobs = driver.open().await;
        Self { blobs, driver }
    }

    /// The local root; none of a bucket, where other nodes write: a spool there is cut by nobody, is not marked as
    /// published, and puts have none.
    pub(crate) fn root(&self) -> Option<&Path> {
        match &self.driver {
            Driver::Local(root, _) => Some(root),
            Driver::Bucket(_) => None,
        }
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

impl Driver {
    async fn open(&self) -> Blobs {
        match self {
            Self::Local(root, _) => Blobs::open_local(root.clone()).await.unwrap(),
            Self::Bucket(settings) => Blobs::open_s3((**settings).clone()).await.unwrap(),
        }
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
