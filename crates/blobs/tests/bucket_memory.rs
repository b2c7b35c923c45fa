//! Sixty-four uploads at once to a bucket stay within the memory that one process may take.
//! A file of its own, so that no other test's memory counts.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::fs;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream;
use twinport_blobs::{Blobs, Hidden, Progress, S3Settings, SpoolName, Verdict};
use twinport_oci::{Algorithm, UploadId};
use twinport_testkit::{ObjectServer, ObjectServerKind, object_server};

const UPLOADS: usize = 64;
const PIECES: usize = 128;
const PIECE: usize = 64 << 10;
const ALLOWED_KIB: u64 = 150 << 10;

/// The peak of resident memory in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_uploads_of_8_mib_to_a_bucket_hold_less_than_150_mib() {
    let server = tokio::task::spawn_blocking(|| object_server(ObjectServerKind::Versity)).await.unwrap();
    let Some(server) = server else { return };
    let settings = S3Settings {
        endpoint: Some(server.url()),
        path_style: true,
        keys: Some((ObjectServer::ACCESS_KEY.to_owned(), Hidden::new(ObjectServer::SECRET_KEY))),
        ..S3Settings::new(ObjectServer::BUCKET, ObjectServer::REGION)
    };
    let blobs = Blobs::open_s3(settings).await.unwrap();
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
            let end = blobs.append(&spool, start, body, u64::MAX).await.unwrap().progress;
            let digest = end.hasher.finish();
            blobs.publish(&spool, &digest, end.offset).await.unwrap();
            blobs.verify(&digest).await.unwrap()
        })
    });
    let verdicts = try_join_all(uploads).await.unwrap();
    let size = (PIECES * PIECE) as u64;
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Whole { size }));
    let grown = peak() - before;
    assert!(grown < ALLOWED_KIB, "{grown} KiB");
}
