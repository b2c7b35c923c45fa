//! Apply: one repository at a time, what the log or a listing says of it is fetched, checked and made visible.
//! Invariant: a chunk is visible whole or not at all, and every step may be repeated after a crash at any point.

mod listing;
mod reduce;
mod resolve;

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use twinport_metadata::{
    Applied, ApplyChunk, Error as MetadataError, Listing, RepositoryUuid, TrackedRepository,
};
use twinport_oci::Digest;

use self::{
    reduce::Wanted,
    resolve::{Mode, Resolved},
};
use crate::{Error, secondary::Engine, transfer::FailureKind, upstream::Upstream};

/// Events that one chunk takes in at most.
const CHUNK_EVENTS: u32 = 500;
/// Failed items that one chunk tries again at most.
const CHUNK_RETRIES: usize = 500;
/// Bytes of manifests that one chunk holds in memory, about.
pub(crate) const CHUNK_MANIFEST_BYTES: u64 = 8 << 20;
/// How long a chunk waits for large blobs before their neighbours go on without them.
const PATIENCE: Duration = Duration::from_secs(2);
/// Unsettled items of a repository that are looked at.
const UNSETTLED: u32 = 10_000;

/// How the work on a repository ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worked {
    /// Nothing is left to do now.
    Settled,
    /// A listing is needed, which this worker does not do.
    NeedsListing,
    /// Only blobs are new, which nobody can see before their manifest comes.
    Resting,
}

/// Why the work on a repository stopped early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The lease went to another node, or the repository is gone: nothing to clean up.
    Lost,
    /// The primary is out of reach, and what failed says nothing about the items.
    Away(String),
    /// The primary does not list it any more; its deletion is on its way.
    Absent(String),
    /// It concerns the whole repository; try again with backoff.
    Failed(String),
    /// This site's own database: nothing can be written about it.
    Database(MetadataError),
}

impl From<MetadataError> for Stop {
    fn from(error: MetadataError) -> Self {
        Self::Database(error)
    }
}

/// Works on a leased repository until nothing is left to do now.
pub(crate) async fn work<U: Upstream>(engine: &Engine<U>, uuid: RepositoryUuid, listings: bool) -> Worked {
    let (stop, attempts) = match run(engine, uuid, listings).await {
        Ok(worked) => return worked,
        Err(stopped) => stopped,
    };
    let now = engine.now_us();
    let away = matches!(stop, Stop::Away(_));
    let (reason, wait, failed) = match stop {
        Stop::Lost => return Worked::Settled,
        Stop::Away(reason) => (reason, engine.tuning.away, false),
        Stop::Absent(reason) => (reason, engine.backoff(attempts + 1), attempts > 4),
        Stop::Failed(reason) => (reason, engine.backoff(attempts + 1), true),
        Stop::Database(error) => {
            tracing::warn!(repository = %uuid, %error, "a repository could not be worked on, trying again");
            return Worked::Settled;
        }
    };
    if failed {
        tracing::warn!(repository = %uuid, %reason, "a repository could not be synced, trying again later");
    }
    if away {
        engine.shared.away.add(uuid);
    }
    let next = now.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
    if let Err(error) = engine.metadata.postpone(uuid, engine.lease, next, &reason, failed).await {
        tracing::warn!(repository = %uuid, %error, "a repository could not be postponed");
    } else if away && engine.is_connected() {
        // It came back just before this was written.
        engine.hasten(uuid).await;
    }
    engine.scheduler.look_by(wait);
    Worked::Settled
}

async fn run<U: Upstream>(
    engine: &Engine<U>,
    uuid: RepositoryUuid,
    listings: bool,
) -> Result<Worked, (Stop, i64)> {
    let mut attempts = 0;
    loop {
        let step = step(engine, uuid, listings, &mut attempts).await.map_err(|stop| (stop, attempts))?;
        if let Some(worked) = step {
            return Ok(worked);
        }
    }
}

async fn step<U: Upstream>(
    engine: &Engine<U>,
    uuid: RepositoryUuid,
    listings: bool,
    attempts: &mut i64,
) -> Result<Option<Worked>, Stop> {
    let Some(tracked) = engine.metadata.tracked_repository(uuid).await? else { return Err(Stop::Lost) };
    *attempts = tracked.attempts;
    if tracked.lease_holder != Some(engine.lease.holder)
        && !engine.metadata.lease_repository(uuid, engine.lease).await?
    {
        return Err(Stop::Lost);
    }
    let more = if tracked.needs_listing {
        if !listings {
            return Ok(Some(Worked::NeedsListing));
        }
        listing::go_through(engine, &tracked).await?
    } else if tracked.dirty_seq > tracked.applied_seq {
        let Some(more) = events(engine, &tracked).await? else { return Ok(Some(Worked::Resting)) };
        more
    } else {
        retries(engine, &tracked).await?
    };
    Ok((!more).then_some(Worked::Settled))
}

/// One chunk of the repository's events; none where it can wait for more.
async fn events<U: Upstream>(engine: &Engine<U>, tracked: &TrackedRepository) -> Result<Option<bool>, Stop> {
    let uuid = tracked.repository;
    let events =
        engine.metadata.repository_events(uuid, tracked.applied_seq, tracked.dirty_seq, CHUNK_EVENTS).await?;
    let full = events.len() == CHUNK_EVENTS as usize;
    let (wanted, through) = reduce::reduce(&events).map_err(Stop::Failed)?;
    // Their bytes are on their way since they were heard of.
    if !full && wanted.is_of_blobs_alone() && engine.scheduler.may_rest(uuid) {
        return Ok(None);
    }
    // Fewer events than asked for: the rest of the range was about other repositories.
    let all = !full && events.last().is_none_or(|event| event.position.seq == through);
    let through = if all { tracked.dirty_seq } else { through };
    let resolved = resolve::resolve(engine, uuid, wanted, Mode::Events, tracked.unsettled).await?;
    commit(engine, uuid, resolved, Some(through), Listing::AsBefore).await.map(Some)
}

/// One chunk of what failed before and is due again.
async fn retries<U: Upstream>(engine: &Engine<U>, tracked: &TrackedRepository) -> Result<bool, Stop> {
    let uuid = tracked.repository;
    let now = engine.now_us();
    let items = engine.metadata.unsettled_items(uuid, UNSETTLED).await?;
    let due: Vec<_> = items.into_iter().filter(|item| engine.is_due(item.next_attempt_us, now)).collect();
    let mut wanted = Wanted::default();
    for item in due.iter().take(CHUNK_RETRIES) {
        wanted.again(item, engine.position(item.position_seq), now).map_err(Stop::Failed)?;
    }
    let resolved = resolve::resolve(engine, uuid, wanted, Mode::Retries, true).await?;
    commit(engine, uuid, resolved, None, Listing::AsBefore).await
}

/// Makes a chunk visible; whether more is waiting.
async fn commit<U: Upstream>(
    engine: &Engine<U>,
    uuid: RepositoryUuid,
    resolved: Resolved,
    through: Option<i64>,
    listing: Listing,
) -> Result<bool, Stop> {
    let Resolved { mut chunk, under_way, relist, .. } = resolved;
    chunk.applied_through = through;
    chunk.listing = if relist && listing == Listing::AsBefore { Listing::Needed } else { listing };
    let soonest = soonest(&chunk);
    let healed = chunk.healed;
    let applied = match engine.metadata.apply(uuid, engine.lease, chunk).await {
        // Taken away between the fetch and the commit: the next round fetches it again.
        Err(MetadataError::BlobsUnknown(_)) => return Ok(true),
        applied => applied?,
    };
    engine.progressed();
    watch(engine, uuid, under_way);
    match applied {
        Applied::LeaseLost | Applied::Gone => Err(Stop::Lost),
        Applied::Done { more } => {
            if healed {
                engine.scheduler.look_by(Duration::ZERO);
            }
            if let Some(at) = soonest {
                let wait = u64::try_from(at - engine.now_us()).unwrap_or(0);
                engine.scheduler.look_by(Duration::from_micros(wait));
            }
            Ok(more)
        }
    }
}

fn soonest(chunk: &ApplyChunk) -> Option<i64> {
    chunk.unsettled.iter().map(|item| item.next_attempt_us).min()
}

/// Comes back to the repository as soon as one of these blobs has arrived.
fn watch<U: Upstream>(engine: &Engine<U>, uuid: RepositoryUuid, under_way: Vec<Digest>) {
    if under_way.is_empty() {
        return;
    }
    let engine = engine.clone();
    engine.tasks.clone().spawn(async move {
        let mut waiting: FuturesUnordered<_> =
            under_way.iter().map(|digest| engine.transfers.fetch(*digest, None)).collect();
        while waiting.next().await.is_some() {
            engine.hasten(uuid).await;
        }
    });
}

/// What an error of the primary means for the repository as a whole.
fn whole(engine_connected: bool, error: Error) -> Stop {
    let text = error.to_string();
    let failure = crate::transfer::Failure::from(error);
    match failure.kind {
        FailureKind::Absent => Stop::Absent(text),
        FailureKind::Unreachable if !engine_connected => Stop::Away(text),
        _ => Stop::Failed(text),
    }
}
