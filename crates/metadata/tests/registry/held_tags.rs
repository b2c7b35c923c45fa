//! Tags that rules hold where they are: nothing gets around them, and nothing more is refused than they say (hazard A7).

use std::sync::Arc;

use futures_util::future::join_all;
use twinport_access::{Holder, Rule, Rules, TagChange, TagGuard};
use twinport_metadata::{Error, EventKind, PutManifest};
use twinport_oci::Digest;

use crate::on_both_databases;
use crate::site::{TestSite, actor, manifest, name, tag};

on_both_databases!(
    a7_an_immutable_tag_is_set_once_and_then_neither_moved_nor_deleted,
    a7_a_digest_is_no_way_around_an_immutable_tag,
    a7_nothing_that_an_immutable_index_needs_can_be_deleted,
    a7_a_repository_with_an_immutable_tag_cannot_be_deleted,
    a7_of_two_pushes_of_one_immutable_tag_one_wins,
    a7_a_push_and_a_deletion_of_what_it_tags_never_leave_a_tag_without_its_manifest,
    a_tag_that_is_only_created_is_not_moved_and_may_be_deleted,
    what_is_not_held_goes_even_beside_what_is,
);

fn rules(what: &str) -> Rules {
    let text = format!(r#"{{"name":"releases","repositories":"**",{what}}}"#);
    Rules::new([serde_json::from_str::<Rule>(&text).unwrap()])
}

fn immutable() -> TagGuard {
    rules(r#""rule":"immutable_tags","tags":["v*"],"except":["v0*"]"#).tag_guard(&name("app"))
}

fn held(content: &str, tagged: &[&str]) -> PutManifest {
    let tags = tagged.iter().map(|text| tag(text)).collect();
    PutManifest { tags, guard: immutable(), ..manifest("app", content) }
}

#[track_caller]
fn assert_held<T: std::fmt::Debug>(outcome: Result<T, Error>, change: TagChange, tagged: &str) {
    match outcome {
        Err(Error::TagHeld(refusal) | Error::StillHeld { refusal, .. }) => {
            assert_eq!((refusal.change, refusal.tag.as_str()), (change, tagged));
            assert_eq!(refusal.by, Holder::ImmutableTags("releases".parse().unwrap()));
        }
        other => panic!("{other:?}"),
    }
}

async fn a7_an_immutable_tag_is_set_once_and_then_neither_moved_nor_deleted(site: TestSite) {
    let one = held("one", &["v1"]);
    site.metadata.put_manifest(one.clone()).await.unwrap();
    let before = site.log().await.len();

    assert_held(site.metadata.put_manifest(held("two", &["v1"])).await, TagChange::Move, "v1");
    // Nothing of a push with one held tag happens.
    assert_held(site.metadata.put_manifest(held("two", &["latest", "v1"])).await, TagChange::Move, "v1");
    let deleted = site.metadata.delete_tag(&name("app"), &tag("v1"), &immutable(), &actor()).await;
    assert_held(deleted, TagChange::Delete, "v1");
    assert_eq!(site.tag_names("app").await, ["v1"]);
    assert!(!site.has_manifest("app", Digest::sha256(b"two")).await);

    // The same again is no move.
    assert!(!site.metadata.put_manifest(one).await.unwrap().created);
    assert_eq!(site.kinds_after(before).await, []);
}

async fn a7_a_digest_is_no_way_around_an_immutable_tag(site: TestSite) {
    let put = held("one", &["latest", "v1", "v2"]);
    site.metadata.put_manifest(put.clone()).await.unwrap();
    let by_digest = site.metadata.delete_manifest(&name("app"), &put.digest, &immutable(), &actor()).await;
    assert_held(by_digest, TagChange::Delete, "v1");
    assert_eq!(site.tag_names("app").await, ["latest", "v1", "v2"]);
}

async fn a7_nothing_that_an_immutable_index_needs_can_be_deleted(site: TestSite) {
    let layer = site.push_blob("app", "layer").await;
    let child = PutManifest { blobs: vec![layer], ..held("child", &[]) };
    let inner = PutManifest { manifests: vec![child.digest], ..held("inner", &[]) };
    let outer = PutManifest { manifests: vec![inner.digest], ..held("outer", &["v1"]) };
    for put in [&child, &inner, &outer] {
        site.metadata.put_manifest(put.clone()).await.unwrap();
    }
    for digest in [child.digest, inner.digest, outer.digest] {
        let deleted = site.metadata.delete_manifest(&name("app"), &digest, &immutable(), &actor()).await;
        assert_held(deleted, TagChange::Delete, "v1");
    }
    let unlinked = site.metadata.unlink_blob(&name("app"), &layer, &immutable(), &actor()).await;
    assert_held(unlinked, TagChange::Delete, "v1");
    assert!(site.has_blob("app", &layer).await && site.has_manifest("app", child.digest).await);
}

async fn a7_a_repository_with_an_immutable_tag_cannot_be_deleted(site: TestSite) {
    site.metadata.put_manifest(held("one", &["a", "b", "v1"])).await.unwrap();
    let deleted = site.metadata.delete_repository(&name("app"), &immutable(), &actor()).await;
    assert_held(deleted, TagChange::Delete, "v1");
    assert_eq!(site.tag_names("app").await, ["a", "b", "v1"]);
}

async fn a7_of_two_pushes_of_one_immutable_tag_one_wins(site: TestSite) {
    for round in 0..20 {
        let tagged = format!("v{}", round + 1);
        // Every other time the tag's first push makes its repository too.
        let repository = if round % 2 == 0 { "app".to_owned() } else { format!("app-{round}") };
        let pushes = (0..4).map(|pusher| {
            let content = format!("{pusher} of {round}");
            let put = PutManifest {
                tags: vec![tag(&tagged)],
                guard: immutable(),
                ..manifest(&repository, &content)
            };
            let metadata = site.metadata.clone();
            tokio::spawn(async move { (put.digest, metadata.put_manifest(put).await) })
        });
        let outcomes: Vec<_> = join_all(pushes).await.into_iter().map(Result::unwrap).collect();
        let mut won = Vec::new();
        for (digest, outcome) in outcomes {
            match outcome {
                Ok(_) => won.push(digest),
                refused => assert_held(refused, TagChange::Move, &tagged),
            }
        }
        assert_eq!(won.len(), 1, "round {round}");
        assert_eq!(site.resolve(&repository, &tagged).await, Some(won[0]));
    }
    let set = site.log().await;
    let moved = set.iter().map(|logged| logged.event().unwrap());
    assert!(moved.filter(|event| event.kind == EventKind::TagSet).all(|event| event.previous.is_none()));
}

async fn a7_a_push_and_a_deletion_of_what_it_tags_never_leave_a_tag_without_its_manifest(site: TestSite) {
    for round in 0..20 {
        let put = Arc::new(held(&format!("image {round}"), &[]));
        site.metadata.put_manifest(PutManifest::clone(&put)).await.unwrap();
        let tagged = format!("v1-{round}");
        let pushing = PutManifest { tags: vec![tag(&tagged)], ..PutManifest::clone(&put) };
        let (app, guard, by) = (name("app"), immutable(), actor());
        let (pushed, deleted) = tokio::join!(
            site.metadata.put_manifest(pushing),
            site.metadata.delete_manifest(&app, &put.digest, &guard, &by)
        );
        // A push is never refused: either the tag was first and holds the manifest, or the push brought it back.
        pushed.unwrap();
        match deleted {
            Ok(true) => {}
            refused => assert_held(refused, TagChange::Delete, &tagged),
        }
        assert_eq!(site.resolve("app", &tagged).await, Some(put.digest), "round {round}");
    }
}

async fn a_tag_that_is_only_created_is_not_moved_and_may_be_deleted(site: TestSite) {
    let guard = rules(r#""rule":"create_only","tags":["v*"]"#).tag_guard(&name("app"));
    let push = |content: &str| PutManifest {
        tags: vec![tag("v1")],
        guard: guard.clone(),
        ..manifest("app", content)
    };
    site.metadata.put_manifest(push("one")).await.unwrap();
    let moved = site.metadata.put_manifest(push("two")).await;
    assert!(matches!(moved, Err(Error::TagHeld(refusal)) if refusal.change == TagChange::Move));
    assert!(site.metadata.delete_tag(&name("app"), &tag("v1"), &guard, &actor()).await.unwrap());
    site.metadata.put_manifest(push("two")).await.unwrap();
    assert!(
        site.metadata.delete_manifest(&name("app"), &push("two").digest, &guard, &actor()).await.unwrap()
    );
}

async fn what_is_not_held_goes_even_beside_what_is(site: TestSite) {
    site.metadata.put_manifest(held("kept", &["v1"])).await.unwrap();
    let layer = site.push_blob("app", "layer").await;
    let other = PutManifest { blobs: vec![layer], ..held("other", &["latest", "v0-rc"]) };
    site.metadata.put_manifest(other.clone()).await.unwrap();
    // An exception and a tag that no rule names move and go.
    let next = held("next", &["latest", "v0-rc"]);
    site.metadata.put_manifest(next.clone()).await.unwrap();
    assert!(site.metadata.delete_tag(&name("app"), &tag("v0-rc"), &immutable(), &actor()).await.unwrap());
    assert!(site.metadata.delete_manifest(&name("app"), &next.digest, &immutable(), &actor()).await.unwrap());
    assert!(
        site.metadata.delete_manifest(&name("app"), &other.digest, &immutable(), &actor()).await.unwrap()
    );
    assert!(site.metadata.unlink_blob(&name("app"), &layer, &immutable(), &actor()).await.unwrap());
    assert_eq!(site.tag_names("app").await, ["v1"]);
}
