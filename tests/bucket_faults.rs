//! A site whose bucket answers a tenth of all requests 503, resets them, breaks off its answers or is slow, in the middle
//! of many pushes.
//! Guards: with a client's own patience every push succeeds, and nothing that was acknowledged is lost at either site.
#![expect(clippy::print_stdout, reason = "figures and seeds of a run")]

use anyhow::{Context as _, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::Client;
use tokio::task::JoinSet;
use twinport_testkit::{
    FaultProxy, Image, ObjectServer, ObjectServerKind, Pushed, RequestFaults, SiteBucket, SiteDatabase,
    SiteProcess, number, object_server, program, seed, site_database,
};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
/// Seeds of the run; `scripts/test-object-storage` asks for more.
const POINTS_VARIABLE: &str = "TWINPORT_FAULT_POINTS";
const PUSHERS: u64 = 50;
/// Two parts of a multipart upload.
const LARGE: usize = 6 << 20;
/// A tenth of all requests.
const FAULTS: RequestFaults = RequestFaults { slow_down: 40, reset: 20, cut: 20, delay: 20 };

#[tokio::test(flavor = "multi_thread")]
async fn s7_pushes_outlive_a_bucket_that_refuses_breaks_and_delays_a_tenth_of_its_requests()
-> anyhow::Result<()> {
    let (points, seed) = (number(POINTS_VARIABLE, 2), seed());
    println!("{points} times {PUSHERS} pushers, TWINPORT_TEST_SEED={seed}");
    let mut places = Vec::new();
    for kind in [ObjectServerKind::MinIo, ObjectServerKind::Versity] {
        if let Some(server) = tokio::task::spawn_blocking(move || object_server(kind)).await? {
            places.push((kind, server));
        }
    }
    if places.is_empty() {
        println!("skip pushes to a faulty bucket: no S3 server is installed");
        return Ok(());
    }
    for (point, (kind, server)) in (0..points).zip(places.iter().cycle()) {
        let Some(database) = site_database("postgresql").await? else {
            println!("skip pushes to a faulty bucket: PostgreSQL is not installed");
            return Ok(());
        };
        let seed = seed.wrapping_add(point);
        push_through_faults(server, database, seed)
            .await
            .with_context(|| format!("seed {seed} on {}", kind.program()))?;
    }
    Ok(())
}

async fn push_through_faults(server: &ObjectServer, database: SiteDatabase, seed: u64) -> anyhow::Result<()> {
    let (folder, program) = (tempfile::tempdir()?, program(BINARY));
    let proxy = FaultProxy::to(server.address(), FAULTS, seed)?;
    let bucket = Some(SiteBucket::at(proxy.url()));
    let primary = SiteProcess::start_on(&program, &folder.path().join("paris"), database, bucket)?;
    let secondary = SiteProcess::start(&program, &folder.path().join("tokyo"), SiteDatabase::Embedded)?;
    primary.join("paris", &secondary, "tokyo")?;
    let mut pushers = JoinSet::new();
    for pusher in 0..PUSHERS {
        pushers.spawn(push_some(primary.url(), seed, pusher));
    }
    let mut pushed = Pushed::default();
    while let Some(pusher) = pushers.join_next().await {
        pushed.add(pusher??);
    }
    let http = Client::new();
    for site in [&primary, &secondary] {
        pushed.arrive_at(&http, &site.url()).await?;
    }
    let scrubbed = secondary.run(&["blobs", "scrub"])?;
    ensure!(scrubbed.status.success(), "{}", String::from_utf8_lossy(&scrubbed.stdout));
    println!(
        "seed {seed}: {} images acknowledged, {} times told to come back, {} requests struck",
        pushed.acknowledged.len(),
        pushed.refusals,
        proxy.struck()
    );
    ensure!(proxy.struck() > PUSHERS, "{} requests are no trouble", proxy.struck());
    Ok(())
}

/// Two images; every third in chunks, a tenth of those large enough for several parts.
async fn push_some(url: String, seed: u64, pusher: u64) -> anyhow::Result<Pushed> {
    let (http, mut pushed) = (Client::new(), Pushed::default());
    let mut random = StdRng::seed_from_u64(seed ^ (pusher << 32));
    for round in 0..2 {
        let in_chunks = random.random_ratio(1, 3);
        let size =
            if in_chunks && random.random_ratio(1, 10) { LARGE } else { random.random_range(100..80_000) };
        let image = Image::random(random.random(), 1, size);
        let tag = (format!("faults/{}", pusher % 7), format!("p{pusher}-{round}"));
        pushed.push(&http, &url, tag, &image, in_chunks).await?;
    }
    Ok(pushed)
}
