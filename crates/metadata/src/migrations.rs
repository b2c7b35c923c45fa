//! Numbered schema changes, checksummed, one text per database.
//!
//! **Architecture invariant:** a migration that has been released is never edited; both databases have the same
//! numbers and, by a test, the same tables and columns.

use sha2::{Digest as _, Sha256};

use crate::{
    Error, Result,
    db::{Db, Dialect, Tx, Value},
};

struct Migration {
    number: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "init",
    sqlite: include_str!("../migrations/sqlite/0001_init.sql"),
    postgres: include_str!("../migrations/postgres/0001_init.sql"),
}];

const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (number BIGINT PRIMARY KEY, name TEXT NOT NULL, \
     checksum TEXT NOT NULL, applied_at_us BIGINT NOT NULL)";

impl Migration {
    fn sql(&self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::Sqlite => self.sqlite,
            Dialect::Postgres => self.postgres,
        }
    }
}

/// The number of the newest migration this binary knows.
pub(crate) fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.number)
}

/// Brings the schema up to this binary's; nodes that start together wait for each other.
///
/// # Errors
/// [`Error::Refused`] for a schema that is newer than this binary, or that was changed by hand.
pub(crate) async fn migrate(db: &Db) -> Result<()> {
    db.write_alone(|tx| Box::pin(apply_missing(tx))).await
}

/// The number of the newest migration that the database holds.
pub(crate) async fn applied(db: &Db) -> Result<i64> {
    let row = db.query_opt("SELECT COALESCE(MAX(number), 0) FROM schema_migrations", vec![]).await?;
    row.map_or(Ok(0), |row| row.int(0))
}

async fn apply_missing(tx: &mut Tx) -> Result<()> {
    tx.lock_role().await?;
    tx.script(TABLE).await?;
    let applied = tx.query("SELECT number, checksum FROM schema_migrations ORDER BY number", vec![]).await?;
    for row in &applied {
        let number = row.int(0)?;
        let Some(known) = MIGRATIONS.iter().find(|migration| migration.number == number) else {
            return Err(Error::Refused(format!(
                "the database has schema {number}, this binary knows up to {}: start a newer twinport",
                newest()
            )));
        };
        if row.text(1)? != checksum(known.sql(tx.dialect())) {
            return Err(Error::Refused(format!(
                "schema change {number} ({}) of this database is not the one this binary knows: \
                 it was made by another build, restore the matching one",
                known.name
            )));
        }
    }
    for migration in MIGRATIONS.iter().skip(applied.len()) {
        let sql = migration.sql(tx.dialect());
        tx.script(sql).await?;
        let now = tx.now_us();
        let record: Vec<Value> =
            vec![migration.number.into(), migration.name.into(), checksum(sql).into(), now.into()];
        tx.execute(
            "INSERT INTO schema_migrations (number, name, checksum, applied_at_us) VALUES ($1, $2, $3, $4)",
            record,
        )
        .await?;
        tracing::info!(number = migration.number, name = migration.name, "schema migrated");
    }
    Ok(())
}

fn checksum(sql: &str) -> String {
    hex::encode(Sha256::digest(sql))
}
