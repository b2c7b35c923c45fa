//! Who may do what, as the primary has it: every access record after a join, then those that the log names.
//! Invariant: nothing is deleted but by a tombstone of a later position; what cannot be fetched stays pending and is tried
//! again.

use std::time::Duration;

use tokio::time::timeout;
use twinport_metadata::{PendingRecord, RecordName, ReplicatedRecord};

use crate::{
    Error, RefusalCode, Result,
    protocol::{AccessEntry, AccessPage, MAX_NAMED_RECORDS},
    secondary::{Connection, Engine},
    upstream::Upstream,
};

/// Records asked for at a time, of a listing.
const PAGE: u32 = 500;
const ANSWER: Duration = Duration::from_secs(90);
/// How often the database is looked into for records that another node was told of.
const LOOK: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(10);
/// Names of one request, in bytes; the primary takes 64 KiB.
const MOST_NAMES: usize = 32 << 10;

/// Fetches what is pending, for as long as the engine runs.
pub(crate) async fn fetch<U: Upstream>(engine: Engine<U>) {
    let mut attempts = 0;
    loop {
        engine.connected().await;
        match step(&engine).await {
            Ok(true) => attempts = 0,
            Ok(false) => {
                attempts = 0;
                // Whether anything was announced or not, the next look comes.
                let _ = timeout(LOOK, engine.shared.access.notified()).await;
            }
            Err(error) => {
                attempts += 1;
                tracing::warn!(%error, attempts, "access records could not be fetched, trying again");
                let _ = timeout(engine.backoff(attempts).min(RETRY_MOST), reconnected(&engine)).await;
            }
        }
    }
}

/// Ends when the log is connected anew: the primary is back.
async fn reconnected<U: Upstream>(engine: &Engine<U>) {
    let mut connection = engine.shared.connection.subscribe();
    // The sender lives as long as the engine.
    let _ = connection.wait_for(|state| *state != Connection::Connected).await;
    let _ = connection.wait_for(|state| *state == Connection::Connected).await;
}

/// Whether anything was done, so that there may be more.
async fn step<U: Upstream>(engine: &Engine<U>) -> Result<bool> {
    let pending = engine.metadata.pending_access(MAX_NAMED_RECORDS as u32).await?;
    if pending.listing {
        list(engine).await?;
        engine.metadata.finish_access_listing().await?;
    } else if pending.records.is_empty() {
        return Ok(false);
    } else {
        fetch_named(engine, pending.records).await?;
    }
    engine.progressed();
    Ok(true)
}

/// Goes through all that the primary has. After a restart it begins again: what is here already stays.
async fn list<U: Upstream>(engine: &Engine<U>) -> Result<()> {
    let mut after: Option<String> = None;
    loop {
        let page = match answered(engine.upstream.access(after.as_deref(), PAGE)).await {
            // It is of a version that has no access records; those that it makes once it has come by the log.
            Err(error) if error.code() == Some(RefusalCode::CallUnknown) => return Ok(()),
            page => page?,
        };
        check(&page)?;
        // What is in motion has its event past the join.
        let settled = page.records.iter().filter_map(|entry| Some((entry, entry.position_seq?)));
        let records: Vec<_> = settled.map(|(entry, seq)| replicated(engine, entry, seq)).collect();
        engine.metadata.apply_access(records).await?;
        if page.complete {
            tracing::info!("every access record of the primary was listed");
            return Ok(());
        }
        after = page.next;
    }
}

fn check(page: &AccessPage) -> Result<()> {
    if page.complete == page.next.is_some() || page.records.is_empty() && !page.complete {
        return Err(Error::Protocol("its access records neither go on nor end".to_owned()));
    }
    Ok(())
}

async fn fetch_named<U: Upstream>(engine: &Engine<U>, pending: Vec<PendingRecord>) -> Result<()> {
    let mut bytes = 0;
    let pending: Vec<PendingRecord> = pending
        .into_iter()
        .take_while(|wanted| {
            bytes += wanted.record.kind.len() + wanted.record.name.len() + 64;
            bytes <= MOST_NAMES
        })
        .collect();
    let names: Vec<RecordName> = pending.iter().map(|wanted| wanted.record.clone()).collect();
    let page = answered(engine.upstream.access_records(&names)).await?;
    let mut records = Vec::with_capacity(pending.len());
    let mut missing = None;
    for PendingRecord { record, last_seq } in &pending {
        let found = page.records.iter().find(|entry| entry.kind == record.kind && entry.name == record.name);
        match found.and_then(|entry| Some((entry, entry.position_seq.filter(|seq| seq >= last_seq)?))) {
            Some((entry, seq)) => records.push(replicated(engine, entry, seq)),
            None => missing = Some(record),
        }
    }
    // One that it withholds holds no other back.
    engine.metadata.apply_access(records).await?;
    match missing {
        None => Ok(()),
        Some(record) => {
            Err(Error::Protocol(format!("it does not give out the state of {record} that its log names")))
        }
    }
}

fn replicated<U: Upstream>(engine: &Engine<U>, entry: &AccessEntry, seq: i64) -> ReplicatedRecord {
    ReplicatedRecord {
        record: entry.record(),
        body: entry.body.clone(),
        secret: entry.secret(),
        changed_at_us: entry.changed_at_us,
        position: engine.position(seq),
    }
}

async fn answered(answer: impl Future<Output = Result<AccessPage>>) -> Result<AccessPage> {
    timeout(ANSWER, answer)
        .await
        .map_err(|_| Error::Protocol(format!("it did not give out its access records in {ANSWER:?}")))?
}
