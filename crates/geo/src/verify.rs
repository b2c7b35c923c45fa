//! Comparing quiet repositories with the primary, by the one checksum that both sites compute.
//! Invariant: a verdict is given only where both sites have the same events of the repository, all of them applied
//! and none in motion; a busy repository is waited for, never called different (hazard R18).

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;
use twinport_metadata::{CheckOutcome, DueCheck, EventKind};

use crate::{
    Error, RefusalCode, Result,
    protocol::RepositoryChecksum,
    secondary::{Engine, micros},
    upstream::Upstream,
};

/// Repositories compared at the same time.
const AT_ONCE: usize = 4;
const TAKE: u32 = 64;
const ANSWER: Duration = Duration::from_secs(90);

/// Compares for as long as the engine runs.
pub(crate) async fn verify<U: Upstream>(engine: Engine<U>) {
    loop {
        engine.connected().await;
        let quiet_since = engine.now_us().saturating_sub(micros(engine.tuning.quiet));
        let due = match engine.metadata.due_checks(quiet_since, TAKE).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "repositories to compare could not be read");
                Vec::new()
            }
        };
        let busy = due.len() == TAKE as usize;
        stream::iter(due).for_each_concurrent(AT_ONCE, async |due| check(&engine, due).await).await;
        if !busy {
            tokio::time::sleep(engine.tuning.quiet / 4).await;
        }
    }
}

async fn check<U: Upstream>(engine: &Engine<U>, due: DueCheck) {
    let outcome = match compare(engine, &due).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::debug!(repository = %due.path, %error, "a repository could not be compared");
            CheckOutcome::NotComparable
        }
    };
    match engine.metadata.record_check(&due, outcome).await {
        Ok(true) if matches!(outcome, CheckOutcome::Different { .. }) => {
            tracing::warn!(repository = %due.path, "checksum mismatch: listing the repository anew");
            engine.scheduler.look_by(engine.backoff(due.attempts + 1));
        }
        Ok(_) => engine.progressed(),
        Err(error) => tracing::warn!(repository = %due.path, %error, "a comparison could not be recorded"),
    }
}

async fn compare<U: Upstream>(engine: &Engine<U>, due: &DueCheck) -> Result<CheckOutcome> {
    let answer = timeout(ANSWER, engine.upstream.checksum(due.repository)).await;
    let answer = answer.map_err(|_| Error::Protocol(format!("no checksum came in {ANSWER:?}")))?;
    let theirs = match answer {
        // Its deletion is on its way.
        Err(error) if error.code() == Some(RefusalCode::RepositoryUnknown) => {
            return Ok(CheckOutcome::NotComparable);
        }
        answer => answer?,
    };
    if theirs.in_motion || !at_the_same_position(engine, due, &theirs).await? {
        return Ok(CheckOutcome::NotComparable);
    }
    let Some(ours) = engine.metadata.repository_checksum(due.repository).await? else {
        return Ok(CheckOutcome::NotComparable);
    };
    if hex::encode(ours.checksum) == theirs.checksum {
        return Ok(CheckOutcome::Equal { through_seq: theirs.through_seq });
    }
    let wait = micros(engine.backoff(due.attempts + 1));
    Ok(CheckOutcome::Different { next_attempt_us: engine.now_us().saturating_add(wait) })
}

/// Whether this site has every event that the checksum covers, and none that it does not. That what this site has
/// is applied, and stays so until the verdict is written, is the record's to check.
async fn at_the_same_position<U: Upstream>(
    engine: &Engine<U>,
    due: &DueCheck,
    theirs: &RepositoryChecksum,
) -> Result<bool> {
    let cursor = engine.metadata.log_head().await?;
    if theirs.through_seq > cursor.position.seq {
        return Ok(false);
    }
    if due.dirty_seq <= theirs.through_seq {
        return Ok(true);
    }
    // The checksum does not cover links: events about them may be later.
    let later = engine
        .metadata
        .repository_events(due.repository, theirs.through_seq, due.dirty_seq, u32::MAX)
        .await?;
    for logged in later {
        let kind = logged.event()?.kind;
        if !matches!(
            kind,
            EventKind::BlobLinked | EventKind::RepositoryCreated | EventKind::RepositoryRenamed
        ) {
            return Ok(false);
        }
    }
    Ok(true)
}
