//! What becomes visible at the secondary, and what does not: closures, failures, deletes.

use crate::{
    on_both_databases,
    pair::{Pair, until},
    registry::name,
    transport::BlobFault,
};

on_both_databases!(
    r1_a_nested_index_arrives_with_every_child_of_every_architecture,
    r10_untagged_manifests_referrers_and_old_digests_arrive,
    r4_delete_by_digest_takes_its_own_tags_and_no_sibling,
    r5_a_repository_with_a_failed_tag_is_never_synced,
    r14_one_bad_tag_holds_no_neighbour_and_the_old_tag_stays,
    r14_what_failed_is_tried_again_as_soon_as_the_primary_returns,
    r14_what_waits_for_the_primary_waits_no_longer_than_a_blink_of_the_connection,
    a_tag_is_never_visible_before_its_blobs,
    a_manifest_deleted_before_it_was_fetched_is_superseded,
    an_unlinked_blob_takes_nothing_else_along,
    an_event_applied_twice_changes_nothing,
);

async fn r1_a_nested_index_arrives_with_every_child_of_every_architecture(mut pair: Pair) {
    pair.join_and_start().await;
    let mut children = Vec::new();
    for architecture in ["amd64", "arm64", "s390x", "riscv64"] {
        let layer = format!("{architecture} layer");
        let (digest, size) = pair.primary.push_image("library/nested", &[layer.as_bytes()], &[]).await;
        children.push((digest, size, architecture));
    }
    let inner = pair.primary.push_index("library/nested", &children[1..], &[]).await;
    let outer = [children[0], (inner.0, inner.1, "index")];
    let outer = pair.primary.push_index("library/nested", &outer, &["latest", "v1"]).await;
    pair.converged().await;
    assert_eq!(pair.tag("library/nested", "latest").await, Some(outer.0));
    for (digest, ..) in children {
        let item = pair.item("library/nested", "manifest", digest).await.unwrap();
        assert_eq!((item.state.as_str(), item.verification.as_str()), ("synced", "succeeded"));
    }
}

async fn r10_untagged_manifests_referrers_and_old_digests_arrive(mut pair: Pair) {
    pair.join_and_start().await;
    let old = pair.primary.push_image("library/app", &[b"old"], &["latest"]).await;
    let new = pair.primary.push_image("library/app", &[b"new"], &["latest"]).await;
    let untagged = pair.primary.push_image("library/app", &[b"untagged"], &[]).await;
    let signature = pair.primary.push_referrer("library/app", new).await;
    pair.converged().await;
    for (digest, _) in [old, new, untagged, signature] {
        assert!(pair.tag("library/app", &digest.to_string()).await.is_some(), "{digest}");
    }
    let referrers =
        pair.secondary.metadata.referrers(&name("library/app"), &new.0, None, None, 10).await.unwrap();
    assert_eq!(referrers.iter().map(|referrer| referrer.digest).collect::<Vec<_>>(), [signature.0]);
    assert_eq!(referrers[0].artifact_type.as_deref(), Some("application/vnd.example.signature"));
}

async fn r4_delete_by_digest_takes_its_own_tags_and_no_sibling(mut pair: Pair) {
    pair.join_and_start().await;
    let one = pair.primary.push_image("library/app", &[b"one"], &["a", "b"]).await;
    let other = pair.primary.push_image("library/app", &[b"other"], &["c"]).await;
    pair.converged().await;
    assert!(pair.primary.delete_manifest("library/app", &one.0).await);
    pair.converged().await;
    assert_eq!(pair.tag("library/app", "a").await, None);
    assert_eq!(pair.tag("library/app", "b").await, None);
    assert_eq!(pair.tag("library/app", "c").await, Some(other.0));
}

async fn r5_a_repository_with_a_failed_tag_is_never_synced(mut pair: Pair) {
    pair.join_and_start().await;
    let good = pair.primary.push_image("library/app", &[b"good"], &["good"]).await;
    pair.converged().await;
    let layer = twinport_oci::Digest::sha256(b"bad");
    pair.faults.fail_blob(layer, BlobFault::Altered);
    let bad = pair.primary.push_image("library/app", &[b"bad"], &["bad"]).await;
    pair.item_is("library/app", "tag", "bad", "failed").await;
    for (kind, key) in [("blob_link", layer), ("manifest", bad.0)] {
        let item = pair.item("library/app", kind, key).await.unwrap();
        assert_eq!(item.state, "failed", "{kind}");
        assert!(item.last_error.is_some());
    }
    let summary = pair.secondary.metadata.tracking_summary().await.unwrap();
    assert_eq!(
        (summary.repositories.synced, summary.repositories.failed + summary.repositories.started),
        (0, 1)
    );
    assert_eq!(pair.tag("library/app", "bad").await, None);
    assert_eq!(pair.tag("library/app", "good").await, Some(good.0));
    let processed = pair.secondary.metadata.processed_seq().await.unwrap().unwrap();
    let head = pair.secondary.metadata.log_head().await.unwrap().position.seq;
    assert!(processed < head, "the last event processed lies before what failed: {processed} < {head}");
    pair.faults.heal();
    pair.converged().await;
}

async fn r14_one_bad_tag_holds_no_neighbour_and_the_old_tag_stays(mut pair: Pair) {
    pair.join_and_start().await;
    let old = pair.primary.push_image("library/app", &[b"v1"], &["latest"]).await;
    pair.converged().await;
    pair.faults.fail_blob(twinport_oci::Digest::sha256(b"v2"), BlobFault::Absent);
    pair.primary.push_image("library/app", &[b"v2"], &["latest", "v2"]).await;
    let neighbour = pair.primary.push_image("library/app", &[b"v3"], &["v3"]).await;
    let elsewhere = pair.primary.push_image("library/other", &[b"v2", b"v4"], &["v4"]).await;
    let fine = pair.primary.push_image("library/other", &[b"v5"], &["v5"]).await;
    pair.item_is("library/app", "tag", "v3", "synced").await;
    pair.item_is("library/other", "tag", "v5", "synced").await;
    pair.item_is("library/app", "tag", "latest", "failed").await;
    pair.item_is("library/other", "tag", "v4", "failed").await;
    assert_eq!(pair.tag("library/app", "latest").await, Some(old.0));
    assert_eq!(pair.tag("library/app", "v3").await, Some(neighbour.0));
    assert_eq!(pair.tag("library/other", "v5").await, Some(fine.0));
    pair.faults.heal();
    pair.converged().await;
    assert_eq!(pair.tag("library/other", "v4").await, Some(elsewhere.0));
}

async fn r14_what_failed_is_tried_again_as_soon_as_the_primary_returns(mut pair: Pair) {
    // Left alone, nothing would be tried again within this test.
    pair.tuning.retry_first = std::time::Duration::from_secs(3_000);
    pair.tuning.retry_most = pair.tuning.retry_first;
    pair.join_and_start().await;
    pair.faults.fail_blob(twinport_oci::Digest::sha256(b"layer"), BlobFault::Altered);
    pair.primary.push_image("library/app", &[b"layer"], &["latest"]).await;
    pair.item_is("library/app", "tag", "latest", "failed").await;
    pair.faults.set_online(false);
    until("the loss is noticed", async || {
        let status = pair.engine().status();
        (status.connection == twinport_geo::Connection::Connected).then(|| format!("{status:?}"))
    })
    .await;
    // Longer than a mere blink of the connection.
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    pair.faults.heal();
    pair.converged().await;
}

async fn r14_what_waits_for_the_primary_waits_no_longer_than_a_blink_of_the_connection(mut pair: Pair) {
    // Left alone, nothing would be tried again within this test.
    pair.tuning.away = std::time::Duration::from_secs(3_000);
    pair.tuning.reconnect_most = std::time::Duration::from_millis(200);
    pair.join_and_start().await;
    pair.primary.push_image("library/app", &[b"first"], &["first"]).await;
    pair.converged().await;
    *pair.faults.manifests_hang.lock() = true;
    pair.primary.push_image("library/app", &[b"second"], &["second"]).await;
    pair.ingested().await;
    pair.faults.set_online(false);
    until("the repository waits for the primary", async || {
        let uuid = pair.secondary.metadata.repository(&name("library/app")).await.unwrap().unwrap().uuid;
        let tracked = pair.secondary.metadata.tracked_repository(uuid).await.unwrap().unwrap();
        (tracked.attempts == 0).then(|| format!("{tracked:?}"))
    })
    .await;
    // Within less than what counts as an outage.
    pair.faults.heal();
    pair.converged().await;
}

async fn a_tag_is_never_visible_before_its_blobs(mut pair: Pair) {
    pair.join_and_start().await;
    let layer = twinport_oci::Digest::sha256(b"slow");
    pair.faults.fail_blob(layer, BlobFault::SilentAfter(0));
    let image = pair.primary.push_image("library/app", &[b"slow"], &["latest"]).await;
    let fine = pair.primary.push_image("library/app", &[b"fast"], &["fast"]).await;
    // The transfer that hangs holds neither its neighbours nor the log.
    pair.item_is("library/app", "tag", "fast", "synced").await;
    assert_eq!(pair.tag("library/app", "fast").await, Some(fine.0));
    pair.item_is("library/app", "tag", "latest", "pending").await;
    assert_eq!(pair.tag("library/app", "latest").await, None);
    assert_eq!(pair.tag("library/app", &image.0.to_string()).await, None);
    pair.stop().await;
    pair.faults.heal();
    pair.start().await;
    pair.converged().await;
}

async fn a_manifest_deleted_before_it_was_fetched_is_superseded(mut pair: Pair) {
    pair.join_and_start().await;
    let kept = pair.primary.push_image("library/app", &[b"kept"], &["kept"]).await;
    let doomed = pair.primary.push_image("library/doomed", &[b"doomed"], &[]).await;
    pair.converged().await;
    pair.faults.absent_manifests.lock().push(doomed.0);
    // The events of the second push are ingested while the manifest is gone already, as far as the primary says.
    pair.primary.delete_manifest("library/doomed", &doomed.0).await;
    pair.primary.push_image("library/doomed", &[b"doomed"], &["latest"]).await;
    until("the absence is on record", async || {
        let item = pair.item("library/doomed", "tag", "latest").await;
        item.is_none().then(|| "no record".to_owned())
    })
    .await;
    let item = pair.item("library/doomed", "manifest", doomed.0).await.unwrap();
    assert_eq!(item.state, "pending", "an absence may be a deletion that is on its way: {item:?}");
    pair.primary.delete_manifest("library/doomed", &doomed.0).await;
    pair.converged().await;
    assert_eq!(pair.item("library/doomed", "manifest", doomed.0).await, None);
    assert_eq!(pair.tag("library/app", "kept").await, Some(kept.0));
}

async fn an_unlinked_blob_takes_nothing_else_along(mut pair: Pair) {
    pair.join_and_start().await;
    let image = pair.primary.push_image("library/app", &[b"layer", b"spare"], &["latest"]).await;
    let blob = pair.primary.push_blob("library/app", b"loose").await;
    pair.converged().await;
    assert!(pair.primary.unlink("library/app", &blob).await);
    assert!(pair.primary.unlink("library/app", &twinport_oci::Digest::sha256(b"spare")).await);
    pair.converged().await;
    let secondary = &pair.secondary.metadata;
    assert_eq!(secondary.blob(&name("library/app"), &blob).await.unwrap(), None);
    assert!(secondary.blob_is_known(&blob).await.unwrap().is_some(), "unlinking deletes no bytes");
    assert_eq!(pair.tag("library/app", "latest").await, Some(image.0));
}

async fn an_event_applied_twice_changes_nothing(mut pair: Pair) {
    pair.join_and_start().await;
    pair.primary.push_image("library/app", &[b"one"], &["a", "b"]).await;
    let image = pair.primary.push_image("library/app", &[b"two"], &["a"]).await;
    pair.primary.delete_tag("library/app", "b").await;
    pair.converged().await;
    // A listing goes over everything again, below the positions that the rows have.
    pair.stop().await;
    let uuid = pair.secondary.metadata.repository(&name("library/app")).await.unwrap().unwrap().uuid;
    let lease = twinport_metadata::Lease { holder: uuid::Uuid::new_v4(), duration_us: 1 };
    assert!(pair.secondary.metadata.lease_repository(uuid, lease).await.unwrap());
    let chunk = twinport_metadata::ApplyChunk {
        listing: twinport_metadata::Listing::Needed,
        ..twinport_metadata::ApplyChunk::default()
    };
    pair.secondary.metadata.apply(uuid, lease, chunk).await.unwrap();
    pair.start().await;
    pair.converged().await;
    assert_eq!(pair.tag("library/app", "a").await, Some(image.0));
    assert_eq!(pair.tag("library/app", "b").await, None);
}
