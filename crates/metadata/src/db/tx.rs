//! A transaction: statements, the right to originate events, and appending them.

use rusqlite::Connection;

use super::{
    dialect::{Dialect, Texts},
    postgres::{PostgresSession, fingerprint},
    value::{Row, Value, from_sqlite},
};
use crate::{Clock, Epoch, Error, Event, EventKind, Incarnation, LogHead, LogPosition, Result, event::chain};
use std::sync::Arc;

/// PostgreSQL's advisory lock that role changes take exclusively and originating transactions share.
pub(crate) const ROLE_LOCK: i64 = 0x7477_696e_0001;
/// The class of the advisory locks on names that have no row to lock yet.
const NAME_LOCK_CLASS: i64 = 1;

/// One open transaction, or on SQLite one savepoint of the writer's batch.
#[derive(Debug)]
pub(crate) struct Tx {
    pub(super) session: Session,
    pub(super) texts: Arc<Texts>,
    clock: Clock,
    /// Events of this transaction that are not numbered before it commits (PostgreSQL).
    pub(super) appended: Vec<Appended>,
    /// This transaction moved the head of the log.
    pub(super) moved_head: Option<LogHead>,
    /// On SQLite, whose batches move it with every event: its row is not written yet. It is before any statement that names
    /// it, and before the commit.
    pub(super) head_unwritten: bool,
    /// On SQLite, where nobody else writes: that this site may originate events, as this transaction found.
    pub(super) originator: Option<Originator>,
    /// This transaction changed the site's own row.
    pub(super) changed_site: bool,
}

/// An event that a transaction appended: its local id, and what tells it from another of that id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) id: i64,
    pub(crate) fingerprint: u64,
}

#[derive(Debug)]
pub(super) enum Session {
    Sqlite(Connection),
    Postgres(PostgresSession),
}

/// The proof that this site may write in this epoch, and what its events carry.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    site: String,
    at_us: i64,
}

impl Origin {
    /// An event of `kind` by this site, at this transaction's time.
    pub(crate) fn event(&self, kind: EventKind) -> Event {
        Event::new(kind, self.site.clone(), self.at_us)
    }
}

/// A site that may originate events: its name, and the epoch of the log that it owns.
#[derive(Clone, Debug)]
pub(super) struct Originator {
    site: String,
    epoch: Epoch,
}

/// The event that a row's change belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// The local id of the event.
    pub(crate) event_id: i64,
    /// Known at once on SQLite and for ingested events; on PostgreSQL the stamper sets it.
    pub(crate) position: Option<LogPosition>,
}

impl Change {
    /// The values of `change`, `position_epoch`, `position_seq`.
    pub(crate) fn columns(&self) -> [Value; 3] {
        [
            self.event_id.into(),
            self.position.map(|position| position.epoch.number).into(),
            self.position.map(|position| position.seq).into(),
        ]
    }
}

impl Tx {
    pub(super) fn new(session: Session, texts: Arc<Texts>, clock: Clock) -> Self {
        Self {
            session,
            texts,
            clock,
            appended: Vec::new(),
            moved_head: None,
            head_unwritten: false,
            originator: None,
            changed_site: false,
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self.session {
            Session::Sqlite(_) => Dialect::Sqlite,
            Session::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Microseconds since the epoch, by the injected clock.
    pub(crate) fn now_us(&self) -> i64 {
        self.clock.now_us()
    }

    /// The parameter of a `{now $N}` fragment.
    pub(crate) fn lease_clock(&self) -> Value {
        self.dialect().lease_clock(&self.clock)
    }

    /// Runs a statement; how many rows it changed.
    pub(crate) async fn execute(&mut self, sql: &'static str, params: Vec<Value>) -> Result<u64> {
        self.note_change_of_site(sql);
        let text = self.text(sql)?;
        match &mut self.session {
            Session::Sqlite(connection) => {
                let changed =
                    connection.prepare_cached(&text)?.execute(rusqlite::params_from_iter(params.iter()))?;
                Ok(changed as u64)
            }
            Session::Postgres(session) => session.execute(&text, &params).await,
        }
    }

    /// Inserts a row by a text that ends in `{returning …}`; the id that the database gave it. SQLite would make a table of what
    /// it returns, for each statement, and knows the id without.
    pub(crate) async fn insert(&mut self, sql: &'static str, params: Vec<Value>) -> Result<i64> {
        if self.dialect() == Dialect::Postgres {
            return self.query_opt(sql, params).await?.ok_or_else(no_id)?.int(0);
        }
        self.execute(sql, params).await?;
        match &self.session {
            Session::Sqlite(connection) => Ok(connection.last_insert_rowid()),
            Session::Postgres(_) => Err(no_id()),
        }
    }

    /// Runs a statement whose answer nobody needs. On PostgreSQL its error may come with a later statement, or with
    /// the commit: the transaction fails either way.
    pub(crate) async fn send(&mut self, sql: &'static str, params: Vec<Value>) -> Result<()> {
        self.send_each(sql, vec![params]).await
    }

    /// [`Self::send`] for each set of parameters.
    pub(crate) async fn send_each(&mut self, sql: &'static str, sets: Vec<Vec<Value>>) -> Result<()> {
        self.note_change_of_site(sql);
        let text = self.text(sql)?;
        match &mut self.session {
            Session::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(&text)?;
                for params in &sets {
                    statement.execute(rusqlite::params_from_iter(params.iter()))?;
                }
            }
            Session::Postgres(session) => {
                for params in sets {
                    session.send(Arc::clone(&text), params).await?;
                }
            }
        }
        Ok(())
    }

    /// Reads rows.
    pub(crate) async fn query(&mut self, sql: &'static str, params: Vec<Value>) -> Result<Vec<Row>> {
        let text = self.text(sql)?;
        match &mut self.session {
            Session::Sqlite(connection) => query_sqlite(connection, &text, &params),
            Session::Postgres(session) => session.query(&text, &params).await,
        }
    }

    /// Several reads in this order; on PostgreSQL without waiting in between.
    pub(crate) async fn query_each(
        &mut self,
        reads: Vec<(&'static str, Vec<Value>)>,
    ) -> Result<Vec<Vec<Row>>> {
        let reads = reads
            .into_iter()
            .map(|(sql, params)| Ok((self.text(sql)?, params)))
            .collect::<Result<Vec<_>>>()?;
        match &mut self.session {
            Session::Sqlite(connection) => {
                reads.iter().map(|(text, params)| query_sqlite(connection, text, params)).collect()
            }
            Session::Postgres(session) => session.query_each(&reads).await,
        }
    }

    /// Reads at most one row.
    pub(crate) async fn query_opt(&mut self, sql: &'static str, params: Vec<Value>) -> Result<Option<Row>> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Runs a script of several statements without parameters.
    pub(crate) async fn script(&mut self, sql: &'static str) -> Result<()> {
        // It may do anything.
        self.forget_originator();
        self.write_head()?;
        match &mut self.session {
            Session::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Session::Postgres(session) => session.script(sql).await,
        }
    }

    /// A statement as this database has it, which finds the head of the log where this transaction moved it.
    fn text(&mut self, sql: &'static str) -> Result<Arc<str>> {
        let known = self.texts.known(sql);
        if known.names_head {
            self.write_head()?;
        }
        Ok(known.text)
    }

    /// The head of the log is again where it was before a closure failed; whether its row says so is not known.
    pub(super) fn restore_head(&mut self, head: Option<LogHead>) {
        self.moved_head = head;
        self.head_unwritten = head.is_some();
    }

    /// Writes where the head of the log has moved to, if that is owed.
    pub(super) fn write_head(&mut self) -> Result<()> {
        let (true, Some(head), Session::Sqlite(connection)) =
            (self.head_unwritten, self.moved_head, &self.session)
        else {
            return Ok(());
        };
        let mut statement = connection.prepare_cached(&self.texts.of(MOVE_HEAD))?;
        statement.execute(rusqlite::params_from_iter(head_row(&head).iter()))?;
        self.head_unwritten = false;
        Ok(())
    }

    /// What was found out about this site may hold no longer.
    fn forget_originator(&mut self) {
        self.originator = None;
        self.changed_site = true;
    }

    fn note_change_of_site(&mut self, sql: &str) {
        let table = match sql.split_once(' ') {
            Some(("UPDATE", rest)) => rest,
            Some(("INSERT", rest)) => rest.strip_prefix("INTO ").unwrap_or(rest),
            _ => return,
        };
        if table.starts_with("site ") {
            self.forget_originator();
        }
    }

    /// The right to originate an event: the site is primary, not halted, and knows no higher epoch than its own.
    /// First in every transaction that changes logged state; a role change waits for this transaction to end.
    ///
    /// # Errors
    /// [`Error::NotPrimary`] names the primary; [`Error::Halted`] says why writes stopped, [`Error::Maintenance`] why they rest.
    pub(crate) async fn guard_origin(&mut self) -> Result<Origin> {
        Ok(self.guard_origin_and(vec![]).await?.0)
    }

    /// [`Self::guard_origin`], and the first reads of the transaction, which take their locks after it.
    pub(crate) async fn guard_origin_and(
        &mut self,
        reads: Vec<(&'static str, Vec<Value>)>,
    ) -> Result<(Origin, Vec<Vec<Row>>)> {
        const SITE: &str = "SELECT s.role, s.name, s.halted, s.primary_name, s.primary_url, s.highest_epoch, \
             s.highest_epoch_owner, h.epoch, h.owner, s.maintenance FROM site s, log_head h WHERE s.id = 1 AND h.id = 1";
        if let Some(originator) = &self.originator {
            let origin = Origin { site: originator.site.clone(), at_us: self.now_us() };
            return Ok((origin, self.query_each(reads).await?));
        }
        self.share_role().await?;
        // The lock is held before the row is read: PostgreSQL gives each statement a snapshot of its own.
        let mut answers = self.query_each([vec![(SITE, vec![])], reads].concat()).await?;
        let rest = answers.split_off(1);
        let row = answers
            .into_iter()
            .flatten()
            .next()
            .ok_or_else(|| Error::Corrupt("the site has no identity row".to_owned()))?;
        if row.text(0)? != "primary" {
            return Err(Error::NotPrimary { primary_name: row.opt_text(3)?, primary_url: row.opt_text(4)? });
        }
        if let Some(reason) = row.opt_text(2)? {
            return Err(Error::Halted(reason));
        }
        if let Some(reason) = row.opt_text(9)? {
            return Err(Error::Maintenance(reason));
        }
        let highest = Epoch { number: row.int(5)?, owner: Incarnation(row.uuid(6)?) };
        let own = Epoch { number: row.int(7)?, owner: Incarnation(row.uuid(8)?) };
        if highest != own {
            return Err(Error::Halted(format!(
                "epoch {} of {} has been seen, and this site's is {} of {}",
                highest.number, highest.owner, own.number, own.owner
            )));
        }
        let site = row.opt_text(1)?.unwrap_or_default();
        if self.dialect() == Dialect::Sqlite {
            self.originator = Some(Originator { site: site.clone(), epoch: own });
        }
        Ok((Origin { site, at_us: self.now_us() }, rest))
    }

    /// Commits without waiting for the disk: for what is said again in a moment.
    pub(crate) async fn commit_lazily(&mut self) -> Result<()> {
        if self.dialect() == Dialect::Postgres {
            self.send("SET LOCAL synchronous_commit = off", vec![]).await?;
        }
        Ok(())
    }

    /// Is waited for by [`Self::lock_role`], as a transaction that originates events is.
    pub(crate) async fn share_role(&mut self) -> Result<()> {
        if self.dialect() == Dialect::Postgres {
            self.send("SELECT pg_advisory_xact_lock_shared($1)", vec![ROLE_LOCK.into()]).await?;
        }
        Ok(())
    }

    /// Excludes every transaction that originates events, until this one ends. SQLite: the writer is alone already.
    pub(crate) async fn lock_role(&mut self) -> Result<()> {
        if self.dialect() == Dialect::Postgres {
            self.send("SELECT pg_advisory_xact_lock($1)", vec![ROLE_LOCK.into()]).await?;
        }
        Ok(())
    }

    /// Excludes other transactions that lock the same name, until this one ends: for rows that may not exist yet.
    pub(crate) async fn lock_name(&mut self, name: &str) -> Result<()> {
        if self.dialect() == Dialect::Postgres {
            self.send(
                "SELECT pg_advisory_xact_lock(CAST($1 AS INT), hashtext($2))",
                vec![NAME_LOCK_CLASS.into(), name.into()],
            )
            .await?;
        }
        Ok(())
    }

    /// Appends an event to the log. Every row lock of the change is held already: the id is taken here,
    /// and the order of ids has to agree with the order of conflicting changes.
    pub(crate) async fn append(&mut self, event: &Event) -> Result<Change> {
        let change = self.append_each(std::slice::from_ref(event)).await?.pop();
        change.ok_or_else(no_id)
    }

    /// [`Self::append`] for several events, in this order.
    pub(crate) async fn append_each(&mut self, events: &[Event]) -> Result<Vec<Change>> {
        const INSERT: &str = "INSERT INTO events (repository, body) VALUES ($1, $2) RETURNING event_id";
        match self.dialect() {
            Dialect::Postgres => {
                let mut inserts = Vec::with_capacity(events.len());
                let mut fingerprints = Vec::with_capacity(events.len());
                for event in events {
                    let body = event.encode()?;
                    fingerprints.push(fingerprint(&body));
                    inserts.push((INSERT, vec![event.repository.into(), body.into()]));
                }
                let answers = self.query_each(inserts).await?;
                let mut changes = Vec::with_capacity(events.len());
                for (rows, fingerprint) in answers.iter().zip(fingerprints) {
                    let id = rows.first().ok_or_else(no_id)?.int(0)?;
                    self.appended.push(Appended { id, fingerprint });
                    changes.push(Change { event_id: id, position: None });
                }
                Ok(changes)
            }
            Dialect::Sqlite => {
                let mut head = self.log_head().await?;
                let mut changes = Vec::with_capacity(events.len());
                for event in events {
                    let body = event.encode()?;
                    let position = LogPosition { epoch: head.position.epoch, seq: head.position.seq + 1 };
                    head = LogHead { position, hash: chain(&head.hash, &position, &body) };
                    changes
                        .push(self.store_event(event.repository.into(), &body, position, head.hash).await?);
                }
                self.set_head(&head).await?;
                Ok(changes)
            }
        }
    }

    /// Stores an event at a position it already has.
    pub(crate) async fn store_event(
        &mut self,
        repository: Value,
        body: &bytes::Bytes,
        position: LogPosition,
        hash: [u8; 32],
    ) -> Result<Change> {
        let event_id = self
            .insert(
                "INSERT INTO events (epoch, owner, seq, hash, repository, body) VALUES ($1, $2, $3, $4, $5, $6) \
                 {returning event_id}",
                vec![
                    position.epoch.number.into(),
                    position.epoch.owner.into(),
                    position.seq.into(),
                    hash.into(),
                    repository,
                    body.into(),
                ],
            )
            .await?;
        Ok(Change { event_id, position: Some(position) })
    }

    /// The head of the log, as this transaction sees it; on a secondary, the cursor.
    pub(crate) async fn log_head(&mut self) -> Result<LogHead> {
        // On SQLite, of a batch: its earlier closures moved it, and nobody else writes.
        if let (Dialect::Sqlite, Some(moved)) = (self.dialect(), self.moved_head) {
            return Ok(moved);
        }
        let row = self
            .query_opt("SELECT epoch, owner, seq, hash FROM log_head WHERE id = 1", vec![])
            .await?
            .ok_or_else(|| Error::Corrupt("the log has no head row".to_owned()))?;
        head_of(&row)
    }

    /// Moves the head of the log; readers are told after the commit.
    pub(crate) async fn set_head(&mut self, head: &LogHead) -> Result<()> {
        self.originator = self.originator.take().filter(|found| found.epoch == head.position.epoch);
        if self.dialect() == Dialect::Postgres {
            self.send(MOVE_HEAD, head_row(head).into()).await?;
        }
        self.head_unwritten = self.dialect() == Dialect::Sqlite;
        self.moved_head = Some(*head);
        Ok(())
    }
}

const MOVE_HEAD: &str = "UPDATE log_head SET epoch = $1, owner = $2, seq = $3, hash = $4 WHERE id = 1";

fn head_row(head: &LogHead) -> [Value; 4] {
    [
        head.position.epoch.number.into(),
        head.position.epoch.owner.into(),
        head.position.seq.into(),
        head.hash.into(),
    ]
}

fn no_id() -> Error {
    Error::Bug("an insert returned no id".to_owned())
}

/// A head from the columns `epoch, owner, seq, hash`.
pub(crate) fn head_of(row: &Row) -> Result<LogHead> {
    Ok(LogHead {
        position: LogPosition {
            epoch: Epoch { number: row.int(0)?, owner: Incarnation(row.uuid(1)?) },
            seq: row.int(2)?,
        },
        hash: row.hash(3)?,
    })
}

pub(super) fn query_sqlite(connection: &Connection, text: &str, params: &[Value]) -> Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(text)?;
    let columns = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(params.iter()))?;
    let mut answer = Vec::new();
    while let Some(row) = rows.next()? {
        let values =
            (0..columns).map(|index| from_sqlite(row.get_ref(index)?)).collect::<Result<Vec<_>>>()?;
        answer.push(Row(values));
    }
    Ok(answer)
}
