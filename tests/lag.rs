//! The lag of replication: from the primary's 201 to "verified" in the secondary's own record, in milliseconds.
//! Guards that every image arrives under load; the figures are printed, and nothing is asserted about time.
#![expect(clippy::print_stdout, reason = "figures of a run")]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{task::JoinSet, time::Instant};
use twinport_metadata::Clock;
use twinport_testkit::{Image, Pair, number, pull_whole, site_database};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
/// Bytes of an image's layer.
const LAYER: usize = 10_000;
const PUSHERS: usize = 16;
/// Between two images that are offered.
const EVERY: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn images_of_one_pusher_arrive_verified_on_sqlite() -> anyhow::Result<()> {
    one_pusher("sqlite").await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_one_pusher_arrive_verified_on_postgresql() -> anyhow::Result<()> {
    one_pusher("postgresql").await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_sixteen_pushers_arrive_verified_on_sqlite() -> anyhow::Result<()> {
    sixteen_pushers("sqlite").await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_sixteen_pushers_arrive_verified_on_postgresql() -> anyhow::Result<()> {
    sixteen_pushers("postgresql").await
}

/// How long images are pushed.
fn load() -> Duration {
    Duration::from_secs(number("TWINPORT_TEST_SECONDS", 5))
}

/// Each push begins when the one before is acknowledged.
async fn one_pusher(kind: &str) -> anyhow::Result<()> {
    let Some(site) = Sites::start(kind, "one pusher").await? else { return Ok(()) };
    let (began, mut acknowledged) = (Instant::now(), Vec::new());
    while began.elapsed() < load() {
        acknowledged.push(site.push(acknowledged.len(), "only").await?);
    }
    site.report(kind, "1 pusher", began.elapsed(), acknowledged).await
}

/// Images are offered at a steady rate, whether or not those before are through.
async fn sixteen_pushers(kind: &str) -> anyhow::Result<()> {
    let Some(site) = Sites::start(kind, "sixteen pushers").await? else { return Ok(()) };
    let site = Arc::new(site);
    let offered = usize::try_from(load().as_millis() / EVERY.as_millis())?;
    let (next, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut pushers = JoinSet::new();
    for pusher in 0..PUSHERS {
        let (site, next) = (Arc::clone(&site), Arc::clone(&next));
        pushers.spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                let image = next.fetch_add(1, Ordering::SeqCst);
                if image >= offered {
                    return Ok::<_, anyhow::Error>(acknowledged);
                }
                tokio::time::sleep_until(began + EVERY * u32::try_from(image)?).await;
                acknowledged.push(site.push(image, &format!("pusher-{pusher}")).await?);
            }
        });
    }
    let mut acknowledged = Vec::new();
    while let Some(pusher) = pushers.join_next().await {
        acknowledged.extend(pusher??);
    }
    site.report(kind, "16 pushers offering 50 images/s", began.elapsed(), acknowledged).await
}

/// A push that was answered 201.
struct Acknowledged {
    repository: String,
    tag: String,
    /// When the answer was there (µs since the epoch, the clock that the secondary reads too).
    at_us: i64,
    /// From its first request to its answer.
    took: Duration,
}

struct Sites {
    pair: Pair,
    http: reqwest::Client,
    clock: Clock,
    /// Processor time before the load, of primary and secondary, sites and sessions.
    used: [u64; 4],
}

impl Sites {
    async fn start(kind: &str, what: &str) -> anyhow::Result<Option<Self>> {
        let databases = (site_database(kind).await?, site_database(kind).await?);
        let (Some(primary), Some(secondary)) = databases else {
            println!("skip lag of {what} on {kind}: it is not installed");
            return Ok(None);
        };
        let (pair, http, clock) =
            (Pair::joined(BINARY, primary, secondary)?, reqwest::Client::new(), Clock::System);
        let mut site = Self { pair, http, clock, used: [0; 4] };
        // The first image pays for connections and caches.
        site.push(usize::MAX >> 40, "warm").await?;
        site.arrived(1).await?;
        site.used = site.processor_ms().await?;
        Ok(Some(site))
    }

    async fn processor_ms(&self) -> anyhow::Result<[u64; 4]> {
        let (primary, its_sessions) = self.pair.primary.processor_ms().await?;
        let (secondary, sessions) = self.pair.secondary.processor_ms().await?;
        Ok([primary, its_sessions, secondary, sessions])
    }

    async fn push(&self, number: usize, who: &str) -> anyhow::Result<Acknowledged> {
        let (repository, tag) = (format!("lag/{who}"), format!("v{number}"));
        let image = Image::random(number as u64, 1, LAYER);
        let began = Instant::now();
        image.push(&self.http, &self.pair.primary.url(), &repository, &tag).await?;
        Ok(Acknowledged { repository, tag, at_us: self.clock.now_us(), took: began.elapsed() })
    }

    async fn arrived(&self, images: usize) -> anyhow::Result<()> {
        let every = "SELECT count(*) FROM tracked_items WHERE kind = 'tag' AND verification = 'succeeded'";
        self.pair.secondary.wait_for_count(every, images).await
    }

    async fn report(
        &self,
        kind: &str,
        load: &str,
        lasted: Duration,
        acknowledged: Vec<Acknowledged>,
    ) -> anyhow::Result<()> {
        self.arrived(acknowledged.len() + 1).await?;
        let verified = self.verified().await?;
        let lags = acknowledged.iter().map(|push| {
            let at_us = verified.get(&(push.repository.clone(), push.tag.clone()));
            let at_us =
                at_us.with_context(|| format!("{}:{} is not on record", push.repository, push.tag))?;
            Ok(at_us - push.at_us)
        });
        let lags = lags.collect::<anyhow::Result<Vec<_>>>()?;
        let pushes = acknowledged.iter().map(|push| push.took.as_micros() as i64).collect();
        let rate = acknowledged.len() as f64 / lasted.as_secs_f64();
        println!(
            "figure: lag on {kind}, {load} for {} s: {} ms ({} images, {rate:.1} acknowledged/s, pushes {} ms)",
            lasted.as_secs(),
            Spread(lags),
            acknowledged.len(),
            Spread(pushes),
        );
        let used = self.processor_ms().await?;
        let each = |index: usize| (used[index] - self.used[index]) as f64 / acknowledged.len() as f64;
        println!(
            "figure: processor on {kind}, {load}: {:.1} ms an image at the primary and {:.1} in its PostgreSQL, {:.1} at the \
             secondary and {:.1}",
            each(0),
            each(1),
            each(2),
            each(3)
        );
        let last = acknowledged.last().context("at least one push")?;
        pull_whole(&self.http, &self.pair.secondary.url(), &last.repository, &last.tag).await?;
        Ok(())
    }

    /// When each tag was verified, by the secondary's own record.
    async fn verified(&self) -> anyhow::Result<HashMap<(String, String), i64>> {
        let records = "SELECT r.path, t.key, t.verified_at_us FROM tracked_items t \
             JOIN repositories r ON r.uuid = t.repository WHERE t.kind = 'tag' AND t.verification = 'succeeded'";
        let rows = self.pair.secondary.rows(records).await?;
        rows.iter()
            .map(|row| Ok(((row[0].text()?.to_owned(), row[1].text()?.to_owned()), row[2].int()?)))
            .collect()
    }
}

/// Microseconds, shown as `p50 1.0 p99 2.0 max 3.0` in milliseconds.
struct Spread(Vec<i64>);

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1] as f64 / 1_000.0;
        write!(f, "p50 {:.1} p99 {:.1} max {:.1}", at(50), at(99), at(100))
    }
}
