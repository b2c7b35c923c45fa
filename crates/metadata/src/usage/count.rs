//! Counting on the primary: event by event, each exactly once.

use std::collections::HashMap;

use twinport_access::Quota;

use super::{FORGET, STORE, Sums, Usage, fill_sums, lock_cursor};
use crate::{
    Error, Event, EventKind, RepositoryUuid, Result, blobs,
    db::{Tx, Value},
};

/// Events that one step counts: on SQLite the writer has others waiting.
const EVENTS_PER_STEP: i64 = 200;

/// One step; whether another has something to do at once.
pub(super) async fn step(tx: &mut Tx, quotas: &[Quota]) -> Result<bool> {
    const NEXT: &str = "SELECT seq, body FROM events WHERE seq > $1 ORDER BY seq LIMIT $2";
    let seq = lock_cursor(tx).await?;
    let mut sums = Sums::load(tx, quotas).await?;
    let rows = tx.query(NEXT, vec![seq.into(), EVENTS_PER_STEP.into()]).await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let event: Event = serde_json::from_slice(&row.blob(1)?)
            .map_err(|error| Error::Corrupt(format!("an event cannot be read: {error}")))?;
        events.push(event);
    }
    let mut more = rows.len() as i64 == EVENTS_PER_STEP;
    if let Some(last) = rows.last() {
        let last = last.int(0)?;
        count(tx, &events, last, &mut sums).await?;
        tx.send("UPDATE usage_cursor SET seq = $1 WHERE id = 1", vec![last.into()]).await?;
    }
    // Before the end of the log is reached, history may say more than there is.
    if !more {
        more = fill_sums(tx, &mut sums).await?;
    }
    sums.store(tx).await?;
    Ok(more)
}

async fn count(tx: &mut Tx, events: &[Event], last_seq: i64, sums: &mut Sums) -> Result<()> {
    let before = known(tx, events).await?;
    let mut after = before.clone();
    for event in events {
        let (Some(uuid), Some(path)) = (event.repository, &event.path) else { continue };
        if event.kind == EventKind::RepositoryDeleted {
            after.remove(&uuid);
            continue;
        }
        let usage = after.entry(uuid).or_insert_with(|| Usage { path: path.to_string(), bytes: 0 });
        path.as_str().clone_into(&mut usage.path);
        usage.bytes += delta(tx, event).await?;
    }
    let mut touched: Vec<_> = events.iter().filter_map(|event| event.repository).collect();
    touched.sort_unstable();
    touched.dedup();
    let (mut stored, mut forgotten) = (Vec::new(), Vec::new());
    for uuid in touched {
        sums.change(before.get(&uuid), after.get(&uuid))?;
        match after.get(&uuid) {
            Some(usage) => stored.push(vec![
                uuid.into(),
                usage.path.as_str().into(),
                usage.bytes.into(),
                last_seq.into(),
            ]),
            None => forgotten.push(vec![uuid.into()]),
        }
    }
    tx.send_each(FORGET, forgotten).await?;
    tx.send_each(STORE, stored).await
}

async fn known(tx: &mut Tx, events: &[Event]) -> Result<HashMap<RepositoryUuid, Usage>> {
    const KNOWN: &str = "SELECT repository, path, bytes FROM repository_usage WHERE repository {any $1}";
    let mut keys: Vec<Vec<u8>> =
        events.iter().filter_map(|event| Some(event.repository?.0.as_bytes().to_vec())).collect();
    keys.sort_unstable();
    keys.dedup();
    let rows = tx.query(KNOWN, vec![Value::Blobs(keys)]).await?;
    rows.iter()
        .map(|row| Ok((RepositoryUuid(row.uuid(0)?), Usage { path: row.text(1)?, bytes: row.int(2)? })))
        .collect()
}

/// By how many bytes an event changes what its repository holds.
async fn delta(tx: &mut Tx, event: &Event) -> Result<i64> {
    let size = i64::try_from(event.size.unwrap_or(0)).unwrap_or(i64::MAX);
    Ok(match event.kind {
        EventKind::BlobLinked | EventKind::ManifestPushed => size,
        EventKind::ManifestDeleted => -size,
        EventKind::BlobUnlinked if event.size.is_some() => -size,
        // Events of older versions do not say how large the blob was.
        EventKind::BlobUnlinked => {
            let row = match &event.digest {
                Some(digest) => tx.query_opt(blobs::KNOWN, vec![digest.into()]).await?,
                None => None,
            };
            row.map_or(Ok(0), |row| row.int(0).map(|size| -size))?
        }
        _ => 0,
    })
}
