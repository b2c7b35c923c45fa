//! Hazard S11: deadlocks, killed sessions and exhausted servers do not lose what was acknowledged.

use std::sync::Arc;

use tokio::sync::Barrier;

use super::{checked_log, note, on_postgres, postgres_address};
use crate::EventKind;

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
    let stored: Vec<String> =
        checked_log(&metadata).await.iter().map(|event| event.event().unwrap().actor.unwrap()).collect();
    assert!(!acknowledged.is_empty());
    for id in &acknowledged {
        assert!(stored.contains(id), "write {id} was acknowledged and is gone");
    }
}
