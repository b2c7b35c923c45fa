//! What a secondary says of itself.
//! Invariant: unknown is shown as unknown; no figure gets better while the primary is out of reach (hazard R29).

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Shared, report::counts};
use crate::{lag::Lag, protocol::ItemCounts};

/// How the log stream of the primary stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Connection {
    /// The engine has not tried yet.
    Starting,
    /// The log stream is open.
    Connected,
    /// It is not, and is tried again by itself.
    Waiting { reason: String },
    /// It is not, and an operator has to act; the reason says how.
    Stopped { reason: String },
}

/// How far behind a stage is. Unknown where null, never zero instead.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LagStatus {
    /// Events up to the primary's last known head.
    pub events: Option<u64>,
    /// Age in seconds of the primary's state that this stage has in full.
    pub seconds: Option<f64>,
}

/// Where a secondary stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecondaryStatus {
    pub connection: Connection,
    /// Everything that the primary had at most five seconds ago is applied here.
    pub fresh: bool,
    /// Seconds since the primary was last heard.
    pub silent_seconds: Option<f64>,
    /// "Last event ID from primary": its last known head.
    pub primary_seq: Option<i64>,
    /// The last event ingested.
    pub ingested_seq: Option<i64>,
    /// "Last event ID processed"; null while the backfill or another listing is outstanding.
    pub processed_seq: Option<i64>,
    pub ingest_lag: LagStatus,
    pub apply_lag: LagStatus,
    /// Bytes of blobs that are asked for and not here yet.
    pub outstanding_bytes: u64,
    /// The backfill has tracked every repository that was there at the join; null on a site that never joined.
    pub backfill_finished: Option<bool>,
    /// How far this site's clock is ahead of the primary's (µs).
    pub clock_ahead_us: Option<i64>,
    pub repositories: ItemCounts,
    /// Tags and manifests.
    pub items: ItemCounts,
}

pub(super) fn status(shared: &Shared, outstanding_bytes: u64, now: Instant) -> SecondaryStatus {
    let figures = shared.figures.lock().clone();
    let lag = shared.lag.lock();
    SecondaryStatus {
        connection: shared.connection.borrow().clone(),
        fresh: lag.fresh(now),
        silent_seconds: lag.silence(now).map(|silence| silence.as_secs_f64()),
        primary_seq: lag.head_seq(),
        ingested_seq: figures.ingested_seq,
        processed_seq: figures.processed_seq,
        ingest_lag: lag.ingest_lag(now).into(),
        apply_lag: lag.apply_lag(now).into(),
        outstanding_bytes,
        backfill_finished: figures.backfill.map(|backfill| backfill.finished_at_us.is_some()),
        clock_ahead_us: lag.clock_ahead_us(),
        repositories: counts(figures.summary.repositories),
        items: counts(figures.summary.items),
    }
}

impl From<Lag> for LagStatus {
    fn from(lag: Lag) -> Self {
        Self { events: lag.events, seconds: lag.age.map(|age| age.as_secs_f64()) }
    }
}
