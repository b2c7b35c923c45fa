//! PostgreSQL: a pool of sessions, and transactions that retry conflicts.

mod session;

use std::{str::FromStr, sync::Arc, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Pool, QueueMode, RecyclingMethod, Runtime};
use rand::Rng;
use tokio_postgres::NoTls;

pub(crate) use self::session::PostgresSession;
use super::{
    LogSignals, TxFuture,
    dialect::{Dialect, Texts},
    tx::{Session, Tx},
    value::{Row, Value},
};
use crate::{Clock, Error, Result, leases::Fence};

/// How often a transaction that lost a conflict (40001, 40P01) is run again.
const CONFLICT_RETRIES: u32 = 10;

/// Where a site's PostgreSQL database is, and how much of it one node may use.
#[derive(Clone)]
pub struct PostgresOptions {
    config: Box<tokio_postgres::Config>,
    /// Connections that one node holds at most.
    pub max_connections: usize,
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration holds the password.
        f.debug_struct("PostgresOptions").field("database", &self.config.get_dbname()).finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// From a `postgres://` URL or a libpq keyword string.
    ///
    /// # Errors
    /// [`Error::Refused`] when it cannot be read; the text does not repeat it, since it may hold a password.
    pub fn parse(text: &str) -> Result<Self> {
        let config = tokio_postgres::Config::from_str(text).map_err(|_| {
            Error::Refused("the database address cannot be read: use postgres://user@host:port/name".into())
        })?;
        Ok(Self { config: Box::new(config), max_connections: 16 })
    }

    /// From the parts of the configuration's `database:` section.
    #[must_use]
    pub fn new(host: &str, port: u16, database: &str, user: &str, password: Option<&str>) -> Self {
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(port).dbname(database).user(user);
        if let Some(password) = password {
            config.password(password);
        }
        Self { config: Box::new(config), max_connections: 16 }
    }

    /// Limits how long a connection attempt may take.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.config.connect_timeout(limit);
        self
    }
}

/// A site's PostgreSQL database.
#[derive(Debug)]
pub(crate) struct PostgresDb {
    pool: Pool,
    texts: Arc<Texts>,
    clock: Clock,
    signals: LogSignals,
}

impl PostgresDb {
    pub(super) async fn connect(
        options: &PostgresOptions,
        clock: &Clock,
        signals: LogSignals,
    ) -> Result<Self> {
        let mut config = tokio_postgres::Config::clone(&options.config);
        // Acknowledged means synced, whatever the server's default; nobody holds a lock for ever, and a node that stands still
        // in a transaction not for so long that its work could not be taken over.
        // Every text is prepared and made for one plan, by index, whatever its parameters and however new a table is
        // (query_plans): planning anew at each use was most of what a statement cost.
        config.options(
            "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off -c synchronous_commit=on -c idle_in_transaction_session_timeout=8s -c lock_timeout=20s \
             -c statement_timeout=120s -c default_transaction_isolation=read\\ committed",
        );
        config.application_name("twinport");
        config.keepalives_idle(Duration::from_secs(15));
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        let manager =
            Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = Pool::builder(manager)
            .max_size(options.max_connections)
            // The session used last has the statements planned and its caches warm; the others rest.
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(Duration::from_secs(15)))
            .create_timeout(Some(Duration::from_secs(10)))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Refused(format!("cannot set up the database pool: {error}")))?;
        let db = Self { pool, texts: Arc::new(Texts::new(Dialect::Postgres)), clock: clock.clone(), signals };
        db.refuse_unfit_server().await?;
        Ok(db)
    }

    /// A server on which an acknowledged write could be lost, or none could be made, is not used.
    async fn refuse_unfit_server(&self) -> Result<()> {
        const FACTS: &str = "SELECT CAST(pg_is_in_recovery() AS TEXT), current_setting('fsync'), \
             CAST(current_setting('server_version_num') AS BIGINT)";
        let rows = self.query(FACTS, &[]).await?;
        let facts = rows.first().ok_or_else(|| Error::Bug("a select without rows".to_owned()))?;
        if facts.text(0)? == "true" {
            return Err(Error::Refused(
                "the PostgreSQL server is a standby: point database.host at its primary server".to_owned(),
            ));
        }
        if facts.text(1)? == "off" {
            return Err(Error::Refused(
                "the PostgreSQL server runs with fsync=off and would lose acknowledged pushes: set fsync=on"
                    .to_owned(),
            ));
        }
        if facts.int(2)? < 150_000 {
            return Err(Error::Refused(format!(
                "the PostgreSQL server is version {}: 15 or later is needed",
                facts.int(2)? / 10_000
            )));
        }
        Ok(())
    }

    pub(crate) fn signals(&self) -> &LogSignals {
        &self.signals
    }

    /// A session of the pool, for statements that only PostgreSQL has (the sequencer).
    pub(crate) async fn session(&self) -> Result<PostgresSession> {
        Ok(PostgresSession::new(self.pool.get().await?))
    }

    pub(super) async fn query(&self, sql: &'static str, params: &[Value]) -> Result<Vec<Row>> {
        self.session().await?.query(&self.texts.of(sql), params).await
    }

    pub(super) async fn snapshot<T, F>(&self, mut reads: F) -> Result<T>
    where
        F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T>,
    {
        let (mut tx, answer) =
            self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", None, &mut reads).await?;
        session_of(&mut tx)?.roll_back().await?;
        answer
    }

    pub(super) async fn write<T, F>(&self, fence: Option<&Fence>, mut closure: F) -> Result<T>
    where
        F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T>,
    {
        let mut conflicts = 0;
        loop {
            match self.attempt(fence, &mut closure).await {
                Err(Error::Conflict(reason)) if conflicts < CONFLICT_RETRIES => {
                    conflicts += 1;
                    tracing::debug!(%reason, conflicts, "transaction conflict, running it again");
                    let jitter = rand::rng().random_range(1..=5 * u64::from(conflicts));
                    tokio::time::sleep(Duration::from_millis(jitter)).await;
                }
                Err(Error::Conflict(reason)) => return Err(Error::Unavailable(reason)),
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
        if tx.appended {
            self.signals.unnumbered.notify_one();
        }
        if let Some(head) = tx.moved_head {
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

    pub(super) fn close(&self) {
        self.pool.close();
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
