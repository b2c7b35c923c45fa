//! A manifest is pushed whole or not at all, and a push that changes nothing says nothing.

use twinport_access::TagGuard;
use twinport_metadata::{Error, EventKind, PutManifest, PutOutcome};
use twinport_oci::{Digest, Reference};

use crate::{
    on_both_databases,
    replay::{Closures, replay, stored},
    site::{TestSite, actor, manifest, name, tag},
};

on_both_databases!(
    s1_a_manifest_with_unlinked_blobs_names_them_all_and_leaves_nothing,
    s1_a_push_that_fails_at_any_table_leaves_nothing_and_its_retry_links_everything,
    a6_a_blob_of_another_repository_does_not_satisfy_a_manifest,
    a_manifest_is_answered_as_it_was_pushed,
    a_push_under_a_tag_appends_the_manifest_then_the_tag,
    a_push_that_is_repeated_appends_no_event,
    a_moved_tag_carries_what_it_named_before,
    a_push_under_several_tags_sets_them_all_at_once,
    an_index_may_lack_its_children,
    two_writers_on_one_tag_leave_a_log_that_replays_to_the_final_state,
    pushes_that_share_tags_in_opposite_order_do_not_wait_for_each_other,
);

async fn s1_a_manifest_with_unlinked_blobs_names_them_all_and_leaves_nothing(site: TestSite) {
    let linked = site.push_blob("app", "linked").await;
    let before = site.log().await.len();
    let missing = [Digest::sha256(b"one"), Digest::sha256(b"two")];
    let put = PutManifest {
        blobs: vec![missing[0], linked, missing[1]],
        tags: vec![tag("latest")],
        ..manifest("app", "image")
    };
    let Err(Error::BlobsUnknown(mut named)) = site.metadata.put_manifest(put.clone()).await else {
        panic!("a manifest without its blobs was taken");
    };
    named.sort_unstable();
    let mut expected = missing.to_vec();
    expected.sort_unstable();
    assert_eq!(named, expected);
    assert_eq!(site.resolve("app", "latest").await, None);
    assert!(!site.has_manifest("app", put.digest).await);
    assert_eq!(site.log().await.len(), before);
    assert_eq!(site.count("SELECT COUNT(*) FROM manifest_references").await, 0);

    let fresh = PutManifest { repository: name("fresh"), ..put };
    assert!(
        matches!(site.metadata.put_manifest(fresh).await, Err(Error::BlobsUnknown(all)) if all.len() == 3)
    );
    assert_eq!(site.metadata.repository(&name("fresh")).await.unwrap(), None);
}

async fn s1_a_push_that_fails_at_any_table_leaves_nothing_and_its_retry_links_everything(site: TestSite) {
    let layers = vec![site.push_blob("app", "one").await, site.push_blob("app", "two").await];
    let before = site.log().await.len();
    let put = PutManifest { blobs: layers.clone(), tags: vec![tag("latest")], ..manifest("app", "image") };
    let rows = ["manifests", "manifest_references", "tags"];
    for table in ["events", "manifests", "manifest_references", "tags"] {
        site.refuse_inserts_into(table).await;
        site.metadata.put_manifest(put.clone()).await.unwrap_err();
        site.take_inserts_into(table).await;
        assert_eq!(site.log().await.len(), before, "refused by {table}");
        for left in rows {
            let count = format!("SELECT COUNT(*) FROM {left}");
            assert_eq!(site.count(&count).await, 0, "{left}, refused by {table}");
        }
    }
    assert_eq!(site.metadata.put_manifest(put).await.unwrap(), PutOutcome { created: true });
    assert_eq!(site.count("SELECT COUNT(*) FROM manifest_references").await, 2);
    assert_eq!(site.kinds_after(before).await, [EventKind::ManifestPushed, EventKind::TagSet]);
    for layer in &layers {
        assert!(site.has_blob("app", layer).await);
    }
}

async fn a6_a_blob_of_another_repository_does_not_satisfy_a_manifest(site: TestSite) {
    let theirs = site.push_blob("theirs", "layer").await;
    site.push_blob("mine", "other layer").await;
    let put = PutManifest { blobs: vec![theirs], ..manifest("mine", "image") };
    assert!(
        matches!(site.metadata.put_manifest(put).await, Err(Error::BlobsUnknown(named)) if named == [theirs])
    );
}

async fn a_manifest_is_answered_as_it_was_pushed(site: TestSite) {
    let digest = site.push_image("app", "{ \"verbatim\" :1}", "latest").await;
    for reference in [Reference::Tag(tag("latest")), Reference::Digest(digest)] {
        let stored = site.metadata.manifest(&name("app"), &reference).await.unwrap().unwrap();
        let head = site.metadata.manifest_head(&name("app"), &reference).await.unwrap().unwrap();
        assert_eq!(stored.body.as_ref(), b"{ \"verbatim\" :1}");
        assert_eq!(stored.media_type, "application/vnd.oci.image.manifest.v1+json");
        assert_eq!((stored.digest, head.digest, head.size), (digest, digest, 16));
        assert_eq!(head.media_type, stored.media_type);
        assert_eq!(site.metadata.manifest(&name("other"), &reference).await.unwrap(), None);
    }
    // The media type of the first push stays, as the bytes do.
    let again =
        PutManifest { media_type: "application/json".to_owned(), ..manifest("app", "{ \"verbatim\" :1}") };
    assert_eq!(site.metadata.put_manifest(again).await.unwrap(), PutOutcome { created: false });
    let head = site.metadata.manifest_head(&name("app"), &Reference::Digest(digest)).await.unwrap().unwrap();
    assert_eq!(head.media_type, "application/vnd.oci.image.manifest.v1+json");
}

async fn a_push_under_a_tag_appends_the_manifest_then_the_tag(site: TestSite) {
    let subject = Digest::sha256(b"subject");
    let put = PutManifest { subject: Some(subject), tags: vec![tag("v1")], ..manifest("app", "image") };
    let actor = actor().with_correlation("request-7");
    assert_eq!(
        site.metadata.put_manifest(PutManifest { actor, ..put.clone() }).await.unwrap(),
        PutOutcome { created: true }
    );
    let kinds = site.kinds_after(0).await;
    assert_eq!(kinds, [EventKind::RepositoryCreated, EventKind::ManifestPushed, EventKind::TagSet]);
    let log = site.log().await;
    let (pushed, set) = (log[1].event().unwrap(), log[2].event().unwrap());
    assert_eq!((pushed.digest, pushed.size, pushed.subject), (Some(put.digest), Some(5), Some(subject)));
    assert_eq!(pushed.media_type, Some(put.media_type));
    assert_eq!((pushed.tag, pushed.correlation.as_deref()), (None, Some("request-7")));
    assert_eq!((set.tag, set.digest, set.previous), (Some(tag("v1")), Some(put.digest), None));
}

async fn a_push_that_is_repeated_appends_no_event(site: TestSite) {
    let put = PutManifest { tags: vec![tag("v1")], ..manifest("app", "image") };
    site.metadata.put_manifest(put.clone()).await.unwrap();
    let before = site.log().await.len();
    assert_eq!(site.metadata.put_manifest(put.clone()).await.unwrap(), PutOutcome { created: false });
    let by_digest = PutManifest { tags: vec![], ..put };
    assert_eq!(site.metadata.put_manifest(by_digest).await.unwrap(), PutOutcome { created: false });
    assert_eq!(site.log().await.len(), before);
}

async fn a_moved_tag_carries_what_it_named_before(site: TestSite) {
    let first = site.push_image("app", "first", "latest").await;
    let second = site.push_image("app", "second", "latest").await;
    assert_eq!(site.resolve("app", "latest").await, Some(second));
    assert!(site.has_manifest("app", first).await, "an untagged manifest stays");
    let moved = site.log().await.last().unwrap().event().unwrap();
    assert_eq!((moved.kind, moved.previous), (EventKind::TagSet, Some(first)));
    assert_eq!(site.count("SELECT COUNT(*) FROM gc_candidates WHERE kind = 'manifest'").await, 1);
}

async fn a_push_under_several_tags_sets_them_all_at_once(site: TestSite) {
    let tags = vec![tag("v1.2"), tag("v1"), tag("latest"), tag("v1")];
    let put = PutManifest { tags, ..manifest("app", "image") };
    site.metadata.put_manifest(put.clone()).await.unwrap();
    assert_eq!(site.tag_names("app").await, ["latest", "v1", "v1.2"]);
    assert_eq!(site.log().await.len(), 5);
}

async fn an_index_may_lack_its_children(site: TestSite) {
    let child = manifest("app", "child");
    let index =
        PutManifest { manifests: vec![child.digest], tags: vec![tag("multi")], ..manifest("app", "index") };
    site.metadata.put_manifest(index.clone()).await.unwrap();
    assert_eq!(site.resolve("app", "multi").await, Some(index.digest));
    assert_eq!(site.count("SELECT COUNT(*) FROM manifest_references WHERE kind = 'manifest'").await, 1);
}

async fn two_writers_on_one_tag_leave_a_log_that_replays_to_the_final_state(site: TestSite) {
    const ROUNDS: usize = 100;
    let writers = ["left", "right"].map(|side| {
        let metadata = site.metadata.clone();
        tokio::spawn(async move {
            let mut pushed = Vec::new();
            for round in 0..ROUNDS {
                // Every third push repeats the one before it.
                let content = format!("{side} {}", round - usize::from(round % 3 == 1));
                let put = PutManifest { tags: vec![tag("latest")], ..manifest("app", &content) };
                pushed.push(put.digest);
                metadata.put_manifest(put).await.unwrap();
            }
            pushed
        })
    });
    let mut orders = Vec::new();
    for writer in writers {
        orders.push(writer.await.unwrap());
    }
    let log = site.log().await;
    let replayed = replay(&site.metadata, &log, &Closures::new()).await;
    assert_eq!(replayed, stored(&site.metadata).await);
    let named = replayed.0.values().next().unwrap().tags["latest"];
    assert_eq!(site.resolve("app", "latest").await, Some(named));
    // A push that was acknowledged before another began comes before it in the log.
    for order in orders {
        let pushed: Vec<Digest> = log
            .iter()
            .map(|logged| logged.event().unwrap())
            .filter(|event| event.kind == EventKind::ManifestPushed)
            .filter_map(|event| event.digest.filter(|digest| order.contains(digest)))
            .collect();
        let mut expected = order;
        expected.dedup();
        assert_eq!(pushed, expected);
    }
}

async fn pushes_that_share_tags_in_opposite_order_do_not_wait_for_each_other(site: TestSite) {
    let names: Vec<String> = (0..8).map(|number| format!("tag-{number}")).collect();
    let layers: Vec<Digest> = {
        let mut layers = Vec::new();
        for number in 0..8 {
            layers.push(site.push_blob("app", &format!("layer {number}")).await);
        }
        layers
    };
    let writers = (0..6).map(|writer| {
        let (metadata, mut names, mut layers) = (site.metadata.clone(), names.clone(), layers.clone());
        tokio::spawn(async move {
            for round in 0..15 {
                names.rotate_left(writer + 1);
                layers.rotate_left(writer + 2);
                let put = PutManifest {
                    blobs: layers.clone(),
                    tags: names.iter().take(5).map(|text| tag(text)).collect(),
                    ..manifest("app", &format!("image {}", (round + writer) % 4))
                };
                let digest = put.digest;
                metadata.put_manifest(put).await.unwrap();
                if round % 5 == 4 {
                    metadata
                        .delete_manifest(&name("app"), &digest, &TagGuard::default(), &actor())
                        .await
                        .unwrap();
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let log = site.log().await;
    assert_eq!(replay(&site.metadata, &log, &Closures::new()).await, stored(&site.metadata).await);
    assert_eq!(site.deadlocks().await, 0);
}
