//! Sixty-four uploads at once stay within the memory that one process may take.
//! A file of its own, so that no other test's memory counts.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::fs;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream;
use twinport_blobs::{Blobs, Progress, SpoolName};
use twinport_oci::{Algorithm, UploadId};

const UPLOADS: usize = 64;
const PIECES: usize = 128;
const PIECE: usize = 64 << 10;
const ALLOWED_KIB: u64 = 100 << 10;

/// The peak of resident memory in KiB; mapped files and the page cache are not in it, since nothing is mapped here.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_uploads_of_8_mib_hold_less_than_100_mib() {
    let root = tempfile::tempdir().unwrap();
    let blobs = Blobs::open_local(root.path().into()).await.unwrap();
    let before = peak();
    let uploads = (0..UPLOADS).map(|upload| {
        let blobs = blobs.clone();
        // Each piece is allocated when it is asked for, as a connection would.
        let body = stream::iter(
            (0..PIECES).map(move |_| Ok::<_, Infallible>(Bytes::from(vec![upload as u8; PIECE]))),
        );
        tokio::spawn(async move {
            let spool = SpoolName::Upload(UploadId::new());
            let start = Progress::start(Algorithm::Sha256);
            blobs.append(&spool, start, body, u64::MAX).await.unwrap().progress.offset
        })
    });
    let offsets = try_join_all(uploads).await.unwrap();
    assert!(offsets.iter().all(|&offset| offset == (PIECES * PIECE) as u64));
    let grown = peak() - before;
    assert!(grown < ALLOWED_KIB, "{grown} KiB");
}
