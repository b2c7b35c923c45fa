//! What only a bucket can suffer: several nodes, servers that are overloaded, limits of S3, settings that do not fit.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream::{self, Stream, TryStreamExt};
use twinport_blobs::{Blobs, Error, Hidden, Progress, S3Settings, SpoolName, Verdict};
use twinport_oci::{Algorithm, Digest, UploadId};
use twinport_testkit::{FaultProxy, ObjectServer, ObjectServerKind, RequestFaults, object_server, seed};
use uuid::Uuid;

const SERVERS: [ObjectServerKind; 2] = [ObjectServerKind::MinIo, ObjectServerKind::Versity];
const MIB: usize = 1 << 20;

/// Settings with a prefix of their own on each server that is installed.
async fn places() -> Vec<(&'static ObjectServer, S3Settings)> {
    let mut places = Vec::new();
    for kind in SERVERS {
        if let Some(server) = tokio::task::spawn_blocking(move || object_server(kind)).await.unwrap() {
            places.push((server, settings(server.url())));
        }
    }
    places
}

fn settings(endpoint: String) -> S3Settings {
    S3Settings {
        endpoint: Some(endpoint),
        path_style: true,
        root: format!("/test/{}", Uuid::new_v4()),
        keys: Some((ObjectServer::ACCESS_KEY.to_owned(), Hidden::new(ObjectServer::SECRET_KEY))),
        chunk: 5 << 20,
        copy_threshold: 6 << 20,
        copy_chunk: 10 << 20,
        ..S3Settings::new(ObjectServer::BUCKET, ObjectServer::REGION)
    }
}

fn content(seed: u64, len: usize) -> Bytes {
    use rand::{RngCore, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes.into()
}

fn body(content: &Bytes) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let content = content.clone();
    stream::iter((0..content.len()).step_by(70_000).map(move |at| {
        let end = content.len().min(at + 70_000);
        Ok(content.slice(at..end))
    }))
}

fn upload() -> SpoolName {
    SpoolName::Upload(UploadId::new())
}

fn start() -> Progress {
    Progress::start(Algorithm::Sha256)
}

async fn append(blobs: &Blobs, spool: &SpoolName, at: Progress, bytes: &Bytes) -> Progress {
    blobs.append(spool, at, body(bytes), u64::MAX).await.unwrap().progress
}

async fn publish(blobs: &Blobs, spool: &SpoolName, at: &Progress) -> Digest {
    let digest = at.hasher.clone().finish();
    blobs.publish(spool, &digest, at.offset).await.unwrap();
    digest
}

async fn read(blobs: &Blobs, digest: &Digest) -> Vec<u8> {
    let file = blobs.open(digest).await.unwrap();
    let pieces: Vec<Bytes> = file.stream(0..file.size()).try_collect().await.unwrap();
    pieces.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_an_upload_goes_on_at_any_node_and_of_two_writers_each_progress_leads_to_its_own_bytes() {
    for (_, settings) in places().await {
        let paris = Blobs::open_s3(settings.clone()).await.unwrap();
        let tokyo = Blobs::open_s3(settings).await.unwrap();
        let spool = upload();
        let first = content(1, 100_000);
        let begun = append(&paris, &spool, start(), &first).await;
        // Both go on from the same row, at one time, in chunks of any size; one of them also comes in parts.
        let ours = [content(2, 11 * MIB), content(3, 1), content(4, 300_000)];
        let theirs = [content(5, 11 * MIB), content(6, 77), content(7, 10)];
        let go_on = async |nodes: [&Blobs; 2], chunks: &[Bytes]| {
            let mut at = begun.clone();
            for (number, chunk) in chunks.iter().enumerate() {
                at = append(nodes[number % 2], &spool, at, chunk).await;
            }
            at
        };
        let (left, right) = tokio::join!(go_on([&paris, &paris], &ours), go_on([&tokyo, &tokyo], &theirs));
        for (node, end, chunks) in [(&tokyo, left, &ours), (&paris, right, &theirs)] {
            let whole = [&first[..], &chunks[0], &chunks[1], &chunks[2]].concat();
            assert_eq!(end.offset, whole.len() as u64);
            let digest = publish(node, &spool, &end).await;
            assert_eq!(digest, Digest::sha256(&whole));
            assert!(read(node, &digest).await == whole);
        }
        // A chunk later, one node after the other.
        let third = go_on([&paris, &tokyo], &ours).await;
        assert_eq!(third.offset, 100_000 + (11 * MIB) as u64 + 300_001);
        paris.discard(&spool).await.unwrap();
        assert_eq!(tokyo.spools().await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_an_overloaded_server_that_breaks_connections_loses_and_alters_nothing() {
    let seed = seed();
    eprintln!("TWINPORT_TEST_SEED={seed}");
    for (server, direct) in places().await {
        let faults = RequestFaults { slow_down: 100, reset: 40, cut: 40, delay: 100 };
        let proxy = FaultProxy::to(server.address(), faults, seed).unwrap();
        let blobs =
            Blobs::open_s3(S3Settings { endpoint: Some(proxy.url()), ..direct.clone() }).await.unwrap();
        let mut stored = Vec::new();
        for number in 0..20 {
            let bytes = content(number, 5_000);
            let digest = Digest::sha256(&bytes);
            blobs.put(&digest, bytes.clone()).await.unwrap();
            stored.push((digest, bytes));
        }
        for number in 0..4 {
            let spool = upload();
            let chunks = [content(100 + number, 12 * MIB), content(200 + number, 70_000)];
            let mut at = start();
            for chunk in &chunks {
                at = append(&blobs, &spool, at, chunk).await;
            }
            stored.push((publish(&blobs, &spool, &at).await, chunks.concat().into()));
            blobs.discard(&spool).await.unwrap();
        }
        for (digest, bytes) in &stored {
            assert!(read(&blobs, digest).await == *bytes, "{digest}");
            let verdict = blobs.verify(digest).await.unwrap();
            assert_eq!(verdict, Verdict::Whole { size: bytes.len() as u64 });
        }
        let file = blobs.open(&stored[21].0).await.unwrap();
        for range in [0..1, 5_000_000..12_000_000, 12 * MIB as u64 - 1..12 * MIB as u64 + 1] {
            let pieces: Vec<Bytes> = file.stream(range.clone()).try_collect().await.unwrap();
            let expected = &stored[21].1[range.start as usize..range.end as usize];
            assert!(pieces.concat() == expected, "{range:?}");
        }
        let mut listed: Vec<_> = stored.iter().map(|(digest, bytes)| (*digest, bytes.len() as u64)).collect();
        listed.sort_unstable();
        assert_eq!(blobs.scan().try_collect::<Vec<_>>().await.unwrap(), listed);
        assert!(proxy.struck() > 10, "{} requests suffered", proxy.struck());
        for _ in 0..30 {
            let endpoint = Some(proxy.url());
            let place = S3Settings { endpoint, root: format!("/test/{}", Uuid::new_v4()), ..direct.clone() };
            let (site, blobs) = (Uuid::new_v4(), Blobs::open_s3(place).await.unwrap());
            assert_eq!(blobs.claim_store(site).await.unwrap(), site);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_many_small_chunks_and_a_blob_above_the_copy_threshold_are_put_together_by_the_server() {
    for (_, settings) in places().await {
        let blobs = Blobs::open_s3(settings).await.unwrap();
        let (spool, mut at, mut whole) = (upload(), start(), Vec::new());
        for (number, len) in
            [1, 700_000, 5 * MIB + 1, 3, 21 * MIB, 4 * MIB, 4 * MIB, 10].into_iter().enumerate()
        {
            let chunk = content(number as u64, len);
            at = append(&blobs, &spool, at, &chunk).await;
            whole.extend_from_slice(&chunk);
        }
        let digest = publish(&blobs, &spool, &at).await;
        assert!(read(&blobs, &digest).await == whole);
        let (spool, layer) = (upload(), content(9, 33 * MIB));
        let at = append(&blobs, &spool, start(), &layer).await;
        let digest = publish(&blobs, &spool, &at).await;
        assert_eq!(blobs.verify(&digest).await.unwrap(), Verdict::Whole { size: layer.len() as u64 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_is_found_by_its_age_and_nothing_younger_is_touched() {
    for (server, settings) in places().await {
        let blobs = Blobs::open_s3(settings.clone()).await.unwrap();
        let spool = upload();
        let at = append(&blobs, &spool, start(), &content(1, 1_000)).await;
        // A process that dies while a long segment is on its way, with a runtime of its own.
        let (dying, crash) = (upload(), settings.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let blobs = Blobs::open_s3(crash).await.unwrap();
                let (asked, mut asks) = tokio::sync::watch::channel(0);
                let parts = stream::unfold(asked, |asked| async move {
                    asked.send_modify(|asked| *asked += 1);
                    let number = *asked.borrow();
                    if number > 3 {
                        std::future::pending::<()>().await;
                    }
                    Some((Ok::<_, Infallible>(content(number, 6 * MIB)), asked))
                });
                tokio::spawn(async move { blobs.append(&dying, start(), parts, u64::MAX).await.map(|_| ()) });
                asks.wait_for(|asked| *asked > 3).await.unwrap();
            });
            runtime.shutdown_background();
        })
        .join()
        .unwrap();
        assert_eq!(blobs.stale_spools(0).await.unwrap(), []);
        assert_eq!(blobs.abort_stale_uploads(0).await.unwrap(), 0);
        assert_eq!(blobs.stale_spools(i64::MAX).await.unwrap(), [spool]);
        let aborted = blobs.abort_stale_uploads(i64::MAX).await.unwrap();
        // MinIO lists the uploads of one key only, and ends them by itself after a day.
        let is_minio =
            object_server(ObjectServerKind::MinIo).is_some_and(|minio| minio.url() == server.url());
        assert!(aborted == 1 || is_minio, "{aborted}");
        assert_eq!(blobs.abort_stale_uploads(i64::MAX).await.unwrap(), 0);
        let digest = publish(&blobs, &spool, &at).await;
        let now_us = jiff::Timestamp::now().as_microsecond();
        assert!(blobs.may_await_commit(&digest, now_us).await.unwrap());
        assert!(!blobs.may_await_commit(&digest, now_us + 2 * 3_600_000_000).await.unwrap());
    }
}

#[tokio::test]
async fn s7_what_stands_in_the_way_of_a_start_is_named() {
    for (_, settings) in places().await {
        let bucket = S3Settings { bucket: "absent".to_owned(), ..settings.clone() };
        let error = Blobs::open_s3(bucket).await.unwrap_err();
        assert!(matches!(&error, Error::NoBucket { bucket } if bucket == "s3://absent"), "{error}");
        let stranger = |key: &str, secret| Some((key.to_owned(), Hidden::new(secret)));
        for keys in [stranger("nobody", "x-y-z-secret"), stranger(ObjectServer::ACCESS_KEY, "x-y-z-secret")] {
            let error = Blobs::open_s3(S3Settings { keys, ..settings.clone() }).await.unwrap_err();
            assert!(matches!(error, Error::BucketCredentials { .. }), "{error}");
            assert!(!error.to_string().contains("x-y-z-secret"), "{error}");
        }
        let nobody =
            S3Settings { endpoint: Some("http://127.0.0.1:9".to_owned()), max_retries: 0, ..settings };
        let error = Blobs::open_s3(nobody).await.unwrap_err();
        assert!(error.is_passing() && error.to_string().contains("s3://layers/"), "{error}");
    }
}

/// A server that lists two objects at a time and never says that there are more; what is read is what was written.
async fn forgetful_server(blobs: Vec<(Digest, u64)>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let key = |digest: &Digest| {
        let hex = digest.hex().to_string();
        format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2])
    };
    let keys: Vec<_> = blobs.iter().map(|(digest, size)| (key(digest), *size)).collect();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let mut head = Vec::new();
            while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let line = head.lines().next().unwrap_or_default().replace("%2F", "/");
            let body = if line.contains("list-type=2") && line.contains("sha256") {
                let after = line.split("start-after=").nth(1).and_then(|rest| rest.split(['&', ' ']).next());
                let page =
                    keys.iter().filter(|(key, _)| after.is_none_or(|after| key.as_str() > after)).take(2);
                let objects: String = page
                    .map(|(key, size)| {
                        format!(
                            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>{size}</Size></Contents>"
                        )
                    })
                    .collect();
                format!("<ListBucketResult>{objects}</ListBucketResult>")
            } else if line.contains("list-type=2") {
                "<ListBucketResult></ListBucketResult>".to_owned()
            } else if line.starts_with("GET") {
                "twinport\n".to_owned()
            } else {
                String::new()
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn s7_a_list_that_ends_early_without_saying_so_is_gone_on_with() {
    let mut blobs: Vec<_> = (0..7u64).map(|number| (Digest::sha256(&number.to_be_bytes()), number)).collect();
    blobs.sort_unstable();
    let url = forgetful_server(blobs.clone()).await;
    let store = Blobs::open_s3(S3Settings { root: String::new(), ..settings(url) }).await.unwrap();
    assert_eq!(store.scan().try_collect::<Vec<_>>().await.unwrap(), blobs);
}
