//! What a site with accounts looks after while it runs: that other sites know its keys, and that old refresh tokens go.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use twinport_metadata::{Actor, BOOTSTRAP_ACTOR, Error, Metadata, Role};

/// How soon another key of the primary is told to other sites. Secondaries tell theirs with each report.
const LOOKS: Duration = Duration::from_secs(2);
/// How many looks lie between two rounds of forgetting refresh tokens: an hour.
const PURGE_EVERY: u32 = 1_800;

/// Looks after them, for as long as the job is this node's.
pub(crate) async fn keep(metadata: Metadata) -> ControlFlow<()> {
    let mut looks = interval(LOOKS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count: u32 = 0;
    loop {
        looks.tick().await;
        if let Err(error) = publish_own_keys(&metadata).await {
            tracing::warn!(%error, "this site's token keys could not be told to other sites, trying again");
        }
        if count.is_multiple_of(PURGE_EVERY) {
            match metadata.purge_refresh_tokens().await {
                Ok(0) => {}
                Ok(purged) => tracing::info!(purged, "forgot refresh tokens that had expired"),
                Err(error) => {
                    tracing::warn!(%error, "expired refresh tokens were not forgotten, trying again")
                }
            }
        }
        count = count.wrapping_add(1);
    }
}

/// Logs the public keys of a primary, for all sites.
pub(crate) async fn publish_own_keys(metadata: &Metadata) -> twinport_metadata::Result<()> {
    let own = metadata.site().await?;
    if own.role != Role::Primary {
        return Ok(());
    }
    let keys = metadata.token_keys().await?.into_iter().map(|key| key.public).collect();
    let bootstrap = Actor { name: BOOTSTRAP_ACTOR.to_owned(), correlation: None };
    match metadata.publish_signing_keys(own.incarnation, keys, &bootstrap).await {
        Ok(true) => {
            tracing::info!("this site's token keys were recorded");
            Ok(())
        }
        // It has just joined another, which is told with the next report; or somebody has to act first, and was told.
        Ok(false) | Err(Error::NotPrimary { .. } | Error::Halted(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
