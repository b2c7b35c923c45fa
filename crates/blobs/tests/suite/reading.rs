//! What a reader may rely on.

use bytes::Bytes;
use futures_util::stream::{StreamExt, TryStreamExt};
use twinport_blobs::{Error, Verdict};
use twinport_oci::{Algorithm, Digest};

use crate::stage::{Stage, collect, content};

pub(crate) async fn a_blob_is_read_back_whole_and_by_range(stage: Stage) {
    for len in [0, 1, 64 << 10, (64 << 10) + 1, 1 << 20, (3 << 20) + 7] {
        let bytes = content(1, len);
        let (spool, digest) = stage.spooled(&bytes).await;
        stage.blobs.publish(&spool, &digest, len as u64).await.unwrap();
        assert_eq!(stage.blobs.stat(&digest).await.unwrap(), Some(len as u64));
        let file = stage.blobs.open_sized(&digest, len as u64).await.unwrap();
        assert_eq!(file.held().is_some(), len <= 64 << 10);
        for (from, to) in [(0, len), (len / 3, len / 2), (len.saturating_sub(1), len), (len, len)] {
            let read = collect(file.stream(from as u64..to as u64)).await;
            assert!(read == bytes[from..to], "{from}..{to} of {len}");
        }
    }
}

pub(crate) async fn an_absent_blob_is_not_found(stage: Stage) {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of(algorithm, b"absent");
        assert_eq!(stage.blobs.stat(&digest).await.unwrap(), None);
        let error = stage.blobs.open(&digest).await.unwrap_err();
        assert!(matches!(error, Error::NotFound(d) if d == digest), "{error}");
    }
}

pub(crate) async fn a_range_outside_the_blob_is_refused(stage: Stage) {
    let digest = Digest::sha256(b"ten bytes.");
    stage.blobs.put(&digest, Bytes::from_static(b"ten bytes.")).await.unwrap();
    let file = stage.blobs.open(&digest).await.unwrap();
    #[expect(clippy::reversed_empty_ranges, reason = "a caller's mistake")]
    for range in [0..11, 11..11, 5..4] {
        let answers: Vec<_> = file.stream(range).collect().await;
        assert!(matches!(answers[..], [Err(Error::OutOfRange { size: 10, .. })]), "{answers:?}");
    }
}

pub(crate) async fn a_blob_of_another_length_is_refused_at_open(stage: Stage) {
    let digest = Digest::sha256(b"abc");
    stage.blobs.put(&digest, Bytes::from_static(b"abc")).await.unwrap();
    let error = stage.blobs.open_sized(&digest, 4).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { expected: 4, actual: 3, .. }), "{error}");
}

pub(crate) async fn a_reader_keeps_its_bytes_when_the_blob_is_removed(stage: Stage) {
    let bytes = content(2, 5 << 20);
    let (spool, digest) = stage.spooled(&bytes).await;
    stage.blobs.publish(&spool, &digest, bytes.len() as u64).await.unwrap();
    stage.blobs.discard(&spool).await.unwrap();
    let file = stage.blobs.open(&digest).await.unwrap();
    stage.blobs.unpublish(&digest).await.unwrap();
    if stage.root().is_some() {
        assert!(collect(file.stream(0..file.size())).await == bytes);
    } else {
        // Object storage keeps nothing for readers that come later: an error then, and never a short blob.
        let answers: Vec<_> = file.stream(0..file.size()).collect().await;
        assert!(matches!(answers.last(), Some(Err(Error::NotFound(d))) if *d == digest), "{answers:?}");
    }
}

pub(crate) async fn a_scan_finds_every_blob_in_order_and_nothing_else(stage: Stage) {
    let mut stored = Vec::new();
    for number in 0..150u64 {
        let algorithm = if number % 7 == 0 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let bytes = number.to_string();
        let digest = Digest::of(algorithm, bytes.as_bytes());
        let spool = stage.blobs.put(&digest, Bytes::from(bytes.clone())).await.unwrap();
        stage.blobs.discard(&spool).await.unwrap();
        stored.push((digest, bytes.len() as u64));
    }
    stage.spooled(b"not published").await;
    let (gone, _) = stored.remove(100);
    stage.blobs.unpublish(&gone).await.unwrap();
    stored.sort_unstable();
    let found: Vec<_> = stage.blobs.scan().try_collect().await.unwrap();
    assert_eq!(found, stored);
}

pub(crate) async fn s6_whole_and_missing_blobs_are_told_apart(stage: Stage) {
    let bytes = content(3, (9 << 20) + 1);
    let (spool, digest) = stage.spooled(&bytes).await;
    assert_eq!(stage.blobs.verify(&digest).await.unwrap(), Verdict::Missing);
    stage.blobs.publish(&spool, &digest, bytes.len() as u64).await.unwrap();
    let verdict = stage.blobs.verify(&digest).await.unwrap();
    assert_eq!(verdict, Verdict::Whole { size: bytes.len() as u64 });
}
