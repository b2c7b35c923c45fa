//! Blobs by digest from the primary: each crosses once, however many repositories wait for it (hazard R11).
//! Invariant: a blob row is written only for bytes that were hashed here and published; what broke off resumes where
//! it was, without a deadline on the whole (hazard R12).

mod receive;
mod records;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use twinport_blobs::{Blobs, Verdict};
use twinport_metadata::Metadata;
use twinport_oci::Digest;

use self::records::Records;
use crate::{Error, RefusalCode, secondary::Tasks, upstream::Upstream};

/// Blobs above this many bytes may take only part of the slots, so that small ones always find one.
const LARGE: u64 = 8 << 20;

/// Why an item could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The primary does not have it: its deletion may be on its way.
    Absent,
    /// The primary is out of reach.
    Unreachable,
    /// Still on its way: nothing is wrong.
    UnderWay,
    /// Anything else; it counts against the item.
    Failed,
}

impl Failure {
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self { kind: FailureKind::Failed, text: text.into() }
    }

    /// It may still come without anything having gone wrong.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self.kind, FailureKind::Absent | FailureKind::UnderWay)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let absent = [RefusalCode::BlobUnknown, RefusalCode::ManifestUnknown, RefusalCode::RepositoryUnknown];
        let kind = match &error {
            _ if error.code().is_some_and(|code| absent.contains(&code)) => FailureKind::Absent,
            Error::Unreachable { .. } => FailureKind::Unreachable,
            _ => FailureKind::Failed,
        };
        Self { kind, text: error.to_string() }
    }
}

type Outcome = Result<(), Failure>;

/// The transfers of one engine; cheap to clone.
pub(crate) struct Transfers<U> {
    inner: Arc<Inner<U>>,
}

impl<U> Clone for Transfers<U> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<U> {
    upstream: Arc<U>,
    metadata: Metadata,
    blobs: Blobs,
    /// How long a transfer may be silent.
    idle: Duration,
    slots: Semaphore,
    large: Semaphore,
    /// Whoever asks for a digest that is on its way waits with the others.
    flights: Mutex<HashMap<Digest, watch::Receiver<Option<Outcome>>>>,
    tasks: Tasks,
    records: Records,
    /// Bytes that are expected and not here yet, over all flights whose size is known.
    outstanding: AtomicU64,
}

impl<U: Upstream> Transfers<U> {
    pub(crate) fn new(
        upstream: Arc<U>,
        metadata: Metadata,
        blobs: Blobs,
        tasks: Tasks,
        slots: usize,
        idle: Duration,
    ) -> Self {
        let records = Records::start(metadata.clone(), &tasks);
        let inner = Inner {
            upstream,
            metadata,
            blobs,
            idle,
            slots: Semaphore::new(slots),
            large: Semaphore::new((slots * 3 / 4).max(1)),
            flights: Mutex::default(),
            tasks,
            records,
            outstanding: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Waits until this site stores the blob, fetching it unless it does or somebody else is at it already.
    pub(crate) async fn fetch(&self, digest: Digest, size: Option<u64>) -> Outcome {
        let mut flight = self.begin(digest, size);
        match flight.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(Failure {
                kind: FailureKind::Unreachable,
                text: format!("the transfer of {digest} was stopped"),
            }),
        }
    }

    /// Starts fetching a blob that will be asked for soon, unless much is under way already.
    pub(crate) fn prefetch(&self, digest: Digest, size: Option<u64>) {
        if self.inner.slots.available_permits() > 0 {
            self.begin(digest, size);
        }
    }

    /// Bytes on their way, as far as sizes are known.
    pub(crate) fn outstanding(&self) -> u64 {
        self.inner.outstanding.load(Ordering::Relaxed)
    }

    /// Transfers that are under way or wait for a slot.
    pub(crate) fn begun(&self) -> usize {
        self.inner.flights.lock().len()
    }

    fn begin(&self, digest: Digest, size: Option<u64>) -> watch::Receiver<Option<Outcome>> {
        let (done, flight) = {
            let mut flights = self.inner.flights.lock();
            if let Some(flight) = flights.get(&digest) {
                return flight.clone();
            }
            let (done, flight) = watch::channel(None);
            flights.insert(digest, flight.clone());
            (done, flight)
        };
        let leaving = Leaving { inner: Arc::clone(&self.inner), digest };
        self.inner.tasks.spawn(async move {
            let outcome = leaving.inner.bring(digest, size).await;
            // Off the list first: whoever asks after this finds the blob, or tries again.
            drop(leaving);
            done.send_replace(Some(outcome));
        });
        flight
    }
}

/// Takes a flight off the list however its task ends.
struct Leaving<U> {
    inner: Arc<Inner<U>>,
    digest: Digest,
}

impl<U> Drop for Leaving<U> {
    fn drop(&mut self) {
        self.inner.flights.lock().remove(&self.digest);
    }
}

impl<U: Upstream> Inner<U> {
    async fn bring(&self, digest: Digest, size: Option<u64>) -> Outcome {
        if self.is_here(&digest).await? {
            return Ok(());
        }
        let _large = match size {
            Some(size) if size > LARGE => Some(self.large.acquire().await.map_err(stopped)?),
            _ => None,
        };
        let _slot = self.slots.acquire().await.map_err(stopped)?;
        let expected = size.unwrap_or(0);
        self.outstanding.fetch_add(expected, Ordering::Relaxed);
        let outcome = self.receive(digest, size).await;
        self.outstanding.fetch_sub(expected, Ordering::Relaxed);
        if let Err(failure) = &outcome {
            tracing::debug!(%digest, %failure, "a blob could not be fetched");
        }
        outcome
    }

    /// Whether the blob needs no transfer: its row says so, or its bytes are in place and prove to be its own.
    async fn is_here(&self, digest: &Digest) -> Result<bool, Failure> {
        let held = self.metadata.linked_blobs(NOWHERE, &[*digest]).await.map_err(local)?;
        if held.get(digest).is_some_and(|blob| blob.verified) {
            return Ok(true);
        }
        if self.blobs.stat(digest).await.map_err(local)?.is_none() {
            return Ok(false);
        }
        match self.blobs.verify(digest).await.map_err(local)? {
            Verdict::Whole { size } => {
                self.records.store(*digest, size).await?;
                self.blobs.settle(digest).await.map_err(local)?;
                Ok(true)
            }
            Verdict::Altered { .. } | Verdict::Missing => Ok(false),
        }
    }
}

/// No repository: for questions about a blob alone.
const NOWHERE: twinport_metadata::RepositoryUuid = twinport_metadata::RepositoryUuid(uuid::Uuid::nil());

fn stopped(_: tokio::sync::AcquireError) -> Failure {
    Failure { kind: FailureKind::Unreachable, text: "this site is shutting down".to_owned() }
}

/// A failure of this site's own storage.
pub(crate) fn local(error: impl Into<Error>) -> Failure {
    Failure::failed(error.into().to_string())
}
