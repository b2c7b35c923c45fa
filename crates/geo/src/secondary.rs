//! The engine of a secondary: follows the log, applies it, verifies it, and says where it stands.
//! Invariant: everything here may end at any point, by a crash or by [`SecondaryHandle::stop`], and goes on from the
//! database's word alone.

mod away;
mod leadership;
mod progress;
mod report;
mod scheduler;
mod status;
mod tasks;
mod workers;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::Rng as _;
use tokio::sync::{Notify, watch};
use twinport_blobs::Blobs;
use twinport_metadata::{Epoch, EpochRecord, Lease, LogPosition, Metadata, RepositoryUuid, Role};
use uuid::Uuid;

pub use self::status::{Connection, LagStatus, SecondaryStatus};
use self::{
    away::Away,
    leadership::Noted,
    progress::{Figures, Progress},
    scheduler::Scheduler,
};
pub(crate) use self::{away::Waiting, scheduler::Lane, tasks::Tasks};
use crate::{
    Error, Result, joining::check_marker, lag::LagTracker, pace::Pace, transfer::Transfers,
    upstream::Upstream,
};

/// Paces and limits of the engine. The defaults are for production; tests shorten them.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Repositories worked on at the same time.
    pub workers: usize,
    /// Of those, how many go through no listing, so that live events overtake a backfill.
    pub live_workers: usize,
    /// Blobs on their way at the same time, over everything (`geo.replication.max_capacity`).
    pub transfers: usize,
    /// Silence after which a transfer is broken off, to be resumed.
    pub transfer_idle: Duration,
    /// Silence after which the log is connected anew; heartbeats come every second.
    pub log_idle: Duration,
    /// How often a status with a fresh nonce is reported.
    pub report_every: Duration,
    /// How long a repository is left alone before it is compared with the primary.
    pub quiet: Duration,
    /// The first wait after a failure; it doubles.
    pub retry_first: Duration,
    /// The longest wait after a failure.
    pub retry_most: Duration,
    /// When to look again after what the primary's return makes due anyway.
    pub away: Duration,
    /// The longest wait before the log is connected anew.
    pub reconnect_most: Duration,
    /// How long another node waits before it takes over.
    pub lease: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            workers: 12,
            live_workers: 4,
            transfers: 24,
            transfer_idle: Duration::from_secs(30),
            log_idle: Duration::from_secs(10),
            report_every: Duration::from_secs(1),
            quiet: Duration::from_secs(1),
            retry_first: Duration::from_millis(500),
            retry_most: Duration::from_secs(3_600),
            away: Duration::from_secs(30),
            reconnect_most: Duration::from_secs(10),
            lease: Duration::from_secs(5),
        }
    }
}

/// What an engine runs on.
pub struct SecondaryOptions<U> {
    pub metadata: Metadata,
    pub blobs: Blobs,
    pub upstream: U,
    pub tuning: Tuning,
}

/// The engine of a site that follows another.
pub struct Secondary;

impl Secondary {
    /// Starts following; what goes wrong is told by [`SecondaryHandle::status`]. Needs a Tokio runtime.
    pub fn start<U: Upstream>(options: SecondaryOptions<U>) -> SecondaryHandle {
        let SecondaryOptions { metadata, blobs, upstream, tuning } = options;
        let upstream = Arc::new(upstream);
        let tasks = Tasks::default();
        let transfers = Transfers::new(
            Arc::clone(&upstream),
            metadata.clone(),
            blobs.clone(),
            tasks.clone(),
            tuning.transfers,
            tuning.transfer_idle,
        );
        let shared = Arc::new(Shared {
            connection: watch::Sender::new(Connection::Starting),
            lag: Mutex::default(),
            figures: Mutex::default(),
            progress: Progress::default(),
            away: Away::default(),
            access: Notify::new(),
            leading: AtomicBool::new(false),
            beside: Mutex::default(),
            noted: Mutex::default(),
        });
        let lease = Lease { holder: metadata.node(), duration_us: micros(tuning.lease) };
        let engine = Engine {
            metadata,
            blobs,
            upstream,
            transfers,
            pace: Pace::new(tuning.transfers),
            tasks: tasks.clone(),
            scheduler: Scheduler::default(),
            shared: Arc::clone(&shared),
            lease,
            tuning: Arc::new(tuning),
            epochs: Arc::default(),
        };
        let outstanding = {
            let transfers = engine.transfers.clone();
            Box::new(move || transfers.outstanding()) as Box<dyn Fn() -> u64 + Send + Sync>
        };
        tasks.clone().spawn(run(engine));
        SecondaryHandle { inner: Arc::new(Running { shared, tasks, outstanding }) }
    }
}

/// A running engine; cheap to clone. It ends with the last clone, or by [`Self::stop`].
#[derive(Clone)]
pub struct SecondaryHandle {
    inner: Arc<Running>,
}

struct Running {
    shared: Arc<Shared>,
    tasks: Tasks,
    outstanding: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

impl SecondaryHandle {
    /// Where this site stands, as last known; nothing is asked for it.
    #[must_use]
    pub fn status(&self) -> SecondaryStatus {
        if let Some(noted) = self.inner.shared.noted.lock().as_ref() {
            return noted.status();
        }
        status::status(&self.inner.shared, (self.inner.outstanding)(), Instant::now())
    }

    /// Whether what this site serves is as good as the primary's own answer at most five seconds ago.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.status().fresh
    }

    /// Ends all work. What was under way resumes at the next start.
    pub async fn stop(&self) {
        self.inner.tasks.stop().await;
        let beside = self.inner.shared.beside.lock().take();
        if let Some(beside) = beside {
            beside.stop().await;
        }
        self.inner
            .shared
            .connection
            .send_replace(Connection::Stopped { reason: "this site is shutting down".to_owned() });
    }
}

/// What the engine's parts tell each other, and the handle.
pub(crate) struct Shared {
    pub(crate) connection: watch::Sender<Connection>,
    pub(crate) lag: Mutex<LagTracker>,
    figures: Mutex<Figures>,
    progress: Progress,
    pub(crate) away: Away,
    /// Access records were told of.
    pub(crate) access: Notify,
    /// This node follows the log, for all nodes of the site.
    leading: AtomicBool,
    /// What goes on beside that.
    beside: Mutex<Option<Tasks>>,
    /// What the node that does noted last.
    noted: Mutex<Option<Noted>>,
}

/// The engine as its tasks see it; cheap to clone.
pub(crate) struct Engine<U> {
    pub(crate) metadata: Metadata,
    pub(crate) blobs: Blobs,
    pub(crate) upstream: Arc<U>,
    pub(crate) transfers: Transfers<U>,
    /// What listings may ask of the primary.
    pub(crate) pace: Pace,
    pub(crate) tasks: Tasks,
    pub(crate) scheduler: Scheduler,
    pub(crate) shared: Arc<Shared>,
    pub(crate) lease: Lease,
    pub(crate) tuning: Arc<Tuning>,
    epochs: Arc<[EpochRecord]>,
}

impl<U> Clone for Engine<U> {
    fn clone(&self) -> Self {
        Self {
            metadata: self.metadata.clone(),
            blobs: self.blobs.clone(),
            upstream: Arc::clone(&self.upstream),
            transfers: self.transfers.clone(),
            pace: self.pace.clone(),
            tasks: self.tasks.clone(),
            scheduler: self.scheduler.clone(),
            shared: Arc::clone(&self.shared),
            lease: self.lease,
            tuning: Arc::clone(&self.tuning),
            epochs: Arc::clone(&self.epochs),
        }
    }
}

impl<U: Upstream> Engine<U> {
    pub(crate) fn now_us(&self) -> i64 {
        self.metadata.clock().now_us()
    }

    pub(crate) fn is_connected(&self) -> bool {
        *self.shared.connection.borrow() == Connection::Connected
    }

    /// Ends the engine for a reason that only an operator can deal with.
    pub(crate) fn give_up(&self, reason: String) {
        tracing::error!(%reason, "this site stops following its primary");
        self.shared.connection.send_replace(Connection::Stopped { reason });
    }

    /// Waits until the log is connected.
    pub(crate) async fn connected(&self) {
        // The sender lives as long as the engine.
        let _ = self.shared.connection.subscribe().wait_for(|state| *state == Connection::Connected).await;
    }

    /// How long to wait after `attempts` failures in a row: doubling, with jitter, to at most an hour.
    pub(crate) fn backoff(&self, attempts: i64) -> Duration {
        let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(20);
        let most = self.tuning.retry_first.saturating_mul(1 << doublings).min(self.tuning.retry_most);
        rand::rng().random_range(most / 2..=most)
    }

    /// Whether a retry is due. One that is planned for later than any is was planned by a clock that was set back.
    pub(crate) fn is_due(&self, next_attempt_us: i64, now_us: i64) -> bool {
        next_attempt_us <= now_us
            || next_attempt_us > now_us.saturating_add(2 * micros(self.tuning.retry_most))
    }

    /// The position of `seq` in this site's history.
    pub(crate) fn position(&self, seq: i64) -> LogPosition {
        let within = self.epochs.iter().rev().find(|record| record.began_seq <= seq).or(self.epochs.first());
        let epoch = within
            .map_or(Epoch { number: 0, owner: twinport_metadata::Incarnation(Uuid::nil()) }, |r| r.epoch);
        LogPosition { epoch, seq }
    }

    /// Something was ingested or applied: the figures are to be looked at again.
    pub(crate) fn progressed(&self) {
        self.shared.progress.mark();
    }

    /// Makes a repository's unsettled items due, and sees to it that they are looked at.
    pub(crate) async fn hasten(&self, uuid: RepositoryUuid) {
        if let Err(error) = self.metadata.hasten(uuid).await {
            tracing::warn!(repository = %uuid, %error, "a repository could not be made due");
        }
        self.scheduler.look_by(Duration::ZERO);
    }
}

async fn run<U: Upstream>(mut engine: Engine<U>) {
    loop {
        match prepare(&engine).await {
            Ok(epochs) => {
                engine.epochs = epochs.into();
                break;
            }
            Err(error @ (Error::Stopped(_) | Error::Blobs(_))) => return engine.give_up(error.to_string()),
            Err(error) => {
                tracing::warn!(%error, "the engine cannot start yet, trying again");
                engine.shared.connection.send_replace(Connection::Waiting { reason: error.to_string() });
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
    let tasks = &engine.tasks;
    for number in 0..engine.tuning.workers.max(1) {
        let listings = number >= engine.tuning.live_workers.min(engine.tuning.workers.saturating_sub(1));
        tasks.spawn(workers::work(engine.clone(), listings));
    }
    tasks.spawn(workers::claim(engine.clone()));
    tasks.spawn(workers::renew(engine.clone()));
    tasks.spawn(leadership::watch(engine.clone()));
    leadership::lead(engine).await;
}

/// Refuses to run on parts that do not belong together; ends the leases of runs that have ended.
async fn prepare<U: Upstream>(engine: &Engine<U>) -> Result<Vec<EpochRecord>> {
    let site = engine.metadata.site().await?;
    if site.role != Role::Secondary {
        return Err(Error::Stopped("this site follows no primary: join it with a token first".to_owned()));
    }
    check_marker(&site, &engine.blobs).await?;
    if engine.metadata.backend() == "sqlite" {
        // One process has the database open, and it is this one.
        engine.metadata.end_all_leases().await?;
    }
    Ok(engine.metadata.epochs().await?)
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
