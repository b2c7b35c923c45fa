//! Emptying segments: what they stand for is brought to the disk where it lies, and only then are they filled again.
//! Guards: a segment that cannot be emptied is kept, and what it holds is written anew from it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat, syncfs};
use rustix::io::Errno;
use twinport_oci::Digest;
use uuid::Uuid;

use super::super::LocalBlobs;
use super::super::file_system::Flushing;
use super::Journal;
use super::replay::Trust;
use super::segment::Segment;
use crate::layout::BlobPath;
use crate::{Result, SpoolName};

/// How long a segment that is not full may wait.
const TICK: Duration = Duration::from_secs(15);
/// How long blobs of a full segment may be on their way to their places.
const PLACING: Duration = Duration::from_secs(5);
/// Files synced at one time, where they are synced one by one.
const SYNCERS: usize = 8;

/// How a segment is emptied.
#[derive(Debug, Clone, Copy)]
enum Attempt {
    /// What the kernel holds is synced.
    First,
    /// The kernel tells of a failed write-back once, and may call the lost pages clean: all is written anew.
    Again,
}

/// Empties segments until the store is gone. A thread of its own.
pub(super) fn run(store: &Weak<LocalBlobs>, full: &Receiver<Segment>) {
    let mut troubled: Vec<Segment> = Vec::new();
    loop {
        let received = full.recv_timeout(TICK);
        let Some(store) = store.upgrade() else { return };
        match received {
            Ok(segment) => troubled.extend(store.retire(segment, Attempt::First)),
            Err(RecvTimeoutError::Timeout) => {
                let filled = store.journal.get().and_then(Option::as_ref).and_then(Journal::take_filled);
                troubled = troubled
                    .into_iter()
                    .filter_map(|segment| store.retire(segment, Attempt::Again))
                    .chain(filled.and_then(|segment| store.retire(segment, Attempt::First)))
                    .collect();
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl LocalBlobs {
    /// Empties a segment; it is handed back where that failed.
    fn retire(self: &Arc<Self>, segment: Segment, attempt: Attempt) -> Option<Segment> {
        if !segment.unplaced.wait_for_none(PLACING) {
            // Some of its blobs find no room in their places: they are tried again, and this too.
            return Some(segment);
        }
        let settled = match attempt {
            Attempt::First => self.settle_segment(&segment.stored).or_else(|error| {
                tracing::warn!(%error, "small blobs could not be synced: they are written anew from the journal");
                self.put_back(&segment.file, Trust::Nothing)
            }),
            Attempt::Again => self.put_back(&segment.file, Trust::Nothing),
        };
        let emptied = settled
            .and_then(|()| self.name_outstanding(&segment.stored))
            .and_then(|()| segment.file.empty(self.sync).map_err(|e| segment.error("emptying", e)));
        match emptied {
            Ok(()) => {
                if let Some(Some(journal)) = self.journal.get() {
                    journal.reuse(segment);
                }
                None
            }
            Err(error) => {
                tracing::error!(%error, "a journal of small blobs could not be emptied: it is kept, and tried again");
                Some(segment)
            }
        }
    }

    /// Brings blobs that lie in their places to the disk. One that is gone was removed, or never placed.
    fn settle_segment(&self, stored: &[(Digest, Uuid)]) -> Result<()> {
        match self.flushing {
            Flushing::FileSystem => syncfs(&self.blobs).map_err(|e| self.root_error("syncing", e)),
            Flushing::EachFile => self.sync_each(stored),
        }
    }

    pub(super) fn sync_each(&self, stored: &[(Digest, Uuid)]) -> Result<()> {
        let chunk = stored.len().div_ceil(SYNCERS).max(1);
        std::thread::scope(|scope| {
            let threads: Vec<_> = stored
                .chunks(chunk)
                .map(|part| scope.spawn(|| part.iter().try_for_each(|(digest, _)| self.sync_one(digest))))
                .collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(synced) => synced,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    fn sync_one(&self, digest: &Digest) -> Result<()> {
        let path = BlobPath::of(digest);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let synced = match openat(&self.blobs, path.data(), flags, Mode::empty()) {
            Ok(file) => self.sync_file_and_directories(file, &path),
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        };
        synced.map_err(|e| self.blob_error("syncing", &path, e))
    }

    fn sync_file_and_directories(&self, file: OwnedFd, path: &BlobPath) -> io::Result<()> {
        self.sync.file(&File::from(file))?;
        match self.sync.directory_at(&self.blobs, path.directory()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.sync.directory_at(&self.blobs, path.prefix())
    }

    /// Gives the puts that nobody has discarded yet their names among the spools, since the segment no longer tells of them.
    fn name_outstanding(&self, stored: &[(Digest, Uuid)]) -> Result<()> {
        let mut named = false;
        for (digest, id) in stored {
            // Held over the link, so that a discard comes before it or takes it away.
            let mut puts = self.puts.lock();
            let Some(put) = puts.get_mut(digest).filter(|put| put.id == *id && !put.named) else { continue };
            self.name_published(&SpoolName::Put(*digest, *id), digest)?;
            put.named = true;
            named = true;
        }
        if named { self.sync_spool_directory() } else { Ok(()) }
    }
}

impl Segment {
    fn error(&self, doing: &'static str, e: io::Error) -> crate::Error {
        crate::Error::io(doing, &self.file.path, e)
    }
}
