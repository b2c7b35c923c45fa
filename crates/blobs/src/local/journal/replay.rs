//! What journals hold is put in place: at open, after a crash, and where the disk refused what the kernel had promised.
//! Guards: every blob that a journal acknowledged is whole on the disk before the journal goes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, syncfs, unlinkat};
use rustix::io::Errno;
use twinport_oci::Digest;
use uuid::Uuid;

use super::super::LocalBlobs;
use super::super::file_system::Flushing;
use super::record;
use super::segment::SegmentFile;
use crate::layout::{BlobPath, JOURNAL};
use crate::{Error, Result, SpoolName};

/// Whether a file in place counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// A file with the right bytes counts.
    RightBytes,
    /// Pages may say what the disk does not: everything is written anew.
    Nothing,
}

/// How often a journal that somebody else holds is looked at again, and for how long in between.
const LOOKS: u32 = 100;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl LocalBlobs {
    /// Puts in place what journals of processes that are gone hold. Every blob of them gets a spool's name: whether its
    /// commit came is for recovery to see. Blocks.
    pub(in crate::local) fn replay_journals(&self) -> Result<()> {
        let directory = self.root.join(JOURNAL);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("listing", directory, e)),
        };
        let failed = |e| Error::io("listing", &directory, e);
        let paths: Vec<PathBuf> =
            entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().map_err(failed)?;
        for path in paths.iter().filter(|path| SegmentFile::is_one(path)) {
            let failed = |e| Error::io("reading", path, e);
            if let Some(segment) = Self::take_left(path).map_err(failed)? {
                self.put_back(&segment, Trust::RightBytes)?;
                segment.remove();
            }
        }
        // Were one to come back, it would be read in vain.
        let synced = fs::File::open(&directory).and_then(|directory| self.sync.directory(directory));
        synced.map_err(|e| Error::io("syncing", directory, e))
    }

    /// A journal that was left behind. Somebody who has one still is about to be gone: emptying it, when the store was closed.
    fn take_left(path: &Path) -> io::Result<Option<SegmentFile>> {
        for _ in 0..LOOKS {
            match SegmentFile::take(path)? {
                None if path.try_exists()? => std::thread::sleep(LOOK_AGAIN),
                taken => return Ok(taken),
            }
        }
        // It lives, and looks after it; whether this one may have the store too is for its caller to find out.
        tracing::warn!(path = %path.display(), "another process has a journal of this store");
        Ok(None)
    }

    /// Puts in place what a segment holds.
    pub(super) fn put_back(&self, segment: &SegmentFile, trust: Trust) -> Result<()> {
        let failed = |e| Error::io("reading", &segment.path, e);
        let content = segment.content().map_err(failed)?;
        let mut last = BTreeMap::new();
        for found in record::read(&content) {
            last.insert(found.digest, found.stored);
        }
        let mut right = Vec::new();
        for (digest, stored) in last {
            let Some((id, range)) = stored else { continue };
            let bytes = &content[range];
            self.remove_half_placed(&digest, id)?;
            match trust {
                // Not in place: removed since, or never placed, and then it was not acknowledged.
                Trust::Nothing if self.stat_blocking(&digest)?.is_none() => {}
                Trust::Nothing => self.place_anew(&digest, id, bytes)?,
                Trust::RightBytes if self.has(&digest, bytes)? => right.push((digest, id)),
                Trust::RightBytes => {
                    // An earlier start may have got half way.
                    self.unlink_spool(&SpoolName::Put(digest, id))?;
                    self.write_and_place(&SpoolName::Put(digest, id), &digest, bytes)?;
                }
            }
        }
        self.settle_right(&right)
    }

    /// Syncs files that were found whole, and names them.
    fn settle_right(&self, right: &[(Digest, Uuid)]) -> Result<()> {
        if right.is_empty() {
            return Ok(());
        }
        for (digest, id) in right {
            self.name_published(&SpoolName::Put(*digest, *id), digest)?;
        }
        match self.flushing {
            Flushing::FileSystem => syncfs(&self.blobs).map_err(|e| self.root_error("syncing", e))?,
            Flushing::EachFile => self.sync_each(right)?,
        }
        self.sync_spool_directory()
    }

    fn place_anew(&self, digest: &Digest, id: Uuid, bytes: &[u8]) -> Result<()> {
        let spool = SpoolName::Put(*digest, id);
        self.unlink_spool(&spool)?;
        self.write_and_place(&spool, digest, bytes)?;
        let mut puts = self.puts.lock();
        match puts.get_mut(digest).filter(|put| put.id == id) {
            Some(put) => put.named = true,
            None => self.unlink_spool(&spool)?,
        }
        Ok(())
    }

    /// Takes away what a put that was interrupted left beside the blob's place.
    fn remove_half_placed(&self, digest: &Digest, id: Uuid) -> Result<()> {
        let path = BlobPath::of(digest);
        match unlinkat(&self.blobs, path.beside(id), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(e) => Err(self.blob_error("clearing", &path, e)),
        }
    }

    fn has(&self, digest: &Digest, bytes: &[u8]) -> Result<bool> {
        let path = BlobPath::of(digest);
        match fs::read(path.under(&self.root)) {
            Ok(content) => Ok(content == bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            // Unreadable, so it is not there: the journal has it.
            Err(error) => {
                tracing::warn!(%digest, %error, "a small blob could not be read, and is written anew");
                Ok(false)
            }
        }
    }
}
