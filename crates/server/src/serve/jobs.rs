//! What a site does by itself, each at one node at a time; and this node's word that it is there.
//! Guards: nothing of it goes on once the node is stopping, and what it had is free for the others at once.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use twinport_metadata::{Job, Metadata};

use super::keeping_rules;
use crate::{config::UploadPurging, policy::Policy, site::RunningSite, token_upkeep};

/// How often a node says that it is there.
const HERE: Duration = Duration::from_secs(2);

/// The jobs of a node that serves.
pub(super) struct Jobs(JoinSet<()>);

impl Jobs {
    /// Starts what the configuration asks for.
    pub(super) fn start(site: &Arc<RunningSite>) -> Self {
        let mut jobs = JoinSet::new();
        jobs.spawn(say_that_it_is_here(site.clone()));
        if let Some(purging) = site.config.storage.upload_purging {
            jobs.spawn(at_one_node(site.clone(), Job::Uploads, move |site, metadata| async move {
                purge(&site, &metadata, purging).await
            }));
        }
        jobs.spawn(at_one_node(site.clone(), Job::Usage, keeping_rules::count_usage));
        jobs.spawn(at_one_node(site.clone(), Job::Retention, keeping_rules::retain));
        if matches!(site.registry.policy, Policy::Accounts(_)) {
            jobs.spawn(at_one_node(site.clone(), Job::Tokens, |_, metadata| token_upkeep::keep(metadata)));
        }
        Self(jobs)
    }

    /// Ends them, and waits until they have ended.
    pub(super) async fn stop(mut self) {
        self.0.shutdown().await;
    }
}

async fn at_one_node<W, F>(site: Arc<RunningSite>, job: Job, work: W)
where
    W: Fn(Arc<RunningSite>, Metadata) -> F,
    F: Future<Output = ControlFlow<()>>,
{
    site.metadata.lead(job, |metadata, _| work(site.clone(), metadata)).await;
}

/// Also looks whether the site has become a secondary by another node's doing.
async fn say_that_it_is_here(site: Arc<RunningSite>) {
    let mut rounds = interval(HERE);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let busy = site.feed.activity().is_busy();
        if let Err(error) = site.metadata.node_is_here(&site.node, env!("CARGO_PKG_VERSION"), busy).await {
            tracing::debug!(%error, "this node could not say that it is here, trying again");
        }
        if let Err(error) = site.replication.start_if_secondary().await {
            tracing::warn!(%error, "this node could not begin to follow the primary, trying again");
        }
    }
}

/// Ends abandoned upload sessions.
async fn purge(site: &RunningSite, metadata: &Metadata, purging: UploadPurging) -> ControlFlow<()> {
    let age_us = i64::try_from(purging.age.as_micros()).unwrap_or(i64::MAX);
    let mut rounds = interval(purging.interval);
    loop {
        rounds.tick().await;
        let before_us = metadata.clock().now_us().saturating_sub(age_us);
        match twinport_upkeep::expire_uploads(metadata, &site.blobs, before_us).await {
            Ok(0) => {}
            Ok(ended) => tracing::info!(ended, "ended abandoned upload sessions"),
            Err(error) => {
                tracing::warn!(%error, "abandoned upload sessions were not ended: trying again next time");
            }
        }
    }
}
