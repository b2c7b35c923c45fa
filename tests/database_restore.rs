//! Hazards R23 and R26 with whole sites: PostgreSQL is restored from an older base backup under a primary that runs on.
//! Guards: nothing is acknowledged where acknowledged pushes were lost, and the secondary keeps what it has.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;
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

#[tokio::test(flavor = "multi_thread")]
async fn r23_a_database_restored_under_a_running_primary_stops_writes_and_costs_the_secondary_nothing() {
    let Some(mut server) = PostgresServer::start(&[]).unwrap() else {
        eprintln!("skipped: PostgreSQL is not installed");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str, database| {
        SiteProcess::start(&program(env!("CARGO_BIN_EXE_twinport")), &folder.path().join(name), database)
            .unwrap()
    };
    let paris = start("paris", SiteDatabase::Postgres(server.database("registry").await.unwrap()));
    let tokyo = start("tokyo", SiteDatabase::Embedded);
    paris.join("paris", &tokyo, "tokyo").unwrap();
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
    let examined = paris.run(&["doctor", "--output", "json"]).unwrap();
    let examined: Value = serde_json::from_slice(&examined.stdout).unwrap();
    let checks = examined["checks"].as_array().unwrap();
    let failed = |check: &&Value| {
        check["verdict"] == "failed"
            && check["message"].as_str().unwrap().contains("the database lost writes")
    };
    assert!(checks.iter().any(|check| failed(&check)), "{examined}");
    assert!(has(&paris, 3).await, "what is left can be pulled");
    assert!(!has(&paris, 6).await);
    for seed in 1..=6 {
        assert!(has(&tokyo, seed).await, "tokyo keeps v{seed}");
    }
    assert_eq!(tokyo.rows(LOG).await.unwrap(), before);

    assert!(paris.json(&["db", "accept-loss"]).is_err(), "not without saying so");
    paris.json(&["db", "accept-loss", "--yes"]).unwrap();
    assert!(paris.log().contains("loss_accept"), "the audit log says who");
    // tokyo has more, and tells: writes stop again, until somebody decides about tokyo too.
    until("tokyo is heard", async || halted(&paris).is_some_and(|reason| reason.contains("site tokyo")))
        .await;
    assert_eq!(tokyo.rows(LOG).await.unwrap(), before, "nothing is overwritten");
    paris.json(&["site", "remove", "tokyo"]).unwrap();
    push(&paris, 8).await.unwrap();
    assert!(has(&paris, 8).await && has(&tokyo, 6).await);
}
