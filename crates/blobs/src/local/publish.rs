//! Putting bytes in place under their digest, and taking away what nobody owns.
//! Guards: bytes are synced before they get their name, the name and its parents before success is reported; a
//! published file is replaced as a whole or not at all.

use std::collections::hash_map::Entry;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, FlockOperation, Mode, flock, linkat, mkdirat, renameat, statat, unlinkat};
use rustix::io::Errno;
use twinport_oci::Digest;
use uuid::Uuid;

use super::open::REPLACING;
use super::{LocalBlobs, blocking};
use crate::layout::BlobPath;
use crate::{Error, Result, SpoolName};

/// How often a directory may vanish (an unpublish of the same digest) between making it and linking into it.
const ATTEMPTS: usize = 8;

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
            let file = claim.store.open_locked(&spool)?;
            let stat = file.metadata().map_err(|e| claim.store.spool_error("looking at", &spool, e))?;
            let actual = stat.len();
            if actual != size {
                return Err(Error::SizeMismatch { spool, expected: size, actual });
            }
            // Before it has its name: from then on it must not look like a leftover to another node.
            claim.store.hold(&spool, file);
            claim.store.place(&spool, stat.ino(), &digest).inspect_err(|_| claim.store.release(&spool))
        })
        .await
    }

    /// See [`crate::Blobs::put`].
    pub(crate) async fn put(self: &Arc<Self>, digest: &Digest, bytes: Bytes) -> Result<SpoolName> {
        let (store, digest) = (self.clone(), *digest);
        blocking("storing a small blob", move || {
            let actual = Digest::of(digest.algorithm(), &bytes);
            if actual != digest {
                return Err(Error::DigestMismatch { expected: digest, actual: Box::new(actual) });
            }
            let spool = SpoolName::Put(digest, Uuid::new_v4());
            let placed = store
                .write_spool(&spool, &bytes)
                .map_err(|e| store.spool_error("writing", &spool, e))
                .and_then(|ino| store.place(&spool, ino, &digest));
            if let Err(e) = placed {
                store.discard_blocking(&spool)?;
                return Err(e);
            }
            Ok(spool)
        })
        .await
    }

    fn write_spool(&self, spool: &SpoolName, bytes: &[u8]) -> io::Result<u64> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(self.spool_path(spool))?;
        flock(&file, FlockOperation::LockExclusive)?;
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
        let SpoolName::Put(digest, _) = spool else { return None };
        self.puts.lock().insert(*digest, *spool)
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
            let _alone = store.placing(&digest);
            let _no_names = store.lock_removals().map_err(|e| store.blob_error("removing", &path, e))?;
            store.remove_durably(&path)
        })
        .await
    }

    pub(super) fn remove_durably(&self, path: &BlobPath) -> Result<()> {
        self.remove(path).map_err(|e| self.blob_error("removing", path, e))?;
        let failed = |e| self.blob_error("syncing the directories of", path, e);
        match self.sync.directory_at(&self.blobs, path.directory()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        self.sync.directory_at(&self.blobs, path.prefix()).map_err(failed)
    }

    pub(super) fn discard_blocking(&self, spool: &SpoolName) -> Result<()> {
        if let SpoolName::Put(digest, _) = spool
            && let Entry::Occupied(newest) = self.puts.lock().entry(*digest)
            && newest.get() == spool
        {
            newest.remove();
        }
        // Whoever works on it at another node discards it there.
        if self.is_elsewhere(spool) { Ok(()) } else { self.unlink_spool(spool) }
    }

    fn unlink_spool(&self, spool: &SpoolName) -> Result<()> {
        match unlinkat(&self.spool, spool.file_name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {
                self.held.lock().remove(spool);
                Ok(())
            }
            Err(e) => Err(self.spool_error("removing", spool, e)),
        }
    }
}
