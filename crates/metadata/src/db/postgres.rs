//! PostgreSQL: a pool of sessions, and transactions that retry conflicts.

mod continuity;
mod dial;
mod options;
mod pool;
mod server;
mod session;
mod tls;

use std::{sync::Arc, time::Duration};

use rand::Rng;

pub use self::options::{LEAST_OPEN, PoolLimits, PostgresHost, PostgresOptions, PostgresTls, SslMode};
use self::pool::SharedPool;
pub(crate) use self::{
    continuity::{Continuity, Standing, fingerprint},
    session::PostgresSession,
};
use super::{
    LogSignals, TxFuture,
    dialect::{Dialect, Texts},
    tx::{Session, Tx},
    value::{Row, Value},
};
use crate::{Clock, Error, Result, leases::Fence};

/// How often what lost a conflict (40001, 40P01) is run again.
const CONFLICT_RETRIES: u32 = 10;

/// The conflicts that one transaction, or one read, has lost.
#[derive(Debug, Default)]
struct Conflicts {
    lost: u32,
}

impl Conflicts {
    /// Waits a little before what lost is run again.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the last reason, once it lost too often.
    async fn pause(&mut self, reason: String) -> Result<()> {
        if self.lost == CONFLICT_RETRIES {
            return Err(Error::Unavailable(reason));
        }
        self.lost += 1;
        tracing::debug!(%reason, lost = self.lost, "conflict, running it again");
        let jitter = rand::rng().random_range(1..=5 * u64::from(self.lost));
        tokio::time::sleep(Duration::from_millis(jitter)).await;
        Ok(())
    }
}

/// A site's PostgreSQL database, as clients use it or as replication does.
#[derive(Debug)]
pub(crate) struct PostgresDb {
    pool: SharedPool,
    texts: Arc<Texts>,
    clock: Clock,
    signals: Arc<LogSignals>,
    continuity: Arc<Continuity>,
}

impl PostgresDb {
    pub(super) async fn connect(
        options: &PostgresOptions,
        clock: &Clock,
        signals: LogSignals,
    ) -> Result<Self> {
        let continuity = Arc::new(Continuity::open(options.seen.clone()).await?);
        let db = Self {
            pool: SharedPool::new(options, &continuity)?,
            texts: Arc::new(Texts::new(Dialect::Postgres)),
            clock: clock.clone(),
            signals: Arc::new(signals),
            continuity,
        };
        db.pool.first_session().await?;
        Ok(db)
    }

    /// The same database over connections that clients leave alone.
    pub(crate) fn reserved(&self) -> Self {
        Self {
            pool: self.pool.reserved(),
            texts: Arc::clone(&self.texts),
            clock: self.clock.clone(),
            signals: Arc::clone(&self.signals),
            continuity: Arc::clone(&self.continuity),
        }
    }

    /// What this node knows of the log.
    pub(crate) fn continuity(&self) -> &Continuity {
        &self.continuity
    }

    pub(crate) fn signals(&self) -> &LogSignals {
        &self.signals
    }

    /// A session of the pool, for statements that only PostgreSQL has (the sequencer).
    pub(crate) async fn session(&self) -> Result<PostgresSession> {
        self.pool.session().await
    }

    /// A read on its own. It too can lose a conflict: a schema change beside it wants the tables in another order.
    pub(super) async fn query(&self, sql: &'static str, params: &[Value]) -> Result<Vec<Row>> {
        let mut conflicts = Conflicts::default();
        loop {
            match self.session().await?.query(&self.texts.of(sql), params).await {
                Err(Error::Conflict(reason)) => conflicts.pause(reason).await?,
                answer => return answer,
            }
        }
    }

    pub(super) async fn has_table(&self, name: &str) -> Result<bool> {
        let rows = self.query("SELECT to_regclass($1) IS NOT NULL", &[name.into()]).await?;
        Ok(rows.first().map(|row| row.int(0)).transpose()? == Some(1))
    }

    pub(super) async fn snapshot<T, F>(&self, mut reads: F) -> Result<T>
    where
        F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T>,
    {
        let mut conflicts = Conflicts::default();
        loop {
            let (mut tx, answer) =
                self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", None, &mut reads).await?;
            session_of(&mut tx)?.roll_back().await?;
            match answer {
                Err(Error::Conflict(reason)) => conflicts.pause(reason).await?,
                answer => return answer,
            }
        }
    }

    pub(super) async fn write<T, F>(&self, fence: Option<&Fence>, mut closure: F) -> Result<T>
    where
        F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T>,
    {
        let mut conflicts = Conflicts::default();
        loop {
            match self.attempt(fence, &mut closure).await {
                Err(Error::Conflict(reason)) => conflicts.pause(reason).await?,
                answer => return answer,
            }
        }
    }

    async fn attempt<T, F>(&self, fence: Option<&Fence>, closure: &mut F) -> Result<T>
    where
        F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T>,
    {
        let (mut tx, answer) = self.run("BEGIN", fence, closure).await?;
        let committed = match answer {
            Ok(answer) => session_of(&mut tx)?.commit().await.map(|()| answer),
            Err(error) => Err(error),
        };
        if committed.is_err() {
            // A broken connection cannot roll back; dropping the session closes it, which does.
            let _ = session_of(&mut tx)?.roll_back().await;
            return committed;
        }
        if !tx.appended.is_empty() {
            self.continuity.acknowledge(&tx.appended);
            self.signals.unnumbered.notify_one();
        }
        if let Some(head) = tx.moved_head {
            self.continuity.moved(head);
            self.signals.head.send_replace(Some(head));
        }
        committed
    }

    /// Runs the closure in a transaction and leaves that open. A connection that died in the pool shows itself
    /// before anything was done: one more is tried.
    async fn run<T, F>(
        &self,
        begin: &'static str,
        fence: Option<&Fence>,
        closure: &mut F,
    ) -> Result<(Tx, Result<T>)>
    where
        F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T>,
    {
        let mut tx = self.begin(begin).await?;
        let mut answer = guarded(&mut tx, fence, closure).await;
        if matches!(answer, Err(Error::Unavailable(_))) && session_of(&mut tx)?.is_unanswered() {
            tx = self.begin(begin).await?;
            answer = guarded(&mut tx, fence, closure).await;
        }
        Ok((tx, answer))
    }

    async fn begin(&self, statement: &'static str) -> Result<Tx> {
        let mut session = self.session().await?;
        session.begin(statement);
        Ok(Tx::new(Session::Postgres(session), Arc::clone(&self.texts), self.clock.clone()))
    }

    pub(super) async fn close(&self) {
        self.continuity.save().await;
        self.pool.close().await;
    }
}

async fn guarded<T, F>(tx: &mut Tx, fence: Option<&Fence>, closure: &mut F) -> Result<T>
where
    F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T>,
{
    if let Some(fence) = fence {
        fence.check(tx).await?;
    }
    closure(tx).await
}

fn session_of(tx: &mut Tx) -> Result<&mut PostgresSession> {
    match &mut tx.session {
        Session::Postgres(session) => Ok(session),
        Session::Sqlite(_) => Err(Error::Bug("PostgreSQL was given a SQLite session".to_owned())),
    }
}
