//! Hazard S11: deadlocks, killed sessions and exhausted servers do not lose what was acknowledged.

use std::sync::Arc;

use tokio::sync::Barrier;

use super::{checked_log, note, on_postgres, postgres_address};
use crate::{Error, EventKind, Metadata};

#[tokio::test(flavor = "multi_thread")]
async fn s11_two_transactions_that_deadlock_are_both_done_in_the_end() {
    let Some(address) = postgres_address().await else { return };
    let metadata = on_postgres(&address).await;
    let meet = Arc::new(Barrier::new(2));
    let locking = |first: &'static str, second: &'static str| {
        let (metadata, meet) = (metadata.clone(), Arc::clone(&meet));
        tokio::spawn(async move {
            let mut attempt = 0;
            metadata
                .db
                .write(move |tx| {
                    attempt += 1;
                    let meet = (attempt == 1).then(|| Arc::clone(&meet));
                    Box::pin(async move {
                        let origin = tx.guard_origin().await?;
                        tx.lock_name(first).await?;
                        if let Some(meet) = meet {
                            meet.wait().await;
                        }
                        tx.lock_name(second).await?;
                        tx.append(&origin.event(EventKind::SiteChanged)).await.map(drop)
                    })
                })
                .await
        })
    };
    let (one, other) = (locking("a", "b"), locking("b", "a"));
    one.await.unwrap().unwrap();
    other.await.unwrap().unwrap();
    assert_eq!(checked_log(&metadata).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_sessions_killed_under_load_lose_no_acknowledged_write_and_the_site_goes_on() {
    let Some(address) = postgres_address().await else { return };
    let metadata = on_postgres(&address).await;
    let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let writing = {
        let metadata = metadata.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for index in 0..400 {
                let id = index.to_string();
                if note(&metadata, "x", &id).await.is_ok() {
                    acknowledged.push(id);
                }
            }
            acknowledged
        })
    };
    while !writing.is_finished() {
        client
            .batch_execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let acknowledged = writing.await.unwrap();

    note(&metadata, "x", "after").await.unwrap();
    let stored = actors(&metadata).await;
    assert!(!acknowledged.is_empty());
    for id in &acknowledged {
        assert!(stored.contains(id), "write {id} was acknowledged and is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_server_out_of_connections_refuses_writes_and_the_site_goes_on_once_there_are_some() {
    let Some(address) = postgres_address().await else { return };
    let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // A superuser is let in beyond every limit.
    let (account, place) = address.split_once('@').unwrap();
    let (name, role) =
        (place.rsplit_once('/').unwrap().1, format!("role_{}", place.rsplit_once('_').unwrap().1));
    let setup = format!("CREATE ROLE {role} LOGIN; ALTER DATABASE {name} OWNER TO {role}");
    client.batch_execute(&setup).await.unwrap();
    let scheme = account.rsplit_once('/').unwrap().0;
    let metadata = on_postgres(&format!("{scheme}/{role}@{place}")).await;
    note(&metadata, "x", "before").await.unwrap();

    // Committed before any session ends: until then a new one would be let in.
    client.batch_execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 0")).await.unwrap();
    let sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !client.query(sessions, &[&role]).await.unwrap().is_empty() {
        assert!(std::time::Instant::now() < deadline, "sessions of {role} do not end");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let error = note(&metadata, "x", "refused").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");

    client.batch_execute(&format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await.unwrap();
    note(&metadata, "x", "after").await.unwrap();
    assert_eq!(actors(&metadata).await, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_server_that_went_away_refuses_writes_and_the_site_goes_on_when_it_is_back() {
    let Some(address) = postgres_address().await else { return };
    let (account, place) = address.split_once('@').unwrap();
    let (server, name) = place.split_once('/').unwrap();
    let link = twinport_testkit::TcpProxy::to(server.parse().unwrap()).unwrap();
    let metadata = on_postgres(&format!("{account}@{}/{name}", link.address())).await;
    for round in 0..3 {
        note(&metadata, "x", &format!("{round}")).await.unwrap();
        link.cut();
        let error = note(&metadata, "x", "refused").await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        link.resume();
    }
    note(&metadata, "x", "after").await.unwrap();
    assert_eq!(actors(&metadata).await, ["0", "1", "2", "after"]);
}

/// Who made each event, in the log's order.
async fn actors(metadata: &Metadata) -> Vec<String> {
    checked_log(metadata).await.iter().map(|event| event.event().unwrap().actor.unwrap()).collect()
}
