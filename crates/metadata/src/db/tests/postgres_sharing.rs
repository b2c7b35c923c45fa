//! One node's connections: clients cannot take those that replication lives on, and idle or old ones go.

use std::{collections::BTreeSet, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tokio_postgres::{Client, NoTls};

use super::{checked_log, note, open_postgres, postgres_address};
use crate::{EventKind, Job, PostgresOptions};

/// A bound on what has to happen, on a loaded machine.
const SOON: Duration = Duration::from_secs(60);

async fn beside(address: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The site's sessions, as the server sees them.
async fn sessions(client: &Client, which: &str) -> BTreeSet<i32> {
    let text = format!(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'twinport' AND {which}"
    );
    client.query(&text, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hold_all_their_connections_leave_replication_its_own() {
    let Some(address) = postgres_address().await else { return };
    let mut options = PostgresOptions::parse(&address).unwrap();
    options.pool.max_open = 4;
    let metadata = open_postgres(options).await.unwrap();
    let other = beside(&address).await;
    other.batch_execute("SELECT pg_advisory_lock(1, hashtext('held'))").await.unwrap();
    let mut clients = JoinSet::new();
    for index in 0..24 {
        let metadata = metadata.clone();
        clients.spawn(async move { note(&metadata, "held", &index.to_string()).await });
    }
    until("clients hold all that is theirs", async || {
        sessions(&other, "wait_event = 'advisory'").await.len() == 3
    })
    .await;

    let reserved = metadata.reserved();
    timeout(SOON, reserved.ping()).await.expect("a heartbeat finds a connection").unwrap();
    timeout(SOON, metadata.sequence_now()).await.expect("events are numbered").unwrap();
    let lease =
        timeout(SOON, metadata.take_lease(Job::Scrub)).await.expect("a job is taken").unwrap().unwrap();
    let renewed = timeout(SOON, metadata.renew_lease(&lease, None)).await.expect("and kept").unwrap();
    assert!(renewed);
    assert!(sessions(&other, "true").await.len() <= 4, "no more than database.pool.maxopen");

    other.batch_execute("SELECT pg_advisory_unlock(1, hashtext('held'))").await.unwrap();
    for client in clients.join_all().await {
        client.unwrap();
    }
    assert_eq!(checked_log(&metadata).await.len(), 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_rest_or_are_old_are_closed() {
    let Some(address) = postgres_address().await else { return };
    let mut options = PostgresOptions::parse(&address).unwrap();
    options.pool.max_idle = Some(1);
    options.pool.max_lifetime = Some(Duration::from_secs(2));
    options.prepared_statements = false;
    let metadata = open_postgres(options).await.unwrap();
    let other = beside(&address).await;
    other.batch_execute("SELECT pg_advisory_lock(1, hashtext('held'))").await.unwrap();
    let mut clients = JoinSet::new();
    for index in 0..6 {
        let metadata = metadata.clone();
        clients.spawn(async move { note(&metadata, "held", &index.to_string()).await });
    }
    until("six are in use", async || sessions(&other, "wait_event = 'advisory'").await.len() == 6).await;
    let before = sessions(&other, "true").await;
    other.batch_execute("SELECT pg_advisory_unlock(1, hashtext('held'))").await.unwrap();
    for client in clients.join_all().await {
        client.unwrap();
    }
    until("but one rests", async || sessions(&other, "true").await.len() <= 2).await;
    until("none is older than it may be", async || sessions(&other, "true").await.is_disjoint(&before)).await;
    note(&metadata, "x", "after").await.unwrap();
}

const DEADLOCK: &str = "DO $$ BEGIN RAISE 'deadlock' USING ERRCODE = '40P01'; END $$";

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_transaction_that_the_server_aborts_is_run_again_also_at_its_commit() {
    const TRIES: &str = "CREATE SEQUENCE tries; CREATE TABLE scratch (id BIGINT); \
         CREATE FUNCTION abort_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           IF nextval('tries') = 1 THEN RAISE 'later' USING ERRCODE = '40001'; END IF; RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON scratch DEFERRABLE INITIALLY DEFERRED \
           FOR EACH ROW EXECUTE FUNCTION abort_once()";
    const SERIALIZATION: &str = "DO $$ BEGIN RAISE 'serialization' USING ERRCODE = '40001'; END $$";
    let Some(address) = postgres_address().await else { return };
    let metadata = open_postgres(PostgresOptions::parse(&address).unwrap()).await.unwrap();
    metadata.db.script(TRIES).await.unwrap();
    let mut attempts = 0;
    metadata
        .db
        .write(move |tx| {
            attempts += 1;
            let abort = [None, Some(SERIALIZATION), Some(DEADLOCK)].get(attempts).copied().flatten();
            Box::pin(async move {
                let origin = tx.guard_origin().await?;
                if let Some(abort) = abort {
                    tx.script(abort).await?;
                }
                tx.script("INSERT INTO scratch VALUES (1)").await?;
                tx.append(&origin.event(EventKind::SiteChanged)).await.map(drop)
            })
        })
        .await
        .unwrap();
    assert_eq!(checked_log(&metadata).await.len(), 1, "what was aborted left nothing");
    let rows = metadata.db.query("SELECT last_value FROM tries", vec![]).await.unwrap();
    assert_eq!(rows[0].int(0).unwrap(), 2, "the commit was tried twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_the_server_aborts_is_run_again() {
    // A sequence does not go back with its transaction: every other call fails.
    const ABORTS: &str = "CREATE SEQUENCE calls; CREATE FUNCTION abort_every_other() RETURNS bigint LANGUAGE plpgsql AS $$ \
         DECLARE call bigint := nextval('calls'); \
         BEGIN IF call % 2 = 1 THEN RAISE 'deadlock' USING ERRCODE = '40P01'; END IF; RETURN call; END $$";
    const READ: &str = "SELECT abort_every_other()";
    let Some(address) = postgres_address().await else { return };
    let metadata = open_postgres(PostgresOptions::parse(&address).unwrap()).await.unwrap();
    metadata.db.script(ABORTS).await.unwrap();
    let rows = metadata.db.query(READ, vec![]).await.unwrap();
    assert_eq!(rows[0].int(0).unwrap(), 2);
    let mut attempts = 0;
    let read = metadata.db.snapshot(move |tx| {
        attempts += 1;
        Box::pin(async move {
            if attempts == 1 {
                tx.script(DEADLOCK).await?;
            }
            Ok(attempts)
        })
    });
    assert_eq!(read.await.unwrap(), 2);
}
