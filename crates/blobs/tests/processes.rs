//! Two processes on one store, as nodes of a site are: here two stores opened at one root, since a lock belongs to an open
//! file and not to a process (hazards S9, S14).
#![expect(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::path::Path;

use bytes::Bytes;
use futures_util::stream;
use tempfile::TempDir;
use twinport_blobs::{Blobs, Error, Progress, SpoolName};
use twinport_oci::{Algorithm, Digest, UploadId};

async fn node(root: &Path) -> Blobs {
    Blobs::open_shared(root.join("blobs")).await.unwrap()
}

async fn two_nodes() -> (TempDir, Blobs, Blobs) {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (node(folder.path()).await, node(folder.path()).await);
    (folder, one, other)
}

async fn append(
    blobs: &Blobs,
    spool: &SpoolName,
    at: Progress,
    bytes: &'static [u8],
) -> Result<Progress, Error> {
    let body = stream::iter([Ok::<_, Infallible>(Bytes::from_static(bytes))]);
    Ok(blobs.append(spool, at, body, u64::MAX).await?.progress)
}

#[tokio::test]
async fn s9_a_session_that_one_node_writes_is_busy_at_another() {
    let (_folder, one, other) = two_nodes().await;
    let spool = SpoolName::Upload(UploadId::new());
    assert!(one.occupy(&spool).await.unwrap());
    assert!(!other.occupy(&spool).await.unwrap());
    let start = Progress::start(Algorithm::Sha256);
    let refused = append(&other, &spool, start.clone(), b"theirs").await;
    assert!(matches!(refused, Err(Error::SpoolBusy(_))), "{refused:?}");
    let progress = append(&one, &spool, start, b"ours").await.unwrap();
    one.release(&spool);
    let progress = append(&other, &spool, progress, b" and theirs").await.unwrap();
    assert_eq!(progress.hasher.finish(), Digest::sha256(b"ours and theirs"));
}

#[tokio::test]
async fn a_session_that_was_occupied_and_not_written_leaves_nothing() {
    let (_folder, one, other) = two_nodes().await;
    let spool = SpoolName::Upload(UploadId::new());
    assert!(one.occupy(&spool).await.unwrap());
    one.release(&spool);
    assert!(other.spools().await.unwrap().is_empty());
}

#[tokio::test]
async fn s14_what_a_node_is_about_to_commit_is_no_leftover_to_another() {
    let (_folder, one, other) = two_nodes().await;
    let digest = Digest::sha256(b"blob");
    let spool = one.put(&digest, Bytes::from_static(b"blob")).await.unwrap();
    assert!(!other.adopt(&spool).await.unwrap(), "it is being committed");
    other.discard(&spool).await.unwrap();
    assert_eq!(other.spools().await.unwrap().len(), 1, "nor does another take its spool away");
    // Its commit failed: from now on anybody may put that right.
    one.release(&spool);
    assert!(other.adopt(&spool).await.unwrap());
    assert!(other.unpublish_spool(&spool, &digest).await.unwrap());
    other.discard(&spool).await.unwrap();
    assert_eq!(one.stat(&digest).await.unwrap(), None);
}

#[tokio::test]
async fn s14_recovery_takes_away_what_the_dead_node_published_and_nothing_else() {
    let (folder, one, other) = two_nodes().await;
    let digest = Digest::sha256(b"blob");
    let dead = one.put(&digest, Bytes::from_static(b"blob")).await.unwrap();
    drop(one);
    // A living node pushes the same bytes at this moment.
    let living = other.put(&digest, Bytes::from_static(b"blob")).await.unwrap();
    let third = node(folder.path()).await;
    assert!(third.adopt(&dead).await.unwrap());
    assert!(!third.unpublish_spool(&dead, &digest).await.unwrap(), "the file is the living node's");
    third.discard(&dead).await.unwrap();
    other.discard(&living).await.unwrap();
    assert_eq!(other.stat(&digest).await.unwrap(), Some(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s14_nodes_of_one_site_that_start_at_once_mark_the_store_together() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let site = uuid::Uuid::new_v4();
        let nodes: Vec<_> = (0..4)
            .map(|_| {
                let root = folder.path().to_owned();
                tokio::spawn(async move { node(&root).await.claim_store(site).await })
            })
            .collect();
        for claimed in nodes {
            assert_eq!(claimed.await.unwrap().unwrap(), site);
        }
    }
}
