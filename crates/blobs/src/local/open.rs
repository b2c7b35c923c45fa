//! Opening a store: the directories it needs, and whether the file system can do what publishing needs.
//! Guards: every directory a publish relies on is on the disk before the first one begins.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat, unlinkat};
use rustix::io::Errno;

use super::file_system::{Flushing, Sharing, is_local};
use super::journal::Acknowledged;
use super::{LocalBlobs, PLACING_LOCKS, blocking};
use crate::batch_threads::BatchThreads;
use crate::layout::{ALGORITHMS, BLOBS, SPOOL, prefixes};
use crate::{Error, Result, SyncPolicy};

const PROBE: &str = "probe";
const PROBE_LINK: &str = "sha256/probe";
/// How often other nodes may take the probe away before it counts as a failure.
const PROBES: u32 = 100;
/// A second name of a spool on its way over a blob that is already there; one found at open is a crash's.
pub(super) const REPLACING: &str = ".replacing";

impl LocalBlobs {
    /// Opens the store below `root`, making what is missing.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::NoSpace`] where directories cannot be made, [`Error::HardLinks`] where link(2) does not work.
    pub async fn open(root: PathBuf, sharing: Sharing) -> Result<Arc<Self>> {
        blocking("opening the blob store", move || {
            Self::open_blocking(root, sharing, SyncPolicy::of_this_build())
        })
        .await
    }

    fn open_blocking(root: PathBuf, sharing: Sharing, sync: SyncPolicy) -> Result<Arc<Self>> {
        if !sync.is_durable() {
            tracing::warn!(root = %root.display(), "this build does not sync: a power cut loses acknowledged blobs");
        }
        let (blobs, spool) = (root.join(BLOBS), root.join(SPOOL));
        for directory in ALGORITHMS.map(|algorithm| blobs.join(algorithm.as_str())) {
            make_chain(&directory, sync)?;
            make_prefixes(&directory)?;
            sync_directory(&directory, sync)?;
        }
        make_chain(&spool, sync)?;
        let directory = open_directory(&blobs)?;
        let is_local = is_local(&directory).map_err(|e| Error::io("looking at", &blobs, e))?;
        // What one node acknowledges has to be every node's, also when that one is gone and takes its journal's turn along.
        let journaled = sync.is_durable() && sharing == Sharing::Alone;
        let store = Self {
            blobs: directory.into(),
            spool: open_directory(&spool)?.into(),
            root,
            sync,
            sharing,
            flushing: Flushing::of(is_local),
            journal: if journaled { OnceLock::new() } else { OnceLock::from(None) },
            acknowledged: Acknowledged::default(),
            busy: Mutex::new(HashSet::new()),
            held: Mutex::new(HashMap::new()),
            placing: std::iter::repeat_with(|| Mutex::new(())).take(PLACING_LOCKS).collect(),
            puts: Mutex::new(HashMap::new()),
            appending: AtomicUsize::new(0),
            batch_threads: BatchThreads::new()?,
        };
        store.drop_replacing()?;
        store.probe_links()?;
        store.replay_journals()?;
        Ok(Arc::new(store))
    }

    fn drop_replacing(&self) -> Result<()> {
        let spool = self.root.join(SPOOL);
        // Another node may be replacing a blob at this moment.
        let _no_names = match self.lock_removals() {
            Ok(lock) => lock,
            // They are a second name of something, and the next start sees them too.
            Err(e) if e.kind() == io::ErrorKind::TimedOut => return Ok(()),
            Err(e) => return Err(Error::io("locking", &spool, e)),
        };
        for entry in fs::read_dir(&spool).map_err(|e| Error::io("listing", &spool, e))? {
            let entry = entry.map_err(|e| Error::io("listing", &spool, e))?;
            if entry.file_name().as_encoded_bytes().ends_with(REPLACING.as_bytes()) {
                match fs::remove_file(entry.path()) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::io("removing", entry.path(), e));
                    }
                    // Another node that starts on the same store may have been faster.
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Links a file from the spool into the blobs and takes both names away again. Another node that starts on the same
    /// store does so at the same moment: that the link is there already shows that links can be made, and that the file
    /// is gone says nothing.
    fn probe_links(&self) -> Result<()> {
        for _ in 0..PROBES {
            match self.link_probe() {
                Ok(()) | Err(Errno::EXIST) => return self.clear_probe(),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(self.probe_failed(e)),
            }
        }
        Err(self.probe_failed(Errno::NOENT))
    }

    fn link_probe(&self) -> std::result::Result<(), Errno> {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(openat(&self.spool, PROBE, flags, Mode::from_raw_mode(0o600))?);
        linkat(&self.spool, PROBE, &self.blobs, PROBE_LINK, AtFlags::empty())
    }

    fn clear_probe(&self) -> Result<()> {
        for (directory, name) in [(&self.blobs, PROBE_LINK), (&self.spool, PROBE)] {
            match unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(self.probe_failed(e)),
            }
        }
        Ok(())
    }

    fn probe_failed(&self, source: Errno) -> Error {
        match source {
            Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::ACCESS => {
                Error::io("writing to", &self.root, source)
            }
            _ => Error::HardLinks { path: self.root.clone(), source: source.into() },
        }
    }
}

fn open_directory(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::io("opening", path, e))
}

fn sync_directory(path: &Path, sync: SyncPolicy) -> Result<()> {
    sync.directory(open_directory(path)?).map_err(|e| Error::io("syncing", path, e))
}

/// Makes a directory and its ancestors and syncs every one of them, also those that were there: a crash between
/// making and syncing leaves entries that look whole.
fn make_chain(path: &Path, sync: SyncPolicy) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| Error::io("making", path, e))?;
    for ancestor in path.ancestors().skip(1) {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match sync_directory(ancestor, sync) {
            // Above the data directory there may be parents that this user must not read; they are not ours to make.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => break,
            synced => synced?,
        }
    }
    Ok(())
}

fn make_prefixes(directory: &Path) -> Result<()> {
    for path in prefixes().map(|prefix| directory.join(prefix)) {
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io("making", path, e)),
        }
    }
    Ok(())
}
