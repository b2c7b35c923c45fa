//! Putting bytes in place under their digest, and taking away what nobody owns.
//! Guards: bytes are synced before they get their name, the name and its parents before success is reported; a
//! published file is replaced as a whole or not at all.

use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags, linkat, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use twinport_oci::Digest;
use uuid::Uuid;

use super::journal::LARGEST;
use super::open::REPLACING;
use super::{LocalBlobs, Put, blocking};
use crate::layout::{BlobPath, SPOOL};
use crate::{Error, Result, SpoolName};

/// How often a directory may vanish (an unpublish of the same digest) between making it and linking into it.
const ATTEMPTS: usize = 8;
/// How long somebody waits for what is on its way to its place.
const PATIENCE: Duration = Duration::from_secs(10);

impl LocalBlobs {
    /// See [`crate::Blobs::publish`].
    pub(crate) async fn publish(
        self: &Arc<Self>,
        spool: &SpoolName,
        digest: &Digest,
        size: u64,
    ) -> Result<()> {
        let claim = self.claim(spool)?;
        let (spool, digest) = (*spool, *digest);
        blocking("publishing a blob", move || {
            // Before it has its name: from then on it must not look like a leftover to another node.
            let (actual, ino) = claim.store.hold_whole(&spool)?;
            let placed = if actual == size {
                claim.store.place(&spool, ino, &digest)
            } else {
                Err(Error::SizeMismatch { spool, expected: size, actual })
            };
            placed.inspect_err(|_| claim.store.release(&spool))
        })
        .await
    }

    /// See [`crate::Blobs::put`].
    pub(crate) async fn put(self: &Arc<Self>, digest: &Digest, bytes: Bytes) -> Result<SpoolName> {
        let (id, digest) = (Uuid::new_v4(), *digest);
        let spool = SpoolName::Put(digest, id);
        let small = bytes.len() <= LARGEST;
        if small {
            // So few bytes that they are hashed sooner than handed to somebody else.
            check(&digest, &bytes)?;
            if let Some(journal) = self.begun_journal()
                && journal.put(digest, id, bytes.clone()).await
            {
                return Ok(spool);
            }
        }
        let store = self.clone();
        blocking("storing a small blob", move || {
            if !small {
                check(&digest, &bytes)?;
            } else if store.put_journaled(&digest, id, &bytes) {
                return Ok(spool);
            }
            if let Err(e) = store.write_and_place(&spool, &digest, &bytes) {
                store.discard_blocking(&spool)?;
                store.forget_refused(&digest);
                return Err(e);
            }
            Ok(spool)
        })
        .await
    }

    /// See [`crate::Blobs::all_placed`].
    pub(crate) async fn all_placed(self: &Arc<Self>) {
        let store = self.clone();
        let waited = blocking("waiting for blobs to be placed", move || {
            Ok(store.acknowledged.wait_for_none(PATIENCE))
        })
        .await;
        match waited {
            Ok(0) => {}
            Ok(left) => {
                tracing::warn!(left, "small blobs are in the journal only: the next start puts them in place")
            }
            Err(error) => tracing::warn!(%error, "small blobs may be in the journal only"),
        }
    }

    /// Stores a blob by way of the journal; false where that was not to be had.
    fn put_journaled(self: &Arc<Self>, digest: &Digest, id: Uuid, bytes: &Bytes) -> bool {
        let Some(journal) = self.begun_journal() else { return false };
        // Over both, so that of a put and a removal the journal and the directory tell the same order.
        let _alone = self.placing(digest);
        let Some(_placing) = journal.store(std::iter::once((*digest, id, bytes.clone()))) else {
            return false;
        };
        if let Err(error) = self.place_unsynced(digest, id, bytes) {
            tracing::debug!(%digest, %error, "a journaled blob could not be placed");
            return false;
        }
        self.acknowledged.remove(digest);
        self.note_put(digest, id, bytes.len());
        true
    }

    /// Notes a put that the journal has as the outstanding one of its digest.
    pub(super) fn note_put(&self, digest: &Digest, id: Uuid, len: usize) {
        let put = Put { id, len: len as u64, named: false };
        if let Some(earlier) = self.puts.lock().insert(*digest, put)
            && earlier.named
            && let Err(error) = self.unlink_spool(&SpoolName::Put(*digest, earlier.id))
        {
            tracing::warn!(%digest, %error, "could not remove an earlier spool: the next start will");
        }
    }

    /// A put that failed may have its bytes in the journal: the next start is not to put them in place, least of all on a disk
    /// that is full.
    fn forget_refused(&self, digest: &Digest) {
        let Some(Some(journal)) = self.journal.get() else { return };
        let _alone = self.placing(digest);
        // One that stands there may be what an earlier put acknowledged.
        if self.stat_blocking(digest).is_ok_and(|standing| standing.is_none()) && !journal.forget(digest) {
            tracing::warn!(%digest, "a blob that was refused stays in the journal: the next start puts it in place, unowned");
        }
    }

    /// Writes a blob where it belongs. Nothing is synced: the journal has its bytes.
    pub(super) fn place_unsynced(&self, digest: &Digest, id: Uuid, bytes: &[u8]) -> io::Result<()> {
        let path = BlobPath::of(digest);
        let beside = path.beside(id);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        // The caller keeps removals of this digest out, and no other process has the store.
        match mkdirat(&self.blobs, path.directory(), Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let mut file = File::from(openat(&self.blobs, &beside, flags, Mode::from_raw_mode(0o666))?);
        let placed = file.write_all(bytes).and_then(|()| {
            // Over one that stands there, as any publish: it may be the bad copy that this one repairs (hazard S6).
            Ok(renameat(&self.blobs, &beside, &self.blobs, path.data())?)
        });
        placed.inspect_err(|_| {
            let _may_be_gone = unlinkat(&self.blobs, &beside, AtFlags::empty());
            let _empty_or_in_use = unlinkat(&self.blobs, path.directory(), AtFlags::REMOVEDIR);
        })
    }

    /// Stores a blob by way of a spool, which keeps its name.
    pub(super) fn write_and_place(&self, spool: &SpoolName, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let ino = self.write_spool(spool, bytes).map_err(|e| self.spool_error("writing", spool, e))?;
        self.place(spool, ino, digest)
    }

    fn write_spool(&self, spool: &SpoolName, bytes: &[u8]) -> io::Result<u64> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(self.spool_path(spool))?;
        self.lock_new(&file)?;
        file.write_all(bytes)?;
        self.sync.file(&file)?;
        let ino = file.metadata()?.ino();
        self.hold(spool, file);
        Ok(ino)
    }

    /// Gives a synced spool its name under the digest, and syncs that name.
    fn place(&self, spool: &SpoolName, ino: u64, digest: &Digest) -> Result<()> {
        let path = BlobPath::of(digest);
        let (fresh, earlier) = {
            let _alone = self.placing(digest);
            let _no_removals = self.lock_names().map_err(|e| self.blob_error("publishing", &path, e))?;
            let fresh = self.link(spool, ino, &path).map_err(|e| self.blob_error("publishing", &path, e))?;
            self.acknowledged.remove(digest);
            (fresh, self.supersede(spool))
        };
        let synced = self
            .sync
            .directory_at(&self.blobs, path.directory())
            .and_then(|()| self.sync.directory_at(&self.blobs, path.prefix()));
        synced.map_err(|e| {
            if fresh {
                self.take_back(ino, digest, &path);
            }
            self.blob_error("syncing the directories of", &path, e)
        })?;
        earlier.map_or(Ok(()), |earlier| self.unlink_spool(&earlier))
    }

    /// The put that this one makes superfluous: one spool is enough to name a digest after a crash. Without this, each
    /// try of a push whose commit fails (a full database) would leave another copy of the bytes.
    fn supersede(&self, spool: &SpoolName) -> Option<SpoolName> {
        let SpoolName::Put(digest, id) = spool else { return None };
        // Its length is that of its spool.
        let earlier = self.puts.lock().insert(*digest, Put { id: *id, len: 0, named: true })?;
        (earlier.named && earlier.id != *id).then_some(SpoolName::Put(*digest, earlier.id))
    }

    /// True where no file had the name before. One that had it is replaced, never trusted: it may be the bad copy
    /// that this publish repairs (hazard S6), and readers keep the inode they opened.
    fn link(&self, spool: &SpoolName, ino: u64, path: &BlobPath) -> rustix::io::Result<bool> {
        let name = spool.file_name();
        for _ in 0..ATTEMPTS {
            let made = match mkdirat(&self.blobs, path.directory(), Mode::from_raw_mode(0o777)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(e) => return Err(e),
            };
            match linkat(&self.spool, &name, &self.blobs, path.data(), AtFlags::empty()) {
                Ok(()) => return Ok(true),
                Err(Errno::EXIST) => return self.replace(&name, ino, path).map(|()| false),
                Err(Errno::NOENT) if !made => {}
                Err(e) => {
                    let _empty_or_in_use = unlinkat(&self.blobs, path.directory(), AtFlags::REMOVEDIR);
                    return Err(e);
                }
            }
        }
        Err(Errno::NOENT)
    }

    fn replace(&self, spool: &str, ino: u64, path: &BlobPath) -> rustix::io::Result<()> {
        let standing = statat(&self.blobs, path.data(), AtFlags::SYMLINK_NOFOLLOW)?;
        if standing.st_ino == ino {
            // An earlier attempt got this far; rename(2) would do nothing between two names of one inode.
            return Ok(());
        }
        let second = format!("{spool}{REPLACING}");
        match unlinkat(&self.spool, &second, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
        linkat(&self.spool, spool, &self.spool, &second, AtFlags::empty())?;
        renameat(&self.spool, &second, &self.blobs, path.data()).inspect_err(|_| {
            let _left_for_the_next_open = unlinkat(&self.spool, &second, AtFlags::empty());
        })
    }

    /// Undoes a link whose directories could not be synced, unless another publisher has replaced it meanwhile.
    fn take_back(&self, ino: u64, digest: &Digest, path: &BlobPath) {
        let _alone = self.placing(digest);
        let Ok(_no_names) = self.lock_removals() else { return };
        let standing = statat(&self.blobs, path.data(), AtFlags::SYMLINK_NOFOLLOW);
        if standing.is_ok_and(|stat| stat.st_ino == ino)
            && let Err(error) = self.remove(path)
        {
            tracing::warn!(%digest, %error, "could not take back a blob that could not be synced");
        }
    }

    fn remove(&self, path: &BlobPath) -> rustix::io::Result<()> {
        match unlinkat(&self.blobs, path.data(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
        match unlinkat(&self.blobs, path.directory(), AtFlags::REMOVEDIR) {
            // Something else of the operator's lies there: it stays.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// See [`crate::Blobs::unpublish`].
    pub(crate) async fn unpublish(self: &Arc<Self>, digest: &Digest) -> Result<()> {
        let (store, digest) = (self.clone(), *digest);
        blocking("removing a blob", move || {
            let path = BlobPath::of(&digest);
            {
                let _alone = store.placing(&digest);
                let _no_names = store.lock_removals().map_err(|e| store.blob_error("removing", &path, e))?;
                store.take_away(&digest, &path)?;
            }
            store.sync_removal(&path)
        })
        .await
    }

    /// Removes a published file, and keeps the journal from putting it back. The caller keeps names of it from being given.
    pub(super) fn take_away(&self, digest: &Digest, path: &BlobPath) -> Result<()> {
        if let Some(Some(journal)) = self.journal.get()
            && !journal.forget(digest)
        {
            let error = io::Error::other("its removal could not be written to the journal");
            return Err(self.blob_error("removing", path, error));
        }
        self.acknowledged.remove(digest);
        self.remove(path).map_err(|e| self.blob_error("removing", path, e))
    }

    pub(super) fn sync_removal(&self, path: &BlobPath) -> Result<()> {
        let failed = |e| self.blob_error("syncing the directories of", path, e);
        match self.sync.directory_at(&self.blobs, path.directory()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        self.sync.directory_at(&self.blobs, path.prefix()).map_err(failed)
    }

    pub(super) fn discard_blocking(&self, spool: &SpoolName) -> Result<()> {
        match self.forget_put(spool) {
            Some(put) if !put.named => Ok(()),
            // Whoever works on it at another node discards it there.
            _ if self.is_elsewhere(spool) => Ok(()),
            _ => self.unlink_spool(spool),
        }
    }

    /// The put that a spool stands for, which is outstanding no more.
    pub(super) fn forget_put(&self, spool: &SpoolName) -> Option<Put> {
        let SpoolName::Put(digest, id) = spool else { return None };
        match self.puts.lock().entry(*digest) {
            Entry::Occupied(newest) if newest.get().id == *id => Some(newest.remove()),
            _ => None,
        }
    }

    /// Gives a published file a spool's name beside its own.
    pub(super) fn name_published(&self, spool: &SpoolName, digest: &Digest) -> Result<()> {
        let path = BlobPath::of(digest);
        match linkat(&self.blobs, path.data(), &self.spool, spool.file_name(), AtFlags::empty()) {
            // Without its file it names nothing.
            Ok(()) | Err(Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(e) => Err(self.spool_error("linking", spool, e)),
        }
    }

    pub(super) fn sync_spool_directory(&self) -> Result<()> {
        let synced = self.sync.directory(&self.spool);
        synced.map_err(|e| Error::io("syncing", self.root.join(SPOOL), e))
    }

    pub(super) fn unlink_spool(&self, spool: &SpoolName) -> Result<()> {
        match unlinkat(&self.spool, spool.file_name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {
                self.held.lock().remove(spool);
                Ok(())
            }
            Err(e) => Err(self.spool_error("removing", spool, e)),
        }
    }
}

fn check(digest: &Digest, bytes: &[u8]) -> Result<()> {
    let actual = Digest::of(digest.algorithm(), bytes);
    if actual == *digest {
        return Ok(());
    }
    Err(Error::DigestMismatch { expected: *digest, actual: Box::new(actual) })
}
