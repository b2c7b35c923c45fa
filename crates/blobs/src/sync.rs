//! Whether writes are forced to the disk, and the three ways of doing it.
//! Guards: only a build with the `unsynced` feature can leave a sync out, and it says so in its log.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, openat};

/// What a publish promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Files and directories are synced before success is reported.
    Durable,
    /// Nothing is synced. A power cut loses what was acknowledged: for showing that the durability tests can fail.
    #[cfg(feature = "unsynced")]
    Unsynced,
}

impl SyncPolicy {
    /// The policy this build was compiled for.
    pub const fn of_this_build() -> Self {
        #[cfg(feature = "unsynced")]
        return Self::Unsynced;
        #[cfg(not(feature = "unsynced"))]
        return Self::Durable;
    }

    pub(crate) fn is_durable(self) -> bool {
        self == Self::Durable
    }

    /// Syncs a file's bytes and length.
    pub(crate) fn file(self, file: &File) -> io::Result<()> {
        if self.is_durable() { file.sync_data() } else { Ok(()) }
    }

    /// Syncs the entries of an open directory.
    pub(crate) fn directory(self, directory: impl AsFd) -> io::Result<()> {
        if self.is_durable() { Ok(rustix::fs::fsync(directory)?) } else { Ok(()) }
    }

    /// Syncs the entries of the directory at `path`, relative to `base`.
    pub(crate) fn directory_at(self, base: impl AsFd, path: &str) -> io::Result<()> {
        if !self.is_durable() {
            return Ok(());
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        self.directory(openat(base, path, flags, Mode::empty())?)
    }
}
