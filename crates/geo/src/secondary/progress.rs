//! The figures that the status shows, kept up to date beside the work.
//! Guards: looking is paced by what it costs, so that figures never compete with replication.

use std::time::{Duration, Instant};

use tokio::{sync::Notify, time::timeout};
use twinport_metadata::{Backfill, TrackingSummary};

use super::Engine;
use crate::upstream::Upstream;

const SOONEST: Duration = Duration::from_millis(150);
const LATEST: Duration = Duration::from_secs(1);
/// Of all time, what share counting may take: one part in this many.
const SHARE: u32 = 20;

/// A mark that something moved.
#[derive(Default)]
pub(super) struct Progress {
    moved: Notify,
}

impl Progress {
    pub(super) fn mark(&self) {
        self.moved.notify_one();
    }
}

/// What was last read of where this site stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// The last event ingested.
    pub(super) ingested_seq: Option<i64>,
    /// The last event that is wholly dealt with; none while listings are outstanding.
    pub(super) processed_seq: Option<i64>,
    pub(super) backfill: Option<Backfill>,
    pub(super) summary: TrackingSummary,
}

/// Reads the figures whenever something moved, and every second.
pub(super) async fn keep<U: Upstream>(engine: Engine<U>) {
    let mut counted: Option<(Instant, Duration)> = None;
    loop {
        let began = Instant::now();
        if let Err(error) = look(&engine).await {
            tracing::warn!(%error, "progress could not be read");
        }
        let looking = began.elapsed();
        if counted.is_none_or(|(at, cost)| at.elapsed() > LATEST.max(cost * SHARE)) {
            let began = Instant::now();
            match engine.metadata.tracking_summary().await {
                Ok(summary) => engine.shared.figures.lock().summary = summary,
                Err(error) => tracing::warn!(%error, "tracking records could not be counted"),
            }
            counted = Some((Instant::now(), began.elapsed()));
        }
        tokio::time::sleep(SOONEST.max(looking * SHARE)).await;
        // Whether it moved or not, the next look comes.
        let _ = timeout(LATEST, engine.shared.progress.moved.notified()).await;
    }
}

async fn look<U: Upstream>(engine: &Engine<U>) -> twinport_metadata::Result<()> {
    let processed_seq = engine.metadata.processed_seq().await?;
    let head = engine.metadata.log_head().await?;
    let known = engine.shared.figures.lock().backfill.clone();
    let backfill = match known {
        Some(backfill) if backfill.finished_at_us.is_some() => Some(backfill),
        _ => engine.metadata.backfill().await?,
    };
    {
        let mut lag = engine.shared.lag.lock();
        lag.ingested(head.position.seq);
        lag.processed(processed_seq);
    }
    let mut figures = engine.shared.figures.lock();
    figures.ingested_seq = Some(head.position.seq);
    figures.processed_seq = processed_seq;
    figures.backfill = backfill;
    Ok(())
}
