//! The one façade over every kind of blob storage: each call goes to the driver that was opened. Calls to a bucket are boxed,
//! so that a request to a local store does not carry the room that they would need.
//! Guards: callers depend on these promises alone, which `tests/suite.rs` holds for every driver.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Either;
use futures_util::stream::Stream;
use twinport_oci::{Algorithm, Digest, Hasher};
use uuid::Uuid;

use crate::{
    Appended, BlobFile, BucketBlobs, Error, LeftoverSpool, LocalBlobs, Progress, Result, S3Settings, Sharing,
    SpoolName, Verdict,
};

/// Bytes by digest, wherever they are kept. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Blobs {
    Local(Arc<LocalBlobs>),
    Bucket(Arc<BucketBlobs>),
}

impl Blobs {
    /// Opens a local store in the CNCF layout, making its directories where they are missing. No other process has it
    /// open meanwhile: the caller sees to that.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NoSpace`], or [`Error::HardLinks`] on a file system without link(2).
    pub async fn open_local(root: PathBuf) -> Result<Self, Error> {
        LocalBlobs::open(root, Sharing::Alone).await.map(Self::Local)
    }

    /// As [`Blobs::open_local`], for a directory that other nodes have open too.
    ///
    /// # Errors
    /// Those of [`Blobs::open_local`].
    pub async fn open_shared(root: PathBuf) -> Result<Self, Error> {
        LocalBlobs::open(root, Sharing::Shared).await.map(Self::Local)
    }

    /// Opens a bucket that speaks S3, once it was listed, written and read.
    ///
    /// # Errors
    /// [`Error::Settings`], [`Error::NoBucket`], [`Error::BucketCredentials`], [`Error::BucketDenied`],
    /// [`Error::ClockSkewed`], [`Error::Bucket`].
    pub async fn open_s3(settings: S3Settings) -> Result<Self, Error> {
        Box::pin(BucketBlobs::open(settings)).await.map(Self::Bucket)
    }

    /// Whether other processes may have these bytes open and no lock tells what they work on: then a spool that nobody here
    /// knows may still be somebody's, and what is abandoned is told by its age alone.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Bucket(_))
    }

    /// Whether the bucket can be listed, written, read and deleted from; nothing to be told of a local store.
    pub async fn examine(&self) -> Result<()> {
        match self {
            Self::Local(_) => Ok(()),
            Self::Bucket(bucket) => bucket.examine().boxed().await,
        }
    }

    /// A URL that anybody may get a blob from for as long as `expiry`; none where this process has to serve it. Whether the
    /// blob is there is not asked.
    pub async fn presigned(&self, digest: &Digest, expiry: Duration) -> Result<Option<String>> {
        match self {
            Self::Local(_) => Ok(None),
            Self::Bucket(bucket) => bucket.presigned(digest, expiry).boxed().await.map(Some),
        }
    }

    /// The incarnation these bytes belong to; none in a store that is new or came from another registry.
    ///
    /// # Errors
    /// [`Error::Marker`] where the marker holds something else than a UUID.
    pub async fn incarnation(&self) -> Result<Option<Uuid>> {
        match self {
            Self::Local(local) => local.incarnation().await,
            Self::Bucket(bucket) => bucket.incarnation().boxed().await,
        }
    }

    /// Marks these bytes as belonging to `incarnation`, durably.
    pub async fn set_incarnation(&self, incarnation: Uuid) -> Result<()> {
        match self {
            Self::Local(local) => local.set_incarnation(incarnation).await,
            Self::Bucket(bucket) => bucket.set_incarnation(incarnation).boxed().await,
        }
    }

    /// Marks the store as this incarnation's unless it is marked already: whose it is then. Of two sites that claim it
    /// at one time, one has it.
    ///
    /// # Errors
    /// When the marker cannot be written or read.
    pub async fn claim_store(&self, incarnation: Uuid) -> Result<Uuid> {
        match self {
            Self::Local(local) => local.claim_store(incarnation).await,
            Self::Bucket(bucket) => bucket.claim_store(incarnation).boxed().await,
        }
    }

    /// Waits until what was acknowledged so far lies where the layout says, so that other programs find it there.
    pub async fn all_placed(&self) {
        match self {
            Self::Local(local) => local.all_placed().await,
            Self::Bucket(_) => {}
        }
    }

    /// The size in bytes of a stored blob, none where it is not stored.
    pub async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        match self {
            Self::Local(local) => local.stat(digest).await,
            Self::Bucket(bucket) => bucket.stat(digest).boxed().await,
        }
    }

    /// Opens a blob for reading, whatever its length.
    ///
    /// # Errors
    /// [`Error::NotFound`] where it is not stored.
    pub async fn open(&self, digest: &Digest) -> Result<BlobFile> {
        match self {
            Self::Local(local) => local.open_blob(digest, None).await,
            Self::Bucket(bucket) => bucket.open_blob(digest, None).boxed().await,
        }
    }

    /// Opens a blob that must be `size` bytes long.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Corrupt`] where the stored length is another.
    pub async fn open_sized(&self, digest: &Digest, size: u64) -> Result<BlobFile> {
        match self {
            Self::Local(local) => local.open_blob(digest, Some(size)).await,
            Self::Bucket(bucket) => Box::pin(bucket.open_blob(digest, Some(size))).await,
        }
    }

    /// Writes `body` to a spool from `at.offset` on and hashes it on the way. What lies beyond `at` is cut first, or counts
    /// no more for whoever goes on from here. `limit` is the largest offset allowed, in bytes. At offset 0 the spool is made
    /// where it is missing.
    ///
    /// What was written is durable before this returns, also where the body broke off: [`Appended::broken`] then
    /// holds the body's error. Where this itself fails, or is dropped, the spool stands at `at` as before.
    ///
    /// In a bucket a spool is a heap of segments, and the progress that a caller recorded says which of them count: any
    /// node goes on from there, and of two that do, the one whose progress is recorded has written the upload.
    ///
    /// # Errors
    /// [`Error::SizeExceeded`]; [`Error::OffsetMismatch`] or [`Error::SpoolMissing`] where fewer bytes are there
    /// than `at` says; [`Error::SpoolBusy`] while another call works on the spool; [`Error::SpoolPublished`];
    /// [`Error::NoSpace`]; [`Error::Io`].
    pub async fn append<S, E>(
        &self,
        spool: &SpoolName,
        at: Progress,
        body: S,
        limit: u64,
    ) -> Result<Appended<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Send,
    {
        match self {
            Self::Local(local) => local.append(spool, at, body, limit).await,
            Self::Bucket(bucket) => bucket.append(spool, at, body, limit).boxed().await,
        }
    }

    /// The length of a spool in bytes, none where there is none; in a bucket the furthest that any writer came.
    pub async fn spool_len(&self, spool: &SpoolName) -> Result<Option<u64>> {
        match self {
            Self::Local(local) => local.spool_len(spool).await,
            Self::Bucket(bucket) => bucket.spool_len(spool).boxed().await,
        }
    }

    /// Hashes the first `len` bytes of a spool anew and syncs it: for a lost hash state, and for an algorithm that
    /// the client names only at the end. `known` is the hash of these bytes in another algorithm, where it is not lost: in a
    /// bucket it tells which of several writers' bytes are meant, without it the newest.
    ///
    /// # Errors
    /// [`Error::SpoolMissing`], [`Error::OffsetMismatch`] where it is shorter, [`Error::SpoolBusy`].
    pub async fn rehash(
        &self,
        spool: &SpoolName,
        len: u64,
        algorithm: Algorithm,
        known: Option<&Hasher>,
    ) -> Result<Progress> {
        match self {
            Self::Local(local) => local.rehash(spool, len, algorithm).await,
            Self::Bucket(bucket) => bucket.rehash(spool, len, algorithm, known).boxed().await,
        }
    }

    /// Publishes a spool of `size` bytes under its digest, durably. The caller has checked the digest. The spool
    /// keeps its name until [`Blobs::discard`], so that after a crash it says what may be unowned. A file that
    /// stands there already is replaced by this one; its readers are not disturbed. In a bucket nothing says after a crash
    /// what was published and not committed: `blobs scrub` finds it.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`], [`Error::SpoolMissing`], [`Error::SpoolBusy`], [`Error::NoSpace`], [`Error::Io`].
    pub async fn publish(&self, spool: &SpoolName, digest: &Digest, size: u64) -> Result<()> {
        match self {
            Self::Local(local) => local.publish(spool, digest, size).await,
            Self::Bucket(bucket) => bucket.publish(spool, digest, size).boxed().await,
        }
    }

    /// Removes the spools that name a digest which is committed by now: what attempts left whose own commit failed.
    pub async fn settle(&self, digest: &Digest) -> Result<()> {
        match self {
            Self::Local(local) => local.settle(digest).await,
            Self::Bucket(bucket) => bucket.settle(digest).boxed().await,
        }
    }

    /// Removes a spool; one that is absent is fine.
    pub async fn discard(&self, spool: &SpoolName) -> Result<()> {
        match self {
            Self::Local(local) => local.discard(spool).await,
            Self::Bucket(bucket) => bucket.discard(spool).boxed().await,
        }
    }

    /// Checks, stores and publishes a small whole blob in one hop, durably: it can be read, though its file may be on its way
    /// ([`Blobs::all_placed`]). Answers the spool that keeps its name until the caller, having committed, discards it; in a
    /// bucket it names nothing.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`], [`Error::NoSpace`], [`Error::Io`]: nothing is left behind.
    pub async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<SpoolName> {
        match self {
            Self::Local(local) => local.put(digest, bytes).await,
            Self::Bucket(bucket) => bucket.store(digest, bytes).boxed().await,
        }
    }

    /// Removes a published file that no metadata owns, durably; one that is absent is fine. For recovery only.
    pub async fn unpublish(&self, digest: &Digest) -> Result<()> {
        match self {
            Self::Local(local) => local.unpublish(digest).await,
            Self::Bucket(bucket) => bucket.unpublish(digest).boxed().await,
        }
    }

    /// Removes a published file that no metadata owns, durably, if it is what this spool was published as; whether it
    /// was. For recovery only, of a spool that is adopted. In a bucket a published blob is a copy and tells of no spool: never.
    pub async fn unpublish_spool(&self, spool: &SpoolName, digest: &Digest) -> Result<bool> {
        match self {
            Self::Local(local) => local.unpublish_spool(spool, digest).await,
            Self::Bucket(_) => Ok(false),
        }
    }

    /// Whether two nodes would disturb each other at one spool, and locks keep them apart: [`Blobs::occupy`] is worth asking.
    ///
    /// That is so in a shared directory, where going on from an earlier point cuts what another node has written. In a bucket
    /// nothing that was written is cut or changed: of two nodes that write one session, the one whose progress is recorded
    /// has written it, and the other's segments are in nobody's chain. A lock there would be one more object to renew, and
    /// could still be lost at any moment; the record could not.
    pub fn has_holds(&self) -> bool {
        match self {
            Self::Local(local) => local.is_shared(),
            Self::Bucket(_) => false,
        }
    }

    /// Takes a spool for this process until it is discarded or released, and makes it where it is missing. `false` while
    /// another process has it. Requests of one process take turns before they ask. Always `true` where nothing is held
    /// ([`Blobs::has_holds`]); in a bucket another node may then discard the spool meanwhile, which [`Error::SpoolMissing`]
    /// tells, or what it is read from may be gone ([`Error::NotFound`]).
    pub async fn occupy(&self, spool: &SpoolName) -> Result<bool> {
        match self {
            Self::Local(local) => local.occupy(spool).await,
            Self::Bucket(_) => Ok(true),
        }
    }

    /// Takes over a spool that no process works on: from now on this one does, until it is discarded or released.
    /// `false`: another process does, or it is gone. In a bucket always `false`: nothing there tells whether anybody is at
    /// work, so what is left over is told by its age ([`Blobs::stale_spools`]) and never taken over.
    pub async fn adopt(&self, spool: &SpoolName) -> Result<bool> {
        match self {
            Self::Local(local) => local.adopt(spool).await,
            Self::Bucket(_) => Ok(false),
        }
    }

    /// Leaves a spool to whoever finds it: one that was published for a commit that failed, or was adopted.
    pub fn release(&self, spool: &SpoolName) {
        match self {
            Self::Local(local) => local.release(spool),
            Self::Bucket(_) => {}
        }
    }

    /// All spools, sorted by name.
    pub async fn spools(&self) -> Result<Vec<LeftoverSpool>> {
        match self {
            Self::Local(local) => local.spools().await,
            Self::Bucket(bucket) => bucket.spools().boxed().await,
        }
    }

    /// Of a shared store: spools that nothing was written to since `before_us` (µs since the epoch).
    pub async fn stale_spools(&self, before_us: i64) -> Result<Vec<SpoolName>> {
        match self {
            Self::Local(_) => Ok(Vec::new()),
            Self::Bucket(bucket) => bucket.stale_spools(before_us).boxed().await,
        }
    }

    /// Of a bucket: ends uploads in parts that were begun before `before_us` and never completed; how many.
    pub async fn abort_stale_uploads(&self, before_us: i64) -> Result<u64> {
        match self {
            Self::Local(_) => Ok(0),
            Self::Bucket(bucket) => bucket.abort_stale_uploads(before_us).boxed().await,
        }
    }

    /// Whether a blob that metadata does not know may be one whose commit is still to come: some published spool may be
    /// its, or, in a bucket, it was written less than an hour before `now_us` (µs since the epoch).
    pub async fn may_await_commit(&self, digest: &Digest, now_us: i64) -> Result<bool> {
        match self {
            Self::Local(local) => {
                let spools = local.spools().await?;
                let published = |spool: &LeftoverSpool| spool.links > 1;
                let may_be_its =
                    |spool: &LeftoverSpool| spool.name.digest().is_none_or(|known| known == *digest);
                Ok(spools.iter().any(|spool| published(spool) && may_be_its(spool)))
            }
            Self::Bucket(bucket) => bucket.may_await_commit(digest, now_us).boxed().await,
        }
    }

    /// Every stored blob and its size in bytes, in the order of [`Digest`]. Ends after its first error. A blob that
    /// comes or goes meanwhile may or may not appear.
    pub fn scan(&self) -> impl Stream<Item = Result<(Digest, u64)>> + Send + 'static + use<> {
        match self {
            Self::Local(local) => Either::Left(local.scan()),
            Self::Bucket(bucket) => Either::Right(bucket.scan()),
        }
    }

    /// Hashes a stored blob anew.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read; that is no verdict on its bytes.
    pub async fn verify(&self, digest: &Digest) -> Result<Verdict> {
        match self {
            Self::Local(local) => local.verify(digest).await,
            Self::Bucket(bucket) => bucket.verify(digest).boxed().await,
        }
    }
}
