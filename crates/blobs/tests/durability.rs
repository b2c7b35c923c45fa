//! What a publish acknowledges survives a power cut; in a build without the syncs the same check finds losses.
//! Guards: the order and the completeness of the syncs on every way into the store.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::fs;

use bytes::Bytes;
use futures_util::stream;
use twinport_blobs::{Blobs, Progress, SpoolName, Verdict};
use twinport_oci::{Algorithm, Digest, UploadId};
use twinport_testkit::{PowerCut, Stage};

const CUTS: u64 = 20;

struct Disk(Stage);

impl Disk {
    fn new() -> Self {
        Self(Stage::new().unwrap())
    }

    fn mount(&self) -> PowerCut {
        self.0.mount().unwrap()
    }

    async fn open(&self) -> Blobs {
        Blobs::open_local(self.0.mountpoint.join("data/blobs")).await.unwrap()
    }
}

fn bytes(seed: u64, len: usize) -> Bytes {
    (0..len).map(|at| (at as u64 * 31 + seed * 7 + at as u64 / 251) as u8).collect::<Vec<_>>().into()
}

fn body(bytes: &Bytes) -> impl stream::Stream<Item = Result<Bytes, Infallible>> + use<> {
    let bytes = bytes.clone();
    stream::iter(
        (0..bytes.len()).step_by(100_000).map(move |at| Ok(bytes.slice(at..bytes.len().min(at + 100_000)))),
    )
}

async fn appended(blobs: &Blobs, spool: &SpoolName, content: &Bytes) -> Progress {
    let start = Progress::start(Algorithm::Sha256);
    blobs.append(spool, start, body(content), u64::MAX).await.unwrap().progress
}

/// Stores blobs in every way there is, cuts the power after each round, and counts what was acknowledged and is gone.
async fn lost_over_many_cuts() -> usize {
    let disk = Disk::new();
    let mut acknowledged: Vec<(Digest, u64)> = Vec::new();
    let mut lost = 0;
    for round in 0..CUTS {
        let cut = disk.mount();
        let blobs = disk.open().await;
        for &(digest, size) in &acknowledged {
            lost += usize::from(blobs.verify(&digest).await.unwrap() != Verdict::Whole { size });
        }
        let mut store = async |content: Bytes, way: u64| {
            let digest = Digest::sha256(&content);
            let size = content.len() as u64;
            let spool = match way {
                0 => blobs.put(&digest, content).await.unwrap(),
                1 => {
                    let spool = SpoolName::Upload(UploadId::new());
                    appended(&blobs, &spool, &content).await;
                    blobs.publish(&spool, &digest, size).await.unwrap();
                    spool
                }
                _ => {
                    // Written by a process that died before it synced, picked up from the file alone.
                    let spool = SpoolName::Transfer(digest);
                    let path = disk.0.mountpoint.join("data/blobs/twinport/spool").join(spool.to_string());
                    fs::write(path, &content).unwrap();
                    let progress = blobs.rehash(&spool, size, Algorithm::Sha256, None).await.unwrap();
                    assert_eq!(progress.hasher.finish(), digest);
                    blobs.publish(&spool, &digest, size).await.unwrap();
                    spool
                }
            };
            blobs.discard(&spool).await.unwrap();
            acknowledged.push((digest, size));
        };
        store(bytes(round, 100), 0).await;
        store(bytes(round, 10_000), 1).await;
        store(bytes(round, 1_000_000), 1).await;
        store(bytes(round, 70_000), 2).await;
        // A digest that is stored already: the new copy must not come with less than the old one had.
        store(bytes(0, 100), round % 2).await;
        store(bytes(0, 10_000), 1).await;
        cut.cut().unwrap();
    }
    lost
}

#[cfg(not(feature = "unsynced"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_published_blobs_survive_power_cuts() {
    assert_eq!(lost_over_many_cuts().await, 0);
}

#[cfg(feature = "unsynced")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_without_syncs_published_blobs_are_lost() {
    assert!(lost_over_many_cuts().await > 0);
}

#[cfg(not(feature = "unsynced"))]
mod durable {
    use twinport_blobs::Error;
    use uuid::Uuid;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn s9_an_upload_goes_on_after_a_power_cut() {
        let disk = Disk::new();
        let content = bytes(1, 3_000_000);
        let (first, second) = (content.slice(..2_000_000), content.slice(2_000_000..));
        let spool = SpoolName::Upload(UploadId::new());
        let cut = disk.mount();
        let before = appended(&disk.open().await, &spool, &first).await;
        cut.cut().unwrap();
        let cut = disk.mount();
        let blobs = disk.open().await;
        assert_eq!(blobs.spool_len(&spool).await.unwrap(), Some(2_000_000));
        let after = blobs.append(&spool, before, body(&second), u64::MAX).await.unwrap().progress;
        let digest = after.hasher.finish();
        assert_eq!(digest, Digest::sha256(&content));
        blobs.publish(&spool, &digest, 3_000_000).await.unwrap();
        cut.cut().unwrap();
        let cut = disk.mount();
        let verdict = disk.open().await.verify(&digest).await.unwrap();
        assert_eq!(verdict, Verdict::Whole { size: 3_000_000 });
        cut.cut().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cut_before_publish_leaves_no_blob() {
        let disk = Disk::new();
        let cut = disk.mount();
        let blobs = disk.open().await;
        let spool = SpoolName::Upload(UploadId::new());
        let digest = appended(&blobs, &spool, &bytes(2, 500_000)).await.hasher.finish();
        cut.cut().unwrap();
        let cut = disk.mount();
        assert_eq!(disk.open().await.stat(&digest).await.unwrap(), None);
        cut.cut().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_incarnation_and_a_removal_survive_a_power_cut() {
        let disk = Disk::new();
        let cut = disk.mount();
        let blobs = disk.open().await;
        let digest = Digest::sha256(b"removed");
        blobs.put(&digest, Bytes::from_static(b"removed")).await.unwrap();
        blobs.set_incarnation(Uuid::from_u128(7)).await.unwrap();
        blobs.unpublish(&digest).await.unwrap();
        cut.cut().unwrap();
        let cut = disk.mount();
        let blobs = disk.open().await;
        assert_eq!(blobs.incarnation().await.unwrap(), Some(Uuid::from_u128(7)));
        assert_eq!(blobs.stat(&digest).await.unwrap(), None);
        cut.cut().unwrap();
    }

    /// Every operation that stores, in one place, so that each fault is tried on each of them.
    async fn store(blobs: &Blobs, content: &Bytes) -> Result<(), Error> {
        let digest = Digest::sha256(content);
        if content.len() <= 64 << 10 {
            blobs.put(&digest, content.clone()).await?;
        }
        let spool = SpoolName::Upload(UploadId::new());
        let start = Progress::start(Algorithm::Sha256);
        blobs.append(&spool, start, body(content), u64::MAX).await?;
        blobs.publish(&spool, &digest, content.len() as u64).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn s5_a_full_disk_is_named_and_the_store_works_on_once_there_is_room() {
        let disk = Disk::new();
        let cut = disk.mount();
        let blobs = disk.open().await;
        cut.faults().limit_space(Some(20_000));
        for len in [30_000, 500_000, 40_000_000] {
            let content = bytes(3, len);
            let error = store(&blobs, &content).await.unwrap_err();
            assert!(error.is_out_of_space(), "{error}");
            assert!(error.to_string().contains("no space left for"), "{error}");
            assert_eq!(blobs.stat(&Digest::sha256(&content)).await.unwrap(), None);
        }
        let room_taken: u64 = blobs.spools().await.unwrap().iter().map(|spool| spool.len).sum();
        assert_eq!(room_taken, 0, "what did not fit is given back");
        cut.faults().limit_space(None);
        for len in [30_000, 500_000] {
            store(&blobs, &bytes(3, len)).await.unwrap();
        }
        cut.cut().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn s5_failing_syncs_are_errors_and_nothing_is_published() {
        let disk = Disk::new();
        let cut = disk.mount();
        let blobs = disk.open().await;
        type Switch = fn(&twinport_testkit::Faults, bool);
        let switches: [Switch; 2] =
            [|faults, on| faults.fail_file_syncs(on), |faults, on| faults.fail_directory_syncs(on)];
        for (number, switch) in switches.into_iter().enumerate() {
            for len in [100, 500_000, 40_000_000] {
                let content = bytes(40 + number as u64, len);
                let digest = Digest::sha256(&content);
                switch(cut.faults(), true);
                let error = store(&blobs, &content).await.unwrap_err();
                assert!(matches!(error, Error::Io { .. }) && !error.is_out_of_space(), "{error}");
                // A journal that has begun wants no directory synced: there the small one is stored, and durable.
                let journaled = number == 1 && len == 100;
                assert_eq!(blobs.stat(&digest).await.unwrap().is_some(), journaled, "{error}");
                switch(cut.faults(), false);
            }
            store(&blobs, &bytes(40 + number as u64, 100)).await.unwrap();
        }
        cut.cut().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn s5_a_read_only_disk_still_serves() {
        let disk = Disk::new();
        let cut = disk.mount();
        let blobs = disk.open().await;
        let digest = Digest::sha256(b"served");
        blobs.put(&digest, Bytes::from_static(b"served")).await.unwrap();
        cut.faults().read_only(true);
        let error = store(&blobs, &bytes(5, 10)).await.unwrap_err();
        assert!(error.to_string().contains("Read-only file system"), "{error}");
        assert_eq!(blobs.open(&digest).await.unwrap().held().unwrap(), &b"served"[..]);
        cut.cut().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn s5_a_disk_that_cannot_be_read_gives_errors_and_no_verdict() {
        use futures_util::stream::TryStreamExt;
        let disk = Disk::new();
        let cut = disk.mount();
        let blobs = disk.open().await;
        let stored = [bytes(6, 100), bytes(6, 3_000_000)];
        for content in &stored {
            store(&blobs, content).await.unwrap();
        }
        cut.cut().unwrap();
        // The journal is read at the first open after the cut.
        let cut = disk.mount();
        drop(disk.open().await);
        cut.cut().unwrap();
        // A fresh mount: the kernel has nothing of it cached.
        let cut = disk.mount();
        let blobs = disk.open().await;
        cut.faults().fail_reads(true);
        for content in &stored {
            let digest = Digest::sha256(content);
            let error = blobs.verify(&digest).await.unwrap_err();
            assert!(matches!(error, Error::Io { .. }), "{error}");
            let read = async {
                let file = blobs.open(&digest).await?;
                file.stream(0..file.size()).try_collect::<Vec<_>>().await
            };
            let error = read.await.unwrap_err();
            assert!(matches!(error, Error::Io { .. }), "{error}");
        }
        cut.faults().fail_reads(false);
        let verdict = blobs.verify(&Digest::sha256(&stored[1])).await.unwrap();
        assert_eq!(verdict, Verdict::Whole { size: 3_000_000 });
        cut.cut().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_small_blob_costs_one_sync_of_the_journal_and_a_larger_one_three() {
        let disk = Disk::new();
        let cut = disk.mount();
        let blobs = disk.open().await;
        // The first makes the journal.
        blobs.put(&Digest::sha256(b"first"), Bytes::from_static(b"first")).await.unwrap();
        let faults = cut.faults();
        for (content, costs) in
            [(bytes(7, 3), (1, 0)), (bytes(7, 65_536), (1, 0)), (bytes(7, 65_537), (1, 2))]
        {
            let before = (faults.file_syncs(), faults.directory_syncs());
            blobs.put(&Digest::sha256(&content), content.clone()).await.unwrap();
            assert_eq!((faults.file_syncs() - before.0, faults.directory_syncs() - before.1), costs);
        }
        cut.cut().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn s5_a_removal_is_not_undone_by_the_journal() {
        let disk = Disk::new();
        let cut = disk.mount();
        let blobs = disk.open().await;
        let contents = [bytes(8, 100), bytes(8, 101)];
        let [gone, back] = [Digest::sha256(&contents[0]), Digest::sha256(&contents[1])];
        for content in &contents {
            blobs.put(&Digest::sha256(content), content.clone()).await.unwrap();
        }
        blobs.unpublish(&gone).await.unwrap();
        blobs.unpublish(&back).await.unwrap();
        blobs.put(&back, contents[1].clone()).await.unwrap();
        cut.cut().unwrap();
        let cut = disk.mount();
        let blobs = disk.open().await;
        assert_eq!(blobs.stat(&gone).await.unwrap(), None);
        assert_eq!(blobs.verify(&back).await.unwrap(), Verdict::Whole { size: 101 });
        cut.cut().unwrap();
    }

    /// Enough small blobs to fill segments while others are emptied, from many clients at a time.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn s5_more_small_blobs_than_a_segment_holds_survive_a_power_cut() {
        let disk = Disk::new();
        let cut = disk.mount();
        let blobs = disk.open().await;
        let store = async |seed: u64| {
            let content = Bytes::from([&seed.to_le_bytes(), &bytes(seed, 59_992)[..]].concat());
            let digest = Digest::sha256(&content);
            let spool = blobs.put(&digest, content).await.unwrap();
            // Every tenth commit does not come.
            let committed = !seed.is_multiple_of(10);
            if committed {
                blobs.discard(&spool).await.unwrap();
            }
            (digest, spool, committed)
        };
        let stored: Vec<_> = futures_util::StreamExt::collect(futures_util::StreamExt::buffer_unordered(
            stream::iter((0..600).map(store)),
            16,
        ))
        .await;
        cut.cut().unwrap();
        let cut = disk.mount();
        let blobs = disk.open().await;
        let left: Vec<SpoolName> = blobs.spools().await.unwrap().iter().map(|spool| spool.name).collect();
        for (digest, spool, committed) in stored {
            assert_eq!(blobs.verify(&digest).await.unwrap(), Verdict::Whole { size: 60_000 });
            // What nobody committed has a name that recovery finds it by.
            assert!(committed || left.contains(&spool), "{spool}");
        }
        assert_eq!(fs::read_dir(disk.0.mountpoint.join("data/blobs/twinport/journal")).unwrap().count(), 0);
        cut.cut().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn s5_a_journal_that_cannot_be_synced_acknowledges_nothing_and_loses_nothing() {
        let disk = Disk::new();
        let cut = disk.mount();
        let blobs = disk.open().await;
        let before = bytes(9, 100);
        blobs.put(&Digest::sha256(&before), before.clone()).await.unwrap();
        cut.faults().fail_file_syncs(true);
        let error = blobs.put(&Digest::sha256(b"refused"), Bytes::from_static(b"refused")).await.unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        cut.faults().fail_file_syncs(false);
        let after = bytes(9, 101);
        blobs.put(&Digest::sha256(&after), after.clone()).await.unwrap();
        cut.cut().unwrap();
        let cut = disk.mount();
        let blobs = disk.open().await;
        for content in [before, after] {
            let size = content.len() as u64;
            assert_eq!(blobs.verify(&Digest::sha256(&content)).await.unwrap(), Verdict::Whole { size });
        }
        cut.cut().unwrap();
    }
}
