//! What one node of a secondary does for all: it follows the log, backfills, compares and reports, under a lease. The others
//! apply what is due, and know of the primary what that node notes with its lease.
//! Guards: a node that lost the lease writes nothing of this any more; what others know of it is as old as it says (R29).

use std::{ops::ControlFlow, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use twinport_metadata::{Job, JobLease, Metadata};

use super::{
    Connection, Engine, Shared, Tasks, progress, report,
    status::{self, SecondaryStatus},
};
use crate::{FRESH_FOR, access, backfill, follow, upstream::Upstream, verify};

/// How often the leading node notes where it stands, and others look.
const EVERY: Duration = Duration::from_millis(500);
/// A note that is older was written by a node that does not lead any more.
const BELIEVED: Duration = Duration::from_secs(4);

/// What the leading node notes.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    status: SecondaryStatus,
    primary_busy: bool,
}

/// What another node noted, and how old that was when it was read.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    status: SecondaryStatus,
    age: Duration,
    read_at: std::time::Instant,
}

impl Noted {
    /// As it stands now if nothing has happened since.
    pub(super) fn status(&self) -> SecondaryStatus {
        let older = (self.age + self.read_at.elapsed()).as_secs_f64();
        let mut status = self.status.clone();
        for age in [&mut status.silent_seconds, &mut status.ingest_lag.seconds, &mut status.apply_lag.seconds]
        {
            *age = age.map(|seconds| seconds + older);
        }
        status.fresh = status.apply_lag.seconds.is_some_and(|seconds| seconds <= FRESH_FOR.as_secs_f64());
        status
    }
}

impl Shared {
    fn is_leading(&self) -> bool {
        self.leading.load(std::sync::atomic::Ordering::Acquire)
    }

    fn set_leading(&self, leading: bool) {
        self.leading.store(leading, std::sync::atomic::Ordering::Release);
    }
}

/// Marks this node as the leading one until it is dropped.
struct Leading<U>(Engine<U>);

impl<U> Drop for Leading<U> {
    fn drop(&mut self) {
        self.0.shared.set_leading(false);
    }
}

/// What goes on beside following the log, and ends with it.
struct Beside(Tasks);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Leads whenever the lease is this node's, until there is something that only an operator can deal with.
pub(super) async fn lead<U: Upstream>(engine: Engine<U>) {
    let metadata = engine.metadata.clone();
    let work = |fenced, lease| Box::pin(follow_for_all(engine.clone(), fenced, lease));
    metadata.lead(Job::Replication, work).await;
}

async fn follow_for_all<U: Upstream>(
    engine: Engine<U>,
    fenced: Metadata,
    lease: JobLease,
) -> ControlFlow<()> {
    let unfenced = engine.metadata.clone();
    let engine = Engine { metadata: fenced, ..engine };
    let leading = Leading(engine.clone());
    *engine.shared.noted.lock() = None;
    engine.shared.connection.send_replace(Connection::Starting);
    engine.shared.set_leading(true);
    let beside = Beside(Tasks::default());
    let Beside(tasks) = &beside;
    *engine.shared.beside.lock() = Some(tasks.clone());
    tasks.spawn(progress::keep(engine.clone()));
    tasks.spawn(report::report(engine.clone()));
    tasks.spawn(backfill::backfill(engine.clone()));
    tasks.spawn(verify::verify(engine.clone()));
    tasks.spawn(access::fetch(engine.clone()));
    tasks.spawn(note(engine.clone(), unfenced.clone(), lease));
    Box::pin(follow::follow(engine.clone())).await;
    drop(beside);
    // Others learn why before they try for themselves: a newer one may understand what this one does not.
    write_note(&engine, &unfenced, &lease).await;
    drop(leading);
    ControlFlow::Break(())
}

async fn note<U: Upstream>(engine: Engine<U>, metadata: Metadata, lease: JobLease) {
    loop {
        write_note(&engine, &metadata, &lease).await;
        sleep(EVERY).await;
    }
}

async fn write_note<U: Upstream>(engine: &Engine<U>, metadata: &Metadata, lease: &JobLease) {
    let status = status::status(&engine.shared, engine.transfers.outstanding(), std::time::Instant::now());
    let note = Note { status, primary_busy: engine.pace.is_primary_busy() };
    let written = match serde_json::to_string(&note) {
        Ok(text) => metadata.renew_lease(lease, Some(&text)).await.map(drop),
        Err(error) => return tracing::warn!(%error, "where this site stands could not be written down"),
    };
    if let Err(error) = written {
        tracing::debug!(%error, "where this site stands could not be noted for its other nodes");
    }
}

/// Learns from the leading node whether the primary is there, for as long as this node does not lead itself.
pub(super) async fn watch<U: Upstream>(engine: Engine<U>) {
    loop {
        if !engine.shared.is_leading() {
            look(&engine).await;
        }
        sleep(EVERY).await;
    }
}

async fn look<U: Upstream>(engine: &Engine<U>) {
    let note = match engine.metadata.lease_note(Job::Replication).await {
        Ok(note) => note.filter(|note| note.holder != engine.metadata.node()),
        Err(error) => return tracing::debug!(%error, "the leading node's note could not be read"),
    };
    let read_at = std::time::Instant::now();
    let noted = note.and_then(|note| {
        let age = Duration::from_micros(note.age_us.unsigned_abs());
        // A node of another version may note other things: then this one knows nothing.
        let Note { status, primary_busy } = serde_json::from_str(&note.text).ok()?;
        engine.pace.primary_is(primary_busy);
        Some(Noted { status, age, read_at })
    });
    if engine.shared.is_leading() {
        return;
    }
    let connection = match &noted {
        Some(noted) if noted.age <= BELIEVED => noted.status.connection.clone(),
        Some(_) => Connection::Waiting { reason: "no node of this site follows the primary".to_owned() },
        None => return,
    };
    engine.shared.connection.send_if_modified(|known| {
        let changed = *known != connection;
        if changed {
            *known = connection;
        }
        changed
    });
    *engine.shared.noted.lock() = noted;
}
