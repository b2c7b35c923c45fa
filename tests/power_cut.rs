//! Power cuts at random moments, under load: what was not synced is forgotten, file data and directory entries alike.
//! Guards: nothing acknowledged is lost, and a site starts on whatever a cut leaves. A build without the syncs fails.
#![expect(clippy::print_stdout, reason = "figures and seeds of a run")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use twinport_testkit::{
    Image, Ledger, Load, PowerCut, Scope, SiteDatabase, SiteProcess, load_client, number, program,
    pull_whole, seed, site_database, take_inventory,
};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
/// Cuts of each test; `scripts/test-durability` asks for more.
const CUTS_VARIABLE: &str = "TWINPORT_POWER_CUTS";
/// Until a secondary whose power went has everything again.
const CONVERGENCE: Duration = Duration::from_secs(60);

#[test]
fn s5_power_cuts_lose_nothing_acknowledged_on_sqlite() -> anyhow::Result<()> {
    survive_cuts("sqlite")
}

#[test]
fn s5_power_cuts_lose_no_blob_that_postgresql_names() -> anyhow::Result<()> {
    survive_cuts("postgresql")
}

#[test]
fn s5_a_site_starts_after_a_cut_in_the_middle_of_its_first_start() -> anyhow::Result<()> {
    let (cuts, seed) = (number(CUTS_VARIABLE, 3), seed());
    if is_skipped("cuts in a first start") {
        return Ok(());
    }
    println!("{cuts} cuts, TWINPORT_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (runtime, http) = (tokio::runtime::Runtime::new()?, reqwest::Client::new());
    for cut in 1..=cuts {
        let folder = tempfile::tempdir()?;
        let mut powered = Powered::new(folder.path(), "paris")?;
        let mut site = SiteProcess::spawned(&program(BINARY), &powered.mountpoint, SiteDatabase::Embedded)?;
        std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
        powered.cut(&mut site)?;
        powered.on()?;
        site.start_again().with_context(|| format!("seed {seed}, cut {cut}"))?;
        let (image, url) = (Image::random(cut, 1, 5_000), site.url());
        runtime.block_on(image.push(&http, &url, "first", "push"))?;
        powered.cut(&mut site)?;
        powered.on()?;
        site.start_again()?;
        ensure!(runtime.block_on(pull_whole(&http, &url, "first", "push"))? == image.digest());
        site.kill();
    }
    Ok(())
}

/// A disk below a site.
struct Powered {
    backing: PathBuf,
    mountpoint: PathBuf,
    disk: Option<PowerCut>,
}

impl Powered {
    fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let (backing, mountpoint) = (folder.join(format!("{name}.disk")), folder.join(name));
        fs::create_dir(&backing)?;
        fs::create_dir(&mountpoint)?;
        let mut powered = Self { backing, mountpoint, disk: None };
        powered.on()?;
        Ok(powered)
    }

    fn on(&mut self) -> anyhow::Result<()> {
        self.disk = Some(PowerCut::mount(&self.backing, &self.mountpoint)?);
        Ok(())
    }

    /// In the middle of whatever the site does. It stands still before the disk goes: without power nobody answers a
    /// client that the disk is broken.
    fn cut(&mut self, site: &mut SiteProcess) -> anyhow::Result<()> {
        let disk = self.disk.take().context("the power is on")?;
        site.pause()?;
        disk.freeze();
        site.kill();
        disk.cut()
    }
}

fn is_skipped(what: &str) -> bool {
    let usable = Path::new("/dev/fuse").try_exists().unwrap_or(false) && rustix::process::geteuid().is_root();
    if !usable {
        println!("skip {what}: the disk whose power is cut needs /dev/fuse and root");
    }
    !usable
}

/// Two sites on disks of their own; one of them loses its power in each round.
fn survive_cuts(primary: &str) -> anyhow::Result<()> {
    let (cuts, seed) = (number(CUTS_VARIABLE, 3), seed());
    if is_skipped("power cuts") {
        return Ok(());
    }
    println!("{primary}: {cuts} cuts, TWINPORT_TEST_SEED={seed}");
    let runtime = tokio::runtime::Runtime::new()?;
    let Some(database) = runtime.block_on(site_database(primary))? else {
        println!("skip power cuts on {primary}: PostgreSQL is not installed");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let outcome = run(&runtime, folder.path(), database, cuts, seed);
    outcome.map_err(|error| {
        let folder = folder.keep();
        error.context(format!("seed {seed}; what is left is in {}", folder.display()))
    })
}

fn run(
    runtime: &tokio::runtime::Runtime,
    folder: &Path,
    database: SiteDatabase,
    cuts: u64,
    seed: u64,
) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut disks = [Powered::new(folder, "paris")?, Powered::new(folder, "tokyo")?];
    let mut sites = [
        SiteProcess::start(&program(BINARY), &disks[0].mountpoint, database)?,
        SiteProcess::start(&program(BINARY), &disks[1].mountpoint, SiteDatabase::Embedded)?,
    ];
    sites[0].join("paris", &sites[1], "tokyo")?;
    let load = Load {
        http: load_client()?,
        primary: sites[0].url(),
        secondary: Some(sites[1].url()),
        ledger: Arc::new(Ledger::default()),
        pushers: 3,
        least: 1,
        most: 6,
    };
    for cut in 1..=cuts {
        let stop = Arc::new(AtomicBool::new(false));
        let pushing = {
            let (load, stop, seed) = (load.clone(), stop.clone(), random.random());
            runtime.spawn(async move { load.run(seed, stop).await })
        };
        std::thread::sleep(Duration::from_millis(random.random_range(0..250)));
        // Mostly the primary, which is what pushers believe.
        let victim = usize::from(random.random_ratio(1, 3));
        let survived = cut_one(&mut disks[victim], &mut sites[victim], &mut random);
        stop.store(true, Ordering::SeqCst);
        survived.with_context(|| format!("cut {cut}"))?;
        runtime.block_on(pushing)?.with_context(|| format!("cut {cut}"))?;
        runtime.block_on(load.converge(CONVERGENCE)).with_context(|| format!("cut {cut}"))?;
    }
    for (disk, site) in disks.iter_mut().zip(&mut sites) {
        disk.cut(site)?;
        disk.on()?;
        site.start_again()?;
    }
    let pulled = runtime.block_on(load.hold(Scope::All))?;
    let (pushes, deletes) = load.ledger.acknowledged();
    println!("{pushes} pushes and {deletes} deletes acknowledged; {pulled} references whole");
    for site in &mut sites {
        let inventory = runtime.block_on(take_inventory(site))?;
        ensure!(inventory.damaged.is_empty(), "{}: {:#?}", site.data().display(), inventory.damaged);
        let (blobs, unowned) = (inventory.blobs, inventory.unowned.len());
        println!("{}: {blobs} blobs hashed, {unowned} files without an owner", site.data().display());
        site.kill();
    }
    Ok(())
}

/// Cuts the power, and sometimes once more while the site recovers from it.
fn cut_one(disk: &mut Powered, site: &mut SiteProcess, random: &mut StdRng) -> anyhow::Result<()> {
    disk.cut(site)?;
    if random.random_ratio(1, 3) {
        disk.on()?;
        site.spawn()?;
        std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
        disk.cut(site)?;
    }
    disk.on()?;
    site.start_again()
}
