//! Repositories that come, go, and take each other's names.

use crate::{
    on_both_databases,
    pair::{Pair, until},
    registry::name,
    transport::BlobFault,
};

on_both_databases!(
    r9_repository_delete_and_rename_are_replicated,
    r27_a_repository_deleted_and_made_again_is_another,
    r27_a_rename_while_its_content_is_applied_loses_nothing,
    r27_repositories_that_swap_names_do_not_wait_for_each_other,
);

async fn r9_repository_delete_and_rename_are_replicated(mut pair: Pair) {
    pair.join_and_start().await;
    pair.primary.push_image("team/gone", &[b"gone"], &["latest"]).await;
    let kept = pair.primary.push_image("team/old", &[b"kept"], &["latest"]).await;
    pair.converged().await;
    assert!(pair.primary.delete_repository("team/gone").await);
    assert!(pair.primary.rename("team/old", "team/new").await);
    pair.converged().await;
    assert_eq!(pair.tag("team/new", "latest").await, Some(kept.0));
    assert_eq!(pair.secondary.metadata.repository(&name("team/gone")).await.unwrap(), None);
    assert_eq!(pair.secondary.metadata.repository(&name("team/old")).await.unwrap(), None);
}

async fn r27_a_repository_deleted_and_made_again_is_another(mut pair: Pair) {
    pair.join_and_start().await;
    // The first life's content cannot be had, so it is still being worked on when the second life begins.
    pair.faults.fail_blob(twinport_oci::Digest::sha256(b"first"), BlobFault::SilentAfter(0));
    pair.primary.push_image("team/app", &[b"first"], &["latest", "first"]).await;
    pair.ingested().await;
    let first = pair.secondary.metadata.repository(&name("team/app")).await.unwrap().unwrap().uuid;
    assert!(pair.primary.delete_repository("team/app").await);
    let second = pair.primary.push_image("team/app", &[b"second"], &["latest"]).await;
    pair.item_is("team/app", "tag", "latest", "synced").await;
    pair.faults.heal();
    pair.converged().await;
    assert_eq!(pair.tag("team/app", "latest").await, Some(second.0));
    assert_eq!(pair.tag("team/app", "first").await, None);
    assert_ne!(pair.secondary.metadata.repository(&name("team/app")).await.unwrap().unwrap().uuid, first);
    assert_eq!(pair.secondary.metadata.tracked_repository(first).await.unwrap(), None);
}

async fn r27_a_rename_while_its_content_is_applied_loses_nothing(mut pair: Pair) {
    pair.join_and_start().await;
    for round in 0..10 {
        let (from, to) = if round % 2 == 0 { ("team/a", "team/b") } else { ("team/b", "team/a") };
        for push in 0..4 {
            let layer = format!("{round} {push}");
            pair.primary.push_image(from, &[layer.as_bytes()], &[&format!("t{push}"), "latest"]).await;
        }
        assert!(pair.primary.rename(from, to).await);
    }
    pair.converged().await;
}

async fn r27_repositories_that_swap_names_do_not_wait_for_each_other(mut pair: Pair) {
    pair.join_and_start().await;
    let a = pair.primary.push_image("team/a", &[b"a"], &["latest"]).await;
    let b = pair.primary.push_image("team/b", &[b"b"], &["latest"]).await;
    pair.converged().await;
    pair.faults.set_online(false);
    pair.primary.rename("team/a", "team/c").await;
    pair.primary.rename("team/b", "team/a").await;
    pair.primary.rename("team/c", "team/b").await;
    // A third takes a name between two renames, and goes again.
    pair.primary.push_image("team/c", &[b"c"], &["latest"]).await;
    pair.primary.delete_repository("team/c").await;
    pair.faults.set_online(true);
    until("the names are swapped", async || {
        let (now_a, now_b) = (pair.tag("team/a", "latest").await, pair.tag("team/b", "latest").await);
        ((now_a, now_b) != (Some(b.0), Some(a.0))).then(|| format!("{now_a:?} {now_b:?}"))
    })
    .await;
    pair.converged().await;
}
