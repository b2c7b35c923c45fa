//! Every hot query of the registry, as both databases would run it over many rows: by key, never by a scan.

use bytes::Bytes;
use tempfile::TempDir;
use twinport_oci::Digest;
use uuid::Uuid;

use crate::{
    Clock, Database, Metadata, OpenOptions, PostgresOptions, blobs,
    db::{Dialect, Value},
    manifests, referrers, repositories, tags, uploads,
};

/// Rows of each kind in the repository that is asked about, and as many in all others together.
const ROWS: u32 = 20_000;

/// Tables filled by one text: `{key}` makes a digest's key of the number `i`, `{id}` a uuid's bytes.
const FILL: &str = "
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
        INSERT INTO repositories (uuid, path, created_at_us) SELECT {id}, 'group/project-' || i, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO blobs (digest, size, state, stored_at_us) SELECT {key}, i, 'live', i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO blob_links (repository_id, digest, linked_at_us) SELECT 1, {key}, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO blob_links (repository_id, digest, linked_at_us) SELECT 2 + i % 1998, {key}, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO manifests (repository_id, digest, media_type, artifact_type, subject, size, body, pushed_at_us)
        SELECT 1, {key}, 'm', 'type-' || i % 7, CASE WHEN i % 2 = 0 THEN {one} END, i, {key}, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO manifests (repository_id, digest, media_type, size, body, pushed_at_us)
        SELECT 2 + i % 1998, {key}, 'm', i, {key}, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO manifest_references (repository_id, manifest, child, kind) SELECT 1, {key}, {key}, 'blob' FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO tags (repository_id, name, digest, tagged_at_us)
        SELECT 1, 'tag-' || i, CASE WHEN i % 2 = 0 THEN {one} ELSE {key} END, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO tags (repository_id, name, digest, tagged_at_us) SELECT 2 + i % 1998, 'tag-' || i, {key}, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO uploads (id, path, bytes, version, started_at_us, touched_at_us)
        SELECT {id}, 'group/project-' || i % 2000, i, 0, i, i FROM n;
    ANALYZE;
";

/// A query with parameters of their types.
struct Hot {
    sql: &'static str,
    params: Vec<Value>,
    /// Its order comes from an index: sorting would read everything to answer one page.
    paged: bool,
}

fn by_key(sql: &'static str, params: Vec<Value>) -> Hot {
    Hot { sql, params, paged: false }
}

fn page(sql: &'static str, params: Vec<Value>) -> Hot {
    Hot { sql, params, paged: true }
}

fn hot_queries() -> Vec<Hot> {
    let path = || Value::from("group/project-1");
    let repository = || Value::from(1_i64);
    let digest = || Value::from(Digest::sha256(b"x"));
    let key = || vec![repository(), digest()];
    let tag = || Value::from("tag-7");
    let limit = || Value::from(100_i64);
    let upload = || Value::from(Uuid::nil());
    let some = || Value::from(Bytes::from_static(b"state"));
    let many = || Value::Blobs((0..20_u8).map(|content| Digest::sha256(&[content]).to_key()).collect());
    let step = || vec![repository(), limit()];
    vec![
        by_key(repositories::FIND, vec![path()]),
        by_key(repositories::LOCK_SHARED, vec![path()]),
        by_key(repositories::LOCK_EXCLUSIVE, vec![path()]),
        page(repositories::LIST, vec![path(), limit()]),
        by_key(repositories::removal::DELETE_TAGS, step()),
        by_key(repositories::removal::DELETE_REFERENCES, step()),
        by_key(repositories::removal::DELETE_MANIFESTS, step()),
        by_key(repositories::removal::DELETE_LINKS, step()),
        by_key(blobs::LINKED, vec![path(), digest()]),
        by_key(blobs::LINKED_LOCKED, vec![path(), digest()]),
        by_key(blobs::KNOWN, vec![digest()]),
        by_key(blobs::LINK_LOCK_SHARED, key()),
        by_key(blobs::LINK_LOCK_EXCLUSIVE, key()),
        by_key(blobs::LINKS_LOCK_SHARED, vec![repository(), many()]),
        by_key(uploads::FIND, vec![upload(), path()]),
        by_key(uploads::ADVANCE, vec![upload(), path(), 0_i64.into(), 1_i64.into(), some(), 2_i64.into()]),
        page(uploads::STALE, vec![500_i64.into(), limit()]),
        page(uploads::FORGET, vec![500_i64.into(), limit()]),
        by_key(uploads::EXISTS, vec![upload()]),
        by_key(uploads::END, vec![upload(), path(), 1_i64.into()]),
        by_key(manifests::BY_TAG, vec![path(), tag()]),
        by_key(manifests::BY_DIGEST, vec![path(), digest()]),
        by_key(manifests::HEAD_BY_TAG, vec![path(), tag()]),
        by_key(manifests::HEAD_BY_DIGEST, vec![path(), digest()]),
        by_key(manifests::put::LOCK_SHARED, key()),
        by_key(manifests::delete::LOCK_EXCLUSIVE, key()),
        page(manifests::delete::TAGS_LOCK, [key(), vec![limit()]].concat()),
        by_key(manifests::delete::TAGS_LEFT, [key(), vec![limit()]].concat()),
        by_key(
            manifests::delete::QUEUE_CHILDREN,
            [key(), vec![upload(), 0_i64.into(), "link".into(), "manifest".into()]].concat(),
        ),
        page(tags::LIST, vec![path(), tag(), limit()]),
        by_key(tags::LOCK, vec![repository(), tag()]),
        by_key(tags::DELETE, vec![repository(), tag()]),
        page(referrers::ALL, vec![path(), subject(), some(), limit()]),
        page(referrers::OF_TYPE, vec![path(), subject(), some(), limit(), "type-3".into()]),
    ]
}

/// The subject of half of the repository's manifests.
fn subject() -> Value {
    let mut key = vec![0; 33];
    key[32] = 1;
    key.into()
}

async fn fill(metadata: &Metadata) {
    let (key, id, one) = match metadata.db.dialect() {
        Dialect::Sqlite => {
            ("unhex(printf('%066x', i))", "unhex(printf('%032x', i))", "unhex(printf('%066x', 1))")
        }
        Dialect::Postgres => (
            "decode(lpad(to_hex(i), 66, '0'), 'hex')",
            "decode(lpad(to_hex(i), 32, '0'), 'hex')",
            "decode(lpad('1', 66, '0'), 'hex')",
        ),
    };
    let text = FILL.replace("{key}", key).replace("{id}", id).replace("{one}", one);
    let text: &'static str = text.replace("{rows}", &ROWS.to_string()).leak();
    metadata.db.write(move |tx| Box::pin(tx.script(text))).await.unwrap();
}

/// The lines of the plan that a database makes for a query.
async fn plan(metadata: &Metadata, hot: &Hot) -> Vec<String> {
    let (explain, column) = match metadata.db.dialect() {
        Dialect::Sqlite => ("EXPLAIN QUERY PLAN", 3),
        Dialect::Postgres => ("EXPLAIN", 0),
    };
    let text: &'static str = format!("{explain} {}", hot.sql).leak();
    let rows = metadata.db.query(text, hot.params.clone()).await.unwrap();
    rows.iter().map(|row| row.text(column).unwrap()).collect()
}

fn reads_a_whole_table(line: &str) -> bool {
    // The set of an `{any $N}` is itself a small table, and a subquery's rows were counted where they came from.
    let set = line.contains("json_each") || line.contains("SCAN CONSTANT ROW");
    line.contains("Seq Scan") || (line.trim_start().starts_with("SCAN ") && !set)
}

fn sorts(line: &str) -> bool {
    line.contains("Sort Key") || line.contains("USE TEMP B-TREE")
}

async fn no_hot_query_scans(metadata: Metadata) {
    fill(&metadata).await;
    let mut bad = Vec::new();
    for hot in hot_queries() {
        let plan = plan(&metadata, &hot).await;
        if plan.iter().any(|line| reads_a_whole_table(line) || (hot.paged && sorts(line))) {
            bad.push(format!("{}\n    {}", hot.sql, plan.join("\n    ")));
        }
    }
    assert!(bad.is_empty(), "{} reads tables as a whole:\n{}", metadata.backend(), bad.join("\n"));
}

async fn open(database: Database) -> Metadata {
    Metadata::open(OpenOptions { database, clock: Clock::System }).await.unwrap()
}

#[tokio::test]
async fn no_hot_query_scans_a_table_on_sqlite() {
    let directory: TempDir = tempfile::tempdir().unwrap();
    no_hot_query_scans(open(Database::Sqlite { path: directory.path().join("metadata.db") }).await).await;
}

#[tokio::test]
async fn no_hot_query_scans_a_table_on_postgresql() {
    let Some(url) = twinport_testkit::postgres_database().await.unwrap() else {
        eprintln!(
            "skip no_hot_query_scans_a_table_on_postgresql: it is not installed, and TWINPORT_TEST_POSTGRES is not set"
        );
        return;
    };
    no_hot_query_scans(open(Database::Postgres(PostgresOptions::parse(&url).unwrap())).await).await;
}
