//! This site's part as a secondary: the engine that follows the primary, started and stopped while the site serves.
//! Invariant: at most one engine runs in a process.

use tokio::sync::Mutex;
use twinport_blobs::Blobs;
use twinport_geo::{
    Connection, HttpUpstream, Secondary, SecondaryHandle, SecondaryOptions, SecondaryStatus, SiteIdentity,
    Tuning,
};
use twinport_metadata::{Metadata, Role};

use crate::admin_api::types::ReplicationStatus;

/// The engine's place; empty on a primary.
pub(crate) struct Replication {
    metadata: Metadata,
    blobs: Blobs,
    enabled: bool,
    engine: Mutex<Engine>,
}

enum Engine {
    None,
    Running(SecondaryHandle),
    /// The site is shutting down: nothing starts any more.
    Ended,
}

impl Replication {
    pub(crate) fn new(metadata: Metadata, blobs: Blobs, enabled: bool) -> Self {
        Self { metadata, blobs, enabled, engine: Mutex::new(Engine::None) }
    }

    /// Whether the configuration lets this site follow a primary.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Starts to follow the primary, where this site is a secondary and does not follow yet.
    pub(crate) async fn start_if_secondary(&self) -> twinport_geo::Result<()> {
        let mut engine = self.engine.lock().await;
        if !self.enabled || !matches!(*engine, Engine::None) {
            return Ok(());
        }
        if self.metadata.site().await?.role != Role::Secondary {
            return Ok(());
        }
        let identity = SiteIdentity::of(&self.metadata).await?;
        tracing::info!(primary = %identity.primary.url, "following the primary");
        *engine = Engine::Running(Secondary::start(SecondaryOptions {
            metadata: self.metadata.clone(),
            blobs: self.blobs.clone(),
            upstream: HttpUpstream::new(identity)?,
            tuning: Tuning::default(),
        }));
        Ok(())
    }

    /// Stops following for good; what was under way is kept and goes on at the next start.
    pub(crate) async fn stop(&self) {
        let mut engine = self.engine.lock().await;
        if let Engine::Running(handle) = std::mem::replace(&mut *engine, Engine::Ended) {
            handle.stop().await;
        }
    }

    /// Where this secondary stands; none where nothing follows.
    pub(crate) async fn status(&self) -> Option<ReplicationStatus> {
        if !self.enabled {
            return Some(ReplicationStatus { state: "disabled".to_owned(), ..ReplicationStatus::default() });
        }
        match &*self.engine.lock().await {
            Engine::Running(handle) => Some(handle.status().into()),
            Engine::None | Engine::Ended => None,
        }
    }
}

impl From<SecondaryStatus> for ReplicationStatus {
    fn from(status: SecondaryStatus) -> Self {
        let (state, problem) = match status.connection {
            Connection::Starting => ("starting", None),
            Connection::Connected => ("connected", None),
            Connection::Waiting { reason } => ("waiting", Some(reason)),
            Connection::Stopped { reason } => ("stopped", Some(reason)),
        };
        Self {
            state: state.to_owned(),
            problem,
            fresh: status.fresh,
            head_seq: status.primary_seq,
            ingested_seq: status.ingested_seq,
            applied_seq: status.processed_seq,
            lag_events: status.apply_lag.events,
            lag_bytes: Some(status.outstanding_bytes),
            lag_us: status.apply_lag.seconds.map(micros),
            ingest_lag_us: status.ingest_lag.seconds.map(micros),
            heard_ago_us: status.silent_seconds.map(micros),
            clock_ahead_us: status.clock_ahead_us,
            backfill_finished: status.backfill_finished,
            repositories: status.repositories,
            items: status.items,
        }
    }
}

fn micros(seconds: f64) -> i64 {
    (seconds * 1e6) as i64
}
