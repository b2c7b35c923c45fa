//! What only a local directory can suffer: strangers' hands, older layouts, file systems that cannot link.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use twinport_blobs::{Blobs, Error, SpoolName, Verdict};
use twinport_oci::Digest;

fn data(root: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    root.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
}

fn long() -> Bytes {
    (0..2_000_000u32).map(|n| (n % 253) as u8).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn s6_flipped_and_truncated_bytes_are_found_and_replaced_by_a_publish() {
    let root = tempfile::tempdir().unwrap();
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    for content in [Bytes::from_static(b"small"), long()] {
        let digest = Digest::sha256(&content);
        let size = content.len() as u64;
        let whole = Verdict::Whole { size };
        blobs.put(&digest, content.clone()).await.unwrap();
        blobs.all_placed().await;
        let path = data(root.path(), &digest);

        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[content[0] ^ 1], 0).unwrap();
        let verdict = blobs.verify(&digest).await.unwrap();
        assert!(matches!(verdict, Verdict::Altered { actual } if actual != digest), "{verdict:?}");
        blobs.put(&digest, content.clone()).await.unwrap();
        assert_eq!(blobs.verify(&digest).await.unwrap(), whole);

        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size - 1).unwrap();
        let verdict = blobs.verify(&digest).await.unwrap();
        assert!(matches!(verdict, Verdict::Altered { .. }), "{verdict:?}");
        let error = blobs.open_sized(&digest, size).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        blobs.put(&digest, content.clone()).await.unwrap();
        assert_eq!(blobs.verify(&digest).await.unwrap(), whole);

        fs::remove_file(&path).unwrap();
        assert_eq!(blobs.verify(&digest).await.unwrap(), Verdict::Missing);
        let error = blobs.open(&digest).await.unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{error}");
    }
}

#[tokio::test]
async fn s6_a_file_cut_while_it_is_open_ends_the_stream_with_an_error() {
    let root = tempfile::tempdir().unwrap();
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    let digest = Digest::sha256(&long());
    blobs.put(&digest, long()).await.unwrap();
    let file = blobs.open(&digest).await.unwrap();
    fs::OpenOptions::new().write(true).open(data(root.path(), &digest)).unwrap().set_len(0).unwrap();
    let read: Result<Vec<Bytes>, _> = file.stream(0..file.size()).try_collect().await;
    assert!(matches!(read.unwrap_err(), Error::Io { .. }));
}

#[tokio::test]
async fn a_tree_that_distribution_wrote_is_read_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let digest = Digest::sha256(b"from another registry");
    let path = data(root.path(), &digest);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "from another registry").unwrap();
    let strangers =
        ["docker/registry/v2/blobs/sha256/ab/README", "docker/registry/v2/blobs/sha256/abc/x/data"];
    for stranger in strangers {
        let stranger = root.path().join(stranger);
        fs::create_dir_all(stranger.parent().unwrap()).unwrap();
        fs::write(stranger, "not a blob").unwrap();
    }
    let misplaced = data(root.path(), &Digest::sha256(b"misplaced"));
    let hex = misplaced.parent().unwrap().file_name().unwrap();
    fs::create_dir_all(root.path().join("docker/registry/v2/blobs/sha256/00").join(hex)).unwrap();
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    assert_eq!(blobs.incarnation().await.unwrap(), None);
    let found: Vec<_> = blobs.scan().try_collect().await.unwrap();
    assert_eq!(found, [(digest, 21)]);
    assert_eq!(blobs.open(&digest).await.unwrap().held().unwrap(), &b"from another registry"[..]);
}

#[tokio::test]
async fn a_marker_that_holds_no_incarnation_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    fs::write(root.path().join("twinport/incarnation"), "half a uui").unwrap();
    let error = blobs.incarnation().await.unwrap_err();
    assert!(matches!(&error, Error::Marker { path } if path.ends_with("twinport/incarnation")), "{error}");
}

#[tokio::test]
async fn what_a_crash_left_of_a_replacement_is_cleared_at_open() {
    let root = tempfile::tempdir().unwrap();
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    let replaced = Bytes::from(vec![7; 100_000]);
    let digest = Digest::sha256(&replaced);
    let spool = blobs.put(&digest, replaced).await.unwrap();
    let directory = root.path().join("twinport/spool");
    fs::hard_link(directory.join(spool.to_string()), directory.join(format!("{spool}.replacing"))).unwrap();
    drop(blobs);
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    let spools = blobs.spools().await.unwrap();
    assert!(matches!(spools[..], [left] if left.name == spool && left.links == 2), "{spools:?}");
    assert_eq!(fs::read_dir(directory).unwrap().count(), 1);
}

/// As a process that was killed leaves it: the file in place, its bytes in the journal, and nothing else.
#[tokio::test]
async fn a_journal_that_a_killed_process_left_is_read_once_and_names_what_it_stored() {
    let root = tempfile::tempdir().unwrap();
    let killed = Blobs::open_local(root.path().into()).await.unwrap();
    let contents =
        [Bytes::from_static(b"in place"), Bytes::from_static(b"lost"), Bytes::from_static(b"altered")];
    let mut spools = Vec::new();
    for content in &contents {
        spools.push(killed.put(&Digest::sha256(content), content.clone()).await.unwrap());
    }
    killed.all_placed().await;
    fs::remove_dir_all(data(root.path(), &Digest::sha256(b"lost")).parent().unwrap()).unwrap();
    fs::write(data(root.path(), &Digest::sha256(b"altered")), "ALTERED").unwrap();
    let SpoolName::Put(_, id) = spools[0] else { panic!("a put") };
    let half = data(root.path(), &Digest::sha256(b"in place")).with_file_name(id.to_string());
    fs::write(&half, "in pl").unwrap();
    drop(killed);
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    for content in &contents {
        let size = content.len() as u64;
        assert_eq!(blobs.verify(&Digest::sha256(content)).await.unwrap(), Verdict::Whole { size });
    }
    let mut left: Vec<_> =
        blobs.spools().await.unwrap().into_iter().map(|spool| (spool.name, spool.links)).collect();
    left.sort();
    spools.sort();
    assert_eq!(left, spools.into_iter().map(|spool| (spool, 2)).collect::<Vec<_>>());
    assert!(!half.try_exists().unwrap());
    assert_eq!(fs::read_dir(root.path().join("twinport/journal")).unwrap().count(), 0);
}

#[tokio::test]
async fn s14_a_store_of_several_nodes_has_no_journal() {
    let root = tempfile::tempdir().unwrap();
    let node = Blobs::open_shared(root.path().into()).await.unwrap();
    let spool = node.put(&Digest::sha256(b"small"), Bytes::from_static(b"small")).await.unwrap();
    assert!(root.path().join("twinport/spool").join(spool.to_string()).try_exists().unwrap());
    assert!(!root.path().join("twinport/journal").try_exists().unwrap());
}

#[tokio::test]
async fn a_publish_leaves_no_directory_behind_that_an_unpublish_does_not_remove() {
    let root = tempfile::tempdir().unwrap();
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    let digest = Digest::sha256(b"pruned");
    blobs.put(&digest, Bytes::from_static(b"pruned")).await.unwrap();
    blobs.all_placed().await;
    let directory = data(root.path(), &digest).parent().unwrap().to_owned();
    assert!(directory.is_dir());
    blobs.unpublish(&digest).await.unwrap();
    assert!(!directory.try_exists().unwrap());
    assert!(directory.parent().unwrap().is_dir());
}

#[tokio::test]
async fn s14_nodes_that_open_one_store_at_once_do_not_disturb_each_other() {
    let root = tempfile::tempdir().unwrap();
    let opening = (0..64).map(|_| tokio::spawn(Blobs::open_local(root.path().into())));
    for opened in futures_util::future::join_all(opening).await {
        opened.unwrap().unwrap();
    }
    assert_eq!(fs::read_dir(root.path().join("twinport/spool")).unwrap().count(), 0);
}

/// Stores a small blob whose place is taken by something that no blob may lie in.
async fn stuck(blobs: &Blobs, root: &Path, content: &'static [u8]) -> (Digest, PathBuf) {
    let digest = Digest::sha256(content);
    let obstacle = data(root, &digest).parent().unwrap().to_owned();
    fs::write(&obstacle, b"in the way").unwrap();
    let spool = blobs.put(&digest, Bytes::from_static(content)).await.unwrap();
    // As a push whose commit came.
    blobs.discard(&spool).await.unwrap();
    (digest, obstacle)
}

async fn read(blobs: &Blobs, digest: &Digest) -> Bytes {
    blobs.open_sized(digest, 5).await.unwrap().held().unwrap()
}

#[tokio::test]
async fn s5_an_acknowledged_blob_that_its_place_does_not_take_is_read_and_placed_once_it_does() {
    let root = tempfile::tempdir().unwrap();
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    let (digest, obstacle) = stuck(&blobs, root.path(), b"stuck").await;
    assert_eq!(read(&blobs, &digest).await, "stuck");
    assert_eq!(blobs.stat(&digest).await.unwrap(), Some(5));
    assert_eq!(blobs.verify(&digest).await.unwrap(), Verdict::Whole { size: 5 });
    let error = blobs.open_sized(&digest, 6).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { expected: 6, actual: 5, .. }), "{error}");

    // Whoever else pushes meanwhile goes another way.
    let other = Digest::sha256(b"other");
    blobs.put(&other, Bytes::from_static(b"other")).await.unwrap();
    assert!(data(root.path(), &other).is_file());

    fs::remove_file(obstacle).unwrap();
    blobs.all_placed().await;
    assert_eq!(fs::read(data(root.path(), &digest)).unwrap(), b"stuck");
    assert_eq!(read(&blobs, &digest).await, "stuck");
}

#[tokio::test]
async fn s5_an_acknowledged_blob_that_never_reached_its_place_is_there_after_a_start() {
    let root = tempfile::tempdir().unwrap();
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    let (digest, obstacle) = stuck(&blobs, root.path(), b"stuck").await;
    drop(blobs);
    let error = Blobs::open_local(root.path().into()).await.unwrap_err();
    assert!(error.to_string().contains(digest.hex().as_str()), "{error}");
    fs::remove_file(obstacle).unwrap();
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    assert_eq!(fs::read(data(root.path(), &digest)).unwrap(), b"stuck");
    assert_eq!(read(&blobs, &digest).await, "stuck");
}

#[tokio::test]
async fn s14_what_is_removed_or_published_again_before_it_reached_its_place_is_not_placed_any_more() {
    let root = tempfile::tempdir().unwrap();
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    let (removed, obstacle) = stuck(&blobs, root.path(), b"stuck").await;
    // There is nothing in the way of this one but that another waits.
    fs::remove_file(&obstacle).unwrap();
    fs::create_dir(&obstacle).unwrap();
    blobs.unpublish(&removed).await.unwrap();
    assert_eq!(blobs.stat(&removed).await.unwrap(), None);
    blobs.all_placed().await;
    let again = blobs.put(&removed, Bytes::from_static(b"stuck")).await.unwrap();
    blobs.discard(&again).await.unwrap();
    blobs.unpublish(&removed).await.unwrap();
    drop(blobs);
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    assert_eq!(blobs.stat(&removed).await.unwrap(), None);
}
