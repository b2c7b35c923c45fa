//! The first stage of a secondary: events stored verbatim, repositories marked dirty, the cursor moved.
//! Invariant: one transaction a batch, which never waits for a blob; what does not continue the log is not stored.

mod names;

use std::{collections::BTreeMap, sync::Arc};

use twinport_oci::RepositoryName;
use uuid::Uuid;

use crate::{
    EVENT_SCHEMA, Error, Event, EventKind, LogHead, LogPosition, LoggedEvent, Metadata, RepositoryUuid,
    Result, SiteRecord, access,
    db::{Tx, Value},
    repositories::Leftover,
};

/// Who works on a repository, and for how long without a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// One run of one node's engine.
    pub holder: Uuid,
    /// How long after its last renewal others may take over (µs).
    pub duration_us: i64,
}

/// What a batch of events changed.
#[derive(Clone, Debug)]
pub struct Ingested {
    /// The cursor after the batch.
    pub head: LogHead,
    /// Repositories with something to apply, leased to the caller.
    pub leased: Vec<RepositoryUuid>,
    /// Access records have to be fetched.
    pub access: bool,
}

/// Why an event cannot be ingested by this binary; `None` where it can.
#[must_use]
pub fn needs_upgrade(event: &Event) -> Option<String> {
    match &event.kind {
        EventKind::Unknown(kind) => {
            Some(format!("events of the kind {kind} are not known here: upgrade this site"))
        }
        _ if event.v > EVENT_SCHEMA => Some(format!(
            "events of schema {} are newer than the {EVENT_SCHEMA} known here: upgrade this site",
            event.v
        )),
        _ => None,
    }
}

impl Metadata {
    /// Records the sites of the federation that this one joins, as the primary named them at `position`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn learn_sites(&self, sites: Vec<SiteRecord>, position: LogPosition) -> Result<()> {
        self.db
            .write(move |tx| {
                let sites = sites.clone();
                Box::pin(async move {
                    for site in &sites {
                        names::record_site(tx, site, position).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Stores a batch of events that continues the log at its cursor, and moves the cursor over it. Repositories
    /// take their names here, in the log's order; everything else they are told waits for apply.
    ///
    /// # Errors
    /// [`Error::Refused`] when the batch does not continue the log as it stands (another node was faster, or the
    /// hash breaks), when it names an epoch that is not known, or an event that only a newer binary understands.
    pub async fn ingest(&self, events: Vec<LoggedEvent>, lease: Lease) -> Result<Ingested> {
        let batch = Arc::new(Batch::read(events)?);
        let (ingested, leftovers) = self
            .db
            .write(move |tx| {
                let batch = Arc::clone(&batch);
                Box::pin(async move { store(tx, &batch, lease).await })
            })
            .await?;
        for leftover in leftovers {
            self.sweep_deleted_repository(leftover).await?;
        }
        Ok(ingested)
    }
}

struct Batch {
    events: Vec<(LoggedEvent, Event)>,
}

impl Batch {
    fn read(events: Vec<LoggedEvent>) -> Result<Self> {
        let events = events
            .into_iter()
            .map(|logged| logged.event().map(|event| (logged, event)))
            .collect::<Result<Vec<_>>>()?;
        for pair in events.windows(2) {
            let [(before, _), (after, _)] = pair else { continue };
            if after.position.seq != before.position.seq + 1 || !after.continues(&before.hash) {
                return Err(broken(after));
            }
        }
        if let Some(reason) = events.iter().find_map(|(_, event)| needs_upgrade(event)) {
            return Err(Error::Refused(reason));
        }
        Ok(Self { events })
    }

    fn repositories(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = self
            .events
            .iter()
            .filter_map(|(_, event)| Some(event.repository?.0.as_bytes().to_vec()))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

fn broken(event: &LoggedEvent) -> Error {
    Error::Refused(format!(
        "event {} does not continue this site's log: its hash or number does not follow",
        event.position.seq
    ))
}

/// What a batch says about one repository.
#[derive(Debug)]
struct Touched {
    path: RepositoryName,
    first_seq: i64,
    /// The first event was its creation: there is nothing that this site was not told.
    created: bool,
    /// First and last event that apply has to deal with.
    content: Option<(i64, i64)>,
}

async fn store(tx: &mut Tx, batch: &Batch, lease: Lease) -> Result<(Ingested, Vec<Leftover>)> {
    let head = cursor(tx).await?;
    let Some(((first, _), (last, _))) = batch.events.first().zip(batch.events.last()) else {
        return Ok((Ingested { head, leased: Vec::new(), access: false }, Vec::new()));
    };
    if first.position.seq != head.position.seq + 1 || !first.continues(&head.hash) {
        return Err(broken(first));
    }
    check_epochs(tx, batch, head).await?;
    store_events(tx, batch).await?;

    let mut known = names::known(tx, batch.repositories()).await?;
    let mut touched: BTreeMap<RepositoryUuid, Touched> = BTreeMap::new();
    let mut leftovers = Vec::new();
    let mut access_changed = false;
    for (logged, event) in &batch.events {
        if event.kind == EventKind::SiteChanged {
            names::site_changed(tx, logged, event).await?;
            continue;
        }
        if event.kind == EventKind::AccessChanged {
            access::note_pending(tx, logged, event).await?;
            access_changed = true;
            continue;
        }
        let (uuid, path) = subject(logged, event)?;
        if event.kind == EventKind::RepositoryDeleted {
            leftovers.extend(names::deleted(tx, logged, event, uuid, path).await?);
            known.remove(&uuid);
            touched.remove(&uuid);
            continue;
        }
        names::named(tx, logged, event, uuid, path, &mut known).await?;
        let seq = logged.position.seq;
        let entry = touched.entry(uuid).or_insert_with(|| Touched {
            path: path.clone(),
            first_seq: seq,
            created: event.kind == EventKind::RepositoryCreated,
            content: None,
        });
        entry.path = path.clone();
        if !matches!(event.kind, EventKind::RepositoryCreated | EventKind::RepositoryRenamed) {
            entry.content = Some((entry.content.map_or(seq, |(first, _)| first), seq));
        }
    }
    let leased = mark_dirty(tx, &touched, lease).await?;
    let head = LogHead { position: last.position, hash: last.hash };
    tx.set_head(&head).await?;
    Ok((Ingested { head, leased, access: access_changed }, leftovers))
}

/// The cursor, locked: another node's batch waits, and then does not continue it.
async fn cursor(tx: &mut Tx) -> Result<LogHead> {
    const CURSOR: &str = "SELECT h.epoch, h.owner, h.seq, h.hash, s.role FROM log_head h, site s \
         WHERE h.id = 1 AND s.id = 1 {for update of h}";
    let row = tx
        .query_opt(CURSOR, vec![])
        .await?
        .ok_or_else(|| Error::Corrupt("the log has no head row".to_owned()))?;
    if row.text(4)? != "secondary" {
        return Err(Error::Refused("this site is no secondary: it follows nobody's log".to_owned()));
    }
    crate::db::head_of(&row)
}

async fn check_epochs(tx: &mut Tx, batch: &Batch, head: LogHead) -> Result<()> {
    const BEGAN: &str = "SELECT began_seq FROM epochs WHERE number = $1 AND owner = $2";
    let mut epoch = head.position.epoch;
    for (logged, _) in &batch.events {
        let LoggedEvent { position, .. } = logged;
        if position.epoch == epoch {
            continue;
        }
        let key = vec![position.epoch.number.into(), position.epoch.owner.into()];
        let began = tx.query_opt(BEGAN, key).await?.map(|row| row.int(0)).transpose()?;
        if began != Some(position.seq) {
            return Err(Error::Refused(format!(
                "event {} is of epoch {} of {}, which this site does not know to begin there",
                position.seq, position.epoch.number, position.epoch.owner
            )));
        }
        epoch = position.epoch;
    }
    Ok(())
}

async fn store_events(tx: &mut Tx, batch: &Batch) -> Result<()> {
    let rows = batch
        .events
        .iter()
        .map(|(logged, event)| {
            vec![
                logged.position.epoch.number.into(),
                logged.position.epoch.owner.into(),
                logged.position.seq.into(),
                logged.hash.into(),
                event.repository.into(),
                (&logged.body).into(),
            ]
        })
        .collect();
    tx.send_each(
        "INSERT INTO events (epoch, owner, seq, hash, repository, body) VALUES ($1, $2, $3, $4, $5, $6)",
        rows,
    )
    .await
}

fn subject<'e>(logged: &LoggedEvent, event: &'e Event) -> Result<(RepositoryUuid, &'e RepositoryName)> {
    match (event.repository, &event.path) {
        (Some(uuid), Some(path)) => Ok((uuid, path)),
        _ => Err(Error::Refused(format!("event {} names no repository", logged.position.seq))),
    }
}

/// A clean repository jumps to just before its first new event: nothing in between was about it. A lease that ends later
/// than four of its lengths from now was taken before the clock was set back.
const DIRTY: &str = "INSERT INTO tracked_repositories (repository, path, state, dirty_seq, applied_seq, \
     needs_listing, attempts, next_attempt_us, lease_holder, lease_until_us, verification, checked_at_us) \
     VALUES ($1, $2, 'pending', $3, $4, $5, 0, 0, $6, {now $9} + $7, 'pending', $8) \
     ON CONFLICT (repository) DO UPDATE SET path = excluded.path, state = 'pending', next_attempt_us = 0, \
     applied_seq = CASE WHEN tracked_repositories.dirty_seq <= tracked_repositories.applied_seq \
       AND tracked_repositories.needs_listing = 0 THEN excluded.applied_seq ELSE tracked_repositories.applied_seq END, \
     dirty_seq = excluded.dirty_seq, verification = 'pending', checked_at_us = excluded.checked_at_us, \
     lease_until_us = CASE WHEN tracked_repositories.lease_holder IS NULL \
       OR tracked_repositories.lease_holder = excluded.lease_holder \
       OR tracked_repositories.lease_until_us <= {now $9} \
       OR tracked_repositories.lease_until_us > {now $9} + 4 * $7 \
       THEN excluded.lease_until_us ELSE tracked_repositories.lease_until_us END, \
     lease_holder = CASE WHEN tracked_repositories.lease_holder IS NULL \
       OR tracked_repositories.lease_until_us <= {now $9} \
       OR tracked_repositories.lease_until_us > {now $9} + 4 * $7 \
       THEN excluded.lease_holder ELSE tracked_repositories.lease_holder END";
const NAMED: &str = "INSERT INTO tracked_repositories (repository, path, state, dirty_seq, applied_seq, \
     needs_listing, attempts, next_attempt_us, lease_until_us, verification, checked_at_us) \
     VALUES ($1, $2, $3, $4, $4, $5, 0, 0, 0, 'pending', $6) \
     ON CONFLICT (repository) DO UPDATE SET path = excluded.path";

async fn mark_dirty(
    tx: &mut Tx,
    touched: &BTreeMap<RepositoryUuid, Touched>,
    lease: Lease,
) -> Result<Vec<RepositoryUuid>> {
    const MINE: &str =
        "SELECT repository FROM tracked_repositories WHERE repository {any $1} AND lease_holder = $2";
    let now = tx.now_us();
    let mut dirty = Vec::new();
    let mut named = Vec::new();
    for (uuid, touched) in touched {
        // A repository first heard of by another event was there before this site joined.
        let needs_listing = !touched.created;
        let path = Value::from(touched.path.as_str());
        match touched.content {
            Some((first, last)) => dirty.push(vec![
                (*uuid).into(),
                path,
                last.into(),
                (first - 1).into(),
                needs_listing.into(),
                lease.holder.into(),
                lease.duration_us.into(),
                now.into(),
                tx.lease_clock(),
            ]),
            None => named.push(vec![
                (*uuid).into(),
                path,
                if needs_listing { "pending" } else { "synced" }.into(),
                touched.first_seq.into(),
                needs_listing.into(),
                now.into(),
            ]),
        }
    }
    let keys: Vec<Vec<u8>> = touched
        .iter()
        .filter(|(_, t)| t.content.is_some())
        .map(|(uuid, _)| uuid.0.as_bytes().to_vec())
        .collect();
    tx.send_each(NAMED, named).await?;
    tx.send_each(DIRTY, dirty).await?;
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let rows = tx.query(MINE, vec![Value::Blobs(keys), lease.holder.into()]).await?;
    rows.iter().map(|row| Ok(RepositoryUuid(row.uuid(0)?))).collect()
}
