//! What was on the primary before the site joined, and listings that lie.

use crate::{
    on_both_databases,
    pair::{Pair, until},
    registry::name,
    transport::{BlobFault, ListingFault},
};

on_both_databases!(
    r10_a_backfill_brings_everything_that_was_there_before_the_join,
    r3_a_listing_that_fails_or_is_cut_short_takes_nothing_away_and_ends_nothing,
    r3_no_repository_is_forgotten_by_a_cut_list_of_repositories,
    live_events_and_a_backfill_of_the_same_repository_meet,
    a_repository_deleted_while_its_page_travels_stays_deleted,
    a_backfill_goes_on_after_the_engine_ended_anywhere,
    an_index_waits_for_children_that_are_listed_after_it,
);

async fn fill(pair: &Pair) {
    for number in 0..5 {
        let repository = format!("team/app-{number}");
        let layer = format!("layer {number}");
        let old =
            pair.primary.push_image(&repository, &[layer.as_bytes(), b"shared"], &["latest", "old"]).await;
        let new = pair.primary.push_image(&repository, &[b"new", b"shared"], &["latest"]).await;
        let index = [(old.0, old.1, "amd64"), (new.0, new.1, "arm64")];
        let inner = pair.primary.push_index(&repository, &index, &[]).await;
        pair.primary.push_index(&repository, &[(inner.0, inner.1, "index")], &["multi"]).await;
        pair.primary.push_referrer(&repository, new).await;
    }
}

async fn r10_a_backfill_brings_everything_that_was_there_before_the_join(mut pair: Pair) {
    fill(&pair).await;
    pair.primary.delete_tag("team/app-1", "old").await;
    pair.primary.rename("team/app-2", "team/renamed").await;
    *pair.faults.listings.lock() = ListingFault::Paged(2);
    pair.join_and_start().await;
    pair.converged().await;
    until("the backfill is finished", async || {
        let backfill = pair.secondary.metadata.backfill().await.unwrap().unwrap();
        backfill.finished_at_us.is_none().then(|| format!("{backfill:?}"))
    })
    .await;
}

async fn r3_a_listing_that_fails_or_is_cut_short_takes_nothing_away_and_ends_nothing(mut pair: Pair) {
    fill(&pair).await;
    pair.join_and_start().await;
    pair.converged().await;
    let before = pair.secondary.metadata.tracking_summary().await.unwrap().items;
    let uuid = pair.secondary.metadata.repository(&name("team/app-0")).await.unwrap().unwrap().uuid;
    for fault in [ListingFault::Failing, ListingFault::Empty, ListingFault::Truncated] {
        *pair.faults.listings.lock() = fault;
        let asked = *pair.faults.pages.lock();
        pair.stop().await;
        let lease = twinport_metadata::Lease { holder: uuid::Uuid::new_v4(), duration_us: 1 };
        assert!(pair.secondary.metadata.lease_repository(uuid, lease).await.unwrap());
        let chunk = twinport_metadata::ApplyChunk {
            listing: twinport_metadata::Listing::Needed,
            ..twinport_metadata::ApplyChunk::default()
        };
        pair.secondary.metadata.apply(uuid, lease, chunk).await.unwrap();
        pair.start().await;
        until("the listing was tried three times", async || {
            let pages = *pair.faults.pages.lock() - asked;
            (pages < 3).then(|| format!("{pages} pages"))
        })
        .await;
        let tracked = pair.secondary.metadata.tracked_repository(uuid).await.unwrap().unwrap();
        assert!(tracked.needs_listing, "{fault:?} ended the listing");
        let items = pair.secondary.metadata.tracking_summary().await.unwrap().items;
        assert_eq!(items.synced, before.synced, "{fault:?} changed what is here");
        assert_eq!(pair.secondary.metadata.processed_seq().await.unwrap(), None, "no position is complete");
    }
    pair.faults.heal();
    pair.converged().await;
}

async fn r3_no_repository_is_forgotten_by_a_cut_list_of_repositories(mut pair: Pair) {
    fill(&pair).await;
    *pair.faults.listings.lock() = ListingFault::Truncated;
    pair.join_and_start().await;
    until("the list was cut", async || {
        let backfill = pair.secondary.metadata.backfill().await.unwrap().unwrap();
        (backfill.after_path.is_empty()).then(|| format!("{backfill:?}"))
    })
    .await;
    let backfill = pair.secondary.metadata.backfill().await.unwrap().unwrap();
    assert_eq!(backfill.finished_at_us, None);
    pair.faults.heal();
    pair.converged().await;
}

async fn live_events_and_a_backfill_of_the_same_repository_meet(mut pair: Pair) {
    fill(&pair).await;
    pair.join().await;
    // Between the join and the first listing: set, moved, deleted, pushed, renamed.
    let moved = pair.primary.push_image("team/app-0", &[b"after"], &["latest"]).await;
    pair.primary.delete_tag("team/app-0", "old").await;
    pair.primary.push_image("team/app-9", &[b"shared", b"young"], &["latest"]).await;
    pair.primary.rename("team/app-3", "team/another").await;
    pair.primary.delete_repository("team/app-4").await;
    *pair.faults.listings.lock() = ListingFault::Paged(3);
    pair.start().await;
    for number in 0..20 {
        let tag = format!("t{number}");
        let layer = format!("live {number}");
        pair.primary.push_image("team/app-1", &[layer.as_bytes()], &[&tag, "latest"]).await;
        if number % 3 == 0 {
            pair.primary.delete_tag("team/app-1", &tag).await;
        }
    }
    pair.converged().await;
    assert_eq!(pair.tag("team/app-0", "latest").await, Some(moved.0));
}

async fn a_repository_deleted_while_its_page_travels_stays_deleted(mut pair: Pair) {
    fill(&pair).await;
    pair.join().await;
    let uuid = pair.primary.metadata.repository(&name("team/app-0")).await.unwrap().unwrap().uuid;
    let page = pair.primary.metadata.repository_rows("", 1).await.unwrap();
    assert_eq!(page.rows[0].uuid, uuid);
    pair.primary.delete_repository("team/app-0").await;
    *pair.faults.listings.lock() = ListingFault::Failing;
    pair.start().await;
    pair.ingested().await;
    // The page was read before the deletion, and arrives after its event.
    pair.secondary.metadata.backfill_page(page.rows, "", false).await.unwrap();
    assert_eq!(pair.secondary.metadata.tracked_repository(uuid).await.unwrap(), None);
    pair.faults.heal();
    pair.converged().await;
    assert_eq!(pair.secondary.metadata.repository(&name("team/app-0")).await.unwrap(), None);
}

async fn a_backfill_goes_on_after_the_engine_ended_anywhere(mut pair: Pair) {
    fill(&pair).await;
    *pair.faults.listings.lock() = ListingFault::Paged(2);
    pair.join().await;
    for round in 0..12 {
        pair.start().await;
        tokio::time::sleep(std::time::Duration::from_millis(7 * round)).await;
        pair.stop().await;
    }
    pair.start().await;
    pair.converged().await;
}

async fn an_index_waits_for_children_that_are_listed_after_it(mut pair: Pair) {
    let mut children = Vec::new();
    for number in 0..40 {
        let layer = format!("child {number}");
        let (digest, size) = pair.primary.push_image("library/wide", &[layer.as_bytes()], &[]).await;
        children.push((digest, size, "amd64"));
    }
    let mut index = pair.primary.push_index("library/wide", &children, &[]).await;
    for _ in 0..3 {
        index = pair.primary.push_index("library/wide", &[(index.0, index.1, "index")], &[]).await;
    }
    let tagged = pair.primary.push_index("library/wide", &[(index.0, index.1, "index")], &["latest"]).await;
    // One child cannot be had: nothing that rests on it may show, and its siblings must.
    let layer = twinport_oci::Digest::sha256(b"child 17");
    pair.faults.fail_blob(layer, BlobFault::Altered);
    *pair.faults.listings.lock() = ListingFault::Paged(5);
    pair.join_and_start().await;
    pair.item_is("library/wide", "tag", "latest", "failed").await;
    assert_eq!(pair.tag("library/wide", "latest").await, None);
    for (number, (digest, ..)) in children.iter().enumerate() {
        let here = pair.tag("library/wide", &digest.to_string()).await.is_some();
        assert_eq!(here, number != 17, "child {number}");
    }
    for digest in [index.0, tagged.0] {
        assert_eq!(pair.tag("library/wide", &digest.to_string()).await, None);
    }
    pair.faults.heal();
    pair.converged().await;
    assert_eq!(pair.tag("library/wide", "latest").await, Some(tagged.0));
}
