//! Reading the event log by position.
//! Guards: events come in the order of their seq, and none that a reader could miss is skipped over.

use bytes::Bytes;

use crate::{Epoch, Incarnation, LogPosition, LoggedEvent, Metadata, Result, db::Row};

/// Up to this many rows are read in place; more go off the reactor.
const SHORT_READ: u32 = 100;

impl Metadata {
    /// At most `limit` events after `seq`, in order, as they are stored.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<LoggedEvent>> {
        const AFTER: &str =
            "SELECT epoch, owner, seq, hash, body FROM events WHERE seq > $1 ORDER BY seq LIMIT $2";
        let params = vec![seq.into(), limit.into()];
        let rows = if limit <= SHORT_READ {
            self.db.query(AFTER, params).await?
        } else {
            self.db.scan(AFTER, params).await?
        };
        rows.iter().map(event).collect()
    }

    /// The event at `seq`; `None` where none was numbered so, or where it is trimmed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn event_at(&self, seq: i64) -> Result<Option<LoggedEvent>> {
        const AT: &str = "SELECT epoch, owner, seq, hash, body FROM events WHERE seq = $1";
        self.db.query_opt(AT, vec![seq.into()]).await?.as_ref().map(event).transpose()
    }
}

pub(crate) fn event(row: &Row) -> Result<LoggedEvent> {
    let epoch = Epoch { number: row.int(0)?, owner: Incarnation(row.uuid(1)?) };
    let body: Bytes = row.blob(4)?;
    Ok(LoggedEvent { position: LogPosition { epoch, seq: row.int(2)? }, hash: row.hash(3)?, body })
}
