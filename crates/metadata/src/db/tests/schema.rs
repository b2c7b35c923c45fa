//! Both schemas hold the same tables and columns, and every table has a class.

use std::collections::{BTreeMap, BTreeSet};

use super::{on_postgres, on_sqlite, postgres_address};
use crate::{Clock, Metadata, db::Row};

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
    let newer =
        "INSERT INTO schema_migrations (number, name, checksum, applied_at_us) VALUES (99, 'wider', 'x', 0)";
    db.script(newer).await.unwrap();
    // What only adds is no hindrance: the older of two nodes goes on.
    crate::migrations::migrate(db).await.unwrap();
    db.script("UPDATE schema_migrations SET name = 'contract: narrower' WHERE number = 99").await.unwrap();
    let refusal = crate::migrations::migrate(db).await.unwrap_err().to_string();
    let known = crate::migrations::newest().to_string();
    assert!(
        refusal.contains("99") && refusal.contains(&known) && refusal.contains("newer twinport"),
        "{refusal}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_change_the_schema_runs_with_a_current_one_and_is_told_of_an_older_one() {
    let Some(address) = postgres_address().await else { return };
    let (account, place) = address.split_once('@').unwrap();
    let (scheme, role) = (account.rsplit_once('/').unwrap().0, place.rsplit_once('/').unwrap().1.to_owned());
    let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await.unwrap();
    let options = crate::PostgresOptions::parse(&format!("{scheme}/{role}@{place}")).unwrap();
    let refusal = super::open_postgres(options.clone()).await.unwrap_err().to_string();
    assert!(refusal.contains("schema 0") && refusal.contains("`twinport db migrate`"), "{refusal}");

    let owner = crate::Database::Postgres(crate::PostgresOptions::parse(&address).unwrap());
    let dry = Metadata::migrate(&owner, &Clock::System, true).await.unwrap();
    assert!(dry.iter().all(|change| !change.applied) && !dry.is_empty(), "{dry:?}");
    let done = Metadata::migrate(&owner, &Clock::System, false).await.unwrap();
    assert!(done.iter().all(|change| change.applied) && done.len() == dry.len(), "{done:?}");
    let grants = format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}; \
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
    );
    client.batch_execute(&grants).await.unwrap();
    let metadata = super::open_postgres(options).await.unwrap();
    super::note(&metadata, "x", "by a user with few rights").await.unwrap();
}
