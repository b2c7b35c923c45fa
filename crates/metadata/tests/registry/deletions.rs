//! Deleting takes what was named and nothing beside it, and leaves a trace that other sites can follow.

use twinport_access::TagGuard;
use twinport_metadata::{EventKind, PutManifest};
use twinport_oci::Digest;

use crate::{
    on_both_databases,
    replay::{Closures, replay, stored},
    site::{TestSite, actor, blob, manifest, name, tag},
};

on_both_databases!(
    r4_delete_by_digest_leaves_sibling_tags,
    r4_delete_of_one_tag_leaves_the_manifest_and_its_other_tags,
    a_deleted_manifest_takes_its_tags_with_it_before_itself,
    a_deleted_manifest_leaves_tombstones_and_gc_candidates,
    a_manifest_with_more_tags_than_one_transaction_holds_is_deleted_whole,
    a_tag_that_moves_while_its_manifest_is_deleted_is_not_lost,
    what_is_not_there_cannot_be_deleted,
    a_deleted_manifest_may_come_back,
);

async fn r4_delete_by_digest_leaves_sibling_tags(site: TestSite) {
    let first = site.push_image("app", "first", "v1").await;
    let second = site.push_image("app", "second", "v2").await;
    site.push_image("other", "first", "v1").await;
    assert!(
        site.metadata.delete_manifest(&name("app"), &first, &TagGuard::default(), &actor()).await.unwrap()
    );
    assert_eq!(site.resolve("app", "v1").await, None);
    assert_eq!(site.resolve("app", "v2").await, Some(second));
    assert_eq!(site.resolve("other", "v1").await, Some(first), "another repository's copy stays");
}

async fn r4_delete_of_one_tag_leaves_the_manifest_and_its_other_tags(site: TestSite) {
    let digest = site.push_image("app", "image", "v1").await;
    site.push_image("app", "image", "latest").await;
    assert!(
        site.metadata.delete_tag(&name("app"), &tag("v1"), &TagGuard::default(), &actor()).await.unwrap()
    );
    assert_eq!(site.tag_names("app").await, ["latest"]);
    assert!(site.has_manifest("app", digest).await);
    let deleted = site.log().await.last().unwrap().event().unwrap();
    assert_eq!(
        (deleted.kind, deleted.tag, deleted.previous),
        (EventKind::TagDeleted, Some(tag("v1")), Some(digest))
    );
    assert_eq!(site.count("SELECT COUNT(*) FROM tombstones WHERE kind = 'tag'").await, 1);
}

async fn a_deleted_manifest_takes_its_tags_with_it_before_itself(site: TestSite) {
    let digest = site.push_image("app", "image", "v1").await;
    site.push_image("app", "image", "latest").await;
    let before = site.log().await.len();
    assert!(
        site.metadata.delete_manifest(&name("app"), &digest, &TagGuard::default(), &actor()).await.unwrap()
    );
    assert_eq!(
        site.kinds_after(before).await,
        [EventKind::TagDeleted, EventKind::TagDeleted, EventKind::ManifestDeleted]
    );
    assert!(site.tag_names("app").await.is_empty());
    assert!(!site.has_manifest("app", digest).await);
    assert!(site.has_blob("app", &Digest::sha256(b"layer of image")).await, "unlinking is not deleting");
}

async fn a_deleted_manifest_leaves_tombstones_and_gc_candidates(site: TestSite) {
    let layer = site.push_blob("app", "layer").await;
    let child = manifest("app", "child");
    site.metadata.put_manifest(child.clone()).await.unwrap();
    let index = PutManifest {
        blobs: vec![layer],
        manifests: vec![child.digest],
        tags: vec![tag("multi")],
        ..manifest("app", "index")
    };
    site.metadata.put_manifest(index.clone()).await.unwrap();
    site.metadata.delete_manifest(&name("app"), &index.digest, &TagGuard::default(), &actor()).await.unwrap();
    assert_eq!(site.count("SELECT COUNT(*) FROM tombstones WHERE kind = 'manifest'").await, 1);
    assert_eq!(site.count("SELECT COUNT(*) FROM tombstones WHERE kind = 'tag'").await, 1);
    assert_eq!(site.count("SELECT COUNT(*) FROM tombstones WHERE change IS NULL").await, 0);
    assert_eq!(site.count("SELECT COUNT(*) FROM gc_candidates WHERE kind = 'link'").await, 1);
    assert_eq!(site.count("SELECT COUNT(*) FROM gc_candidates WHERE kind = 'manifest'").await, 1);
    assert_eq!(site.count("SELECT COUNT(*) FROM manifest_references").await, 0);
}

async fn a_manifest_with_more_tags_than_one_transaction_holds_is_deleted_whole(site: TestSite) {
    let tags = (0..1200).map(|number| tag(&format!("build-{number}"))).collect();
    let put = PutManifest { tags, ..manifest("app", "image") };
    site.metadata.put_manifest(put.clone()).await.unwrap();
    site.push_image("app", "other", "stays").await;
    assert!(
        site.metadata
            .delete_manifest(&name("app"), &put.digest, &TagGuard::default(), &actor())
            .await
            .unwrap()
    );
    assert_eq!(site.tag_names("app").await, ["stays"]);
    let log = site.log().await;
    assert_eq!(log.last().unwrap().event().unwrap().kind, EventKind::ManifestDeleted);
    assert_eq!(replay(&site.metadata, &log, &Closures::new()).await, stored(&site.metadata).await);
}

async fn a_tag_that_moves_while_its_manifest_is_deleted_is_not_lost(site: TestSite) {
    for round in 0..15 {
        let old = site.push_image("app", &format!("old {round}"), "latest").await;
        let new = PutManifest { tags: vec![tag("latest")], ..manifest("app", &format!("new {round}")) };
        let expected = new.digest;
        let repository = name("app");
        let deleter = actor();
        let guard = TagGuard::default();
        let (put, deleted) = tokio::join!(
            site.metadata.put_manifest(new),
            site.metadata.delete_manifest(&repository, &old, &guard, &deleter)
        );
        put.unwrap();
        assert!(deleted.unwrap());
        assert_eq!(site.resolve("app", "latest").await, Some(expected));
    }
    let log = site.log().await;
    assert_eq!(replay(&site.metadata, &log, &Closures::new()).await, stored(&site.metadata).await);
}

async fn what_is_not_there_cannot_be_deleted(site: TestSite) {
    site.push_image("app", "image", "v1").await;
    let before = site.log().await.len();
    let absent = Digest::sha256(b"absent");
    for repository in ["app", "none"] {
        assert!(
            !site
                .metadata
                .delete_manifest(&name(repository), &absent, &TagGuard::default(), &actor())
                .await
                .unwrap()
        );
        assert!(
            !site
                .metadata
                .delete_tag(&name(repository), &tag("v2"), &TagGuard::default(), &actor())
                .await
                .unwrap()
        );
    }
    assert!(!site.metadata.delete_repository(&name("none"), &TagGuard::default(), &actor()).await.unwrap());
    assert_eq!(site.log().await.len(), before);
}

async fn a_deleted_manifest_may_come_back(site: TestSite) {
    let digest = site.push_image("app", "image", "v1").await;
    site.metadata.delete_manifest(&name("app"), &digest, &TagGuard::default(), &actor()).await.unwrap();
    site.metadata.commit_blob(blob("app", "layer of image")).await.unwrap();
    site.push_image("app", "image", "v1").await;
    assert_eq!(site.resolve("app", "v1").await, Some(digest));
    let log = site.log().await;
    assert_eq!(replay(&site.metadata, &log, &Closures::new()).await, stored(&site.metadata).await);
    site.metadata.delete_manifest(&name("app"), &digest, &TagGuard::default(), &actor()).await.unwrap();
    assert_eq!(site.count("SELECT COUNT(*) FROM tombstones WHERE kind = 'manifest'").await, 1);
}
