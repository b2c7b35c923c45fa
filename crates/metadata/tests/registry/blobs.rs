//! Blobs are read through links, and links make events.

use twinport_access::TagGuard;
use twinport_metadata::{EventKind, RepositoryUuid};
use twinport_oci::Digest;

use crate::{
    on_both_databases,
    site::{TestSite, actor, blob, name},
};

on_both_databases!(
    a6_a_blob_is_read_only_through_a_repository_that_links_it,
    a6_a_mount_from_a_repository_without_the_blob_makes_nothing,
    a_committed_blob_makes_its_repository_and_two_events,
    a_blob_that_is_linked_already_appends_no_event,
    a_mount_links_the_blob_with_its_size,
    twenty_racing_creators_make_one_repository_and_one_event,
    a_blob_that_twenty_repositories_push_at_once_is_one_row,
    an_unlinked_blob_keeps_its_bytes_and_becomes_a_gc_candidate,
);

async fn a6_a_blob_is_read_only_through_a_repository_that_links_it(site: TestSite) {
    let digest = site.push_blob("app/web", "layer").await;
    site.push_blob("app/db", "another layer").await;
    assert_eq!(site.metadata.blob(&name("app/web"), &digest).await.unwrap().unwrap().size, 5);
    assert!(!site.has_blob("app/db", &digest).await);
    assert!(!site.has_blob("app/none", &digest).await);
    assert_eq!(site.metadata.blob_is_known(&digest).await.unwrap(), Some(5));
    assert_eq!(site.metadata.blob_is_known(&Digest::sha256(b"never pushed")).await.unwrap(), None);
}

async fn a6_a_mount_from_a_repository_without_the_blob_makes_nothing(site: TestSite) {
    let digest = site.push_blob("secret", "layer").await;
    site.push_blob("open", "another layer").await;
    let before = site.log().await.len();
    for from in ["open", "absent"] {
        let mounted = site.metadata.mount_blob(&name(from), &name("fresh"), &digest, &actor()).await.unwrap();
        assert!(!mounted);
    }
    assert_eq!(site.metadata.repository(&name("fresh")).await.unwrap(), None);
    assert_eq!(site.log().await.len(), before);
}

async fn a_committed_blob_makes_its_repository_and_two_events(site: TestSite) {
    let digest = site.push_blob("app/web", "layer").await;
    let repository = site.metadata.repository(&name("app/web")).await.unwrap().unwrap();
    let log = site.log().await;
    let created = log[0].event().unwrap();
    let linked = log[1].event().unwrap();
    assert_eq!(log.len(), 2);
    assert_eq!((created.kind, created.repository), (EventKind::RepositoryCreated, Some(repository.uuid)));
    assert_eq!((linked.kind, linked.repository), (EventKind::BlobLinked, Some(repository.uuid)));
    assert_eq!((linked.path, linked.digest, linked.size), (Some(name("app/web")), Some(digest), Some(5)));
    assert_eq!(linked.actor.as_deref(), Some("anonymous"));
    assert_eq!(linked.at_us, crate::site::NOON_US);
}

async fn a_blob_that_is_linked_already_appends_no_event(site: TestSite) {
    site.push_blob("app/web", "layer").await;
    site.push_blob("app/web", "layer").await;
    site.metadata
        .mount_blob(&name("app/web"), &name("app/web"), &Digest::sha256(b"layer"), &actor())
        .await
        .unwrap();
    assert_eq!(site.log().await.len(), 2);
}

async fn a_mount_links_the_blob_with_its_size(site: TestSite) {
    let digest = site.push_blob("base", "layer").await;
    assert!(site.metadata.mount_blob(&name("base"), &name("app"), &digest, &actor()).await.unwrap());
    assert!(site.has_blob("app", &digest).await);
    assert_eq!(site.kinds_after(2).await, [EventKind::RepositoryCreated, EventKind::BlobLinked]);
    assert_eq!(site.log().await[3].event().unwrap().size, Some(5));
}

async fn twenty_racing_creators_make_one_repository_and_one_event(site: TestSite) {
    const ROUNDS: usize = 5;
    for round in 0..ROUNDS {
        let pushes = (0..20).map(|number| {
            let metadata = site.metadata.clone();
            tokio::spawn(async move {
                metadata.commit_blob(blob(&format!("app-{round}"), &format!("layer {number}"))).await
            })
        });
        for push in pushes.collect::<Vec<_>>() {
            push.await.unwrap().unwrap();
        }
    }
    let log = site.log().await;
    let repositories = log.iter().map(|logged| logged.event().unwrap().repository.unwrap());
    let uuids: std::collections::BTreeSet<RepositoryUuid> = repositories.collect();
    assert_eq!(uuids.len(), ROUNDS);
    let kinds = site.kinds_after(0).await;
    assert_eq!(kinds[0], EventKind::RepositoryCreated);
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::RepositoryCreated).count(), ROUNDS);
    assert_eq!(kinds.len(), 21 * ROUNDS);
}

async fn a_blob_that_twenty_repositories_push_at_once_is_one_row(site: TestSite) {
    let pushes = (0..20).map(|number| {
        let metadata = site.metadata.clone();
        tokio::spawn(
            async move { metadata.commit_blob(blob(&format!("app-{number}"), "shared layer")).await },
        )
    });
    for push in pushes.collect::<Vec<_>>() {
        push.await.unwrap().unwrap();
    }
    assert_eq!(site.count("SELECT COUNT(*) FROM blobs").await, 1);
    assert_eq!(site.count("SELECT COUNT(*) FROM blob_links").await, 20);
    assert_eq!(site.count("SELECT COUNT(*) FROM blobs WHERE verified_at_us IS NOT NULL").await, 1);
}

async fn an_unlinked_blob_keeps_its_bytes_and_becomes_a_gc_candidate(site: TestSite) {
    let digest = site.push_blob("app", "layer").await;
    assert!(site.metadata.unlink_blob(&name("app"), &digest, &TagGuard::default(), &actor()).await.unwrap());
    assert!(!site.metadata.unlink_blob(&name("app"), &digest, &TagGuard::default(), &actor()).await.unwrap());
    assert!(
        !site.metadata.unlink_blob(&name("none"), &digest, &TagGuard::default(), &actor()).await.unwrap()
    );
    assert!(!site.has_blob("app", &digest).await);
    assert_eq!(site.metadata.blob_is_known(&digest).await.unwrap(), Some(5));
    assert_eq!(site.kinds_after(2).await, [EventKind::BlobUnlinked]);
    assert_eq!(site.count("SELECT COUNT(*) FROM tombstones WHERE kind = 'blob_link'").await, 1);
    assert_eq!(site.count("SELECT COUNT(*) FROM gc_candidates WHERE kind = 'blob'").await, 1);
    // It may come back.
    site.push_blob("app", "layer").await;
    assert!(site.has_blob("app", &digest).await);
}
