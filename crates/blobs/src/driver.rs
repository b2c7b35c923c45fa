//! The one façade over every kind of blob storage: each call goes to the driver that was opened.
//! Guards: callers depend on these promises alone, which `tests/suite.rs` holds for every driver.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::Stream;
use twinport_oci::{Algorithm, Digest};
use uuid::Uuid;

use crate::{Appended, BlobFile, Error, LeftoverSpool, LocalBlobs, Progress, Result, SpoolName, Verdict};

/// Bytes by digest, wherever they are kept. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Blobs {
    Local(Arc<LocalBlobs>),
}

impl Blobs {
    /// Opens a local store in the CNCF layout, making its directories where they are missing.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NoSpace`], or [`Error::HardLinks`] on a file system without link(2).
    pub async fn open_local(root: PathBuf) -> Result<Self, Error> {
        LocalBlobs::open(root).await.map(Self::Local)
    }

    /// The incarnation these bytes belong to; none in a store that is new or came from another registry.
    ///
    /// # Errors
    /// [`Error::Marker`] where the marker holds something else than a UUID.
    pub async fn incarnation(&self) -> Result<Option<Uuid>> {
        let Self::Local(local) = self;
        local.incarnation().await
    }

    /// Marks these bytes as belonging to `incarnation`, durably.
    pub async fn set_incarnation(&self, incarnation: Uuid) -> Result<()> {
        let Self::Local(local) = self;
        local.set_incarnation(incarnation).await
    }

    /// Marks the store as this incarnation's unless it is marked already: whose it is then. Of two sites that claim it
    /// at one time, one has it.
    ///
    /// # Errors
    /// When the marker cannot be written or read.
    pub async fn claim_store(&self, incarnation: Uuid) -> Result<Uuid> {
        let Self::Local(local) = self;
        local.claim_store(incarnation).await
    }

    /// The size in bytes of a stored blob, none where it is not stored.
    pub async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        let Self::Local(local) = self;
        local.stat(digest).await
    }

    /// Opens a blob for reading, whatever its length.
    ///
    /// # Errors
    /// [`Error::NotFound`] where it is not stored.
    pub async fn open(&self, digest: &Digest) -> Result<BlobFile> {
        let Self::Local(local) = self;
        local.open_blob(digest, None).await
    }

    /// Opens a blob that must be `size` bytes long.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Corrupt`] where the stored length is another.
    pub async fn open_sized(&self, digest: &Digest, size: u64) -> Result<BlobFile> {
        let Self::Local(local) = self;
        local.open_blob(digest, Some(size)).await
    }

    /// Writes `body` to a spool from `at.offset` on (what lies beyond it is cut first) and hashes it on the way.
    /// `limit` is the largest offset allowed, in bytes. At offset 0 the spool is made where it is missing.
    ///
    /// What was written is synced before this returns, also where the body broke off: [`Appended::broken`] then
    /// holds the body's error. Where this itself fails, the spool ends at `at.offset` as before. A future that is
    /// dropped leaves bytes beyond `at.offset`, which the next append cuts.
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
        S: Stream<Item = Result<Bytes, E>>,
    {
        let Self::Local(local) = self;
        local.append(spool, at, body, limit).await
    }

    /// The length of a spool in bytes, none where there is none.
    pub async fn spool_len(&self, spool: &SpoolName) -> Result<Option<u64>> {
        let Self::Local(local) = self;
        local.spool_len(spool).await
    }

    /// Hashes the first `len` bytes of a spool anew and syncs it: for a lost hash state, and for an algorithm that
    /// the client names only at the end.
    ///
    /// # Errors
    /// [`Error::SpoolMissing`], [`Error::OffsetMismatch`] where it is shorter, [`Error::SpoolBusy`].
    pub async fn rehash(&self, spool: &SpoolName, len: u64, algorithm: Algorithm) -> Result<Progress> {
        let Self::Local(local) = self;
        local.rehash(spool, len, algorithm).await
    }

    /// Publishes a spool of `size` bytes under its digest, durably. The caller has checked the digest. The spool
    /// keeps its name until [`Blobs::discard`], so that after a crash it says what may be unowned. A file that
    /// stands there already is replaced by this one; its readers are not disturbed.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`], [`Error::SpoolMissing`], [`Error::SpoolBusy`], [`Error::NoSpace`], [`Error::Io`].
    pub async fn publish(&self, spool: &SpoolName, digest: &Digest, size: u64) -> Result<()> {
        let Self::Local(local) = self;
        local.publish(spool, digest, size).await
    }

    /// Removes the spools that name a digest which is committed by now: what attempts left whose own commit failed.
    pub async fn settle(&self, digest: &Digest) -> Result<()> {
        let Self::Local(local) = self;
        local.settle(digest).await
    }

    /// Removes a spool; one that is absent is fine.
    pub async fn discard(&self, spool: &SpoolName) -> Result<()> {
        let Self::Local(local) = self;
        local.discard(spool).await
    }

    /// Checks, stores and publishes a small whole blob in one hop, durably. Answers the spool that keeps its name
    /// until the caller, having committed, discards it.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`], [`Error::NoSpace`], [`Error::Io`]: nothing is left behind.
    pub async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<SpoolName> {
        let Self::Local(local) = self;
        local.put(digest, bytes).await
    }

    /// Removes a published file that no metadata owns, durably; one that is absent is fine. For recovery only.
    pub async fn unpublish(&self, digest: &Digest) -> Result<()> {
        let Self::Local(local) = self;
        local.unpublish(digest).await
    }

    /// Removes a published file that no metadata owns, durably, if it is what this spool was published as; whether it
    /// was. For recovery only, of a spool that is adopted.
    pub async fn unpublish_spool(&self, spool: &SpoolName, digest: &Digest) -> Result<bool> {
        let Self::Local(local) = self;
        local.unpublish_spool(spool, digest).await
    }

    /// Takes a spool for this process until it is discarded or released, and makes it where it is missing. `false` while
    /// another process has it. Requests of one process take turns before they ask.
    pub async fn occupy(&self, spool: &SpoolName) -> Result<bool> {
        let Self::Local(local) = self;
        local.occupy(spool).await
    }

    /// Takes over a spool that no process works on: from now on this one does, until it is discarded or released.
    /// `false`: another process does, or it is gone.
    pub async fn adopt(&self, spool: &SpoolName) -> Result<bool> {
        let Self::Local(local) = self;
        local.adopt(spool).await
    }

    /// Leaves a spool to whoever finds it: one that was published for a commit that failed, or was adopted.
    pub fn release(&self, spool: &SpoolName) {
        let Self::Local(local) = self;
        local.release(spool);
    }

    /// All spools, sorted by name.
    pub async fn spools(&self) -> Result<Vec<LeftoverSpool>> {
        let Self::Local(local) = self;
        local.spools().await
    }

    /// Every stored blob and its size in bytes, in the order of [`Digest`]. Ends after its first error. A blob that
    /// comes or goes meanwhile may or may not appear.
    pub fn scan(&self) -> impl Stream<Item = Result<(Digest, u64)>> + Send + 'static + use<> {
        let Self::Local(local) = self;
        local.scan()
    }

    /// Hashes a stored blob anew.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read; that is no verdict on its bytes.
    pub async fn verify(&self, digest: &Digest) -> Result<Verdict> {
        let Self::Local(local) = self;
        local.verify(digest).await
    }
}
