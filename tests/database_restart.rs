//! PostgreSQL is restarted, fast, immediately and by `kill -9`, at seeded moments of many pushes.
//! Guards: with a client's own patience every push succeeds, and nothing that was acknowledged is lost at either site.
#![expect(clippy::print_stdout, reason = "figures and seeds of a run")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::Client;
use tokio::task::JoinSet;
use twinport_testkit::{
    Image, PostgresServer, Pushed, SiteDatabase, SiteProcess, Stop, number, program, seed,
};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
/// Restarts of the run; `scripts/test-database-restart` asks for more.
const POINTS_VARIABLE: &str = "TWINPORT_RESTART_POINTS";
const PUSHERS: u64 = 50;
/// How long a site's return may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn s11_pushes_outlive_restarts_of_the_database() -> anyhow::Result<()> {
    let (points, seed) = (number(POINTS_VARIABLE, 2), seed());
    println!("{points} restarts in {PUSHERS} pushers, TWINPORT_TEST_SEED={seed}");
    let Some(mut server) = PostgresServer::start(&[])? else {
        println!("skip restarts of the database: PostgreSQL is not installed");
        return Ok(());
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let url = runtime.block_on(server.database("registry"))?;
    let folder = tempfile::tempdir()?;
    let start =
        |name: &str, database| SiteProcess::start(&program(BINARY), &folder.path().join(name), database);
    let primary = start("paris", SiteDatabase::Postgres(url))?;
    let secondary = start("tokyo", SiteDatabase::Embedded)?;
    primary.join("paris", &secondary, "tokyo")?;

    let stop = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(AtomicU64::new(0));
    let mut pushers = JoinSet::new();
    for pusher in 0..PUSHERS {
        let (url, stop, begun) = (primary.url(), Arc::clone(&stop), Arc::clone(&begun));
        pushers.spawn_on(push_until(url, seed, pusher, stop, begun), runtime.handle());
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut restarts = Ok(());
    for point in 0..points {
        restarts = restart_somewhere(&runtime, &mut server, &primary, &mut random, &begun)
            .with_context(|| format!("restart {point}"));
        if restarts.is_err() {
            break;
        }
    }
    stop.store(true, Ordering::SeqCst);
    let pushed = runtime.block_on(async {
        let mut all = Pushed::default();
        while let Some(pusher) = pushers.join_next().await {
            all.add(pusher??);
        }
        anyhow::Ok(all)
    });
    let keep =
        |error: anyhow::Error| error.context(format!("seed {seed}; the site's log:\n{}", tail(&primary)));
    restarts.map_err(keep)?;
    let pushed = pushed.map_err(keep)?;
    println!(
        "{} images acknowledged, {} times told to come back",
        pushed.acknowledged.len(),
        pushed.refusals
    );
    runtime.block_on(hold(&primary, &secondary, &pushed)).map_err(keep)
}

/// Once some pushes are under way the database ends, in one of three ways, and comes back a moment later.
fn restart_somewhere(
    runtime: &tokio::runtime::Runtime,
    server: &mut PostgresServer,
    primary: &SiteProcess,
    random: &mut StdRng,
    begun: &AtomicU64,
) -> anyhow::Result<()> {
    let wanted = begun.load(Ordering::SeqCst) + random.random_range(10..120);
    wait("pushes go on", || begun.load(Ordering::SeqCst) >= wanted)?;
    std::thread::sleep(Duration::from_millis(random.random_range(0..80)));
    let how = [Stop::Fast, Stop::Immediate, Stop::Kill][random.random_range(0..3)];
    server.stop(how)?;
    runtime.block_on(refuses_politely(primary)).with_context(|| format!("{how:?}"))?;
    std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
    server.resume()?;
    wait("the site is ready again", || {
        runtime.block_on(async { status(&format!("{}/readyz", primary.url())).await == Some(200) })
    })
}

/// What clients and balancers are told while there is no database.
async fn refuses_politely(primary: &SiteProcess) -> anyhow::Result<()> {
    let ready = reqwest::get(format!("{}/readyz", primary.url())).await?;
    ensure!(ready.status() == 503, "/readyz: {}", ready.status());
    let said = ready.text().await?;
    ensure!(said.contains("PostgreSQL at 127.0.0.1"), "{said}");
    let answer = reqwest::get(format!("{}/v2/some/image/manifests/latest", primary.url())).await?;
    ensure!(answer.status() == 503, "a pull: {}", answer.status());
    ensure!(answer.headers().contains_key("retry-after"), "{:?}", answer.headers());
    let body: serde_json::Value = answer.json().await?;
    ensure!(body["errors"][0]["code"] == "UNAVAILABLE", "{body}");
    ensure!(!body.to_string().contains("127.0.0.1"), "where the database is is nobody's business: {body}");
    Ok(())
}

async fn push_until(
    url: String,
    seed: u64,
    pusher: u64,
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicU64>,
) -> anyhow::Result<Pushed> {
    let http = Client::new();
    let mut pushed = Pushed::default();
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(pusher));
    for round in 0_u64.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let image = Image::random(random.random(), 1, random.random_range(100..20_000));
        let (repository, tag) = (format!("restart/{}", pusher % 7), format!("p{pusher}-{}", round % 4));
        begun.fetch_add(1, Ordering::SeqCst);
        pushed.push(&http, &url, (repository, tag), &image, false).await?;
    }
    Ok(pushed)
}

/// Both sites have every image, byte by byte, and the same log.
async fn hold(primary: &SiteProcess, secondary: &SiteProcess, pushed: &Pushed) -> anyhow::Result<()> {
    ensure!(pushed.acknowledged.len() as u64 >= PUSHERS, "{} images are no load", pushed.acknowledged.len());
    let http = Client::new();
    for site in [primary, secondary] {
        pushed.arrive_at(&http, &site.url()).await?;
    }
    let log = "SELECT seq, hash, body FROM events WHERE seq IS NOT NULL ORDER BY seq";
    let (here, there) = (primary.rows(log).await?, secondary.rows(log).await?);
    let joined_at = here.len().checked_sub(there.len()).context("the secondary has more events")?;
    for (event, seq) in here.iter().zip(1..) {
        ensure!(event[0].int()? == seq, "the log has a gap before {}", event[0].int()?);
    }
    ensure!(here[joined_at..] == there[..], "the logs differ");
    println!("{} events, the same at both sites", there.len());
    Ok(())
}

async fn status(url: &str) -> Option<u16> {
    Some(reqwest::get(url).await.ok()?.status().as_u16())
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        ensure!(Instant::now() < deadline, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn tail(site: &SiteProcess) -> String {
    let log = site.log();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
