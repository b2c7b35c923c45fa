//! One file of a journal: filled once from its beginning, emptied when what it holds is on the disk elsewhere, filled again.
//! Guards: its length never changes while it is filled, so that a sync of it moves bytes and no metadata.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::fs::{FlockOperation, flock};
use twinport_oci::Digest;
use uuid::Uuid;

use super::record::HEADER;
use crate::SyncPolicy;

/// Bytes of a segment; on the disk from its first use on.
pub(super) const SEGMENT: u64 = 16 << 20;
const ZEROS: usize = 1 << 20;
const SUFFIX: &str = ".journal";

/// A segment's file, held for this process alone.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

/// A file that is being filled.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: SegmentFile,
    /// Told apart from every earlier filling by this.
    pub(super) epoch: u64,
    /// Where the next entry goes.
    pub(super) end: u64,
    /// What it stands for, in order; later ones of a digest count.
    pub(super) stored: Vec<(Digest, Uuid)>,
    pub(super) unplaced: Arc<Unplaced>,
    /// Whether a write or a sync of it failed: it is not filled again.
    pub(super) failed: bool,
}

/// How many of a segment's blobs are not in their place yet.
#[derive(Debug, Default)]
pub(super) struct Unplaced {
    count: Mutex<usize>,
    none: Condvar,
}

impl Unplaced {
    pub(super) fn add(&self, more: usize) {
        *self.count.lock() += more;
    }

    pub(super) fn placed(&self, blobs: usize) {
        let mut count = self.count.lock();
        *count -= blobs;
        if *count == 0 {
            self.none.notify_all();
        }
    }

    /// Waits until there are none, for so long; whether there are none. Blocks.
    pub(super) fn wait_for_none(&self, patience: Duration) -> bool {
        let mut count = self.count.lock();
        !self.none.wait_while_for(&mut count, |count| *count > 0, patience).timed_out()
    }
}

impl SegmentFile {
    /// Makes a segment in `directory`, durably, all zeros.
    pub(super) fn make(directory: &Path, sync: SyncPolicy) -> io::Result<Self> {
        let path = directory.join(format!("{}{SUFFIX}", Uuid::new_v4()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let made = Self { file, path };
        let filled = flock(&made.file, FlockOperation::NonBlockingLockExclusive)
            .map_err(io::Error::from)
            .and_then(|()| {
                let zeros = vec![0; ZEROS];
                (0..SEGMENT).step_by(ZEROS).try_for_each(|at| made.file.write_all_at(&zeros, at))
            })
            .and_then(|()| sync.file(&made.file))
            .and_then(|()| sync.directory(File::open(directory)?))
            .and_then(|()| sync.directory_at(File::open(directory)?, ".."));
        if let Err(error) = filled {
            made.remove();
            return Err(error);
        }
        Ok(made)
    }

    /// Takes a segment that was left behind; none where a living process has it.
    pub(super) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file, path: path.to_owned() })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn is_one(path: &Path) -> bool {
        path.as_os_str().as_encoded_bytes().ends_with(SUFFIX.as_bytes())
    }

    pub(super) fn content(&self) -> io::Result<Vec<u8>> {
        let length = self.file.metadata()?.len().min(SEGMENT);
        let mut content = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut content, 0)?;
        Ok(content)
    }

    /// Makes it say that it holds nothing, durably.
    pub(super) fn empty(&self, sync: SyncPolicy) -> io::Result<()> {
        self.file.write_all_at(&[0; HEADER], 0)?;
        sync.file(&self.file)
    }

    /// Removes it; a name that stays is read, and found superfluous, at the next open.
    pub(super) fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "could not remove a journal");
        }
    }
}

impl Segment {
    pub(super) fn begin(file: SegmentFile) -> Self {
        let (epoch, _) = Uuid::new_v4().as_u64_pair();
        Self { file, epoch, end: 0, stored: Vec::new(), unplaced: Arc::default(), failed: false }
    }

    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.end + bytes as u64 <= SEGMENT
    }
}
