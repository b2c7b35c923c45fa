//! Both schemas hold the same tables and columns, and every table has a class.

use std::collections::{BTreeMap, BTreeSet};

use super::{on_postgres, on_sqlite, postgres_address};
use crate::db::Row;

/// What each table is to replication: changed only with an event; computed from the log; this site's own books;
/// or gone with the requests it serves.
const CLASSES: [(&str, &str); 32] = [
    ("access_generation", "derived"),
    ("access_pending", "journaled"),
    ("access_records", "logged"),
    ("backfill", "journaled"),
    ("blob_links", "logged"),
    ("blobs", "journaled"),
    ("epochs", "logged"),
    ("events", "logged"),
    ("gc_candidates", "journaled"),
    ("join_tokens", "ephemeral"),
    ("leases", "ephemeral"),
    ("log_head", "logged"),
    ("manifest_references", "derived"),
    ("manifests", "logged"),
    ("nodes", "ephemeral"),
    ("refresh_tokens", "ephemeral"),
    ("quota_usage", "derived"),
    ("repositories", "logged"),
    ("repository_usage", "derived"),
    ("retention_runs", "journaled"),
    ("retention_trash", "journaled"),
    ("schema_migrations", "journaled"),
    ("site", "journaled"),
    ("site_reports", "ephemeral"),
    ("sites", "logged"),
    ("tags", "logged"),
    ("token_signing_keys", "journaled"),
    ("tombstones", "logged"),
    ("tracked_items", "journaled"),
    ("tracked_repositories", "journaled"),
    ("uploads", "ephemeral"),
    ("usage_cursor", "derived"),
];

fn by_table(rows: &[Row]) -> BTreeMap<String, BTreeSet<String>> {
    let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows {
        tables.entry(row.text(0).unwrap()).or_default().insert(row.text(1).unwrap());
    }
    tables
}

async fn sqlite_tables() -> BTreeMap<String, BTreeSet<String>> {
    const COLUMNS: &str = "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c \
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'";
    let site = on_sqlite().await;
    by_table(&site.metadata.db.query(COLUMNS, vec![]).await.unwrap())
}

#[tokio::test]
async fn every_table_has_a_class() {
    let classed: BTreeSet<String> = CLASSES.iter().map(|(table, _)| (*table).to_owned()).collect();
    assert_eq!(sqlite_tables().await.into_keys().collect::<BTreeSet<_>>(), classed);
}

#[tokio::test]
async fn both_databases_have_the_same_tables_and_columns() {
    const COLUMNS: &str = "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT) \
         FROM information_schema.columns WHERE table_schema = 'public'";
    let Some(address) = postgres_address().await else { return };
    let metadata = on_postgres(&address).await;
    let postgres = by_table(&metadata.db.query(COLUMNS, vec![]).await.unwrap());
    assert_eq!(postgres, sqlite_tables().await);
}

/// What a reopened database is refused for, and what it is not.
#[tokio::test]
async fn a_schema_newer_than_the_binary_is_refused_with_both_numbers() {
    let site = on_sqlite().await;
    let db = &site.metadata.db;
    db.script(
        "INSERT INTO schema_migrations (number, name, checksum, applied_at_us) VALUES (99, 'x', 'x', 0)",
    )
    .await
    .unwrap();
    let refusal = crate::migrations::migrate(db).await.unwrap_err().to_string();
    assert!(refusal.contains("99") && refusal.contains("newer twinport"), "{refusal}");
}
