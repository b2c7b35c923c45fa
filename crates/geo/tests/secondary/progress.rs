//! Lag and freshness: what is claimed, and what must not be.

use std::time::Duration;

use crate::{
    on_both_databases,
    pair::{Pair, SECOND_US, until},
    transport::BlobFault,
};

on_both_databases!(
    r29_lag_is_never_zero_and_no_read_fresh_while_the_primary_is_away,
    r29_nothing_is_fresh_while_a_tag_is_unapplied,
    r29_nothing_is_claimed_before_the_backfill_is_done,
);

async fn fresh(pair: &Pair) {
    until("the site is fresh", async || {
        (!pair.engine().is_fresh()).then(|| format!("{:?}", pair.engine().status()))
    })
    .await;
}

async fn r29_lag_is_never_zero_and_no_read_fresh_while_the_primary_is_away(mut pair: Pair) {
    pair.join_and_start().await;
    pair.primary.push_image("team/app", &[b"one"], &["one"]).await;
    pair.converged().await;
    fresh(&pair).await;
    pair.faults.set_online(false);
    pair.primary.push_image("team/app", &[b"two"], &["one"]).await;
    let mut last = 0.0;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let status = pair.engine().status();
        let seconds = status.apply_lag.seconds.unwrap();
        assert!(seconds > last, "{seconds} after {last}");
        last = seconds;
    }
    until("a read is stale", async || pair.engine().is_fresh().then(|| "fresh".to_owned())).await;
    let status = pair.engine().status();
    assert!(!status.fresh && status.apply_lag.seconds.unwrap() >= 5.0, "{status:?}");
    // A restart while the primary is away knows nothing, and says so.
    pair.stop().await;
    pair.start().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let status = pair.engine().status();
    assert_eq!((status.apply_lag.seconds, status.ingest_lag.seconds, status.fresh), (None, None, false));
    pair.faults.heal();
    pair.converged().await;
    fresh(&pair).await;
}

async fn r29_nothing_is_fresh_while_a_tag_is_unapplied(mut pair: Pair) {
    pair.join_and_start().await;
    pair.primary.push_image("team/app", &[b"one"], &["one"]).await;
    pair.converged().await;
    fresh(&pair).await;
    let layer = twinport_oci::Digest::sha256(b"two");
    pair.faults.fail_blob(layer, BlobFault::Altered);
    pair.primary.push_image("team/app", &[b"two"], &["one"]).await;
    pair.item_is("team/app", "tag", "one", "failed").await;
    until("a read is stale", async || pair.engine().is_fresh().then(|| "fresh".to_owned())).await;
    let status = pair.engine().status();
    assert!(status.ingest_lag.seconds.unwrap() < status.apply_lag.seconds.unwrap(), "{status:?}");
    assert!(status.apply_lag.events.unwrap() > 0, "{status:?}");
    pair.faults.heal();
    pair.converged().await;
    fresh(&pair).await;
}

async fn r29_nothing_is_claimed_before_the_backfill_is_done(mut pair: Pair) {
    pair.primary.push_image("team/app", &[b"one"], &["one"]).await;
    *pair.faults.listings.lock() = crate::transport::ListingFault::Failing;
    pair.join_and_start().await;
    until("the log is followed", async || {
        let status = pair.engine().status();
        status.ingest_lag.seconds.is_none().then(|| format!("{status:?}"))
    })
    .await;
    let status = pair.engine().status();
    assert_eq!((status.processed_seq, status.apply_lag.seconds, status.fresh), (None, None, false));
    pair.faults.heal();
    pair.converged().await;
    fresh(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r20_clocks_that_step_back_or_stand_still_neither_stop_nor_reorder_anything() {
    let mut pair = Pair::with_manual_clocks().await;
    pair.join_and_start().await;
    // Equal clocks that stand still: every event of this round has one and the same time.
    for round in 0..5 {
        let layer = format!("equal {round}");
        pair.primary.push_image("team/app", &[layer.as_bytes()], &["latest"]).await;
    }
    let step = async |pair: &Pair, by_us: i64| {
        pair.primary.step_clock(by_us);
        pair.secondary.step_clock(by_us);
    };
    let converge = async |pair: &Pair| {
        // Time has to go by for a repository to be called quiet.
        let ticking = async {
            loop {
                step(pair, SECOND_US / 10).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = pair.converged() => {}
            () = ticking => {}
        }
    };
    converge(&pair).await;
    // The primary's clock goes back an hour, the secondary's a day; what failed is planned far in the future.
    pair.faults.fail_blob(twinport_oci::Digest::sha256(b"stepped"), BlobFault::Altered);
    pair.primary.push_image("team/app", &[b"stepped"], &["latest", "stepped"]).await;
    pair.item_is("team/app", "tag", "stepped", "failed").await;
    pair.primary.step_clock(-3_600 * SECOND_US);
    pair.secondary.step_clock(-24 * 3_600 * SECOND_US);
    pair.faults.heal();
    let last = pair.primary.push_image("team/app", &[b"last"], &["latest"]).await;
    converge(&pair).await;
    assert_eq!(pair.tag("team/app", "latest").await, Some(last.0));
    // A backdated event is not an older one: the clocks went back by an hour and more.
    // What is told is up to a second old.
    until("the lag is none of the clocks' making", async || {
        let status = pair.engine().status();
        let within = status.apply_lag.seconds.is_some_and(|seconds| (0.0..1_800.0).contains(&seconds));
        (!within).then(|| format!("{status:?}"))
    })
    .await;
}
