//! What retention takes and brings back: tags as they were chosen, manifests when nothing needs them any more.

use twinport_access::{Rule, Rules, TagGuard};
use twinport_metadata::{AgedTag, Emptied, EventKind, PutManifest, Restored, TrashRow};

use crate::on_both_databases;
use crate::site::{TestSite, actor, manifest, name, tag};

on_both_databases!(
    r30_what_was_taken_comes_back_as_it_was,
    r30_a_tag_that_was_moved_or_is_held_since_it_was_chosen_stays,
    r30_a_manifest_goes_only_when_nothing_names_it,
    r30_children_and_referrers_follow_what_they_belong_to,
    r30_what_is_pushed_again_has_another_day,
);

const DAY_US: i64 = 86_400_000_000;

async fn aged(site: &TestSite, repository: &str) -> Vec<AgedTag> {
    site.metadata.aged_tags(&name(repository), None, 100).await.unwrap()
}

async fn take(site: &TestSite, chosen: Vec<AgedTag>, guard: &TagGuard) -> u64 {
    let due_at_us = site.metadata.clock().now_us() + DAY_US;
    let rule = "old".parse().unwrap();
    site.metadata.take_tags(&name("app"), &rule, chosen, due_at_us, guard, &actor()).await.unwrap()
}

async fn due(site: &TestSite) -> Vec<TrashRow> {
    site.metadata.due_trash(site.metadata.clock().now_us(), 100).await.unwrap()
}

/// Empties the trash to the end; how many manifests went.
async fn empty(site: &TestSite) -> usize {
    let mut deleted = 0;
    loop {
        let rows = due(site).await;
        if rows.is_empty() {
            return deleted;
        }
        for row in rows {
            let emptied = site.metadata.empty_trash(&row, &TagGuard::default(), &actor()).await.unwrap();
            deleted += usize::from(emptied == Emptied::Deleted);
        }
    }
}

async fn r30_what_was_taken_comes_back_as_it_was(site: TestSite) {
    let digest = site.push_image("app", "one", "v1").await;
    site.push_image("app", "two", "v2").await;
    let chosen = aged(&site, "app").await;
    assert_eq!(take(&site, chosen, &TagGuard::default()).await, 2);
    assert!(site.tag_names("app").await.is_empty());
    assert!(site.has_manifest("app", digest).await, "a digest is readable until its time is over");
    let trash = site.metadata.trash(&name("app"), None, 100).await.unwrap();
    let tags: Vec<_> = trash.iter().map(|row| row.tag.as_ref().unwrap().to_string()).collect();
    assert_eq!(
        (tags, trash[0].digest, trash[0].rule.as_str()),
        (vec!["v1".into(), "v2".into()], digest, "old")
    );

    let before = site.log().await.len();
    let restored = site.metadata.restore_tag(&name("app"), &tag("v1"), &actor()).await.unwrap();
    assert_eq!(restored, Restored::To(digest));
    assert_eq!(site.resolve("app", "v1").await, Some(digest));
    assert_eq!(site.kinds_after(before).await, [EventKind::TagSet]);
    // Once, and never over what somebody pushed meanwhile.
    let again = site.metadata.restore_tag(&name("app"), &tag("v1"), &actor()).await.unwrap();
    assert_eq!(again, Restored::Unknown);
    let newer = site.push_image("app", "three", "v2").await;
    let taken = site.metadata.restore_tag(&name("app"), &tag("v2"), &actor()).await.unwrap();
    assert_eq!(taken, Restored::Taken(newer));
}

async fn r30_a_tag_that_was_moved_or_is_held_since_it_was_chosen_stays(site: TestSite) {
    for tagged in ["gone", "held", "moved", "same"] {
        site.push_image("app", tagged, tagged).await;
    }
    let chosen = aged(&site, "app").await;
    site.advance_clock(1);
    site.push_image("app", "another", "moved").await;
    // Moved there and back: it is as young as its last move.
    site.push_image("app", "another", "same").await;
    site.push_image("app", "same", "same").await;
    let held: Rule = serde_json::from_str(
        r#"{"name":"keep","repositories":"**","rule":"immutable_tags","tags":["held"]}"#,
    )
    .unwrap();
    let guard = Rules::new([held]).tag_guard(&name("app"));
    assert_eq!(take(&site, chosen, &guard).await, 1);
    assert_eq!(site.tag_names("app").await, ["held", "moved", "same"]);
}

async fn r30_a_manifest_goes_only_when_nothing_names_it(site: TestSite) {
    let alone = site.push_image("app", "alone", "a").await;
    let tagged = site.push_image("app", "tagged", "b").await;
    let child = site.push_image("app", "child", "c").await;
    take(&site, aged(&site, "app").await, &TagGuard::default()).await;
    let both = PutManifest { tags: vec![tag("again")], ..manifest("app", "tagged") };
    site.metadata.put_manifest(both).await.unwrap();
    let index = PutManifest { manifests: vec![child], tags: vec![tag("multi")], ..manifest("app", "index") };
    site.metadata.put_manifest(index).await.unwrap();

    assert_eq!(empty(&site).await, 0, "its time is not over");
    site.advance_clock(2 * DAY_US);
    assert_eq!(empty(&site).await, 1);
    assert!(!site.has_manifest("app", alone).await);
    assert!(site.has_manifest("app", tagged).await && site.has_manifest("app", child).await);
    assert!(site.metadata.trash(&name("app"), None, 100).await.unwrap().is_empty());
}

async fn r30_children_and_referrers_follow_what_they_belong_to(site: TestSite) {
    let put = async |put: PutManifest| {
        let digest = put.digest;
        site.metadata.put_manifest(put).await.unwrap();
        digest
    };
    let shared = put(manifest("app", "shared child")).await;
    let own = put(manifest("app", "own child")).await;
    let manifests = vec![shared, own];
    let old = put(PutManifest { manifests, tags: vec![tag("old")], ..manifest("app", "old index") }).await;
    let new = PutManifest { manifests: vec![shared], tags: vec![tag("new")], ..manifest("app", "new index") };
    let new = put(new).await;
    let signature = put(PutManifest { subject: Some(old), ..manifest("app", "signature") }).await;
    let countersigned = put(PutManifest { subject: Some(signature), ..manifest("app", "counter") }).await;
    let tagged_sbom = PutManifest { subject: Some(old), tags: vec![tag("sbom")], ..manifest("app", "sbom") };
    let sbom = put(tagged_sbom).await;
    let other = put(PutManifest { subject: Some(new), ..manifest("app", "other signature") }).await;

    let chosen = aged(&site, "app").await.into_iter().filter(|aged| aged.tag.as_str() == "old").collect();
    assert_eq!(take(&site, chosen, &TagGuard::default()).await, 1);
    site.advance_clock(2 * DAY_US);
    assert_eq!(empty(&site).await, 4);
    for gone in [old, own, signature, countersigned] {
        assert!(!site.has_manifest("app", gone).await);
    }
    for kept in [shared, new, sbom, other] {
        assert!(site.has_manifest("app", kept).await);
    }
}

async fn r30_what_is_pushed_again_has_another_day(site: TestSite) {
    let digest = site.push_image("app", "one", "v1").await;
    take(&site, aged(&site, "app").await, &TagGuard::default()).await;
    site.advance_clock(2 * DAY_US);
    site.metadata.put_manifest(manifest("app", "one")).await.unwrap();
    assert_eq!(empty(&site).await, 0);
    assert!(site.has_manifest("app", digest).await);
    site.advance_clock(2 * DAY_US);
    assert_eq!(empty(&site).await, 1);
    assert_eq!(
        site.metadata.restore_tag(&name("app"), &tag("v1"), &actor()).await.unwrap(),
        Restored::Unknown
    );
}
