//! Numbered schema changes, checksummed, one text per database.
//!
//! Nodes of two versions may work side by side: a change only adds, in a way that older binaries need not know of (a column
//! may be null or has a default), unless its name begins with `contract:`. Such a change takes away what no binary since
//! the release before has used, and a binary that does not know it refuses to run.
//!
//! **Architecture invariant:** a migration that has been released is never edited; both databases have the same
//! numbers and, by a test, the same tables and columns.

use sha2::{Digest as _, Sha256};

use crate::{
    Error, Result,
    db::{Db, Dialect, Row, Tx, Value},
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
    Migration {
        number: 7,
        name: "accepted losses",
        sqlite: include_str!("../migrations/sqlite/0007_accepted_losses.sql"),
        postgres: include_str!("../migrations/postgres/0007_accepted_losses.sql"),
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

/// How the name of a change begins that takes something away.
const CONTRACT: &str = "contract:";

/// One step of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaChange {
    pub number: i64,
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// Brings the schema up to this binary's; nodes that start together wait for each other.
///
/// # Errors
/// [`Error::Refused`] for a schema that this binary cannot run with, or that was changed by hand.
pub(crate) async fn migrate(db: &Db) -> Result<()> {
    // A user that may not change the schema can run a site whose schema is as it should be.
    if changes(db).await?.iter().all(|change| change.applied) {
        return Ok(());
    }
    let before = applied(db).await.unwrap_or(0);
    match db.write_alone(|tx| Box::pin(apply_missing(tx, MIGRATIONS))).await {
        Err(Error::Database(text)) if text.contains("(42501)") => Err(Error::Refused(format!(
            "the database has schema {before}, this binary needs {}, and its user may not change it ({text}): run \
             `twinport db migrate` with a database.user who may",
            newest()
        ))),
        migrated => migrated,
    }
}

/// The number of the newest migration that the database holds.
pub(crate) async fn applied(db: &Db) -> Result<i64> {
    let row = db.query_opt("SELECT COALESCE(MAX(number), 0) FROM schema_migrations", vec![]).await?;
    row.map_or(Ok(0), |row| row.int(0))
}

/// Every change that the database has or this binary knows, in their order.
///
/// # Errors
/// [`Error::Refused`] for a schema that this binary cannot run with, or that was changed by hand.
pub(crate) async fn changes(db: &Db) -> Result<Vec<SchemaChange>> {
    let rows = if db.has_schema().await? { db.query(APPLIED, vec![]).await? } else { Vec::new() };
    check_applied(&rows, db.dialect())?;
    let mut changes: Vec<SchemaChange> = MIGRATIONS
        .iter()
        .map(|known| SchemaChange { number: known.number, name: known.name.to_owned(), applied: false })
        .collect();
    for row in &rows {
        let number = row.int(0)?;
        match changes.iter_mut().find(|change| change.number == number) {
            Some(change) => change.applied = true,
            None => changes.push(SchemaChange { number, name: row.text(2)?, applied: true }),
        }
    }
    Ok(changes)
}

const APPLIED: &str = "SELECT number, checksum, name FROM schema_migrations ORDER BY number";

/// Refuses what this binary cannot run with.
fn check_applied(applied: &[Row], dialect: Dialect) -> Result<()> {
    for row in applied {
        let (number, name) = (row.int(0)?, row.text(2)?);
        let Some(known) = MIGRATIONS.iter().find(|migration| migration.number == number) else {
            if name.starts_with(CONTRACT) {
                return Err(Error::Refused(format!(
                    "the database has schema {number} ({name}), this binary knows up to {} and cannot run with it: start a \
                     newer twinport, `twinport db status` there shows which",
                    newest()
                )));
            }
            tracing::info!(number, name, "the schema is newer than this binary, which can run with it");
            continue;
        };
        if row.text(1)? != checksum(known.sql(dialect)) {
            return Err(Error::Refused(format!(
                "schema change {number} ({}) of this database is not the one this binary knows: \
                 it was made by another build, restore the matching one",
                known.name
            )));
        }
    }
    Ok(())
}

async fn apply_missing(tx: &mut Tx, known: &'static [Migration]) -> Result<()> {
    tx.lock_role().await?;
    tx.script(TABLE).await?;
    let applied = tx.query(APPLIED, vec![]).await?;
    check_applied(&applied, tx.dialect())?;
    let applied = applied.iter().map(|row| row.int(0)).collect::<Result<Vec<_>>>()?;
    for migration in known.iter().filter(|migration| !applied.contains(&migration.number)) {
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
    use super::{MIGRATIONS, apply_missing, changes, migrate};
    use crate::{
        Clock,
        db::{Database, Db},
    };

    #[tokio::test]
    async fn a_change_that_came_after_a_later_one_is_made_too() {
        const WITHOUT: &str =
            "DROP TABLE leases; DROP TABLE nodes; DELETE FROM schema_migrations WHERE number = 6";
        let folder = tempfile::tempdir().unwrap();
        let database = Database::Sqlite { path: folder.path().join("metadata.db") };
        let db = Db::connect(&database, &Clock::System).await.unwrap();
        let missing = async || {
            let changes = changes(&db).await.unwrap();
            changes.iter().filter(|change| !change.applied).map(|change| change.number).collect::<Vec<_>>()
        };
        migrate(&db).await.unwrap();
        db.script(WITHOUT).await.unwrap();
        assert_eq!(missing().await, [6]);
        migrate(&db).await.unwrap();
        assert!(missing().await.is_empty());
        assert!(db.query("SELECT job FROM leases", vec![]).await.unwrap().is_empty());
    }

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
