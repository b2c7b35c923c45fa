//! Which process works on a spool, where several have one store open: flock(2), which ends with the process that took it.
//! Guards: two nodes never write one spool, and what one node is about to commit is no leftover to another (hazard S14).
//!
//! A lock belongs to an open file, so one that is paused keeps its spools, and one that is killed leaves them to others.
//! A process that has the store to itself locks nothing: every spool is its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, openat, statat, unlinkat};
use rustix::io::Errno;
use twinport_oci::Digest;

use super::{LocalBlobs, Sharing, blocking};
use crate::layout::BlobPath;
use crate::{Error, Result, SpoolName};

/// Another node gives or takes a name at the same moment: 10 s in all.
const NAME_ATTEMPTS: u32 = 5_000;
const NAME_PAUSE: Duration = Duration::from_millis(2);

impl LocalBlobs {
    /// Whether other processes may have this store open.
    pub(crate) fn is_shared(&self) -> bool {
        self.sharing == Sharing::Shared
    }

    /// Takes the lock of an open spool, for as long as the file is open.
    pub(super) fn lock_spool(&self, spool: &SpoolName, file: &File) -> Result<()> {
        if !self.is_shared() || self.held.lock().contains_key(spool) {
            // This process has it already, from a publish or a recovery to the end of either.
            return Ok(());
        }
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(Error::SpoolBusy(*spool)),
            Err(e) => Err(self.spool_error("locking", spool, e)),
        }
    }

    /// Takes the lock of a file whose name nobody else knows.
    pub(super) fn lock_new(&self, file: &File) -> io::Result<()> {
        if self.is_shared() { Ok(flock(file, FlockOperation::LockExclusive)?) } else { Ok(()) }
    }

    /// Keeps a spool from other processes until it is discarded or released.
    pub(super) fn hold(&self, spool: &SpoolName, file: File) {
        if self.is_shared() {
            self.held.lock().entry(*spool).or_insert(file);
        }
    }

    /// Keeps a spool that is to be published from other processes; its length in bytes and its inode.
    pub(super) fn hold_whole(&self, spool: &SpoolName) -> Result<(u64, u64)> {
        if self.is_shared() {
            let file = self.open_locked(spool)?;
            let stat = file.metadata().map_err(|e| self.spool_error("looking at", spool, e))?;
            self.hold(spool, file);
            return Ok((stat.len(), stat.ino()));
        }
        match statat(&self.spool, spool.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok((u64::try_from(stat.st_size).unwrap_or(0), stat.st_ino)),
            Err(Errno::NOENT) => Err(Error::SpoolMissing(*spool)),
            Err(e) => Err(self.spool_error("looking at", spool, e)),
        }
    }

    /// See [`crate::Blobs::release`].
    pub(crate) fn release(&self, spool: &SpoolName) {
        let Some(file) = self.held.lock().remove(spool) else { return };
        // One that was occupied and never written is nobody's leftover.
        let unwritten = file.metadata().is_ok_and(|metadata| metadata.len() == 0 && metadata.nlink() == 1);
        if unwritten && let Err(error) = unlinkat(&self.spool, spool.file_name(), AtFlags::empty()) {
            tracing::debug!(%spool, %error, "an empty spool stays until the next start");
        }
    }

    /// Opens a spool of which nobody else has the lock, and takes it.
    pub(super) fn open_locked(&self, spool: &SpoolName) -> Result<File> {
        let file =
            match openat(&self.spool, spool.file_name(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(file) => File::from(file),
                Err(Errno::NOENT) => return Err(Error::SpoolMissing(*spool)),
                Err(e) => return Err(self.spool_error("opening", spool, e)),
            };
        self.lock_spool(spool, &file)?;
        // Who had it before may have discarded it, and the name may be another file's by now.
        let named = statat(&self.spool, spool.file_name(), AtFlags::SYMLINK_NOFOLLOW);
        let ino = file.metadata().map_err(|e| self.spool_error("looking at", spool, e))?.ino();
        match named {
            Ok(stat) if stat.st_ino == ino => Ok(file),
            Ok(_) => Err(Error::SpoolBusy(*spool)),
            Err(Errno::NOENT) => Err(Error::SpoolMissing(*spool)),
            Err(e) => Err(self.spool_error("looking at", spool, e)),
        }
    }

    /// See [`crate::Blobs::adopt`].
    pub(crate) async fn adopt(self: &Arc<Self>, spool: &SpoolName) -> Result<bool> {
        if !self.is_shared() {
            return Ok(true);
        }
        let (store, spool) = (self.clone(), *spool);
        blocking("adopting a spool", move || store.hold_if_free(&spool)).await
    }

    /// See [`crate::Blobs::occupy`].
    pub(crate) async fn occupy(self: &Arc<Self>, spool: &SpoolName) -> Result<bool> {
        if !self.is_shared() {
            return Ok(true);
        }
        let (store, spool) = (self.clone(), *spool);
        blocking("occupying a spool", move || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            let made = openat(&store.spool, spool.file_name(), flags, Mode::from_raw_mode(0o666));
            drop(made.map_err(|e| store.spool_error("opening", &spool, e))?);
            store.hold_if_free(&spool)
        })
        .await
    }

    /// Holds a spool that is there and that nobody has.
    fn hold_if_free(&self, spool: &SpoolName) -> Result<bool> {
        match self.open_locked(spool) {
            Ok(file) => {
                self.hold(spool, file);
                Ok(true)
            }
            Err(Error::SpoolBusy(_) | Error::SpoolMissing(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether another process works on the spool.
    pub(super) fn is_elsewhere(&self, spool: &SpoolName) -> bool {
        if !self.is_shared() || self.held.lock().contains_key(spool) || self.busy.lock().contains(spool) {
            return false;
        }
        matches!(self.open_locked(spool), Err(Error::SpoolBusy(_)))
    }

    /// Excludes whoever takes published files away, in any process, while a name is given.
    pub(super) fn lock_names(&self) -> io::Result<Option<File>> {
        self.lock_directory(FlockOperation::NonBlockingLockShared)
    }

    /// Excludes whoever gives names, in any process, while files are taken away.
    pub(super) fn lock_removals(&self) -> io::Result<Option<File>> {
        self.lock_directory(FlockOperation::NonBlockingLockExclusive)
    }

    /// An open directory of its own: threads that share one would unlock each other. Locks are held for a link or a removal
    /// only, so whoever has one for long is a process that stands still: that is waited for, but not for ever.
    fn lock_directory(&self, operation: FlockOperation) -> io::Result<Option<File>> {
        if !self.is_shared() {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&self.spool, ".", flags, Mode::empty())?;
        for _ in 0..NAME_ATTEMPTS {
            match flock(&directory, operation) {
                Err(Errno::WOULDBLOCK) => std::thread::sleep(NAME_PAUSE),
                locked => return locked.map(|()| Some(File::from(directory))).map_err(Into::into),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "another node of this site holds the store's lock and stands still",
        ))
    }

    /// See [`crate::Blobs::unpublish_spool`].
    pub(crate) async fn unpublish_spool(
        self: &Arc<Self>,
        spool: &SpoolName,
        digest: &Digest,
    ) -> Result<bool> {
        let (store, spool, digest) = (self.clone(), *spool, *digest);
        blocking("removing a blob", move || {
            let path = BlobPath::of(&digest);
            {
                let _alone = store.placing(&digest);
                let _no_names = store.lock_removals().map_err(|e| store.spool_error("locking", &spool, e))?;
                if !store.was_published_as(&spool, &digest, &path)? {
                    return Ok(false);
                }
                store.take_away(&digest, &path)?;
            }
            store.sync_removal(&path)?;
            Ok(true)
        })
        .await
    }

    /// Whether the file in a blob's place is this spool's, and not one that somebody else published since.
    fn was_published_as(&self, spool: &SpoolName, digest: &Digest, path: &BlobPath) -> Result<bool> {
        let published = match statat(&self.blobs, path.data(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat.st_ino,
            Err(Errno::NOENT) => {
                return Ok(matches!(spool, SpoolName::Put(_, id) if self.acknowledged.are_of(digest, *id)));
            }
            Err(e) => return Err(self.blob_error("removing", path, e)),
        };
        // One that the journal tells of has no file of its own yet, and the newest put is the one in place.
        if let SpoolName::Put(_, id) = spool
            && self.puts.lock().get(digest).is_some_and(|put| put.id == *id && !put.named)
        {
            return Ok(true);
        }
        match statat(&self.spool, spool.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(stat.st_ino == published),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(self.spool_error("looking at", spool, e)),
        }
    }
}
