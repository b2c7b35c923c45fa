//! The local driver: blobs and spools as files below one root, by way of two directories kept open.
//! Guards: nothing here blocks a reactor thread; each operation is one hop to the blocking pool where it can be.

mod append;
mod holds;
mod incarnation;
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
use std::sync::atomic::AtomicUsize;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use twinport_oci::Digest;

use crate::layout::{BLOBS, BlobPath, SPOOL};
use crate::{Error, Result, SpoolName, SyncPolicy};

/// Locks that keep two publishers of one digest from taking each other's link back.
const PLACING_LOCKS: usize = 64;

/// A store in a local directory, which every node of a site may have open.
#[derive(Debug)]
pub struct LocalBlobs {
    root: PathBuf,
    blobs: OwnedFd,
    spool: OwnedFd,
    sync: SyncPolicy,
    busy: Mutex<HashSet<SpoolName>>,
    /// Spools that are published and not discarded yet, or adopted: locked against other processes.
    held: Mutex<HashMap<SpoolName, File>>,
    placing: [Mutex<()>; PLACING_LOCKS],
    /// The newest put of each digest that was not discarded yet: under way, or left by a commit that failed.
    puts: Mutex<HashMap<Digest, SpoolName>>,
    appending: AtomicUsize,
    /// Batches hashed and written at one time: as many as there are cores, so that requests get their share.
    batches: Arc<Semaphore>,
}

impl LocalBlobs {
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
        self.placing[usize::from(digest.as_bytes()[0]) % PLACING_LOCKS].lock()
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

async fn joined<T>(doing: &'static str, job: tokio::task::JoinHandle<Result<T>>) -> Result<T> {
    match job.await {
        Ok(result) => result,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Stopped { doing }),
        },
    }
}
