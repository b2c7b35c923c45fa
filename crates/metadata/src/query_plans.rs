//! Every query of this crate, as both databases would run it over many rows: by key, never by a scan.
//! Guards: no answer gets slower with what the site or the repository holds, unless the list of excuses says why it may.

mod fill;
mod texts;

use bytes::Bytes;
use tempfile::TempDir;
use twinport_oci::Digest;
use uuid::Uuid;

use crate::{
    Clock, Database, Metadata, OpenOptions, PostgresOptions, blobs,
    db::{DATABASE_NOW, Dialect, Value},
    manifests, referrers, repositories, retention, tags, uploads, usage,
};
use fill::fill;
use texts::Text;

/// What PostgreSQL may expect a query by key to cost, in its own unit: a row by key costs about 8, all of a
/// repository's 1,000 and more.
const MOST_COST: f64 = 500.0;

/// Rows of a page.
const PAGE: i64 = 25;

/// Queries that read more than a few keys, by a part of their text, and why they may.
const EXCUSED: [(&str, &str); 21] = [
    ("COALESCE(SUM(b.size), 0)", "what a repository holds, as a whole, on a secondary in the background"),
    ("SELECT $3, f.digest", "what one manifest names and what refers to it, when it is deleted"),
    ("WITH RECURSIVE above", "walks up from one digest, and only where a rule keeps tags from deletion"),
    (
        "state, verification, COUNT(*) FROM tracked_",
        "the status' figures; the caller paces them by what they cost",
    ),
    ("MAX(position_seq) FROM tombstones WHERE repository = $1", "a checksum reads its repository as a whole"),
    ("DELETE FROM tracked_items WHERE repository = $1", "the repository itself is deleted"),
    (
        "FROM tombstones WHERE repository {any $1} AND kind = 'repository'",
        "one row for each: its own tombstone",
    ),
    ("SELECT r.path FROM blob_links l", "names the images of a damaged blob"),
    ("SET lease_holder = NULL, lease_until_us = 0 WHERE lease_holder IS NOT NULL", "once when a site starts"),
    ("lease_until_us = 0 WHERE lease_holder = $1", "once when a node starts"),
    ("DELETE FROM events", "the few of a first start, when a site joins"),
    ("DELETE FROM access_records", "as above"),
    ("DELETE FROM refresh_tokens WHERE expires_at_us", "all that have expired"),
    (
        "FROM access_records WHERE kind = $1 AND body IS NOT NULL ORDER BY name",
        "all of a kind, for a copy in memory or when an account ends",
    ),
    (
        "(SELECT MIN(applied_seq) FROM tracked_repositories",
        "reads what is outstanding; the caller paces it by what it costs",
    ),
    (
        "SET next_attempt_us = 0, attempts = 0 WHERE state <> 'synced'",
        "all that is outstanding, when the primary is back",
    ),
    ("FROM nodes", "the few nodes of a site"),
    ("FROM leases", "a row for each of a few jobs"),
    ("UPDATE leases SET", "as above"),
    ("INSERT INTO leases", "as above"),
    ("UPDATE sites SET position_epoch", "one text for every table, and this one is small: it may be sorted"),
];

/// Indexes without which some query would read too much: that is how this test is seen to fail.
const NEEDED: &[&str] = &[
    "events_by_position",
    "tags_by_digest",
    "tracked_items_unsettled",
    "tracked_repositories_due",
    "tracked_repositories_unchecked",
    "uploads_by_touch",
];
const NEEDED_ON_POSTGRESQL: &[&str] = &["manifests_in_motion", "tags_in_motion"];

/// A query with parameters of their types.
struct Hot {
    sql: &'static str,
    params: Vec<Value>,
}

fn hot(sql: &'static str, params: Vec<Value>) -> Hot {
    Hot { sql, params }
}

fn hot_queries() -> Vec<Hot> {
    let path = || Value::from("group/project-1");
    let repository = || Value::from(1_i64);
    let digest = || Value::from(Digest::sha256(b"x"));
    let key = || vec![repository(), digest()];
    let tag = || Value::from("tag-7");
    let limit = || Value::from(PAGE);
    let upload = || Value::from(Uuid::nil());
    let some = || Value::from(Bytes::from_static(b"state"));
    let many = || Value::Blobs((0..20_u8).map(|content| Digest::sha256(&[content]).to_key()).collect());
    let step = || vec![repository(), limit()];
    vec![
        hot(repositories::FIND, vec![path()]),
        hot(repositories::LOCK_SHARED, vec![path()]),
        hot(repositories::LOCK_EXCLUSIVE, vec![path()]),
        hot(repositories::LIST, vec![path(), limit()]),
        hot(repositories::removal::DELETE_TAGS, step()),
        hot(repositories::removal::DELETE_REFERENCES, step()),
        hot(repositories::removal::DELETE_MANIFESTS, step()),
        hot(repositories::removal::DELETE_LINKS, step()),
        hot(blobs::LINKED, vec![path(), digest()]),
        hot(blobs::LINKED_LOCKED, vec![path(), digest()]),
        hot(blobs::KNOWN, vec![digest()]),
        hot(blobs::LINK_LOCK_SHARED, key()),
        hot(blobs::LINK_LOCK_EXCLUSIVE, key()),
        hot(blobs::LINKS_LOCK_SHARED, vec![repository(), many()]),
        hot(uploads::FIND, vec![upload(), path()]),
        hot(uploads::ADVANCE, vec![upload(), path(), 0_i64.into(), 1_i64.into(), some(), 2_i64.into()]),
        hot(uploads::STALE, vec![500_i64.into(), limit()]),
        hot(uploads::FORGET, vec![500_i64.into(), limit()]),
        hot(uploads::EXISTS, vec![upload()]),
        hot(uploads::END, vec![upload(), path(), 1_i64.into()]),
        hot(manifests::BY_TAG, vec![path(), tag()]),
        hot(manifests::BY_DIGEST, vec![path(), digest()]),
        hot(manifests::HEAD_BY_TAG, vec![path(), tag()]),
        hot(manifests::HEAD_BY_DIGEST, vec![path(), digest()]),
        hot(manifests::put::LOCK_SHARED, key()),
        hot(manifests::delete::LOCK_EXCLUSIVE, key()),
        hot(manifests::delete::TAGS_LOCK, [key(), vec![limit()]].concat()),
        hot(manifests::delete::TAGS_ABOVE, key()),
        hot(repositories::removal::TAGS, vec![repository(), tag(), limit()]),
        hot(manifests::delete::TAGS_LEFT, [key(), vec![limit()]].concat()),
        hot(
            manifests::delete::QUEUE_CHILDREN,
            [key(), vec![upload(), 0_i64.into(), "link".into(), "manifest".into()]].concat(),
        ),
        hot(retention::AGED, vec![path(), tag(), limit()]),
        hot(retention::LOCK_AGED, vec![repository(), tag()]),
        hot(usage::QUOTA, vec!["rule".into()]),
        hot(tags::LIST, vec![path(), tag(), limit()]),
        hot(tags::LOCK, vec![repository(), tag()]),
        hot(tags::DELETE, vec![repository(), tag()]),
        hot(referrers::ALL, vec![path(), subject(), some(), limit()]),
        hot(referrers::OF_TYPE, vec![path(), subject(), some(), limit(), "type-3".into()]),
    ]
}

/// The subject of half of the repository's manifests.
fn subject() -> Value {
    let mut key = vec![0; 33];
    key[32] = 1;
    key.into()
}

/// How a database would run a query: a line a step; on PostgreSQL also what it expects that to cost.
struct Plan {
    lines: Vec<String>,
    cost: Option<f64>,
}

impl Plan {
    fn of(lines: Vec<String>) -> Self {
        // `Index Scan using … (cost=0.29..8.31 rows=1 width=12)`
        let cost = lines.first().and_then(|line| line.split_once("..")?.1.split(' ').next()?.parse().ok());
        Self { lines, cost }
    }

    /// Why this plan must not be, if so.
    fn fault(&self, paged: bool) -> Option<String> {
        let line = |found: fn(&str) -> bool| self.lines.iter().any(|line| found(line));
        if line(reads_a_whole_table) {
            return Some("reads a whole table".to_owned());
        }
        if paged && line(sorts) {
            return Some("sorts what a page is taken from".to_owned());
        }
        // A page begins at a key and stops at its limit, of which SQLite says nothing.
        if !paged && line(reads_a_whole_repository) {
            return Some("reads a whole repository".to_owned());
        }
        self.cost.filter(|cost| *cost > MOST_COST).map(|cost| format!("costs {cost}"))
    }
}

/// Tables of a few rows, whatever a site holds. `page` is no table: it is the rows of a subquery that has a limit.
const SMALL: [&str; 14] = [
    "page",
    "usage_cursor",
    "quota_usage",
    "retention_runs",
    "site",
    "log_head",
    "epochs",
    "backfill",
    "schema_migrations",
    "sites",
    "site_reports",
    "join_tokens",
    "access_generation",
    "token_signing_keys",
];
/// Indexes of what is still to be dealt with, not of what a site holds.
const OUTSTANDING: [&str; 4] = [
    "tracked_repositories_due",
    "tracked_repositories_unchecked",
    "tracked_items_unsettled",
    "access_pending_by_position",
];
/// Tables whose key begins with a repository.
const OF_REPOSITORIES: [&str; 6] =
    ["tags", "manifests", "manifest_references", "blob_links", "tombstones", "tracked_items"];

fn reads_a_whole_table(line: &str) -> bool {
    let line = line.trim_start_matches([' ', '-', '>']);
    let table = line.strip_prefix("SCAN ").or_else(|| Some(line.split_once("Seq Scan on ")?.1));
    let table = table.and_then(|rest| rest.split(' ').next());
    // The set of an `{any $N}` is itself a small table, and a subquery's rows were counted where they came from.
    let small = ["json_each", "SCAN CONSTANT ROW"].iter().chain(&OUTSTANDING).any(|name| line.contains(name));
    table.is_some_and(|table| !small && !SMALL.contains(&table))
}

/// SQLite's word for it; PostgreSQL's is the cost.
fn reads_a_whole_repository(line: &str) -> bool {
    let Some(searched) = line.trim_start().strip_prefix("SEARCH ") else { return false };
    let whole = ["(repository_id=?)", "(repository=?)", "(repository=? AND kind=?)"];
    OF_REPOSITORIES.iter().any(|table| searched.starts_with(&format!("{table} ")))
        && whole.iter().any(|terms| searched.ends_with(terms))
        && !OUTSTANDING.iter().any(|index| searched.contains(index))
}

/// SQLite's word for it; PostgreSQL may sort a few rows, and what many cost shows.
fn sorts(line: &str) -> bool {
    line.contains("USE TEMP B-TREE")
}

/// The plan for these very values.
async fn plan_of_values(metadata: &Metadata, hot: &Hot) -> Plan {
    let (explain, column) = match metadata.db.dialect() {
        Dialect::Sqlite => ("EXPLAIN QUERY PLAN", 3),
        Dialect::Postgres => ("EXPLAIN", 0),
    };
    let text: &'static str = format!("{explain} {}", hot.sql).leak();
    let rows = metadata.db.query(text, hot.params.clone()).await.unwrap();
    Plan::of(rows.iter().map(|row| row.text(column).unwrap()).collect())
}

/// The plan for values that are not known yet: SQLite's for all time, PostgreSQL's of a statement used often.
async fn plan_of_text(metadata: &Metadata, postgres: Option<&tokio_postgres::Client>, text: &Text) -> Plan {
    let parameters = (1..30).rev().find(|number| text.sql.contains(&format!("${number}"))).unwrap_or(0);
    let Some(postgres) = postgres else {
        let params = vec![Value::from(None::<i64>); parameters];
        return plan_of_values(metadata, &hot(text.sql, params)).await;
    };
    let (sql, limit) = limited(&spelled(text.sql));
    let kinds: Vec<_> =
        (1..=parameters).map(|number| if Some(number) == limit { "bigint" } else { "unknown" }).collect();
    let (kinds, nulls) = match parameters {
        0 => (String::new(), String::new()),
        _ => (format!("({})", kinds.join(", ")), format!("({})", vec!["NULL"; parameters].join(", "))),
    };
    let script = format!("PREPARE judged {kinds} AS {sql}; EXPLAIN EXECUTE judged{nulls}; DEALLOCATE judged");
    let answers =
        postgres.simple_query(&script).await.unwrap_or_else(|error| panic!("{}: {error:?}", text.sql));
    let lines = answers.iter().filter_map(|answer| match answer {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Plan::of(lines.collect())
}

/// The fragments in braces as PostgreSQL's words.
fn spelled(sql: &str) -> String {
    let mut parts = sql.split(['{', '}']);
    let mut out = parts.next().unwrap_or_default().to_owned();
    while let (Some(fragment), Some(rest)) = (parts.next(), parts.next()) {
        if let Some(parameter) = fragment.strip_prefix("now ") {
            out.push_str(&format!("COALESCE({parameter}, {DATABASE_NOW})"));
            out.push_str(rest);
            continue;
        }
        match fragment.strip_prefix("any ") {
            Some(parameter) => out.push_str(&format!("= ANY({parameter})")),
            None => out.push_str(&fragment.to_uppercase()),
        }
        out.push_str(rest);
    }
    out
}

/// With a page's limit in place of its parameter, which would count as a tenth of all rows; that parameter's number.
fn limited(sql: &str) -> (String, Option<usize>) {
    let Some((before, after)) = sql.split_once(" LIMIT $") else { return (sql.to_owned(), None) };
    let digits = after.find(|character: char| !character.is_ascii_digit()).unwrap_or(after.len());
    (format!("{before} LIMIT {PAGE}{}", &after[digits..]), after[..digits].parse().ok())
}

/// What is wrong with the plans that are made over what [`fill`] has put there.
async fn faults(metadata: &Metadata, postgres: Option<&tokio_postgres::Client>) -> Vec<String> {
    let mut bad = Vec::new();
    for text in texts::all().iter().filter(|text| postgres.is_some() || !text.postgres_only) {
        let plan = plan_of_text(metadata, postgres, text).await;
        bad.extend(judge(text.sql, &text.file, &plan));
    }
    bad
}

fn judge(sql: &str, file: &str, plan: &Plan) -> Option<String> {
    let paged = sql.contains(" ORDER BY ") && sql.contains(" LIMIT ");
    let excused = EXCUSED.iter().any(|(part, _)| sql.contains(part));
    let fault = plan.fault(paged).filter(|_| !excused)?;
    Some(format!("{file}: {fault}: {sql}\n    {}", plan.lines.join("\n    ")))
}

async fn no_query_scans(metadata: &Metadata, postgres: Option<&tokio_postgres::Client>) {
    let mut bad = faults(metadata, postgres).await;
    for hot in hot_queries() {
        bad.extend(judge(hot.sql, "with values", &plan_of_values(metadata, &hot).await));
    }
    assert!(
        bad.is_empty(),
        "{}: {} queries read too much:\n{}",
        metadata.backend(),
        bad.len(),
        bad.join("\n")
    );
}

async fn open(database: Database) -> Metadata {
    Metadata::open(OpenOptions { database, clock: Clock::System }).await.unwrap()
}

/// As a site runs it, without statistics: nothing of Twinport analyses a SQLite file.
#[tokio::test]
async fn no_query_scans_a_table_on_sqlite() {
    let directory: TempDir = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.db");
    let metadata = open(Database::Sqlite { path: path.clone() }).await;
    fill(&metadata).await;
    no_query_scans(&metadata, None).await;

    for index in NEEDED {
        let made = "SELECT sql FROM sqlite_schema WHERE name = $1";
        let made = metadata.db.query(made, vec![(*index).into()]).await.unwrap()[0].text(0).unwrap();
        metadata.db.script(format!("DROP INDEX {index}").leak()).await.unwrap();
        // Sessions of its own: nothing that is only explained notices that the schema changed.
        let other = open(Database::Sqlite { path: path.clone() }).await;
        assert!(!faults(&other, None).await.is_empty(), "nobody misses the index {index}");
        other.db.close().await;
        metadata.db.script(made.leak()).await.unwrap();
    }
}

#[tokio::test]
async fn no_query_scans_a_table_on_an_analysed_sqlite_file() {
    let directory: TempDir = tempfile::tempdir().unwrap();
    let metadata = open(Database::Sqlite { path: directory.path().join("metadata.db") }).await;
    fill(&metadata).await;
    metadata.db.script("ANALYZE").await.unwrap();
    no_query_scans(&metadata, None).await;
}

#[tokio::test]
async fn no_query_scans_a_table_on_postgresql() {
    let Some(url) = twinport_testkit::postgres_database().await.unwrap() else {
        eprintln!(
            "skip no_query_scans_a_table_on_postgresql: it is not installed, and TWINPORT_TEST_POSTGRES is not set"
        );
        return;
    };
    let metadata = open(Database::Postgres(PostgresOptions::parse(&url).unwrap())).await;
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    fill(&metadata).await;
    client.batch_execute("ANALYZE; SET plan_cache_mode = force_generic_plan").await.unwrap();
    no_query_scans(&metadata, Some(&client)).await;

    for index in NEEDED.iter().chain(NEEDED_ON_POSTGRESQL) {
        client.batch_execute(&format!("BEGIN; DROP INDEX {index}")).await.unwrap();
        assert!(!faults(&metadata, Some(&client)).await.is_empty(), "nobody misses the index {index}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[test]
fn every_query_is_read_from_the_sources_and_every_excuse_is_for_one() {
    let texts = texts::all();
    for hot in hot_queries() {
        assert!(texts.iter().any(|text| text.sql == hot.sql), "not found in the sources: {}", hot.sql);
    }
    for (part, _) in EXCUSED {
        assert!(texts.iter().any(|text| text.sql.contains(part)), "excused, and not there: {part}");
    }
}
