//! A repository's identity is its uuid; its path comes and goes.

use twinport_access::TagGuard;
use twinport_metadata::{Error, EventKind, PutManifest};

use crate::{
    on_both_databases,
    replay::{Closures, replay, stored},
    site::{TestSite, actor, manifest, name, tag},
};

on_both_databases!(
    r27_a_renamed_repository_keeps_its_uuid_and_everything_in_it,
    r27_a_repository_made_again_under_its_old_path_is_another,
    r27_a_rename_onto_a_taken_path_is_refused,
    r27_a_path_that_was_renamed_away_is_free,
    r9_a_deleted_repository_is_gone_with_everything_in_it,
    a_repository_with_more_rows_than_one_transaction_holds_is_deleted_whole,
    r27_renames_deletes_and_pushes_at_once_leave_a_log_that_replays,
);

async fn r27_a_renamed_repository_keeps_its_uuid_and_everything_in_it(site: TestSite) {
    let digest = site.push_image("old", "image", "v1").await;
    let before = site.metadata.repository(&name("old")).await.unwrap().unwrap();
    assert!(site.metadata.rename_repository(&name("old"), &name("new/path"), &actor()).await.unwrap());
    let after = site.metadata.repository(&name("new/path")).await.unwrap().unwrap();
    assert_eq!((before.uuid, before.id), (after.uuid, after.id));
    assert_eq!(site.resolve("new/path", "v1").await, Some(digest));
    assert_eq!(site.resolve("old", "v1").await, None);
    let renamed = site.log().await.last().unwrap().event().unwrap();
    assert_eq!(renamed.kind, EventKind::RepositoryRenamed);
    assert_eq!((renamed.path, renamed.previous_path), (Some(name("new/path")), Some(name("old"))));
    assert!(!site.metadata.rename_repository(&name("old"), &name("x"), &actor()).await.unwrap());
}

async fn r27_a_repository_made_again_under_its_old_path_is_another(site: TestSite) {
    site.push_image("app", "image", "v1").await;
    let first = site.metadata.repository(&name("app")).await.unwrap().unwrap();
    assert!(site.metadata.delete_repository(&name("app"), &TagGuard::default(), &actor()).await.unwrap());
    site.push_blob("app", "layer of image").await;
    let second = site.metadata.repository(&name("app")).await.unwrap().unwrap();
    assert_ne!(first.uuid, second.uuid);
    assert_ne!(first.id, second.id);
    assert_eq!(site.resolve("app", "v1").await, None, "nothing of the first one comes back");
    let log = site.log().await;
    assert_eq!(replay(&site.metadata, &log, &Closures::new()).await, stored(&site.metadata).await);
}

async fn r27_a_rename_onto_a_taken_path_is_refused(site: TestSite) {
    site.push_image("one", "first", "v1").await;
    site.push_image("two", "second", "v1").await;
    let before = site.log().await.len();
    for (from, to) in [("one", "two"), ("one", "one")] {
        let refused = site.metadata.rename_repository(&name(from), &name(to), &actor()).await;
        assert!(matches!(&refused, Err(Error::RepositoryExists(taken)) if taken == to), "{refused:?}");
    }
    assert_eq!(site.log().await.len(), before);
}

async fn r27_a_path_that_was_renamed_away_is_free(site: TestSite) {
    site.push_blob("one", "layer").await;
    site.metadata.rename_repository(&name("one"), &name("two"), &actor()).await.unwrap();
    site.push_blob("one", "layer").await;
    let (one, two) =
        tokio::join!(async { site.metadata.repository(&name("one")).await.unwrap().unwrap() }, async {
            site.metadata.repository(&name("two")).await.unwrap().unwrap()
        },);
    assert_ne!(one.uuid, two.uuid);
}

async fn r9_a_deleted_repository_is_gone_with_everything_in_it(site: TestSite) {
    let digest = site.push_image("app", "image", "v1").await;
    site.push_image("stays", "image", "v1").await;
    let before = site.log().await.len();
    assert!(site.metadata.delete_repository(&name("app"), &TagGuard::default(), &actor()).await.unwrap());
    assert_eq!(site.kinds_after(before).await, [EventKind::RepositoryDeleted]);
    assert_eq!(site.metadata.repository(&name("app")).await.unwrap(), None);
    assert!(!site.has_manifest("app", digest).await);
    assert_eq!(site.metadata.tags(&name("app"), None, 10).await.unwrap(), None);
    assert_eq!(site.resolve("stays", "v1").await, Some(digest));
    for table in ["tags", "manifests", "manifest_references", "blob_links"] {
        assert_eq!(site.count(&format!("SELECT COUNT(*) FROM {table}")).await, 1, "{table}");
    }
    assert_eq!(site.count("SELECT COUNT(*) FROM tombstones WHERE kind = 'repository'").await, 1);
    assert_eq!(site.count("SELECT COUNT(*) FROM gc_candidates WHERE kind = 'blob'").await, 1);
}

async fn a_repository_with_more_rows_than_one_transaction_holds_is_deleted_whole(site: TestSite) {
    let tags = (0..2500).map(|number| tag(&format!("build-{number}"))).collect();
    site.metadata.put_manifest(PutManifest { tags, ..manifest("app", "image") }).await.unwrap();
    site.push_blob("app", "layer").await;
    assert!(site.metadata.delete_repository(&name("app"), &TagGuard::default(), &actor()).await.unwrap());
    for table in ["tags", "manifests", "blob_links", "repositories"] {
        assert_eq!(site.count(&format!("SELECT COUNT(*) FROM {table}")).await, 0, "{table}");
    }
    assert_eq!(site.count("SELECT COUNT(*) FROM gc_candidates WHERE kind = 'repository'").await, 0);
    assert_eq!(site.count("SELECT COUNT(*) FROM gc_candidates WHERE kind = 'blob'").await, 1);
}

async fn r27_renames_deletes_and_pushes_at_once_leave_a_log_that_replays(site: TestSite) {
    let pushers = (0..3).map(|pusher| {
        let metadata = site.metadata.clone();
        tokio::spawn(async move {
            for round in 0..20 {
                let put =
                    PutManifest { tags: vec![tag("v1")], ..manifest("app", &format!("{pusher} {round}")) };
                metadata.put_manifest(put).await.unwrap();
            }
        })
    });
    let mover = {
        let metadata = site.metadata.clone();
        tokio::spawn(async move {
            for round in 0..20 {
                let to = name(&format!("moved-{round}"));
                metadata.rename_repository(&name("app"), &to, &actor()).await.unwrap();
                if round % 2 == 0 {
                    metadata.delete_repository(&to, &TagGuard::default(), &actor()).await.unwrap();
                }
            }
        })
    };
    for task in pushers.chain([mover]).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let log = site.log().await;
    assert_eq!(replay(&site.metadata, &log, &Closures::new()).await, stored(&site.metadata).await);
}
