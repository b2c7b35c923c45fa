//! The local driver: blobs and spools as files below one root, by way of two directories kept open.
//! Guards: nothing here blocks a reactor thread; each operation is one hop to the blocking pool where it can be.

mod append;
mod file_system;
mod holds;
mod incarnation;
mod journal;
mod open;
mod publish;
mod read;
mod scan;
mod spool;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;

use parking_lot::{Mutex, MutexGuard};
use tokio::task::JoinError;
use twinport_oci::Digest;
use uuid::Uuid;

use self::file_system::Flushing;
pub use self::file_system::Sharing;
use self::journal::{Acknowledged, Journal};
use crate::batch_threads::BatchThreads;
use crate::layout::{BLOBS, BlobPath, SPOOL};
use crate::{Error, Result, SpoolName, SyncPolicy};

/// Locks that keep two publishers of one digest from taking each other's link back.
const PLACING_LOCKS: usize = 4096;

/// A store in a local directory.
#[derive(Debug)]
pub struct LocalBlobs {
    root: PathBuf,
    blobs: OwnedFd,
    spool: OwnedFd,
    sync: SyncPolicy,
    sharing: Sharing,
    flushing: Flushing,
    /// Made for the first small blob; none where blobs are stored without.
    journal: OnceLock<Option<Journal>>,
    acknowledged: Acknowledged,
    busy: Mutex<HashSet<SpoolName>>,
    /// Where other nodes have the store too: spools that are published and not discarded yet, or adopted, locked against them.
    held: Mutex<HashMap<SpoolName, File>>,
    placing: Box<[Mutex<()>]>,
    /// The newest put of each digest that was not discarded yet: under way, or left by a commit that failed.
    puts: Mutex<HashMap<Digest, Put>>,
    appending: AtomicUsize,
    batch_threads: BatchThreads,
}

/// A put that nobody has discarded.
#[derive(Debug, Clone, Copy)]
struct Put {
    id: Uuid,
    /// In bytes.
    len: u64,
    /// Whether a spool has its name; until then the journal tells of it.
    named: bool,
}

impl LocalBlobs {
    fn root_error(&self, doing: &'static str, e: impl Into<std::io::Error>) -> Error {
        Error::io(doing, &self.root, e)
    }

    fn blob_error(&self, doing: &'static str, path: &BlobPath, e: impl Into<std::io::Error>) -> Error {
        Error::io(doing, path.under(&self.root), e)
    }

    fn spool_path(&self, spool: &SpoolName) -> PathBuf {
        self.root.join(SPOOL).join(spool.file_name())
    }

    fn spool_error(&self, doing: &'static str, spool: &SpoolName, e: impl Into<std::io::Error>) -> Error {
        Error::io(doing, self.spool_path(spool), e)
    }

    fn blobs_path(&self) -> PathBuf {
        self.root.join(BLOBS)
    }

    fn placing(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        self.placing_lock(digest).lock()
    }

    fn placing_lock(&self, digest: &Digest) -> &Mutex<()> {
        let [high, low, ..] = digest.as_bytes() else { unreachable!("a digest has 32 bytes or more") };
        &self.placing[usize::from(u16::from_be_bytes([*high, *low])) % PLACING_LOCKS]
    }

    /// Takes a spool for one writer. The claim travels with every job on the spool, so that a request that was
    /// dropped half way holds it until its last write has ended (hazard S9: two writers).
    fn claim(self: &Arc<Self>, spool: &SpoolName) -> Result<Arc<Claim>> {
        if !self.busy.lock().insert(*spool) {
            return Err(Error::SpoolBusy(*spool));
        }
        Ok(Arc::new(Claim { store: self.clone(), spool: *spool }))
    }
}

/// The right to write one spool, given back when the last holder drops it.
#[derive(Debug)]
struct Claim {
    store: Arc<LocalBlobs>,
    spool: SpoolName,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.store.busy.lock().remove(&self.spool);
    }
}

/// Runs a blocking job on the blocking pool; a panic in it goes on in the caller.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    joined(doing, tokio::task::spawn_blocking(job)).await
}

pub(crate) async fn joined<T>(doing: &'static str, job: tokio::task::JoinHandle<Result<T>>) -> Result<T> {
    job.await.unwrap_or_else(|ended| Err(stopped(doing, ended)))
}

/// What a task's end before its time means; a panic goes on in the caller.
pub(crate) fn stopped(doing: &'static str, ended: JoinError) -> Error {
    match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Error::Stopped { doing },
    }
}
