//! Access records from site to site: what the primary lists, what a secondary was told of, and what it has fetched.
//! Invariant: a record is replaced only by one of a later position, and is deleted only by a tombstone.

use std::{fmt, str::FromStr, sync::Arc};

use twinport_access::Account;

use super::{
    RecordKind, RecordName, RecordSecret,
    change::{PUT, lock, rise},
};
use crate::{
    Error, Event, LogPosition, LoggedEvent, Metadata, Page, Result,
    db::{Row, Tx, Value},
    refresh_tokens,
};

/// Stands for every record, where a site has just joined. No kind is called so.
const EVERYTHING: &str = "*";
const MAX_KIND_BYTES: usize = 32;
/// What a newer site may name its records at most, in bytes.
const MAX_REPLICATED_NAME_BYTES: usize = 2_048;

/// A record as the primary lists it for other sites, deleted ones included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRecord {
    pub record: RecordName,
    /// None where it is deleted.
    pub body: Option<String>,
    pub secret: Option<RecordSecret>,
    pub changed_at_us: i64,
    /// None while in motion: its event comes later.
    pub position_seq: Option<i64>,
}

/// Where a listing goes on: after this record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordCursor(RecordName);

impl RecordCursor {
    /// After this record.
    #[must_use]
    pub fn after(record: &RecordName) -> Self {
        Self(record.clone())
    }
}

impl fmt::Display for RecordCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.kind, self.0.name)
    }
}

impl FromStr for RecordCursor {
    /// It is no cursor of ours; nothing more can be said.
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, name) = text.split_once('/').ok_or(())?;
        let record = RecordName { kind: kind.to_owned(), name: name.to_owned() };
        is_sound(&record).then_some(Self(record)).ok_or(())
    }
}

/// A record as a secondary takes it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicatedRecord {
    pub record: RecordName,
    /// None deletes it.
    pub body: Option<String>,
    pub secret: Option<RecordSecret>,
    pub changed_at_us: i64,
    pub position: LogPosition,
}

/// A record that changed and was not fetched since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRecord {
    pub record: RecordName,
    /// The last event that changed it: what is fetched must be at least that new.
    pub last_seq: i64,
}

/// What a secondary has still to fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingAccess {
    /// All of them, before anything else.
    pub listing: bool,
    /// The longest outstanding first.
    pub records: Vec<PendingRecord>,
}

const NAMED: &str = "SELECT kind, name, body, secret, changed_at_us, \
     COALESCE(position_seq, (SELECT e.seq FROM events e WHERE e.event_id = change)) \
     FROM access_records WHERE kind = $1 AND name = $2";

impl Metadata {
    /// Up to `limit` records after `after`, by kind and name as bytes, deleted ones included.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn access_listing(
        &self,
        after: Option<&RecordCursor>,
        limit: u32,
    ) -> Result<Page<ListedRecord>> {
        const LISTING: &str = "SELECT kind, name, body, secret, changed_at_us, \
             COALESCE(position_seq, (SELECT e.seq FROM events e WHERE e.event_id = change)) \
             FROM access_records WHERE (kind, name) > ($1, $2) ORDER BY kind, name LIMIT $3";
        let limit = limit.max(1);
        let (kind, name) = after.map_or(("", ""), |after| (after.0.kind.as_str(), after.0.name.as_str()));
        let params = vec![kind.into(), name.into(), (i64::from(limit) + 1).into()];
        let rows = self.db.scan(LISTING, params).await?;
        let complete = rows.len() <= limit as usize;
        let rows = rows.iter().take(limit as usize).map(listed).collect::<Result<_>>()?;
        Ok(Page { rows, complete })
    }

    /// Those of these records that are or were here.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn access_records_named(&self, records: Vec<RecordName>) -> Result<Vec<ListedRecord>> {
        self.db
            .snapshot(move |tx| {
                let reads = records.iter().map(|record| {
                    (NAMED, vec![Value::from(record.kind.as_str()), Value::from(record.name.as_str())])
                });
                let reads = reads.collect();
                Box::pin(async move { tx.query_each(reads).await?.iter().flatten().map(listed).collect() })
            })
            .await
    }

    /// What a secondary has still to fetch, at most `limit` records of it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn pending_access(&self, limit: u32) -> Result<PendingAccess> {
        const LISTING: &str = "SELECT name FROM access_pending WHERE kind = '*' AND name = ''";
        const RECORDS: &str =
            "SELECT kind, name, last_seq FROM access_pending ORDER BY position_seq LIMIT $1";
        if self.db.query_opt(LISTING, vec![]).await?.is_some() {
            return Ok(PendingAccess { listing: true, records: Vec::new() });
        }
        let rows = self.db.query(RECORDS, vec![limit.into()]).await?;
        let records = rows.iter().map(|row| {
            let record = RecordName { kind: row.text(0)?, name: row.text(1)? };
            Ok(PendingRecord { record, last_seq: row.int(2)? })
        });
        Ok(PendingAccess { listing: false, records: records.collect::<Result<_>>()? })
    }

    /// Takes over records of the primary. One that is here in a later state stays as it is.
    ///
    /// # Errors
    /// [`Error::Refused`] on a site that is no secondary; those of the database.
    pub async fn apply_access(&self, records: Vec<ReplicatedRecord>) -> Result<()> {
        let records: Arc<[ReplicatedRecord]> = records.into();
        self.db
            .write(move |tx| {
                let records = Arc::clone(&records);
                Box::pin(async move { apply(tx, &records).await })
            })
            .await
    }

    /// The listing of all records was gone through to its end.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn finish_access_listing(&self) -> Result<()> {
        const FINISH: &str = "DELETE FROM access_pending WHERE kind = '*' AND name = ''";
        self.db.write(|tx| Box::pin(async move { tx.execute(FINISH, vec![]).await.map(drop) })).await
    }
}

fn listed(row: &Row) -> Result<ListedRecord> {
    Ok(ListedRecord {
        record: RecordName { kind: row.text(0)?, name: row.text(1)? },
        body: row.opt_text(2)?,
        secret: row.opt_blob(3)?.map(RecordSecret),
        changed_at_us: row.int(4)?,
        position_seq: row.opt_int(5)?,
    })
}

/// Remembers, with the cursor, that a record changed and has to be fetched.
pub(crate) async fn note_pending(tx: &mut Tx, logged: &LoggedEvent, event: &Event) -> Result<()> {
    const NOTE: &str = "INSERT INTO access_pending (kind, name, position_seq, last_seq) VALUES ($1, $2, $3, $3) \
         ON CONFLICT (kind, name) DO UPDATE SET last_seq = excluded.last_seq";
    let seq = logged.position.seq;
    let Some(record) = event.record.as_ref().filter(|record| is_sound(record)) else {
        return Err(Error::Refused(format!("event {seq} names no access record")));
    };
    tx.send(NOTE, vec![(&record.kind).into(), (&record.name).into(), seq.into()]).await
}

/// Forgets the records of a site that joins another, all of which its first start made, and asks for those of its primary.
pub(crate) async fn backfill_from(tx: &mut Tx, head_seq: i64) -> Result<()> {
    lock(tx).await?;
    tx.execute("DELETE FROM access_records", vec![]).await?;
    // All of them.
    tx.execute("DELETE FROM refresh_tokens WHERE expires_at_us > $1", vec![i64::MIN.into()]).await?;
    tx.execute(
        "INSERT INTO access_pending (kind, name, position_seq, last_seq) VALUES ($1, '', $2, $2)",
        vec![EVERYTHING.into(), head_seq.into()],
    )
    .await?;
    rise(tx).await
}

/// Whether the name can be a record's, of this version or a later one.
fn is_sound(record: &RecordName) -> bool {
    let RecordName { kind, name } = record;
    !kind.is_empty()
        && kind.len() <= MAX_KIND_BYTES
        && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        && name.len() <= MAX_REPLICATED_NAME_BYTES
        && !name.contains('\0')
}

async fn apply(tx: &mut Tx, records: &[ReplicatedRecord]) -> Result<()> {
    const ROLE: &str = "SELECT role FROM site WHERE id = 1";
    // After what was fetched, the record may have been told of again.
    const DONE: &str = "DELETE FROM access_pending WHERE kind = $1 AND name = $2 AND last_seq <= $3";
    const PARTLY: &str = "UPDATE access_pending SET position_seq = $3 + 1 \
         WHERE kind = $1 AND name = $2 AND position_seq <= $3";
    lock(tx).await?;
    let role = tx.query_opt(ROLE, vec![]).await?.map(|row| row.text(0)).transpose()?;
    if role.as_deref() != Some("secondary") {
        return Err(Error::Refused("this site is no secondary: it takes over nobody's records".to_owned()));
    }
    let mut changed = false;
    for record in records {
        changed |= take_over(tx, record).await?;
        let key =
            || vec![(&record.record.kind).into(), (&record.record.name).into(), record.position.seq.into()];
        tx.send(DONE, key()).await?;
        tx.send(PARTLY, key()).await?;
    }
    if changed {
        rise(tx).await?;
    }
    Ok(())
}

/// Writes one record, unless what is here is as new.
async fn take_over(tx: &mut Tx, new: &ReplicatedRecord) -> Result<bool> {
    const HERE: &str = "SELECT position_seq, secret FROM access_records WHERE kind = $1 AND name = $2";
    let RecordName { kind, name } = &new.record;
    if !is_sound(&new.record) {
        return Err(Error::Refused(format!("the primary names a record that cannot be: {:?}", new.record)));
    }
    let here = tx.query_opt(HERE, vec![kind.into(), name.into()]).await?;
    let (position, secret) = match here {
        Some(row) => (row.opt_int(0)?, row.opt_blob(1)?.map(RecordSecret)),
        None => (None, None),
    };
    if position.is_some_and(|seq| seq >= new.position.seq) {
        return Ok(false);
    }
    let params = vec![
        kind.into(),
        name.into(),
        new.body.clone().into(),
        new.secret.clone().map(|secret| secret.0).into(),
        new.changed_at_us.into(),
        Value::Null,
        new.position.epoch.number.into(),
        new.position.seq.into(),
    ];
    tx.send(PUT, params).await?;
    if kind == RecordKind::Account.as_str() && (secret != new.secret || !is_enabled(new)) {
        // Refresh tokens are each site's own: here as there, they end with the account and with its password.
        refresh_tokens::revoke(tx, name).await?;
    }
    Ok(true)
}

/// Whether the account may sign in; one that cannot be read may not.
fn is_enabled(record: &ReplicatedRecord) -> bool {
    let account = record.body.as_deref().and_then(|body| serde_json::from_str::<Account>(body).ok());
    account.is_some_and(|account| !account.disabled)
}
