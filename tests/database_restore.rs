//! Hazards R23 and R26 with whole sites: PostgreSQL is restored from an older base backup under a primary that runs on.
//! Guards: nothing is acknowledged where acknowledged pushes were lost, and the secondary keeps what it has.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use reqwest::{Body, Client};
use serde_json::Value;
use tokio::sync::oneshot;
use twinport_oci::Digest;
use twinport_testkit::{Image, PostgresServer, SiteDatabase, SiteProcess, Stop, program, pull_whole};

const PATIENCE: Duration = Duration::from_secs(120);
const LOG: &str = "SELECT seq, hash, body FROM events WHERE seq IS NOT NULL ORDER BY seq";

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn image(seed: u64) -> Image {
    Image::random(seed, 1, 2_000)
}

async fn push(site: &SiteProcess, seed: u64) -> anyhow::Result<()> {
    image(seed).push(&Client::new(), &site.url(), "team/app", &format!("v{seed}")).await
}

async fn has(site: &SiteProcess, seed: u64) -> bool {
    let pulled = pull_whole(&Client::new(), &site.url(), "team/app", &format!("v{seed}")).await;
    pulled.is_ok_and(|digest| digest == image(seed).digest())
}

async fn text(site: &SiteProcess, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("{}{path}", site.url())).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn halted(site: &SiteProcess) -> Option<String> {
    site.json(&["site", "show"]).unwrap()["halted"].as_str().map(str::to_owned)
}

/// Whether `doctor` gives this verdict with these words.
fn examined(site: &SiteProcess, verdict: &str, words: &str) -> bool {
    let said = site.run(&["doctor", "--output", "json"]).unwrap();
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    let checks = said["checks"].as_array().unwrap();
    checks
        .iter()
        .any(|check| check["verdict"] == verdict && check["message"].as_str().unwrap().contains(words))
}

/// A primary on a PostgreSQL server of its own, and a secondary on SQLite.
struct Sites {
    server: PostgresServer,
    paris: SiteProcess,
    tokyo: SiteProcess,
    _folder: tempfile::TempDir,
}

impl Sites {
    /// Joined; none where PostgreSQL is not installed.
    async fn start() -> Option<Self> {
        let Some(server) = PostgresServer::start(&[]).unwrap() else {
            eprintln!("skipped: PostgreSQL is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let start = |name: &str, database| {
            SiteProcess::start(&program(env!("CARGO_BIN_EXE_twinport")), &folder.path().join(name), database)
                .unwrap()
        };
        let paris = start("paris", SiteDatabase::Postgres(server.database("registry").await.unwrap()));
        let tokyo = start("tokyo", SiteDatabase::Embedded);
        paris.join("paris", &tokyo, "tokyo").unwrap();
        Some(Self { server, paris, tokyo, _folder: folder })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r23_a_database_restored_under_a_running_primary_stops_writes_and_costs_the_secondary_nothing() {
    let Some(Sites { mut server, paris, tokyo, _folder }) = Sites::start().await else { return };
    for seed in 1..=3 {
        push(&paris, seed).await.unwrap();
    }
    let backup = server.base_backup().unwrap();
    for seed in 4..=6 {
        push(&paris, seed).await.unwrap();
    }
    until("tokyo has everything", async || has(&tokyo, 6).await).await;
    let before = tokyo.rows(LOG).await.unwrap();
    assert!(paris.json(&["db", "accept-loss", "--yes"]).is_err(), "there is nothing to accept");

    server.stop(Stop::Fast).unwrap();
    server.restore(&backup).unwrap();
    server.resume().unwrap();
    until("paris answers again", async || text(&paris, "/readyz").await.0 == 200).await;

    let refused = push(&paris, 7).await.unwrap_err().to_string();
    assert!(refused.contains("503") && refused.contains("the database lost writes"), "{refused}");
    assert!(refused.contains("is missing, its log ends at event"), "{refused}");
    let (_, ready) = text(&paris, "/readyz").await;
    assert!(ready.contains("ready for pulls") && ready.contains("the database lost writes"), "{ready}");
    let (_, metrics) = text(&paris, "/metrics").await;
    assert!(metrics.contains("twinport_database_lost_writes 1\n"), "{metrics}");
    assert!(metrics.contains("twinport_writes_halted 1\n"), "{metrics}");
    let status = paris.run(&["geo", "status"]).unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("stopped: the database lost writes"), "{status}");
    assert!(examined(&paris, "failed", "the database lost writes"));
    assert!(has(&paris, 3).await, "what is left can be pulled");
    assert!(!has(&paris, 6).await);
    for seed in 1..=6 {
        assert!(has(&tokyo, seed).await, "tokyo keeps v{seed}");
    }
    assert_eq!(tokyo.rows(LOG).await.unwrap(), before);

    assert!(paris.json(&["db", "accept-loss"]).is_err(), "not without saying so");
    paris.json(&["db", "accept-loss", "--yes"]).unwrap();
    until("the audit log says who", async || paris.log().contains("loss_accept")).await;
    // tokyo has more, and tells: writes stop again, until somebody decides about tokyo too.
    until("tokyo is heard", async || halted(&paris).is_some_and(|reason| reason.contains("site tokyo")))
        .await;
    assert_eq!(tokyo.rows(LOG).await.unwrap(), before, "nothing is overwritten");
    paris.json(&["site", "remove", "tokyo"]).unwrap();
    push(&paris, 8).await.unwrap();
    assert!(has(&paris, 8).await && has(&tokyo, 6).await);
}

/// One client's connection, with a layer on it of which half is sent.
struct HalfSent {
    http: Client,
    rest: oneshot::Sender<()>,
    answer: tokio::task::JoinHandle<reqwest::Result<reqwest::Response>>,
}

impl HalfSent {
    async fn begin(site: &SiteProcess, seed: u8) -> Self {
        // One connection, which each request of this client goes over.
        let http = Client::builder().pool_max_idle_per_host(1).build().unwrap();
        let halves = [Bytes::from(vec![seed; 100_000]), Bytes::from(vec![seed; 100_000])];
        let digest = Digest::sha256(&halves.concat());
        let begun = http.post(format!("{}/v2/team/app/blobs/uploads/", site.url())).send().await.unwrap();
        assert_eq!(begun.status(), 202);
        let location = begun.headers()["location"].to_str().unwrap();
        let joint = if location.contains('?') { '&' } else { '?' };
        let address = format!("{}{joint}digest={digest}", begun.url().join(location).unwrap());
        let [first, second] = halves;
        let (rest, asked_for) = oneshot::channel::<()>();
        let second = stream::once(async move {
            asked_for.await.map_err(std::io::Error::other)?;
            std::io::Result::Ok(second)
        });
        let body = Body::wrap_stream(stream::once(async { std::io::Result::Ok(first) }).chain(second));
        let answer = tokio::spawn(http.put(address).body(body).send());
        Self { http, rest, answer }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r23_pushes_under_way_on_three_connections_while_the_database_goes_back_are_all_refused() {
    let Some(Sites { mut server, paris, tokyo, _folder }) = Sites::start().await else { return };
    push(&paris, 1).await.unwrap();
    let backup = server.base_backup().unwrap();
    push(&paris, 2).await.unwrap();
    until("tokyo has everything", async || has(&tokyo, 2).await).await;
    let before = tokyo.rows(LOG).await.unwrap();
    let clients = [
        HalfSent::begin(&paris, 1).await,
        HalfSent::begin(&paris, 2).await,
        HalfSent::begin(&paris, 3).await,
    ];
    until("three layers are half sent", async || {
        text(&paris, "/metrics").await.1.contains("twinport_uploads_in_progress 3\n")
    })
    .await;

    server.stop(Stop::Fast).unwrap();
    server.restore(&backup).unwrap();
    server.resume().unwrap();

    // Nothing is asked of the site in between: these requests are the first to meet the server that went back.
    let mut connections = Vec::new();
    for client in clients {
        client.rest.send(()).unwrap();
        let answer = client.answer.await.unwrap().unwrap();
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"), "{:?}", answer.headers());
        connections.push(client.http);
    }
    until("paris answers again", async || text(&paris, "/readyz").await.0 == 200).await;
    for (http, seed) in connections.into_iter().zip(3..) {
        let refused = image(seed).push(&http, &paris.url(), "team/app", &format!("v{seed}")).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("503") && refused.contains("the database lost writes"), "{refused}");
    }
    // tokyo has asked paris again, and was given nothing that differs from what it has.
    until("tokyo says why it does not follow", async || {
        tokyo.json(&["geo", "status"]).unwrap()["replication"].to_string().contains("log ends at")
    })
    .await;
    assert_eq!(tokyo.rows(LOG).await.unwrap(), before, "tokyo's log is as it was");
    assert!(has(&tokyo, 1).await && has(&tokyo, 2).await, "tokyo keeps what paris lost");
    for seed in 3..=5 {
        assert!(!has(&paris, seed).await && !has(&tokyo, seed).await, "v{seed} is nowhere");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_whether_a_standby_has_what_is_acknowledged() {
    let Some(Sites { server, paris, tokyo: _tokyo, _folder }) = Sites::start().await else { return };
    assert!(examined(&paris, "warning", "no synchronous standby"));
    let mut standby = server.standby("twinport_standby").unwrap();
    let synchronous =
        "ALTER SYSTEM SET synchronous_standby_names = 'twinport_standby'; SELECT pg_reload_conf()";
    server.execute(synchronous).await.unwrap();
    until("the standby counts", async || {
        examined(&paris, "ok", "a push is acknowledged when a standby has it too (twinport_standby)")
    })
    .await;
    push(&paris, 1).await.unwrap();
    standby.stop(Stop::Fast).unwrap();
    until("the standby is missed", async || examined(&paris, "failed", "none is connected")).await;
    standby.resume().unwrap();
    until("the standby is back", async || push(&paris, 2).await.is_ok()).await;
}
