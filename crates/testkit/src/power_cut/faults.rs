//! The errors a disk answers with when told to, and how often it was synced.
//! Guards: hazard S5 can be played without a broken or a full disk at hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Switches of one mounted disk; clones share them. All are off at first.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Switches>);

#[derive(Debug, Default)]
struct Switches {
    file_syncs: AtomicBool,
    directory_syncs: AtomicBool,
    reads: AtomicBool,
    read_only: AtomicBool,
    /// Room in bytes plus one; 0 is no limit.
    room: AtomicU64,
    synced_files: AtomicU64,
    synced_directories: AtomicU64,
}

impl Faults {
    /// fsync and fdatasync of files answer EIO and save nothing.
    pub fn fail_file_syncs(&self, fail: bool) {
        self.0.file_syncs.store(fail, Ordering::SeqCst);
    }

    /// fsync of directories answers EIO and saves nothing.
    pub fn fail_directory_syncs(&self, fail: bool) {
        self.0.directory_syncs.store(fail, Ordering::SeqCst);
    }

    /// Reads of file data that is not in the kernel's cache answer EIO. A fresh mount has nothing cached.
    pub fn fail_reads(&self, fail: bool) {
        self.0.reads.store(fail, Ordering::SeqCst);
    }

    /// Every change answers EROFS.
    pub fn read_only(&self, read_only: bool) {
        self.0.read_only.store(read_only, Ordering::SeqCst);
    }

    /// All files together may hold `bytes`; beyond that, growing answers ENOSPC. None lifts the limit.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.0.room.store(bytes.map_or(0, |bytes| bytes.saturating_add(1)), Ordering::SeqCst);
    }

    /// How many fsyncs and fdatasyncs of files succeeded.
    pub fn file_syncs(&self) -> u64 {
        self.0.synced_files.load(Ordering::SeqCst)
    }

    /// How many fsyncs of directories succeeded.
    pub fn directory_syncs(&self) -> u64 {
        self.0.synced_directories.load(Ordering::SeqCst)
    }

    pub(super) fn file_syncs_fail(&self) -> bool {
        self.0.file_syncs.load(Ordering::SeqCst)
    }

    pub(super) fn directory_syncs_fail(&self) -> bool {
        self.0.directory_syncs.load(Ordering::SeqCst)
    }

    pub(super) fn reads_fail(&self) -> bool {
        self.0.reads.load(Ordering::SeqCst)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.0.read_only.load(Ordering::SeqCst)
    }

    pub(super) fn space(&self) -> Option<u64> {
        self.0.room.load(Ordering::SeqCst).checked_sub(1)
    }

    pub(super) fn count_file_sync(&self) {
        self.0.synced_files.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn count_directory_sync(&self) {
        self.0.synced_directories.fetch_add(1, Ordering::SeqCst);
    }
}
