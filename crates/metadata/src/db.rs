//! The façade over the two databases: reads, snapshots, and write transactions as closures.
//!
//! **Architecture invariant:** a write closure waits on nothing but its own transaction, and can run twice.

mod dialect;
mod postgres;
mod sqlite;
mod tx;
mod value;

#[cfg(test)]
mod tests;

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc};

use tokio::sync::{Notify, watch};

#[cfg(test)]
pub(crate) use self::dialect::DATABASE_NOW;
pub use self::postgres::{LEAST_OPEN, PoolLimits, PostgresHost, PostgresOptions, PostgresTls, SslMode};
pub(crate) use self::{
    dialect::Dialect,
    postgres::{PostgresDb, Standing},
    sqlite::SqliteDb,
    tx::{Change, Origin, Tx, head_of},
    value::{Row, Value},
};
use crate::{Clock, LogHead, Result, leases::Fence};

/// Where a site's metadata lives.
#[derive(Clone, Debug)]
pub enum Database {
    /// One file, one process.
    Sqlite { path: PathBuf },
    /// One database per site, any number of nodes.
    Postgres(PostgresOptions),
}

/// What a transaction closure returns.
pub(crate) type TxFuture<'t, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 't>>;

/// What follows a commit: who is told that the log moved.
#[derive(Debug)]
pub(crate) struct LogSignals {
    /// The committed, numbered head.
    pub(crate) head: watch::Sender<Option<LogHead>>,
    /// Events are waiting to be numbered (PostgreSQL).
    pub(crate) unnumbered: Notify,
}

/// A handle on the site's database; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Db {
    Sqlite(Arc<SqliteDb>),
    /// With what its writes ask first, where they are one job's.
    Postgres(Arc<PostgresDb>, Option<Arc<Fence>>),
}

impl Db {
    /// Connects. What the database holds is not looked at yet, but for what this node knows of it.
    pub(crate) async fn connect(database: &Database, clock: &Clock) -> Result<Self> {
        let signals = LogSignals { head: watch::Sender::new(None), unnumbered: Notify::new() };
        match database {
            Database::Sqlite { path } => Ok(Self::Sqlite(Arc::new(SqliteDb::open(path, clock, signals)?))),
            Database::Postgres(options) => {
                Ok(Self::Postgres(Arc::new(PostgresDb::connect(options, clock, signals).await?), None))
            }
        }
    }

    /// The same database for whoever must not queue behind clients. SQLite has no queue of readers, and one of writers.
    pub(crate) fn reserved(&self) -> Self {
        match self {
            Self::Sqlite(db) => Self::Sqlite(Arc::clone(db)),
            Self::Postgres(db, fence) => Self::Postgres(Arc::new(db.reserved()), fence.clone()),
        }
    }

    /// The same database, with writes that ask `fence` first. SQLite has one process, which needs none.
    pub(crate) fn fenced(&self, fence: Arc<Fence>) -> Self {
        match self {
            Self::Sqlite(db) => Self::Sqlite(Arc::clone(db)),
            Self::Postgres(db, _) => Self::Postgres(Arc::clone(db), Some(fence)),
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(..) => Dialect::Postgres,
        }
    }

    pub(crate) fn signals(&self) -> &LogSignals {
        match self {
            Self::Sqlite(db) => db.signals(),
            Self::Postgres(db, _) => db.signals(),
        }
    }

    /// What moves with every change of the site's own row, where this process is the only one that changes it.
    pub(crate) fn site_version(&self) -> Option<u64> {
        match self {
            Self::Sqlite(db) => Some(db.site_version()),
            Self::Postgres(..) => None,
        }
    }

    /// A read of a few rows by key, in one statement. On SQLite it runs in place: it takes microseconds.
    pub(crate) async fn query(&self, sql: &'static str, params: Vec<Value>) -> Result<Vec<Row>> {
        match self {
            Self::Sqlite(db) => db.query(sql, &params),
            Self::Postgres(db, _) => db.query(sql, &params).await,
        }
    }

    /// [`Self::query`] for at most one row.
    pub(crate) async fn query_opt(&self, sql: &'static str, params: Vec<Value>) -> Result<Option<Row>> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// A read of many rows, in one statement, off the reactor.
    pub(crate) async fn scan(&self, sql: &'static str, params: Vec<Value>) -> Result<Vec<Row>> {
        match self {
            Self::Sqlite(db) => {
                let db = Arc::clone(db);
                sqlite::blocking(move || db.query(sql, &params)).await
            }
            Self::Postgres(db, _) => db.query(sql, &params).await,
        }
    }

    /// Several reads on one snapshot.
    pub(crate) async fn snapshot<T, F>(&self, reads: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T> + Send + 'static,
    {
        match self {
            Self::Sqlite(db) => {
                let db = Arc::clone(db);
                sqlite::blocking(move || db.snapshot(reads)).await
            }
            Self::Postgres(db, _) => db.snapshot(reads).await,
        }
    }

    /// A durable write: when this returns `Ok`, the closure's transaction is committed and synced.
    pub(crate) async fn write<T, F>(&self, closure: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T> + Send + 'static,
    {
        match self {
            Self::Sqlite(db) => db.write(closure, false).await,
            Self::Postgres(db, fence) => db.write(fence.as_deref(), closure).await,
        }
    }

    /// [`Self::write`] for changes of the site's role: on SQLite it shares its batch with nobody.
    pub(crate) async fn write_alone<T, F>(&self, closure: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T> + Send + 'static,
    {
        match self {
            Self::Sqlite(db) => db.write(closure, true).await,
            Self::Postgres(db, fence) => db.write(fence.as_deref(), closure).await,
        }
    }

    /// Whether the database has a schema of any number.
    pub(crate) async fn has_schema(&self) -> Result<bool> {
        match self {
            Self::Sqlite(db) => Ok(!db.query("PRAGMA table_info(schema_migrations)", &[])?.is_empty()),
            Self::Postgres(db, _) => db.has_table("schema_migrations").await,
        }
    }

    /// A multi-statement script, for tests that prepare a database by hand.
    #[cfg(test)]
    pub(crate) async fn script(&self, sql: &'static str) -> Result<()> {
        self.write_alone(move |tx| Box::pin(tx.script(sql))).await
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(db) => db.close().await,
            Self::Postgres(db, _) => db.close().await,
        }
    }
}
