//! How an access record is written: the right to write, the lock that orders all such changes, rows, events, the generation.
//! Invariant: the lock is taken before anything is read that the change depends on, and the event's id after it.

use serde::Serialize;

use super::{AccessRecord, MAX_NAME_BYTES, RecordKind, RecordName, RecordSecret, find, no_generation};
use crate::{
    Actor, Error, EventKind, Metadata, Result,
    db::{Origin, Tx, TxFuture, Value},
};

const LOCK: &str = "SELECT value FROM access_generation WHERE id = 1 {for update}";
const RISE: &str = "UPDATE access_generation SET value = value + 1 WHERE id = 1";
pub(super) const PUT: &str = "INSERT INTO access_records \
     (kind, name, body, secret, changed_at_us, change, position_epoch, position_seq) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
     ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body, secret = excluded.secret, \
     changed_at_us = excluded.changed_at_us, change = excluded.change, \
     position_epoch = excluded.position_epoch, position_seq = excluded.position_seq";

/// What a record is to be from here on.
#[derive(Clone, Debug)]
pub(super) struct Write {
    kind: RecordKind,
    name: String,
    /// None deletes it.
    content: Option<(String, Option<RecordSecret>)>,
}

impl Write {
    pub(super) fn put(
        kind: RecordKind,
        name: &str,
        value: &impl Serialize,
        secret: Option<RecordSecret>,
    ) -> Result<Self> {
        if name.len() > MAX_NAME_BYTES {
            return Err(Error::Refused(format!(
                "the name of the {} is {} bytes long: at most {MAX_NAME_BYTES} are kept",
                kind.as_str(),
                name.len()
            )));
        }
        let body = serde_json::to_string(value).map_err(|error| Error::Bug(error.to_string()))?;
        Ok(Self { kind, name: name.to_owned(), content: Some((body, secret)) })
    }

    pub(super) fn delete(kind: RecordKind, name: &str) -> Self {
        Self { kind, name: name.to_owned(), content: None }
    }

    /// Whether the record is that already.
    fn is_met_by(&self, record: Option<&AccessRecord>) -> bool {
        match (&self.content, record) {
            (Some((body, secret)), Some(record)) => *body == record.body && *secret == record.secret,
            (None, None) => true,
            _ => false,
        }
    }
}

/// A change under way: nobody else changes a record until the transaction ends.
#[derive(Debug)]
pub(super) struct Changing {
    origin: Origin,
    actor: Actor,
}

impl Metadata {
    /// Changes records in one transaction, alone among all that do.
    pub(super) async fn change_access<T, F>(&self, actor: &Actor, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx, Changing) -> TxFuture<'t, T> + Send + Sync + Clone + 'static,
    {
        let actor = actor.clone();
        self.db
            .write(move |tx| {
                let (actor, change) = (actor.clone(), change.clone());
                Box::pin(async move {
                    let changing = Changing::begin(tx, actor).await?;
                    change(tx, changing).await
                })
            })
            .await
    }
}

impl Changing {
    pub(super) async fn begin(tx: &mut Tx, actor: Actor) -> Result<Self> {
        let (origin, locked) = tx.guard_origin_and(vec![(LOCK, vec![])]).await?;
        locked.iter().flatten().next().ok_or_else(no_generation)?;
        Ok(Self { origin, actor })
    }

    /// For a transaction that has the right to write already, and further locks to take.
    pub(super) async fn within(tx: &mut Tx, origin: Origin, actor: Actor) -> Result<Self> {
        lock(tx).await?;
        Ok(Self { origin, actor })
    }

    /// Writes records, each with its event. What is as it should be already is left alone; how many were not.
    pub(super) async fn write(&self, tx: &mut Tx, writes: Vec<Write>) -> Result<usize> {
        let mut due = Vec::with_capacity(writes.len());
        for write in writes {
            if !write.is_met_by(find(tx, write.kind, &write.name).await?.as_ref()) {
                due.push(write);
            }
        }
        if due.is_empty() {
            return Ok(0);
        }
        let events: Vec<_> = due
            .iter()
            .map(|write| {
                let mut event = self.origin.event(EventKind::AccessChanged);
                event.record = Some(RecordName::new(write.kind, &write.name));
                event.actor = Some(self.actor.name.clone());
                event.correlation.clone_from(&self.actor.correlation);
                event
            })
            .collect();
        let changes = tx.append_each(&events).await?;
        let now = tx.now_us();
        let written = due.len();
        let rows = due.into_iter().zip(&changes).map(|(write, change)| {
            let (body, secret) = write.content.unzip();
            let secret: Option<RecordSecret> = secret.flatten();
            let mut params: Vec<Value> = vec![
                write.kind.as_str().into(),
                write.name.into(),
                body.into(),
                secret.map(|secret| secret.0).into(),
                now.into(),
            ];
            params.extend(change.columns());
            params
        });
        tx.send_each(PUT, rows.collect()).await?;
        rise(tx).await?;
        Ok(written)
    }
}

/// Excludes every other change of access records until the transaction ends.
pub(super) async fn lock(tx: &mut Tx) -> Result<()> {
    tx.query_opt(LOCK, vec![]).await?.map(drop).ok_or_else(no_generation)
}

/// Says that records changed; the lock is held.
pub(super) async fn rise(tx: &mut Tx) -> Result<()> {
    tx.send(RISE, vec![]).await
}
