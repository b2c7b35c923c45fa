//! Transfers of the client over a link that breaks in the middle: they go on where they stopped.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use twinport_client::{ImageBlob, PushStep, RegistryClient, Slice};
use twinport_oci::{Algorithm, Digest, Hasher, RepositoryName};
use twinport_testkit::{SiteDatabase, SiteProcess, TcpProxy};

const SIZE: usize = 48 << 20;

struct Scene {
    dir: tempfile::TempDir,
    _site: SiteProcess,
    link: Arc<TcpProxy>,
    client: RegistryClient,
    repository: RepositoryName,
}

fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_twinport"));
    let site = SiteProcess::start(built, &dir.path().join("site"), SiteDatabase::Embedded).unwrap();
    let link = Arc::new(TcpProxy::to(site.address()).unwrap());
    let client = RegistryClient::new(link.url().parse().unwrap()).unwrap();
    Scene { dir, _site: site, link, client, repository: "team/app".parse().unwrap() }
}

/// A blob inside a larger file, as in an archive.
fn blob(dir: &Path) -> ImageBlob {
    let path = dir.join("archive");
    let bytes: Vec<u8> = (0..SIZE + 1000).map(|n| ((n * 7919) >> 5) as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    let slice = Slice { path, offset: 500, len: SIZE as u64 };
    ImageBlob { digest: Digest::sha256(&bytes[500..500 + SIZE]), slice }
}

/// Breaks the link once, a moment after `bytes` have crossed it.
fn break_once(link: &Arc<TcpProxy>, bytes: u64) -> tokio::task::JoinHandle<()> {
    let link = link.clone();
    tokio::spawn(async move {
        while link.traffic().total() < bytes {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        link.cut();
        tokio::time::sleep(Duration::from_millis(50)).await;
        link.resume();
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_a_push_that_breaks_goes_on_where_the_registry_stands() {
    let scene = scene();
    let blob = blob(scene.dir.path());
    let broken = break_once(&scene.link, 12 << 20);
    let (counted, lost) = (AtomicI64::new(0), AtomicBool::new(false));
    let report = |step: PushStep| match step {
        PushStep::Sent { bytes } => drop(counted.fetch_add(bytes.cast_signed(), Ordering::SeqCst)),
        PushStep::Lost { bytes } => {
            lost.store(true, Ordering::SeqCst);
            counted.fetch_sub(bytes.cast_signed(), Ordering::SeqCst);
        }
        _ => {}
    };
    scene.client.push_blob(&scene.repository, &blob, &report).await.unwrap();
    broken.await.unwrap();
    assert!(lost.load(Ordering::SeqCst), "the link did not break the push");
    assert_eq!(counted.load(Ordering::SeqCst), SIZE as i64, "progress counts each byte once");
    assert!(scene.client.has_blob(&scene.repository, &blob.digest).await.unwrap());
    let sent = scene.link.traffic().sent;
    assert!(sent < 2 * SIZE as u64, "{sent} bytes were sent for {SIZE}: it began again");
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_a_pull_that_breaks_goes_on_where_it_stopped_and_hashes_to_its_digest() {
    let scene = scene();
    let blob = blob(scene.dir.path());
    scene.client.push_blob(&scene.repository, &blob, &|_| {}).await.unwrap();
    let before = scene.link.traffic();
    let broken = break_once(&scene.link, before.total() + (12 << 20));
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut pulled = pin!(scene.client.pull_blob(&scene.repository, &blob.digest));
    while let Some(chunk) = pulled.next().await {
        hasher.update(&chunk.unwrap());
    }
    broken.await.unwrap();
    assert_eq!(hasher.finish(), blob.digest);
    let received = scene.link.traffic().received - before.received;
    assert!(received < 2 * SIZE as u64, "{received} bytes came for {SIZE}: it began again");
    assert!(scene.link.connections() > 1, "the link did not break the pull");
}
