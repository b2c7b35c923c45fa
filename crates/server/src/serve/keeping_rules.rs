//! What the rules ask to be done without a request: counting for quotas, and retention.
//! Invariant: only a primary takes anything away, and one of its nodes at a time.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use twinport_metadata::{Metadata, Role};
use twinport_upkeep::{RetentionLimits, UsageCounter, empty_trash, run_retention};

use crate::site::RunningSite;

/// The least time between two steps of counting: how far quotas may lag behind pushes.
const STEP: Duration = Duration::from_millis(200);
/// Between steps of a long way: a log that is counted from its beginning, a secondary's round of its repositories.
const PAUSE: Duration = Duration::from_millis(20);
/// Without an event, or without a quota.
const IDLE: Duration = Duration::from_secs(2);

/// Counts for the quotas, for as long as the site lives.
pub(super) async fn count_usage(site: Arc<RunningSite>, metadata: Metadata) -> ControlFlow<()> {
    let mut counter = UsageCounter::default();
    let mut head = metadata.watch_head();
    loop {
        let stepped = async {
            let rules = site.registry.rules().await?;
            counter.step(&metadata, &rules).await
        };
        match stepped.await {
            Ok(true) => {
                sleep(PAUSE).await;
                continue;
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "usage was not counted: trying again"),
        }
        sleep(STEP).await;
        tokio::select! {
            moved = head.changed() => if moved.is_err() { return ControlFlow::Break(()) },
            () = sleep(IDLE) => {}
        }
    }
}

/// Runs the rules of retention, for as long as the site lives.
pub(super) async fn retain(site: Arc<RunningSite>, metadata: Metadata) -> ControlFlow<()> {
    let limits = site.retention_limits();
    let mut rounds = interval(site.config.retention.interval);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        if let Err(error) = retain_once(&site, &metadata, limits).await {
            tracing::warn!(%error, "retention did not come to its end: trying again next time");
        }
    }
}

async fn retain_once(
    site: &RunningSite,
    metadata: &Metadata,
    limits: RetentionLimits,
) -> twinport_upkeep::Result<()> {
    let own = metadata.site().await?;
    if own.role != Role::Primary || own.halted.is_some() {
        return Ok(());
    }
    let rules = site.registry.rules().await?;
    for rule in rules.retentions() {
        run_retention(metadata, &rules, rule, limits, false).await?;
    }
    let deleted = empty_trash(metadata, &rules).await?;
    if deleted > 0 {
        tracing::info!(deleted, "deleted manifests whose time in the trash was over");
    }
    Ok(())
}
