//! Comparing repositories: what is called equal, what is called different, and what is left alone.

use twinport_metadata::CheckOutcome;

use crate::{
    on_both_databases,
    pair::{Pair, until},
    registry::name,
};

on_both_databases!(
    r18_a_busy_repository_is_never_called_different,
    r18_a_verdict_on_an_older_state_is_not_recorded,
);

async fn r18_a_busy_repository_is_never_called_different(mut pair: Pair) {
    pair.tuning.quiet = std::time::Duration::ZERO;
    pair.join_and_start().await;
    for round in 0..60 {
        let layer = format!("busy {round}");
        pair.primary
            .push_image("team/busy", &[layer.as_bytes()], &["latest", &format!("t{}", round % 7)])
            .await;
        if round % 5 == 0 {
            pair.primary.delete_tag("team/busy", "t3").await;
        }
        let summary = pair.secondary.metadata.tracking_summary().await.unwrap();
        assert_eq!(summary.repositories.verification_failed, 0);
    }
    pair.converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_a_difference_is_found_and_healed_by_a_listing() {
    let mut pair = Pair::on_sqlite().await;
    pair.join_and_start().await;
    pair.primary.push_image("team/app", &[b"one"], &["one"]).await;
    let lost = pair.primary.push_image("team/app", &[b"two"], &["two"]).await;
    pair.converged().await;
    pair.stop().await;
    // A tag goes missing at the secondary alone, below every position that it knows of.
    let uuid = pair.secondary.metadata.repository(&name("team/app")).await.unwrap().unwrap().uuid;
    let lease = twinport_metadata::Lease { holder: uuid::Uuid::new_v4(), duration_us: 1 };
    assert!(pair.secondary.metadata.lease_repository(uuid, lease).await.unwrap());
    lose_tag(&pair, "two");
    let chunk = twinport_metadata::ApplyChunk::default();
    pair.secondary.metadata.apply(uuid, lease, chunk).await.unwrap();
    assert_eq!(pair.tag("team/app", "two").await, None);
    pair.start().await;
    pair.converged().await;
    assert_eq!(pair.tag("team/app", "two").await, Some(lost.0));
}

/// Deletes a row as no code of the house does.
fn lose_tag(pair: &Pair, tag: &str) {
    let path = pair.secondary.directory.path().join("metadata.db");
    let database = rusqlite::Connection::open(path).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    assert_eq!(database.execute("DELETE FROM tags WHERE name = ?1", [tag]).unwrap(), 1);
}

async fn r18_a_verdict_on_an_older_state_is_not_recorded(mut pair: Pair) {
    pair.join_and_start().await;
    pair.primary.push_image("team/app", &[b"one"], &["one"]).await;
    pair.converged().await;
    let uuid = pair.secondary.metadata.repository(&name("team/app")).await.unwrap().unwrap().uuid;
    let tracked = pair.secondary.metadata.tracked_repository(uuid).await.unwrap().unwrap();
    let due = twinport_metadata::DueCheck {
        repository: uuid,
        path: tracked.path,
        dirty_seq: tracked.dirty_seq,
        attempts: 0,
    };
    pair.primary.push_image("team/app", &[b"two"], &["two"]).await;
    pair.ingested().await;
    let recorded =
        pair.secondary.metadata.record_check(&due, CheckOutcome::Different { next_attempt_us: 0 }).await;
    assert!(!recorded.unwrap());
    until("it is verified at its own position", async || {
        let summary = pair.secondary.metadata.tracking_summary().await.unwrap();
        (summary.repositories.verification_succeeded != 1).then(|| format!("{summary:?}"))
    })
    .await;
}
