//! A full disk below blobs or database, at either site: clear refusals, nothing half visible, and all well once there
//! is room.
#![expect(clippy::print_stdout, reason = "what each site answered")]

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use tempfile::TempDir;
use twinport_oci::Digest;
use twinport_testkit::{
    Image, MANIFEST, SiteDatabase, SiteProcess, SmallDisk, drop_moved_database, move_postgres_database,
    program, pull_whole, site_database, take_settled_inventory,
};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
const SIZE: u64 = 24 << 20;
const REPOSITORY: &str = "disk/full";
/// Pushes until a disk without room must have been noticed: a database goes on for a while in the room it has.
const MOST: u64 = 3_000;
/// Images that a full secondary misses at least.
const LEAST: u64 = 12;
/// Until a site that has room again must have everything.
const CONVERGENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_primary_without_room_for_blobs_says_so_and_recovers() -> anyhow::Result<()> {
    primary_fills_up(Part::Blobs, "sqlite").await
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_primary_without_room_for_its_sqlite_database_says_so_and_recovers() -> anyhow::Result<()> {
    primary_fills_up(Part::Database, "sqlite").await
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_primary_without_room_in_postgresql_says_so_and_recovers() -> anyhow::Result<()> {
    primary_fills_up(Part::Database, "postgresql").await
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_secondary_without_room_for_blobs_goes_on_by_itself() -> anyhow::Result<()> {
    secondary_fills_up(Part::Blobs, "sqlite").await
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_secondary_without_room_for_its_sqlite_database_goes_on_by_itself() -> anyhow::Result<()> {
    secondary_fills_up(Part::Database, "sqlite").await
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_a_secondary_without_room_in_postgresql_goes_on_by_itself() -> anyhow::Result<()> {
    secondary_fills_up(Part::Database, "postgresql").await
}

/// What lies on the small disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Blobs,
    Database,
}

/// A site with one part of it on a small disk. The site goes before its disks.
struct Cramped {
    site: SiteProcess,
    /// Lies on `disk`, so it goes first.
    _roomy: Option<SmallDisk>,
    disk: SmallDisk,
    moved: Option<String>,
}

impl Cramped {
    async fn start(part: Part, kind: &str, data: PathBuf, spare: &Path) -> anyhow::Result<Option<Self>> {
        let Some(database) = site_database(kind).await? else {
            println!("skip a full disk on {kind}: PostgreSQL is not installed");
            return Ok(None);
        };
        if !rustix::process::geteuid().is_root() {
            println!("skip a full disk: mounting one needs root");
            return Ok(None);
        }
        let (mut roomy, mut moved) = (None, None);
        let disk = match (part, &database) {
            (Part::Blobs, _) => SmallDisk::mount(&data.join("blobs"), SIZE)?,
            (Part::Database, SiteDatabase::Embedded) => {
                let disk = SmallDisk::mount(&data, SIZE)?;
                roomy = Some(SmallDisk::mount(&data.join("blobs"), 256 << 20)?);
                disk
            }
            (Part::Database, SiteDatabase::Postgres(url)) => {
                let disk = SmallDisk::mount(spare, 2 * SIZE)?;
                move_postgres_database(url, spare).await?;
                moved = Some(url.clone());
                disk
            }
        };
        let site = SiteProcess::start(&program(BINARY), &data, database)?;
        Ok(Some(Self { site, disk, _roomy: roomy, moved }))
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.site.terminate()?;
        match &self.moved {
            Some(url) => drop_moved_database(url).await,
            None => Ok(()),
        }
    }
}

async fn primary_fills_up(part: Part, kind: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(mut cramped) = cramped(&folder, "paris", part, kind).await? else { return Ok(()) };
    let secondary =
        SiteProcess::start(&program(BINARY), &folder.path().join("tokyo"), SiteDatabase::Embedded)?;
    cramped.site.join("paris", &secondary, "tokyo")?;
    let (http, url) = (reqwest::Client::new(), cramped.site.url());
    let before = image(0);
    before.push(&http, &url, REPOSITORY, "before").await?;

    cramped.disk.fill(0)?;
    let (refused, answer) = push_until_refused(&http, &url).await?;
    println!("{part:?} on {kind}: push {refused} of a full disk was answered {answer}");
    let unseen = image(refused);
    for reference in [format!("v{refused}"), unseen.digest().to_string()] {
        let seen = http.head(format!("{url}/v2/{REPOSITORY}/manifests/{reference}")).send().await?.status();
        ensure!(seen == 404, "{reference} was refused and is {seen}");
    }
    for number in (0..refused).rev().take(20) {
        whole(&http, &url, number).await.context("with a full disk")?;
    }
    // Whatever is tried, the answer stays a clear one.
    for number in refused..refused + 10 {
        push(&http, &url, number).await?;
    }
    cramped.site.kill();
    let restarted = cramped.site.start_again();
    let log = cramped.site.log();
    let said = log.lines().last().unwrap_or_default();
    println!("a restart on the full disk: {}", if restarted.is_ok() { "ready" } else { said });

    cramped.disk.make_room()?;
    cramped.site.kill();
    cramped.site.start_again().context("with room again")?;
    for number in refused..refused + 10 {
        ensure!(push(&http, &url, number).await?.is_none(), "push {number} was refused with room again");
    }
    for number in 0..refused + 10 {
        whole(&http, &url, number).await?;
    }
    arrive(&http, &secondary, refused + 10).await?;
    for site in [&cramped.site, &secondary] {
        let inventory = take_settled_inventory(site).await?;
        ensure!(inventory.damaged.is_empty() && inventory.unowned.is_empty(), "{inventory:#?}");
    }
    drop(secondary);
    cramped.end().await
}

async fn secondary_fills_up(part: Part, kind: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(cramped) = cramped(&folder, "tokyo", part, kind).await? else { return Ok(()) };
    let primary = SiteProcess::start(&program(BINARY), &folder.path().join("paris"), SiteDatabase::Embedded)?;
    primary.join("paris", &cramped.site, "tokyo")?;
    let (http, url) = (reqwest::Client::new(), primary.url());
    image(0).push(&http, &url, REPOSITORY, "before").await?;
    arrive(&http, &cramped.site, 1).await?;

    cramped.disk.fill(0)?;
    let mut pushed = 1;
    let log = cramped.site.log().len();
    while pushed < LEAST || !says_that_it_is_full(&cramped.site.log()[log..]) {
        ensure!(
            pushed < MOST,
            "{pushed} images were pushed, and the secondary did not notice that it is full"
        );
        ensure!(push(&http, &url, pushed).await?.is_none(), "the primary refused push {pushed}");
        pushed += 1;
        // What is visible there is whole, full or not.
        let newest = pushed - 1;
        match whole(&http, &cramped.site.url(), newest).await {
            Ok(()) => {}
            Err(error) => ensure!(error.to_string().contains("manifests/"), "half visible: {error:#}"),
        }
    }
    println!("{part:?} on {kind}: the secondary noticed after {pushed} images");
    cramped.disk.make_room()?;
    let began = Instant::now();
    arrive(&http, &cramped.site, pushed).await?;
    println!("{part:?} on {kind}: it had everything {} ms after there was room", began.elapsed().as_millis());
    let inventory = take_settled_inventory(&cramped.site).await?;
    ensure!(inventory.damaged.is_empty() && inventory.unowned.is_empty(), "{inventory:#?}");
    drop(primary);
    cramped.end().await
}

async fn cramped(folder: &TempDir, name: &str, part: Part, kind: &str) -> anyhow::Result<Option<Cramped>> {
    Cramped::start(part, kind, folder.path().join(name), &folder.path().join("tables")).await
}

fn says_that_it_is_full(log: &str) -> bool {
    log.contains("no space") || log.contains("No space")
}

fn image(number: u64) -> Image {
    Image::random(number, 1, 20_000)
}

fn tag(number: u64) -> String {
    if number == 0 { "before".to_owned() } else { format!("v{number}") }
}

async fn whole(http: &reqwest::Client, url: &str, number: u64) -> anyhow::Result<()> {
    let digest = pull_whole(http, url, REPOSITORY, &tag(number)).await?;
    ensure!(digest == image(number).digest(), "{} is {digest}", tag(number));
    Ok(())
}

/// Waits until a site has the first `count` images, whole.
async fn arrive(http: &reqwest::Client, site: &SiteProcess, count: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + CONVERGENCE;
    for number in 0..count {
        while let Err(error) = whole(http, &site.url(), number).await {
            ensure!(Instant::now() < deadline, "{} has not arrived: {error:#}\n{}", tag(number), site.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

async fn push_until_refused(http: &reqwest::Client, url: &str) -> anyhow::Result<(u64, String)> {
    for number in 1..MOST {
        if let Some(answer) = push(http, url, number).await? {
            return Ok((number, answer));
        }
    }
    bail!("{MOST} images fit onto a full disk")
}

/// Pushes one image; the refusal, if it is one that a full disk explains.
async fn push(http: &reqwest::Client, url: &str, number: u64) -> anyhow::Result<Option<String>> {
    let image = image(number);
    for blob in &image.blobs {
        if let Some(refusal) = push_blob(http, url, blob).await? {
            return Ok(Some(refusal));
        }
    }
    let address = format!("{url}/v2/{REPOSITORY}/manifests/{}", tag(number));
    answered(http.put(address).header("Content-Type", MANIFEST).body(image.manifest.clone())).await
}

async fn push_blob(http: &reqwest::Client, url: &str, blob: &Bytes) -> anyhow::Result<Option<String>> {
    let digest = Digest::sha256(blob);
    let place = format!("{url}/v2/{REPOSITORY}/blobs/{digest}");
    if http.head(&place).send().await?.status() == 200 {
        return Ok(None);
    }
    let address = format!("{url}/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
    let refusal = answered(http.post(address).body(blob.clone())).await?;
    if refusal.is_some() {
        let seen = http.head(place).send().await?.status();
        ensure!(seen == 404, "blob {digest} was refused and is {seen}");
    }
    Ok(refusal)
}

async fn answered(request: reqwest::RequestBuilder) -> anyhow::Result<Option<String>> {
    let answer = request.send().await?;
    let (status, address) = (answer.status(), answer.url().clone());
    let body = answer.text().await?;
    match status.as_u16() {
        201 => Ok(None),
        507 | 503 => {
            let read: serde_json::Value = serde_json::from_str(&body).context("an OCI error is JSON")?;
            let error = &read["errors"][0];
            let message = error["message"].as_str().context("a message")?;
            ensure!(error["code"].is_string() && !message.is_empty(), "no clear error: {body}");
            ensure!(
                status != 507 || message.contains("full"),
                "the message does not name the disk: {message}"
            );
            Ok(Some(format!("{status}: {message}")))
        }
        _ => bail!("{address}: {status}: {body}"),
    }
}
