//! Sites of several nodes that follow each other, and sites of other shapes, through their balancers.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tempfile::TempDir;
use twinport_testkit::{Cluster, SharedStore, SiteDatabase, SiteProcess, program};

use super::{BINARY, Runtime, Store, load, three_nodes};

/// How long a secondary may take on a loaded machine; the figure is printed.
const BOUND: Duration = Duration::from_secs(120);

/// A site of either shape.
enum Shape {
    One(Box<SiteProcess>),
    Three(Box<Cluster>),
}

impl Shape {
    fn start(
        runtime: &Runtime,
        folder: &TempDir,
        name: &str,
        nodes: Option<Store>,
    ) -> anyhow::Result<Option<Self>> {
        if let Some(store) = nodes {
            let nodes = three_nodes(runtime, folder, name, store, &[])?;
            return Ok(nodes.map(|cluster| Self::Three(Box::new(cluster))));
        }
        let data: &Path = &folder.path().join(name);
        let site = SiteProcess::start(&program(BINARY), data, SiteDatabase::Embedded)?;
        Ok(Some(Self::One(Box::new(site))))
    }

    fn url(&self) -> String {
        match self {
            Self::One(site) => site.url(),
            Self::Three(cluster) => cluster.url(),
        }
    }

    fn describe(&self) -> &'static str {
        match self {
            Self::One(_) => "one node on SQLite",
            Self::Three(cluster) => match cluster.store {
                SharedStore::Directory(_) => "three nodes on a directory",
                SharedStore::Bucket(_) => "three nodes in a bucket",
            },
        }
    }

    fn any(&self) -> &SiteProcess {
        match self {
            Self::One(site) => site,
            Self::Three(cluster) => &cluster.nodes[0],
        }
    }

    fn log(&self) -> String {
        match self {
            Self::One(site) => site.log(),
            Self::Three(cluster) => cluster.log(),
        }
    }

    /// Kills what there is of it, or the node that was started first, and starts it again a moment later.
    async fn shake(&mut self) -> anyhow::Result<()> {
        let node = match self {
            Self::One(site) => site.as_mut(),
            Self::Three(cluster) => &mut cluster.nodes[0],
        };
        node.kill();
        tokio::time::sleep(Duration::from_millis(500)).await;
        tokio::task::block_in_place(|| node.start_again())
    }
}

#[test]
fn a_secondary_of_three_nodes_follows_a_primary_of_three() -> anyhow::Result<()> {
    follows(Some(Store::Directory), Some(Store::Directory))
}

#[test]
fn a_secondary_of_three_nodes_in_a_bucket_follows_a_primary_of_three_in_one() -> anyhow::Result<()> {
    follows(Some(Store::Bucket), Some(Store::Bucket))
}

#[test]
fn a_secondary_of_three_nodes_follows_a_primary_of_one_on_sqlite() -> anyhow::Result<()> {
    follows(None, Some(Store::Bucket))
}

#[test]
fn a_secondary_of_one_on_sqlite_follows_a_primary_of_three_nodes() -> anyhow::Result<()> {
    follows(Some(Store::Bucket), None)
}

/// None: one node on SQLite.
fn follows(primary: Option<Store>, secondary: Option<Store>) -> anyhow::Result<()> {
    let (folder, runtime) = (tempfile::tempdir()?, Runtime::new()?);
    let Some(paris) = Shape::start(&runtime, &folder, "paris", primary)? else { return Ok(()) };
    let Some(tokyo) = Shape::start(&runtime, &folder, "tokyo", secondary)? else { return Ok(()) };
    runtime.block_on(converge(paris, tokyo))
}

async fn converge(mut paris: Shape, mut tokyo: Shape) -> anyhow::Result<()> {
    let load = load(paris.url(), Some(tokyo.url()));
    // Something to backfill, then events while nodes go and come.
    load.run(1, Arc::new(AtomicBool::new(true))).await?;
    paris.any().join_at(&paris.url(), "paris", tokyo.any(), "tokyo")?;
    let stop = Arc::new(AtomicBool::new(false));
    let pushing = {
        let (load, stop) = (load.clone(), stop.clone());
        tokio::spawn(async move { load.run(2, stop).await })
    };
    let shaken = async {
        tokyo.shake().await?;
        paris.shake().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        anyhow::Ok(())
    };
    let shaken = shaken.await;
    stop.store(true, Ordering::SeqCst);
    let pushed = pushing.await?;
    let converged = match shaken.and(pushed) {
        Ok(()) => load.converge(BOUND).await,
        Err(error) => Err(error),
    };
    let converged =
        converged.with_context(|| format!("paris:\n{}\ntokyo:\n{}", tail(&paris), tail(&tokyo)))?;
    let (pushes, deletes) = load.ledger.acknowledged();
    println!(
        "{} follows {}: {pushes} pushes, {deletes} deletes, converged after {} ms",
        tokyo.describe(),
        paris.describe(),
        converged.as_millis()
    );
    verified(&tokyo).await.with_context(|| tail(&tokyo))
}

/// Every node of a secondary says the same, and that everything is compared with the primary.
async fn verified(secondary: &Shape) -> anyhow::Result<()> {
    const OPEN: &str =
        "SELECT COUNT(*) FROM tracked_repositories WHERE state <> 'synced' OR verification <> 'succeeded'";
    secondary.any().wait_for_count(OPEN, 0).await?;
    let nodes: Vec<&SiteProcess> = match secondary {
        Shape::One(site) => vec![site],
        Shape::Three(cluster) => cluster.nodes.iter().collect(),
    };
    for node in nodes {
        let mut status = node.json(&["geo", "status"])?;
        for _ in 0..300 {
            if status["replication"]["state"] == "connected" && status["replication"]["fresh"] == true {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            status = node.json(&["geo", "status"])?;
        }
        anyhow::ensure!(status["replication"]["fresh"] == true, "a node does not know it is fresh: {status}");
    }
    Ok(())
}

fn tail(site: &Shape) -> String {
    let log = site.log();
    let lines: Vec<&str> = log.lines().filter(|line| !line.contains(" access: ")).collect();
    lines[lines.len().saturating_sub(80)..].join("\n")
}
