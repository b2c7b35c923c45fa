//! What a publisher may rely on.

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::TryStreamExt;
use twinport_blobs::{Error, SpoolName, Verdict};
use twinport_oci::{Digest, UploadId};
use uuid::Uuid;

use crate::stage::{Stage, body, content, start};

pub(crate) async fn a_spool_is_published_and_keeps_its_name(stage: Stage) {
    let (spool, digest) = stage.spooled(b"layer").await;
    assert_eq!(stage.blobs.stat(&digest).await.unwrap(), None);
    stage.blobs.publish(&spool, &digest, 5).await.unwrap();
    assert_eq!(stage.read(&digest).await, b"layer");
    let stage = stage.reopened().await;
    let spools = stage.blobs.spools().await.unwrap();
    let links = if stage.root().is_some() { 2 } else { 1 };
    assert!(
        matches!(spools[..], [left] if left.name == spool && left.len == 5 && left.links == links),
        "{spools:?}"
    );
    stage.blobs.discard(&spool).await.unwrap();
    assert_eq!(stage.read(&digest).await, b"layer");
}

pub(crate) async fn a_published_spool_is_never_written_again(stage: Stage) {
    let (spool, digest) = stage.spooled(b"immutable").await;
    stage.blobs.publish(&spool, &digest, 9).await.unwrap();
    let again = stage.blobs.append(&spool, start(), body(b"mutable", 7), 100).await;
    if stage.root().is_some() {
        let error = again.unwrap_err();
        assert!(matches!(error, Error::SpoolPublished(name) if name == spool), "{error}");
    }
    assert_eq!(stage.read(&digest).await, b"immutable");
}

pub(crate) async fn publishing_is_idempotent(stage: Stage) {
    let (spool, digest) = stage.spooled(b"twice").await;
    stage.blobs.publish(&spool, &digest, 5).await.unwrap();
    stage.blobs.publish(&spool, &digest, 5).await.unwrap();
    let second = stage.blobs.put(&digest, Bytes::from_static(b"twice")).await.unwrap();
    assert_eq!(stage.read(&digest).await, b"twice");
    stage.blobs.discard(&spool).await.unwrap();
    stage.blobs.discard(&second).await.unwrap();
    assert_eq!(stage.blobs.spools().await.unwrap(), []);
}

pub(crate) async fn many_publishers_of_one_digest_all_succeed(stage: Stage) {
    let bytes = content(20, 300_000);
    let spools = join_all((0..12).map(|_| stage.spooled(&bytes))).await;
    let digest = spools[0].1;
    let published = spools.iter().map(|(spool, digest)| stage.blobs.publish(spool, digest, 300_000));
    for result in join_all(published).await {
        result.unwrap();
    }
    for (spool, _) in &spools {
        stage.blobs.discard(spool).await.unwrap();
    }
    assert_eq!(stage.blobs.verify(&digest).await.unwrap(), Verdict::Whole { size: 300_000 });
    assert_eq!(stage.blobs.spools().await.unwrap(), []);
}

/// More than share one write, some of them the same, while others are taken away.
pub(crate) async fn small_blobs_that_come_at_once_are_all_stored(stage: Stage) {
    let kept: Vec<Bytes> = (0..120).map(|n| Bytes::from(content(n % 90, 40_000))).collect();
    let removed: Vec<Bytes> = (100..110).map(|n| Bytes::from(content(n, 50))).collect();
    let put = |bytes: &Bytes| {
        let (digest, bytes) = (Digest::sha256(bytes), bytes.clone());
        let blobs = stage.blobs.clone();
        async move { (digest, blobs.put(&digest, bytes).await.unwrap()) }
    };
    let removals = join_all(removed.iter().map(|bytes| {
        let (putting, blobs) = (put(bytes), stage.blobs.clone());
        async move {
            let (digest, spool) = putting.await;
            blobs.unpublish(&digest).await.unwrap();
            blobs.discard(&spool).await.unwrap();
            digest
        }
    }));
    let (stored, removed) = tokio::join!(join_all(kept.iter().map(put)), removals);
    for ((digest, spool), bytes) in stored.iter().zip(&kept) {
        assert_eq!(stage.read(digest).await, *bytes);
        stage.blobs.discard(spool).await.unwrap();
    }
    for digest in removed {
        assert_eq!(stage.blobs.stat(&digest).await.unwrap(), None);
    }
    assert_eq!(stage.blobs.spools().await.unwrap(), []);
}

pub(crate) async fn a_spool_of_another_size_is_not_published(stage: Stage) {
    let (spool, digest) = stage.spooled(b"short").await;
    let error = stage.blobs.publish(&spool, &digest, 6).await.unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { expected: 6, actual: 5, .. }), "{error}");
    let absent = SpoolName::Upload(UploadId(Uuid::nil()));
    let error = stage.blobs.publish(&absent, &digest, 6).await.unwrap_err();
    assert!(matches!(error, Error::SpoolMissing(_)), "{error}");
    assert_eq!(stage.blobs.stat(&digest).await.unwrap(), None);
}

pub(crate) async fn a_small_blob_of_another_digest_is_not_stored(stage: Stage) {
    let digest = Digest::sha256(b"what was announced");
    let error = stage.blobs.put(&digest, Bytes::from_static(b"what came")).await.unwrap_err();
    assert!(
        matches!(error, Error::DigestMismatch { expected, ref actual }
            if expected == digest && **actual == Digest::sha256(b"what came")),
        "{error}"
    );
    assert_eq!(stage.blobs.spools().await.unwrap(), []);
    assert_eq!(stage.blobs.scan().try_collect::<Vec<_>>().await.unwrap(), []);
}

pub(crate) async fn s5_retries_of_a_put_that_was_never_committed_leave_one_spool(stage: Stage) {
    let digest = Digest::sha256(b"again");
    for _ in 0..3 {
        stage.blobs.put(&digest, Bytes::from_static(b"again")).await.unwrap();
    }
    let spools = stage.blobs.spools().await.unwrap();
    match stage.root() {
        Some(_) => assert!(matches!(spools[..], [left] if left.links == 2), "{spools:?}"),
        None => assert_eq!(spools, []),
    }
    stage.blobs.settle(&digest).await.unwrap();
    assert_eq!(stage.blobs.spools().await.unwrap(), []);
    assert_eq!(stage.read(&digest).await, b"again");
}

pub(crate) async fn an_unpublished_blob_is_gone_and_can_come_back(stage: Stage) {
    let digest = Digest::sha256(b"back");
    stage.blobs.put(&digest, Bytes::from_static(b"back")).await.unwrap();
    stage.blobs.unpublish(&digest).await.unwrap();
    stage.blobs.unpublish(&digest).await.unwrap();
    assert_eq!(stage.blobs.stat(&digest).await.unwrap(), None);
    stage.blobs.put(&digest, Bytes::from_static(b"back")).await.unwrap();
    assert_eq!(stage.read(&digest).await, b"back");
}

pub(crate) async fn publishing_while_the_same_digest_is_removed_ends_whole_or_absent(stage: Stage) {
    let digest = Digest::sha256(b"contended");
    for _ in 0..50 {
        let (put, removed) = tokio::join!(
            stage.blobs.put(&digest, Bytes::from_static(b"contended")),
            stage.blobs.unpublish(&digest),
        );
        removed.unwrap();
        match put {
            Ok(spool) => stage.blobs.discard(&spool).await.unwrap(),
            Err(e) => panic!("{e}"),
        }
        let verdict = stage.blobs.verify(&digest).await.unwrap();
        assert!(matches!(verdict, Verdict::Whole { size: 9 } | Verdict::Missing), "{verdict:?}");
    }
}

pub(crate) async fn the_incarnation_is_kept(stage: Stage) {
    assert_eq!(stage.blobs.incarnation().await.unwrap(), None);
    for number in [1, 2] {
        stage.blobs.set_incarnation(Uuid::from_u128(number)).await.unwrap();
        assert_eq!(stage.blobs.incarnation().await.unwrap(), Some(Uuid::from_u128(number)));
    }
    let stage = stage.reopened().await;
    assert_eq!(stage.blobs.incarnation().await.unwrap(), Some(Uuid::from_u128(2)));
}

pub(crate) async fn s14_of_many_sites_that_claim_a_store_at_once_one_has_it(stage: Stage) {
    let claims = (1..=16).map(|number| stage.blobs.claim_store(Uuid::from_u128(number)));
    let told = join_all(claims).await;
    let owner = stage.blobs.incarnation().await.unwrap().unwrap();
    assert!(told.into_iter().all(|told| told.unwrap() == owner));
    // Whoever comes later, or again, is told the same, and no claim leaves a file.
    assert_eq!(stage.blobs.claim_store(Uuid::from_u128(17)).await.unwrap(), owner);
    assert_eq!(stage.blobs.claim_store(owner).await.unwrap(), owner);
    let Some(root) = stage.root() else { return };
    let left = std::fs::read_dir(root.join("twinport")).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| ["incarnation", "spool"].iter().any(|own| name == own)), "{names:?}");
}
