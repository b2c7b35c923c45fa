//! The façade held to its promises, on both databases: isolation within a group commit, retries, equal schemas,
//! and a log that is numbered without gaps in an order that agrees with locks and with real time.

mod group_commit;
mod numbering;
mod plans;
mod postgres_faults;
mod postgres_lost_writes;
mod postgres_restarts;
mod postgres_sharing;
mod postgres_standby;
mod postgres_tls;
mod schema;
mod stamping;

use tempfile::TempDir;

use crate::{
    Clock, Database, EventKind, LoggedEvent, Metadata, OpenOptions, PostgresOptions, Result, event::genesis,
};

/// A fresh site's metadata; the directory lives as long as it does.
struct Fresh {
    metadata: Metadata,
    _directory: TempDir,
}

async fn open(database: Database) -> Metadata {
    Metadata::open(OpenOptions { database, clock: Clock::System }).await.unwrap()
}

async fn on_sqlite() -> Fresh {
    let directory = tempfile::tempdir().unwrap();
    let metadata = open(Database::Sqlite { path: directory.path().join("metadata.db") }).await;
    Fresh { metadata, _directory: directory }
}

/// `None`, said aloud, where no PostgreSQL is installed.
async fn postgres_address() -> Option<String> {
    let address = twinport_testkit::postgres_database().await.unwrap();
    if address.is_none() {
        eprintln!("skipped on PostgreSQL: it is not installed");
    }
    address
}

/// A server of a test's own; `None`, said aloud, where no PostgreSQL is installed.
fn own_server(settings: &[&str]) -> Option<twinport_testkit::PostgresServer> {
    let server = twinport_testkit::PostgresServer::start(settings).unwrap();
    if server.is_none() {
        eprintln!("skipped on PostgreSQL: it is not installed");
    }
    server
}

async fn open_postgres(options: PostgresOptions) -> Result<Metadata> {
    Metadata::open(OpenOptions { database: Database::Postgres(options), clock: Clock::System }).await
}

async fn on_postgres(address: &str) -> Metadata {
    open(Database::Postgres(PostgresOptions::parse(address).unwrap())).await
}

/// Originates one event that carries `note`, holding a lock on `name`.
async fn note(metadata: &Metadata, name: &str, note: &str) -> Result<()> {
    let (name, note) = (name.to_owned(), note.to_owned());
    metadata
        .db
        .write(move |tx| {
            let (name, note) = (name.clone(), note.clone());
            Box::pin(async move {
                let origin = tx.guard_origin().await?;
                tx.lock_name(&name).await?;
                let mut event = origin.event(EventKind::SiteChanged);
                event.actor = Some(note);
                tx.append(&event).await.map(drop)
            })
        })
        .await
}

/// The whole log, after checking that it is dense, chained from h₀, and ends at the head.
async fn checked_log(metadata: &Metadata) -> Vec<LoggedEvent> {
    let head = metadata.sequence_now().await.unwrap();
    let log = metadata.events_after(0, 1_000_000).await.unwrap();
    let mut hash = genesis(metadata.site().await.unwrap().federation);
    for (index, event) in log.iter().enumerate() {
        assert_eq!(event.position.seq, index as i64 + 1, "the log has a gap");
        assert!(event.continues(&hash), "the running hash is broken at {}", event.position.seq);
        hash = event.hash;
    }
    assert_eq!((head.position.seq, head.hash), (log.len() as i64, hash));
    log
}
