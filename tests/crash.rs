//! `kill -9` at random moments, also in the middle of a recovery, while images are pushed, overwritten and deleted.
//! Guards: what was acknowledged is at both sites, what was deleted stays deleted, and no file is without an owner.
#![expect(clippy::print_stdout, reason = "figures and seeds of a run")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use twinport_testkit::{
    Ledger, Load, Scope, SiteDatabase, SiteProcess, load_client, number, program, seed, site_database,
    take_settled_inventory,
};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
/// Rounds of each test; `scripts/test-crash` asks for more.
const ROUNDS_VARIABLE: &str = "TWINPORT_CRASH_ROUNDS";
/// Seconds until the secondary has converged after the end of the load and the last restart's readiness.
const CONVERGENCE_VARIABLE: &str = "TWINPORT_CONVERGENCE_S";
/// Four pushers with three pushes each: at least 10 acknowledged pushes a round.
const PUSHERS: u32 = 4;
const LEAST: u32 = 3;
const MOST: u32 = 10;

#[test]
fn killed_sites_keep_what_they_acknowledged_on_sqlite() -> anyhow::Result<()> {
    survive_kills("sqlite", "sqlite")
}

#[test]
fn killed_sites_keep_what_they_acknowledged_with_postgresql_at_the_primary() -> anyhow::Result<()> {
    survive_kills("postgresql", "sqlite")
}

#[test]
fn killed_sites_keep_what_they_acknowledged_with_postgresql_at_the_secondary() -> anyhow::Result<()> {
    survive_kills("sqlite", "postgresql")
}

/// The two sites of a run, and what happened to them.
struct Sites {
    primary: SiteProcess,
    secondary: SiteProcess,
    kills: u32,
    kills_in_recovery: u32,
}

fn survive_kills(primary: &str, secondary: &str) -> anyhow::Result<()> {
    let (rounds, seed) = (number(ROUNDS_VARIABLE, 2), seed());
    println!("{primary} + {secondary}: {rounds} rounds, TWINPORT_TEST_SEED={seed}");
    let runtime = tokio::runtime::Runtime::new()?;
    let (Some(first), Some(second)) =
        (runtime.block_on(site_database(primary))?, runtime.block_on(site_database(secondary))?)
    else {
        println!("skip killed sites on {primary} + {secondary}: PostgreSQL is not installed");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let start = |name: &str, database: SiteDatabase| {
        SiteProcess::start(&program(BINARY), &folder.path().join(name), database)
    };
    let mut sites = Sites {
        primary: start("paris", first)?,
        secondary: start("tokyo", second)?,
        kills: 0,
        kills_in_recovery: 0,
    };
    sites.primary.join("paris", &sites.secondary, "tokyo")?;
    let load = Load {
        http: load_client()?,
        primary: sites.primary.url(),
        secondary: Some(sites.secondary.url()),
        ledger: Arc::new(Ledger::default()),
        pushers: PUSHERS,
        least: LEAST,
        most: MOST,
    };
    let outcome = run(&runtime, &mut sites, &load, rounds, seed);
    outcome.map_err(|error| {
        let folder = folder.keep();
        error.context(format!("seed {seed}; what is left is in {}", folder.display()))
    })
}

fn run(
    runtime: &tokio::runtime::Runtime,
    sites: &mut Sites,
    load: &Load,
    rounds: u64,
    seed: u64,
) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut slowest = Duration::ZERO;
    for round in 1..=rounds {
        let before = load.ledger.acknowledged();
        let stop = Arc::new(AtomicBool::new(false));
        let pushing = {
            let (load, stop, seed) = (load.clone(), stop.clone(), random.random());
            runtime.spawn(async move { load.run(seed, stop).await })
        };
        let killed = sites.kill_some(&mut random);
        stop.store(true, Ordering::SeqCst);
        killed.with_context(|| format!("round {round}"))?;
        runtime.block_on(pushing)?.with_context(|| format!("round {round}"))?;
        let converged = runtime.block_on(load.converge(bound())).with_context(|| format!("round {round}"))?;
        slowest = slowest.max(converged);
        let after = load.ledger.acknowledged();
        ensure!(after.0 >= before.0 + 10 && after.1 > before.1, "round {round} had too little load");
    }
    // Once more without load: what the very last kill leaves has to be put right too.
    sites.primary.kill();
    sites.secondary.kill();
    sites.primary.start_again()?;
    sites.secondary.start_again()?;
    runtime.block_on(load.converge(bound()))?;
    let (pushes, deletes) = load.ledger.acknowledged();
    println!(
        "{} kills, {} of them during recovery; {pushes} pushes and {deletes} deletes acknowledged; \
         slowest convergence {} ms",
        sites.kills,
        sites.kills_in_recovery,
        slowest.as_millis()
    );
    runtime.block_on(whole_house(sites, load))
}

impl Sites {
    /// Kills one site or both at a random moment, and starts them again, mostly after killing them once more while
    /// they recover.
    fn kill_some(&mut self, random: &mut StdRng) -> anyhow::Result<()> {
        let victims = random.random_range(1..=3);
        std::thread::sleep(Duration::from_millis(random.random_range(0..250)));
        for (bit, site) in [(1, &mut self.primary), (2, &mut self.secondary)] {
            if victims & bit != 0 {
                site.kill();
                self.kills += 1;
            }
        }
        for (bit, site) in [(1, &mut self.primary), (2, &mut self.secondary)] {
            if victims & bit == 0 {
                continue;
            }
            for _ in 0..random.random_range(0..3) {
                site.spawn()?;
                std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
                site.kill();
                self.kills += 1;
                self.kills_in_recovery += 1;
            }
            site.start_again()?;
        }
        Ok(())
    }
}

fn bound() -> Duration {
    Duration::from_secs(number(CONVERGENCE_VARIABLE, 60))
}

/// Every image of the run, every file of both sites, both logs.
async fn whole_house(sites: &Sites, load: &Load) -> anyhow::Result<()> {
    let pulled = load.hold(Scope::All).await?;
    println!("{pulled} references whole");
    for site in [&sites.primary, &sites.secondary] {
        let inventory = take_settled_inventory(site).await?;
        let data = site.data().display();
        ensure!(inventory.damaged.is_empty(), "{data}: {:#?}", inventory.damaged);
        ensure!(inventory.unowned.is_empty(), "{data}: {:#?}", inventory.unowned);
        println!("{data}: {} files owned, {} blobs hashed", inventory.files, inventory.blobs);
    }
    let log = "SELECT seq, hash, body FROM events WHERE seq IS NOT NULL ORDER BY seq";
    let (primary, secondary) = (sites.primary.rows(log).await?, sites.secondary.rows(log).await?);
    for (event, seq) in primary.iter().zip(1..) {
        ensure!(event[0].int()? == seq, "the log has a gap before {}", event[0].int()?);
    }
    // The secondary's begins where it joined.
    let joined_at = primary.len().checked_sub(secondary.len()).context("the secondary has more events")?;
    for (here, there) in primary[joined_at..].iter().zip(&secondary) {
        ensure!(here == there, "the logs differ at {} and {}", here[0].int()?, there[0].int()?);
    }
    println!("{} events, the same at both sites", secondary.len());
    Ok(())
}
