//! A disk that is small enough to be filled: a tmpfs of its own.
//! Guards: the mount goes with the test, whoever still has files open on it.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

const BALLAST: &str = "ballast";

/// A mounted disk. The file that fills it lies in its root.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a disk of `bytes` at a directory, which is made where it is missing.
    ///
    /// # Errors
    /// Where this process may not mount: be root.
    pub fn mount(at: &Path, bytes: u64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(at)?;
        let options = std::ffi::CString::new(format!("size={bytes},mode=0755"))?;
        mount("small", at, "tmpfs", MountFlags::empty(), options.as_c_str())
            .with_context(|| format!("mounting a small disk at {}: it needs root", at.display()))?;
        Ok(Self(at.to_owned()))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Fills it up, but for `left` bytes.
    ///
    /// # Errors
    /// When the ballast cannot be written.
    pub fn fill(&self, left: u64) -> anyhow::Result<()> {
        let stat = statvfs(&self.0)?;
        let free = (stat.f_bavail * stat.f_frsize).saturating_sub(left);
        let ballast = File::options().create(true).append(true).open(self.0.join(BALLAST))?;
        let from = ballast.metadata()?.len();
        if free > 0 {
            fallocate(&ballast, FallocateFlags::empty(), from, free)?;
        }
        Ok(())
    }

    /// Takes the ballast away.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn make_room(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.0.join(BALLAST))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.0, UnmountFlags::DETACH) {
            // A test's report is on its way out already.
            eprintln!("unmounting {}: {error}", self.0.display());
        }
    }
}
