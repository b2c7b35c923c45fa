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

const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "init",
        sqlite: include_str!("../migrations/sqlite/0001_init.sql"),
        postgres: include_str!("../migrations/postgres/0001_init.sql"),
    },
    Migration {
        number: 2,
        name: "keyed tables",
        sqlite: include_str!("../migrations/sqlite/0002_keyed_tables.sql"),
        postgres: include_str!("../migrations/postgres/0002_keyed_tables.sql"),
    },
    Migration {
        number: 3,
        name: "access records",
        sqlite: include_str!("../migrations/sqlite/0003_access_records.sql"),
        postgres: include_str!("../migrations/postgres/0003_access_records.sql"),
    },
    Migration {
        number: 4,
        name: "usage and retention",
        sqlite: include_str!("../migrations/sqlite/0004_usage_and_retention.sql"),
        postgres: include_str!("../migrations/postgres/0004_usage_and_retention.sql"),
    },
    Migration {
        number: 5,
        name: "maintenance",
        sqlite: include_str!("../migrations/sqlite/0005_maintenance.sql"),
        postgres: include_str!("../migrations/postgres/0005_maintenance.sql"),
    },
    Migration {
        number: 6,
        name: "nodes and leases",
        sqlite: include_str!("../migrations/sqlite/0006_nodes_and_leases.sql"),
        postgres: include_str!("../migrations/postgres/0006_nodes_and_leases.sql"),
    },
];

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
    db.write_alone(|tx| Box::pin(apply_missing(tx, MIGRATIONS))).await
}

/// The number of the newest migration that the database holds.
pub(crate) async fn applied(db: &Db) -> Result<i64> {
    let row = db.query_opt("SELECT COALESCE(MAX(number), 0) FROM schema_migrations", vec![]).await?;
    row.map_or(Ok(0), |row| row.int(0))
}

async fn apply_missing(tx: &mut Tx, known: &'static [Migration]) -> Result<()> {
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
    for migration in known.iter().skip(applied.len()) {
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

#[cfg(test)]
mod tests {
    use super::{MIGRATIONS, apply_missing, migrate};
    use crate::{
        Clock,
        db::{Database, Db},
    };

    #[tokio::test]
    async fn rows_of_every_rebuilt_table_are_the_same_afterwards() {
        const ROWS: &str = "INSERT INTO blob_links VALUES (1, x'01', 2, 3, 4, 5), (1, x'02', 3, NULL, NULL, NULL); \
             INSERT INTO manifest_references VALUES (1, x'03', x'01', 'blob'), (1, x'03', x'04', 'manifest'); \
             INSERT INTO blobs VALUES (x'01', 10, 'live', NULL, 6, 7, NULL), (x'02', 20, 'condemned', 'x', 8, NULL, 9)";
        const READS: [&str; 3] = [
            "SELECT json_group_array(json_array(repository_id, hex(digest), linked_at_us, change, position_epoch, \
             position_seq)) FROM blob_links",
            "SELECT json_group_array(json_array(repository_id, hex(manifest), hex(child), kind)) FROM manifest_references",
            "SELECT json_group_array(json_array(hex(digest), size, state, location, stored_at_us, verified_at_us, \
             condemned_at_us)) FROM blobs",
        ];
        let folder = tempfile::tempdir().unwrap();
        let database = Database::Sqlite { path: folder.path().join("metadata.db") };
        let db = Db::connect(&database, &Clock::System).await.unwrap();
        let read = async || {
            let mut texts = Vec::new();
            for sql in READS {
                texts.push(db.query(sql, vec![]).await.unwrap()[0].text(0).unwrap());
            }
            texts
        };
        db.write_alone(|tx| Box::pin(apply_missing(tx, &MIGRATIONS[..1]))).await.unwrap();
        db.script(ROWS).await.unwrap();
        let before = read().await;
        assert!(before.iter().all(|rows| rows.matches("],[").count() == 1), "{before:?}");
        migrate(&db).await.unwrap();
        assert_eq!(read().await, before);
    }
}
