//! Small pulls and pushes at a primary while a second site joins and backfills everything that is there.
//! Guards that all of it arrives verified; the figures are printed, and nothing is asserted about time.
#![expect(clippy::print_stdout, reason = "figures of a run")]

use std::{
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use twinport_testkit::{Image, SiteProcess, number, program, pull_whole, site_database};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
/// Bytes of an image's layer.
const LAYER: usize = 4_000;
const REPOSITORIES: u64 = 50;
/// Pushers that make the images before anything is measured.
const PUSHERS: u64 = 8;
/// What is offered whether or not those before are through: 50 pulls and 20 pushes a second.
const PULL_EVERY: Duration = Duration::from_millis(20);
const PUSH_EVERY: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_next_to_pulls_and_pushes_brings_everything_on_sqlite() -> anyhow::Result<()> {
    backfill_next_to_load("sqlite").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_next_to_pulls_and_pushes_brings_everything_on_postgresql() -> anyhow::Result<()> {
    backfill_next_to_load("postgresql").await
}

async fn backfill_next_to_load(kind: &str) -> anyhow::Result<()> {
    let (mut idle, mut loaded) = (Latencies::default(), Latencies::default());
    for _ in 0..number("TWINPORT_TEST_ROUNDS", 1) {
        // Two new sites each time: what is pushed next to one backfill would be part of another's.
        let Some(test) = Test::start(kind).await? else {
            println!("skip backfill next to load on {kind}: it is not installed");
            return Ok(());
        };
        let test = Arc::new(test);
        Arc::clone(&test).push_images().await?;
        let window = Duration::from_secs(number("TWINPORT_TEST_SECONDS", 2));
        idle.add(Arc::clone(&test).under_load(sleep(window)).await?.0);
        let database = site_database(kind).await?.context("a second database")?;
        let secondary = SiteProcess::start(&test.binary, &test.folder.path().join("tokyo"), database)?;
        let began = Instant::now();
        let (while_joining, backfilled) = Arc::clone(&test).under_load(test.backfill(&secondary)).await?;
        println!(
            "figure: backfill on {kind}: {} images in {:.1} s next to the load",
            backfilled?,
            began.elapsed().as_secs_f64()
        );
        loaded.add(while_joining);
        test.everything_is_at(&secondary).await?;
        test.primary.json(&["site", "remove", "tokyo"])?;
    }
    report(kind, "pulls", &idle.pulls, &loaded.pulls)?;
    report(kind, "pushes", &idle.pushes, &loaded.pushes)
}

/// Microseconds from a request's beginning to the last answer of its pull or push.
#[derive(Default)]
struct Latencies {
    pulls: Vec<u64>,
    pushes: Vec<u64>,
}

impl Latencies {
    fn add(&mut self, other: Self) {
        self.pulls.extend(other.pulls);
        self.pushes.extend(other.pushes);
    }
}

struct Test {
    primary: SiteProcess,
    http: reqwest::Client,
    /// Images that are there before a second site is.
    images: u64,
    /// Images pushed next to the measured load so far, by their numbers after those.
    pushed: AtomicU64,
    binary: PathBuf,
    folder: TempDir,
}

impl Test {
    async fn start(kind: &str) -> anyhow::Result<Option<Self>> {
        let Some(database) = site_database(kind).await? else { return Ok(None) };
        let (binary, folder) = (program(BINARY), tempfile::tempdir()?);
        let primary = SiteProcess::start(&binary, &folder.path().join("paris"), database)?;
        let images = number("TWINPORT_TEST_IMAGES", 200);
        let (http, pushed) = (reqwest::Client::new(), AtomicU64::new(0));
        Ok(Some(Self { primary, http, images, pushed, binary, folder }))
    }

    async fn push_images(self: Arc<Self>) -> anyhow::Result<()> {
        let mut pushers = JoinSet::new();
        for pusher in 0..PUSHERS {
            let test = Arc::clone(&self);
            pushers.spawn(async move {
                for image in (pusher..test.images).step_by(usize::try_from(PUSHERS)?) {
                    test.push(image).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(pusher) = pushers.join_next().await {
            pusher??;
        }
        Ok(())
    }

    async fn push(&self, image: u64) -> anyhow::Result<()> {
        let (repository, tag) = place(image);
        Image::random(image, 1, LAYER).push(&self.http, &self.primary.url(), &repository, &tag).await
    }

    async fn pull(&self, site: &SiteProcess, image: u64) -> anyhow::Result<()> {
        let (repository, tag) = place(image);
        let digest = pull_whole(&self.http, &site.url(), &repository, &tag).await?;
        ensure!(digest == Image::random(image, 1, LAYER).digest(), "{repository}:{tag} is another image");
        Ok(())
    }

    /// Offers pulls and pushes until `work` ends; what they took, and what came of it.
    async fn under_load<T>(self: Arc<Self>, work: impl Future<Output = T>) -> anyhow::Result<(Latencies, T)> {
        let stop = Arc::new(AtomicBool::new(false));
        let pulls = tokio::spawn({
            let (test, stop, images) = (Arc::clone(&self), Arc::clone(&stop), self.images);
            offer(PULL_EVERY, stop, move |_| {
                let (test, image) = (Arc::clone(&test), rand::random_range(0..images));
                async move { test.pull(&test.primary, image).await }
            })
        });
        let pushes = tokio::spawn({
            let (test, stop) = (Arc::clone(&self), Arc::clone(&stop));
            offer(PUSH_EVERY, stop, move |_| {
                let test = Arc::clone(&test);
                let image = test.images + test.pushed.fetch_add(1, Ordering::SeqCst);
                async move { test.push(image).await }
            })
        });
        let done = work.await;
        stop.store(true, Ordering::SeqCst);
        Ok((Latencies { pulls: pulls.await??, pushes: pushes.await?? }, done))
    }

    /// Joins a new site and waits until it has, verified, what was there before it: so many images.
    async fn backfill(&self, secondary: &SiteProcess) -> anyhow::Result<u64> {
        let there = self.images + self.pushed.load(Ordering::SeqCst);
        // The commands wait for their answers; the load goes on beside them.
        tokio::task::block_in_place(|| self.primary.join("paris", secondary, "tokyo"))?;
        let deadline = Instant::now() + Duration::from_secs(300);
        while arrived(secondary).await? < i64::try_from(there)? {
            ensure!(
                Instant::now() < deadline,
                "{} of {there} images arrived:\n{}",
                arrived(secondary).await?,
                secondary.log()
            );
            sleep(Duration::from_millis(200)).await;
        }
        Ok(there)
    }

    /// All images, those pushed meanwhile too, verified and with nothing failed; a sample is pulled.
    async fn everything_is_at(&self, secondary: &SiteProcess) -> anyhow::Result<()> {
        let images = self.images + self.pushed.load(Ordering::SeqCst);
        secondary.wait_for_count(ARRIVED, usize::try_from(images)?).await?;
        let rest =
            "SELECT count(*) FROM tracked_items WHERE state <> 'synced' OR verification <> 'succeeded'";
        secondary.wait_for_count(rest, 0).await?;
        let unchecked = "SELECT count(*) FROM tracked_repositories WHERE state <> 'synced' OR verification <> 'succeeded'";
        secondary.wait_for_count(unchecked, 0).await?;
        let mut random = StdRng::seed_from_u64(images);
        for _ in 0..200 {
            self.pull(secondary, random.random_range(0..images)).await?;
        }
        Ok(())
    }
}

const ARRIVED: &str = "SELECT count(*) FROM tracked_items WHERE kind = 'tag' AND verification = 'succeeded'";

async fn arrived(site: &SiteProcess) -> anyhow::Result<i64> {
    site.rows(ARRIVED).await?.first().context("one row")?.first().context("a number")?.int()
}

fn place(image: u64) -> (String, String) {
    (format!("load/app-{}", image % REPOSITORIES), format!("v{image}"))
}

/// Begins an act every so often, whether or not those before have ended, until told to stop; how long each took.
async fn offer<A, F>(every: Duration, stop: Arc<AtomicBool>, act: A) -> anyhow::Result<Vec<u64>>
where
    A: Fn(u32) -> F,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (began, mut acts) = (Instant::now(), JoinSet::new());
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        sleep_until(began + every * number).await;
        let doing = act(number);
        acts.spawn(async move {
            let began = Instant::now();
            doing.await?;
            anyhow::Ok(u64::try_from(began.elapsed().as_micros())?)
        });
        number += 1;
    }
    let mut took = Vec::new();
    while let Some(act) = acts.join_next().await {
        took.push(act??);
    }
    Ok(took)
}

fn report(kind: &str, what: &str, idle: &[u64], loaded: &[u64]) -> anyhow::Result<()> {
    ensure!(!idle.is_empty() && !loaded.is_empty(), "no {what} were measured");
    let ms = |took: &[u64], percent: usize| {
        let mut sorted = took.to_vec();
        sorted.sort_unstable();
        sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1] as f64 / 1_000.0
    };
    println!(
        "figure: {what} on {kind}: idle p50 {:.2} p99 {:.2} ms ({} {what}), next to a backfill p50 {:.2} p99 {:.2} ms ({}), \
         ratio p50 {:.2} p99 {:.2}",
        ms(idle, 50),
        ms(idle, 99),
        idle.len(),
        ms(loaded, 50),
        ms(loaded, 99),
        loaded.len(),
        ms(loaded, 50) / ms(idle, 50),
        ms(loaded, 99) / ms(idle, 99),
    );
    Ok(())
}
