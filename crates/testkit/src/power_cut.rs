//! A disk whose power can be cut: a FUSE file system that forgets, at the cut, whatever was not synced.
//! Guards: durability tests fail where a sync is missing, for file data and directory entries alike.
//!
//! What survives a cut: the bytes and length of a file as of its last fsync/fdatasync (none: an empty file), and the
//! entries of a directory as of its last fsync (creates, links, renames, unlinks, mkdirs and rmdirs since then never
//! happened). That is stricter than ext4 and as strict as POSIX allows. syncfs(2) and sync(2) do not reach a FUSE
//! server, so they save nothing here. Everything is kept in memory until the cut.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! # let (backing, mountpoint) = (std::path::Path::new("disk"), std::path::Path::new("mnt"));
//! use twinport_testkit::PowerCut;
//! let disk = PowerCut::mount(backing, mountpoint)?;
//! std::fs::write(mountpoint.join("lost"), b"never synced")?;
//! disk.cut()?; // the mount is gone; `backing` holds what survived and can be mounted again
//! # Ok(()) }
//! ```

mod content;
mod disk;
mod faults;
mod node;
mod server;
mod stage;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use fuser::{BackgroundSession, MountOption};
use parking_lot::Mutex;
use rustix::mount::{UnmountFlags, unmount};

pub use faults::Faults;
use server::Server;
pub use stage::Stage;
use world::World;

/// A mounted disk, served by a thread of this process: a test that aborts (rather than panics) while one of its own
/// threads waits for the disk leaves a process that only the kernel's `fusectl` can end. Dropping it without a cut leaves the backing directory as it was before the mount.
#[derive(Debug)]
pub struct PowerCut {
    backing: PathBuf,
    mountpoint: PathBuf,
    world: Arc<Mutex<World>>,
    faults: Faults,
    session: Option<BackgroundSession>,
}

impl PowerCut {
    /// Mounts the state in `backing` (all of it counts as synced) at `mountpoint`. Both directories must exist, and
    /// neither may lie within the other.
    ///
    /// # Errors
    /// Where `/dev/fuse` is missing, this process may not mount (be root), or `backing` cannot be read.
    pub fn mount(backing: &Path, mountpoint: &Path) -> anyhow::Result<Self> {
        let world = World::load(backing).with_context(|| format!("reading {}", backing.display()))?;
        let world = Arc::new(Mutex::new(world));
        let faults = Faults::default();
        let server = Server::new(world.clone(), faults.clone());
        let options = [
            MountOption::FSName("power-cut".to_owned()),
            MountOption::AllowOther,
            MountOption::DefaultPermissions,
            MountOption::NoAtime,
        ];
        let session = fuser::spawn_mount2(server, mountpoint, &options).with_context(|| {
            format!("mounting at {}: the fault layer needs /dev/fuse and root", mountpoint.display())
        })?;
        Ok(Self {
            backing: backing.to_owned(),
            mountpoint: mountpoint.to_owned(),
            world,
            faults,
            session: Some(session),
        })
    }

    /// The errors this disk can be made to answer with, and its counts of syncs.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The power goes: from this instant on nothing more reaches the disk, and every call on it answers EIO. Processes
    /// that still hold files open can be killed afterwards, before [`PowerCut::cut`].
    pub fn freeze(&self) {
        self.world.lock().freeze();
    }

    /// Cuts the power (unless [`PowerCut::freeze`] did), throws the mount away and writes what survived to the
    /// backing directory.
    ///
    /// # Errors
    /// Where the mount cannot be taken away or the backing directory cannot be written.
    pub fn cut(mut self) -> anyhow::Result<()> {
        self.freeze();
        self.detach()?;
        self.world.lock().store(&self.backing).with_context(|| format!("writing {}", self.backing.display()))
    }

    /// An orderly end: everything is synced, then the disk is taken away.
    ///
    /// # Errors
    /// As [`PowerCut::cut`].
    pub fn unmount(mut self) -> anyhow::Result<()> {
        // Pages that were written through a mapping are still with the kernel; unmounting hands them over.
        self.detach()?;
        let mut world = self.world.lock();
        world.sync_everything();
        world.freeze();
        world.store(&self.backing).with_context(|| format!("writing {}", self.backing.display()))
    }

    fn detach(&mut self) -> anyhow::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        // Detached, not plainly unmounted: a process that is still dying must not hold the test up.
        unmount(&self.mountpoint, UnmountFlags::DETACH)
            .with_context(|| format!("unmounting {}", self.mountpoint.display()))?;
        drop(session);
        Ok(())
    }
}

impl Drop for PowerCut {
    fn drop(&mut self) {
        self.freeze();
        if let Err(error) = self.detach() {
            // Only a test's report can be spoilt by this, and it is on its way out already.
            eprintln!("{error:#}");
        }
    }
}
