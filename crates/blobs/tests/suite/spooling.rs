//! What an upload may rely on while its bytes gather (hazard S9, the part below the session row).

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use twinport_blobs::{Error, Progress, SpoolName};
use twinport_oci::{Algorithm, Digest, Hasher, UploadId};
use uuid::Uuid;

use crate::stage::{Stage, body, content, start};

const LONG: usize = (5 << 20) + 3;

fn upload() -> SpoolName {
    SpoolName::Upload(UploadId::new())
}

pub(crate) async fn a_body_gathers_hashed_and_in_order(stage: Stage) {
    for (len, piece) in
        [(1, 1), (5000, 7), (64 << 10, 9000), ((64 << 10) + 1, 1 << 20), (LONG, 1000), (LONG, LONG)]
    {
        let bytes = content(10, len);
        let spool = upload();
        let appended = stage.blobs.append(&spool, start(), body(&bytes, piece), len as u64).await.unwrap();
        assert!(appended.broken.is_none());
        assert_eq!(appended.progress.offset, len as u64);
        let digest = appended.progress.hasher.finish();
        assert_eq!(digest, Digest::sha256(&bytes), "{len} bytes by {piece}");
        stage.blobs.publish(&spool, &digest, len as u64).await.unwrap();
        assert!(stage.read(&digest).await == bytes, "{len} bytes by {piece}");
    }
}

pub(crate) async fn an_empty_body_makes_an_empty_spool(stage: Stage) {
    let spool = upload();
    assert_eq!(stage.blobs.spool_len(&spool).await.unwrap(), None);
    let appended = stage.blobs.append(&spool, start(), body(b"", 1), 0).await.unwrap();
    assert_eq!(appended.progress.offset, 0);
    assert_eq!(stage.blobs.spool_len(&spool).await.unwrap(), Some(0));
}

pub(crate) async fn s9_an_upload_goes_on_after_a_restart(stage: Stage) {
    let bytes = content(11, LONG);
    let (first, second) = bytes.split_at(2 << 20);
    let spool = upload();
    let before = stage.blobs.append(&spool, start(), body(first, 50_000), u64::MAX).await.unwrap().progress;
    let recorded = before.hasher.state();
    let stage = stage.reopened().await;
    assert_eq!(stage.blobs.spool_len(&spool).await.unwrap(), Some(before.offset));
    let resumed = Progress { offset: before.offset, hasher: Hasher::resume(&recorded).unwrap() };
    let after = stage.blobs.append(&spool, resumed, body(second, 50_000), u64::MAX).await.unwrap().progress;
    let digest = after.hasher.finish();
    assert_eq!(digest, Digest::sha256(&bytes));
    stage.blobs.publish(&spool, &digest, after.offset).await.unwrap();
    assert!(stage.read(&digest).await == bytes);
}

pub(crate) async fn s9_an_append_at_an_earlier_offset_cuts_what_lies_beyond(stage: Stage) {
    let spool = upload();
    let first = stage.blobs.append(&spool, start(), body(b"first ", 6), 100).await.unwrap().progress;
    stage.blobs.append(&spool, first.clone(), body(b"a longer second", 15), 100).await.unwrap();
    let last = stage.blobs.append(&spool, first, body(b"third", 5), 100).await.unwrap().progress;
    if stage.root().is_some() {
        assert_eq!(stage.blobs.spool_len(&spool).await.unwrap(), Some(11));
    }
    let digest = last.hasher.finish();
    assert_eq!(digest, Digest::sha256(b"first third"));
    stage.blobs.publish(&spool, &digest, 11).await.unwrap();
    assert_eq!(stage.read(&digest).await, b"first third");
}

pub(crate) async fn s9_an_append_beyond_the_end_is_refused(stage: Stage) {
    let spool = upload();
    let ahead = Progress { offset: 4, hasher: Hasher::new(Algorithm::Sha256) };
    let error = stage.blobs.append(&spool, ahead.clone(), body(b"x", 1), 100).await.unwrap_err();
    assert!(matches!(error, Error::SpoolMissing(name) if name == spool), "{error}");
    assert_eq!(stage.blobs.spool_len(&spool).await.unwrap(), None);
    stage.blobs.append(&spool, start(), body(b"abc", 3), 100).await.unwrap();
    for len in [1, LONG] {
        let error = stage
            .blobs
            .append(&spool, ahead.clone(), body(&content(12, len), 90_000), u64::MAX)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::OffsetMismatch { offset: 4, len: 3, .. }), "{error}");
    }
    assert_eq!(stage.blobs.spool_len(&spool).await.unwrap(), Some(3));
}

pub(crate) async fn s9_a_second_writer_is_refused_until_the_first_has_ended(stage: Stage) {
    let spool = upload();
    let (feed, pieces) = tokio::sync::mpsc::unbounded_channel::<Result<Bytes, Infallible>>();
    let (reading, read) = tokio::sync::watch::channel(0);
    let slow = stream::unfold((pieces, reading), |(mut pieces, reading)| async {
        reading.send_modify(|asked| *asked += 1);
        pieces.recv().await.map(|piece| (piece, (pieces, reading)))
    });
    let (blobs, name) = (stage.blobs.clone(), spool);
    let first = tokio::spawn(async move { blobs.append(&name, start(), slow, 1 << 30).await });
    feed.send(Ok(Bytes::from(content(13, 200_000)))).unwrap();
    read.clone().wait_for(|asked| *asked > 1).await.unwrap();
    let error = stage.blobs.append(&spool, start(), body(b"second", 6), 100).await.unwrap_err();
    assert!(matches!(error, Error::SpoolBusy(name) if name == spool), "{error}");
    let error = stage.blobs.publish(&spool, &Digest::sha256(b""), 0).await.unwrap_err();
    assert!(matches!(error, Error::SpoolBusy(_)), "{error}");
    drop(feed);
    let progress = first.await.unwrap().unwrap().progress;
    assert_eq!(progress.hasher.clone().finish(), Digest::sha256(&content(13, 200_000)));
    stage.blobs.append(&spool, progress, body(b"third", 5), 1 << 30).await.unwrap();
}

pub(crate) async fn s9_a_dropped_append_leaves_nothing_the_next_does_not_cut(stage: Stage) {
    let spool = upload();
    for round in 0..20u64 {
        let endless = stream::iter((0..64).map(|_| Ok::<_, Infallible>(Bytes::from(vec![0xee; 100_000]))))
            .chain(stream::pending());
        let appending = stage.blobs.append(&spool, start(), endless, u64::MAX);
        let give_up = async {
            for _ in 0..round * 5 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = appending => panic!("the body never ends"),
            () = give_up => {}
        }
        // Writes that the dropped call has begun hold the spool until they have ended.
        let bytes = content(round, 100_001);
        let progress = loop {
            match stage.blobs.append(&spool, start(), body(&bytes, 30_000), u64::MAX).await {
                Ok(appended) => break appended.progress,
                Err(Error::SpoolBusy(_)) => tokio::task::yield_now().await,
                Err(e) => panic!("{e}"),
            }
        };
        let known = Some(&progress.hasher);
        let anew = stage.blobs.rehash(&spool, progress.offset, Algorithm::Sha256, known).await.unwrap();
        assert_eq!(anew.hasher.finish(), Digest::sha256(&bytes), "round {round}");
        assert_eq!(stage.blobs.spool_len(&spool).await.unwrap(), Some(progress.offset));
    }
}

pub(crate) async fn a_broken_body_keeps_what_came(stage: Stage) {
    for len in [10, LONG] {
        let bytes = content(14, len);
        let spool = upload();
        let came = body(&bytes, 70_000).map(|piece| Ok(piece.unwrap()));
        let breaking = came.chain(stream::once(async { Err("the client went away") }));
        let appended = stage.blobs.append(&spool, start(), breaking, u64::MAX).await.unwrap();
        assert_eq!(appended.broken, Some("the client went away"));
        assert_eq!(appended.progress.offset, len as u64);
        assert_eq!(stage.blobs.spool_len(&spool).await.unwrap(), Some(len as u64));
        assert_eq!(appended.progress.hasher.finish(), Digest::sha256(&bytes));
    }
}

pub(crate) async fn a_body_over_the_limit_is_refused_and_cut_back(stage: Stage) {
    let spool = upload();
    let at = stage.blobs.append(&spool, start(), body(b"kept", 4), 4).await.unwrap().progress;
    for (len, limit) in [(1usize, 4u64), (100, 103), (LONG, LONG as u64 + 3), (LONG, 3)] {
        let more = body(&content(15, len), 60_000);
        let error = stage.blobs.append(&spool, at.clone(), more, limit).await.unwrap_err();
        assert!(matches!(error, Error::SizeExceeded { limit: l } if l == limit), "{error}");
        assert_eq!(stage.blobs.spool_len(&spool).await.unwrap(), Some(4), "{len} over {limit}");
    }
}

pub(crate) async fn a_hash_made_anew_equals_the_one_made_on_the_way(stage: Stage) {
    let bytes = content(16, (17 << 20) + 5);
    let (spool, digest) = stage.spooled(&bytes).await;
    let whole = bytes.len() as u64;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for len in [0, 1, 8 << 20, whole] {
            let anew = stage.blobs.rehash(&spool, len, algorithm, None).await.unwrap();
            assert_eq!(anew.offset, len);
            assert_eq!(anew.hasher.finish(), Digest::of(algorithm, &bytes[..len as usize]));
        }
    }
    let error = stage.blobs.rehash(&spool, whole + 1, Algorithm::Sha256, None).await.unwrap_err();
    assert!(matches!(error, Error::OffsetMismatch { .. }), "{error}");
    let error = stage.blobs.rehash(&upload(), 0, Algorithm::Sha256, None).await.unwrap_err();
    assert!(matches!(error, Error::SpoolMissing(_)), "{error}");
    assert_eq!(digest, Digest::sha256(&bytes));
}

pub(crate) async fn an_upload_goes_on_in_another_algorithm(stage: Stage) {
    let bytes = content(17, LONG);
    let (first, second) = bytes.split_at(3 << 20);
    let spool = upload();
    let at = stage.blobs.append(&spool, start(), body(first, 80_000), u64::MAX).await.unwrap().progress;
    let known = Some(&at.hasher);
    let anew = stage.blobs.rehash(&spool, at.offset, Algorithm::Sha512, known).await.unwrap();
    let end = stage.blobs.append(&spool, anew, body(second, 80_000), u64::MAX).await.unwrap().progress;
    let digest = end.hasher.finish();
    assert_eq!(digest, Digest::of(Algorithm::Sha512, &bytes));
    stage.blobs.publish(&spool, &digest, end.offset).await.unwrap();
    assert!(stage.read(&digest).await == bytes);
}

pub(crate) async fn spools_are_listed_by_name_until_discarded(stage: Stage) {
    let digest = Digest::sha256(b"four");
    let transfer = SpoolName::Transfer(digest);
    let (first, _) = stage.spooled(b"one").await;
    stage.blobs.append(&transfer, start(), body(b"fo", 2), 4).await.unwrap();
    let put = stage.blobs.put(&digest, Bytes::from_static(b"four")).await.unwrap();
    assert!(matches!(put, SpoolName::Put(d, id) if d == digest && id != Uuid::nil()));
    let listed: Vec<_> =
        stage.blobs.spools().await.unwrap().into_iter().map(|s| (s.name, s.len, s.links > 1)).collect();
    let puts = stage.root().map(|_| (put, 4, true));
    let expected: Vec<_> = [(first, 3, false), (transfer, 2, false)].into_iter().chain(puts).collect();
    assert_eq!(listed, expected);
    for (name, ..) in listed {
        stage.blobs.discard(&name).await.unwrap();
        stage.blobs.discard(&name).await.unwrap();
    }
    assert_eq!(stage.blobs.spools().await.unwrap(), []);
    assert_eq!(stage.read(&digest).await, b"four");
}
