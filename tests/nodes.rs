//! A site of three nodes behind a balancer that sends every request to the next one: nothing is sticky, nothing is
//! configured between them, and any of them may be killed, paused or restarted.
//! Guards: what was acknowledged is there whoever is asked, and each job of the site is one node's.
#![expect(clippy::print_stdout, reason = "figures and seeds of a run")]

#[path = "nodes/accounts.rs"]
mod accounts;
#[path = "nodes/jobs.rs"]
mod jobs;
#[path = "nodes/restart.rs"]
mod restart;
#[path = "nodes/sites.rs"]
mod sites;
#[path = "nodes/versions.rs"]
mod versions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use twinport_testkit::{
    Cluster, Image, Ledger, Load, ObjectServerKind, Scope, SharedStore, SiteBucket, SiteDatabase, number,
    object_server, postgres_database, program, pull_whole, seed,
};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
const NODES: usize = 3;
/// How many nodes are killed; `scripts/test-nodes` asks for more.
const KILLS_VARIABLE: &str = "TWINPORT_NODE_KILLS";

/// Where nodes have their blobs.
#[derive(Clone, Copy, Debug)]
enum Store {
    /// A directory that all have.
    Directory,
    Bucket,
}

/// `bucket::name` and `directory::name`: each test, once with every kind of store that nodes may share.
macro_rules! in_both_stores {
    ($($name:ident),* $(,)?) => {
        mod directory {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                super::$name(crate::Store::Directory)
            })*
        }
        mod bucket {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                super::$name(crate::Store::Bucket)
            })*
        }
    };
}
use in_both_stores;

in_both_stores!(
    every_push_is_spread_over_nodes_chunked_uploads_included,
    killed_nodes_lose_nothing_and_their_jobs_are_taken_over,
);

/// Three nodes without data; `None`, and a line that says so, where there is no PostgreSQL, or no server for the bucket.
fn three_nodes(
    runtime: &Runtime,
    folder: &TempDir,
    name: &str,
    store: Store,
    environment: &[(&str, &str)],
) -> anyhow::Result<Option<Cluster>> {
    let store = match store {
        Store::Directory => SharedStore::Directory(folder.path().join(format!("{name}-store"))),
        Store::Bucket => match object_server(ObjectServerKind::MinIo) {
            Some(server) => SharedStore::Bucket(SiteBucket::at(server.url())),
            None => return Ok(None),
        },
    };
    let Some(url) = runtime.block_on(postgres_database())? else {
        println!("skip {name} on three nodes: PostgreSQL is not installed");
        return Ok(None);
    };
    let database = SiteDatabase::Postgres(url);
    let cluster =
        Cluster::start_with(&program(BINARY), folder.path(), name, &database, store, NODES, environment)?;
    Ok(Some(cluster))
}

/// A load whose every image is pushed in several requests.
fn load(primary: String, secondary: Option<String>) -> Load {
    Load {
        http: reqwest::Client::new(),
        primary,
        secondary,
        ledger: Arc::new(Ledger::default()),
        pushers: 5,
        least: 10,
        most: 400,
    }
}

fn every_push_is_spread_over_nodes_chunked_uploads_included(store: Store) -> anyhow::Result<()> {
    let (folder, runtime) = (tempfile::tempdir()?, Runtime::new()?);
    let Some(cluster) = three_nodes(&runtime, &folder, "spread", store, &[])? else { return Ok(()) };
    runtime.block_on(spread(&cluster))
}

async fn spread(cluster: &Cluster) -> anyhow::Result<()> {
    let (http, url) = (reqwest::Client::new(), cluster.url());
    for number in 0..6_u64 {
        let (repository, image) = (format!("spread/app-{number}"), Image::random(number, 3, 90_000));
        for blob in &image.blobs {
            twinport_testkit::push_in_chunks(&http, &url, &repository, blob).await?;
        }
        image.push(&http, &url, &repository, "one").await?;
        for node in &cluster.nodes {
            ensure!(pull_whole(&http, &node.url(), &repository, "one").await? == image.digest());
        }
        let seen = format!("/v2/{repository}/");
        let nodes = cluster.nodes_that_logged(&seen);
        ensure!(nodes >= 2, "the push to {repository} was logged by {nodes} node");
        for (number, node) in (1..).zip(&cluster.nodes) {
            let named = node.log().lines().all(|line| line.ends_with(&format!("node=spread-{number}")));
            ensure!(named, "a line does not name its node:\n{}", node.log());
        }
        let sessions = sessions(cluster, &repository);
        ensure!(sessions.iter().all(|nodes| *nodes >= 2), "{repository}: nodes of each upload: {sessions:?}");
    }
    println!("requests by node: {:?}", cluster.balancer.counts());
    Ok(())
}

/// How many nodes had part in each upload of a repository.
fn sessions(cluster: &Cluster, repository: &str) -> Vec<usize> {
    let begins = format!("/v2/{repository}/blobs/uploads/");
    let mut nodes: std::collections::BTreeMap<String, std::collections::BTreeSet<usize>> =
        std::collections::BTreeMap::new();
    for request in cluster.balancer.forwarded() {
        if let Some(rest) = request.target.strip_prefix(&begins) {
            let id = rest.split('?').next().unwrap_or_default();
            if !id.is_empty() {
                nodes.entry(id.to_owned()).or_default().insert(request.node);
            }
        }
    }
    nodes.values().map(std::collections::BTreeSet::len).collect()
}

fn killed_nodes_lose_nothing_and_their_jobs_are_taken_over(store: Store) -> anyhow::Result<()> {
    let (kills, seed) = (number(KILLS_VARIABLE, 3), seed());
    println!("{store:?}: {kills} kills, TWINPORT_TEST_SEED={seed}");
    let (folder, runtime) = (tempfile::tempdir()?, Runtime::new()?);
    let Some(mut cluster) = three_nodes(&runtime, &folder, "killed", store, &[])? else { return Ok(()) };
    let load = load(cluster.url(), None);
    let stop = Arc::new(AtomicBool::new(false));
    let pushing = {
        let (load, stop) = (load.clone(), stop.clone());
        runtime.spawn(async move { load.run(seed, stop).await })
    };
    let mut random = StdRng::seed_from_u64(seed);
    let killed = (1..=kills).try_for_each(|kill| {
        std::thread::sleep(Duration::from_millis(random.random_range(100..900)));
        let victim = random.random_range(0..NODES);
        let before = load.ledger.acknowledged().0;
        let took = runtime.block_on(jobs::kill_and_wait(&mut cluster, victim))?;
        println!(
            "kill {kill}: node {} after {before} pushes; its {} jobs were another's after {:.1} s",
            victim + 1,
            took.jobs,
            took.after.as_secs_f64()
        );
        cluster.nodes[victim].start_again().with_context(|| format!("after kill {kill}"))
    });
    stop.store(true, Ordering::SeqCst);
    let pushed = runtime.block_on(pushing)?;
    let outcome = killed.and(pushed).and_then(|()| runtime.block_on(hold(&load)));
    outcome.map_err(|error| {
        let log = cluster.log();
        error.context(format!("seed {seed}:\n{}", log.lines().rev().take(60).collect::<Vec<_>>().join("\n")))
    })?;
    let (pushes, deletes) = load.ledger.acknowledged();
    println!(
        "{pushes} pushes and {deletes} deletes acknowledged, requests by node {:?}",
        cluster.balancer.counts()
    );
    ensure!(pushes >= 50, "too little load: {pushes} pushes");
    let log = "SELECT seq FROM events ORDER BY seq NULLS LAST";
    let began = Instant::now();
    loop {
        let events = runtime.block_on(cluster.nodes[0].rows(log))?;
        let dense =
            events.iter().zip(1..).all(|(event, seq)| event[0].int().is_ok_and(|number| number == seq));
        if dense {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(30), "the log has a gap, or events without a number");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What was acknowledged is there, byte by byte.
async fn hold(load: &Load) -> anyhow::Result<()> {
    load.ledger.settle(&load.http, &load.primary).await?;
    load.ledger.compare(&load.http, &load.primary, Scope::All).await?;
    let pulled = load.ledger.pull_all(&load.http, &load.primary, Scope::All).await?;
    println!("{pulled} references whole");
    Ok(())
}
