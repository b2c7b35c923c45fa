//! The driver for object storage: blobs and upload segments as objects of one bucket, below one prefix.
//! Guards: nothing that an upload needs lives in the process, so any node goes on with it; an object is written once and
//! as a whole, so nobody reads a part of one; what one process holds in memory is bounded ([`append`], [`publish`]).
//!
//! Shaped for S3; what only S3 has is in [`requests`] and [`settings`].

mod append;
mod failure;
mod incarnation;
mod keys;
mod long_upload;
mod objects;
mod part_plan;
mod publish;
mod read;
mod requests;
mod segments;
mod settings;
mod spool;
mod stale;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use object_store::aws::AmazonS3;
use object_store::client::HttpClient;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::keys::Keys;
pub(crate) use self::read::RemoteBlob;
pub use self::settings::{Encryption, Hidden, S3Settings};
use crate::batch_threads::BatchThreads;
use crate::{Error, Result, SpoolName};

/// Publications that join small segments at one time, each with at most 10 MiB in memory.
const JOINING: usize = 2;

/// Pulls that read ahead at one time, each by less than 1.5 MiB: where there are more, the others keep the processor busy.
const READING_AHEAD: usize = 8;

/// A bucket; any number of processes may have it open.
#[derive(Debug)]
pub struct BucketBlobs {
    settings: S3Settings,
    /// `s3://bucket`, for messages.
    place: String,
    keys: Keys,
    s3: AmazonS3,
    http: HttpClient,
    /// Spools that a call of this process works on: a courtesy to a second writer, who would only lose.
    busy: Mutex<HashSet<SpoolName>>,
    appending: AtomicUsize,
    batch_threads: BatchThreads,
    joining: Semaphore,
    reading_ahead: Arc<Semaphore>,
    /// Parts that the server copies for this process at one time.
    copying: Semaphore,
}

impl BucketBlobs {
    /// Opens a bucket after seeing that it can be listed, written and read.
    pub(crate) async fn open(settings: S3Settings) -> Result<Arc<Self>> {
        settings.check()?;
        let (s3, http) = settings.connect()?;
        let store = Arc::new(Self {
            place: settings.place(),
            keys: Keys::new(&settings.root)?,
            s3,
            http,
            busy: Mutex::default(),
            appending: AtomicUsize::new(0),
            batch_threads: BatchThreads::new()?,
            joining: Semaphore::new(JOINING),
            reading_ahead: Arc::new(Semaphore::new(READING_AHEAD)),
            copying: Semaphore::new(settings.copy_concurrency.max(1)),
            settings,
        });
        store.examine().await?;
        Ok(store)
    }

    /// Whether the bucket can be listed, written, read and deleted from, as this process needs it.
    pub(crate) async fn examine(&self) -> Result<()> {
        const CONTENT: &[u8] = b"twinport\n";
        self.first_below(&self.keys.uploads()).await?;
        let probe = self.keys.probe();
        self.put(&probe, vec![Bytes::from_static(CONTENT)]).await?;
        let read = self.read_small(&probe).await;
        self.delete(&probe).await?;
        if read?.as_deref() == Some(CONTENT) {
            return Ok(());
        }
        let reason = "what was written is not what is read: is this one storage?".to_owned();
        Err(Error::Bucket { doing: "reading", place: format!("{}/{probe}", self.place), reason })
    }

    /// Takes a spool for one call of this process.
    fn claim(self: &Arc<Self>, spool: &SpoolName) -> Result<Claim> {
        if !self.busy.lock().insert(*spool) {
            return Err(Error::SpoolBusy(*spool));
        }
        Ok(Claim { store: self.clone(), spool: *spool })
    }
}

/// A spool that one call works on, let go when it ends.
#[derive(Debug)]
struct Claim {
    store: Arc<BucketBlobs>,
    spool: SpoolName,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.store.busy.lock().remove(&self.spool);
    }
}
