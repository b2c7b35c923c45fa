//! The tasks that do the work: workers, the one that looks for due work, and the one that renews leases.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;

use super::{Engine, scheduler::Lane};
use crate::{
    apply::{self, Worked},
    upstream::Upstream,
};

/// How often the database is looked into for work that nobody announced: other nodes' leases that lapsed.
const LOOK: Duration = Duration::from_secs(1);
/// Repositories leased at a time.
const TAKE: u32 = 32;

/// One worker.
pub(super) async fn work<U: Upstream>(engine: Engine<U>, listings: bool) {
    loop {
        let uuid = engine.scheduler.next(listings).await;
        let worked = AssertUnwindSafe(apply::work(&engine, uuid, listings)).catch_unwind().await;
        let again = match worked {
            Ok(Worked::Resting) => {
                engine.tasks.spawn(engine.scheduler.rest(uuid));
                continue;
            }
            Ok(Worked::Settled) => None,
            Ok(Worked::NeedsListing) => Some(Lane::Background),
            Err(_) => {
                tracing::error!(repository = %uuid, "bug: applying a repository panicked");
                None
            }
        };
        engine.scheduler.done(uuid, again);
    }
}

/// Takes due repositories from the database, as workers get through them.
pub(super) async fn claim<U: Upstream>(engine: Engine<U>) {
    loop {
        engine.scheduler.time_to_look(LOOK).await;
        engine.connected().await;
        while engine.scheduler.waiting() < engine.tuning.workers {
            match take(&engine).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "due repositories could not be taken, trying again");
                    break;
                }
            }
        }
    }
}

/// Whether there may be more.
async fn take<U: Upstream>(engine: &Engine<U>) -> twinport_metadata::Result<bool> {
    if !engine.metadata.anything_due(engine.lease).await? {
        return Ok(false);
    }
    let taken = engine.metadata.lease_due(engine.lease, TAKE).await?;
    for uuid in &taken {
        engine.scheduler.push(*uuid, Lane::Background);
    }
    Ok(taken.len() == TAKE as usize)
}

/// Keeps the leases of what this process works on.
pub(super) async fn renew<U: Upstream>(engine: Engine<U>) {
    loop {
        tokio::time::sleep(engine.tuning.lease / 3).await;
        let held = engine.scheduler.held();
        if !held.is_empty()
            && let Err(error) = engine.metadata.renew_leases(held, engine.lease).await
        {
            tracing::warn!(%error, "leases could not be renewed");
        }
    }
}
