//! Tells the primary every second where this site stands, with a nonce that its heartbeat answers.
//! Guards: a nonce is random and counted from before it is sent, so an answer proves no more than it can.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use twinport_metadata::TrackingCounts;

use super::{Engine, micros};
use crate::{
    RefusalCode, Result,
    protocol::{ItemCounts, Nonce, StatusReport},
    upstream::Upstream,
};

const ANSWER: Duration = Duration::from_secs(5);

/// Reports for as long as the engine runs, while the log is connected.
pub(super) async fn report<U: Upstream>(mut engine: Engine<U>) {
    // A report carries the nonce that freshness is measured by: it does not wait behind clients.
    engine.metadata = engine.metadata.reserved();
    loop {
        engine.connected().await;
        match timeout(ANSWER, send(&engine)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.code() == Some(RefusalCode::SiteRemoved) => {
                engine.give_up(error.to_string())
            }
            Ok(Err(error)) => tracing::debug!(%error, "the status report failed"),
            Err(_) => tracing::debug!("the status report was not answered"),
        }
        tokio::time::sleep(engine.tuning.report_every).await;
    }
}

async fn send<U: Upstream>(engine: &Engine<U>) -> Result<()> {
    let site = engine.metadata.site().await?;
    let head = engine.metadata.log_head().await?;
    let token_keys = engine.metadata.token_keys().await?.into_iter().map(|key| key.public).collect();
    let figures = engine.shared.figures.lock().clone();
    let nonce = Nonce::random();
    let lag = {
        let mut lag = engine.shared.lag.lock();
        lag.sending(nonce, Instant::now());
        lag.apply_lag(Instant::now())
    };
    let report = StatusReport {
        nonce,
        incarnation: site.incarnation,
        ingested: head.position,
        applied_seq: figures.processed_seq.unwrap_or(0),
        lag_events: lag.events.map(|events| i64::try_from(events).unwrap_or(i64::MAX)),
        lag_us: lag.age.map(micros),
        repositories: counts(figures.summary.repositories),
        items: counts(figures.summary.items),
        token_keys,
    };
    engine.upstream.report(&report).await
}

pub(super) fn counts(counts: TrackingCounts) -> ItemCounts {
    let TrackingCounts {
        pending,
        started,
        synced,
        failed,
        verification_pending,
        verification_succeeded,
        verification_failed,
    } = counts;
    ItemCounts {
        pending,
        started,
        synced,
        failed,
        verification_pending,
        verification_succeeded,
        verification_failed,
    }
}
