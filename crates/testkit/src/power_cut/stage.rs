//! A place for a disk whose power can be cut again and again.

use std::path::PathBuf;

use tempfile::TempDir;

use super::PowerCut;

/// A fresh folder with the disk's backing directory and its mountpoint.
#[derive(Debug)]
pub struct Stage {
    pub backing: PathBuf,
    pub mountpoint: PathBuf,
    _directory: TempDir,
}

impl Stage {
    /// Makes both directories.
    ///
    /// # Errors
    /// The file system's.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (backing, mountpoint) = (directory.path().join("disk"), directory.path().join("mnt"));
        std::fs::create_dir(&backing)?;
        std::fs::create_dir(&mountpoint)?;
        Ok(Self { backing, mountpoint, _directory: directory })
    }

    /// Mounts what the last cut left.
    ///
    /// # Errors
    /// As [`PowerCut::mount`].
    pub fn mount(&self) -> anyhow::Result<PowerCut> {
        PowerCut::mount(&self.backing, &self.mountpoint)
    }
}
