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
use twinport_testkit::{Cluster, SiteDatabase, SiteProcess, program};

use super::{BINARY, load, three_nodes};

/// How long a secondary may take on a loaded machine; the figure is printed.
const BOUND: Duration = Duration::from_secs(120);

/// A site of either shape.
enum Shape {
    One(Box<SiteProcess>),
    Three(Box<Cluster>),
}

impl Shape {
    async fn start(folder: &TempDir, name: &str, nodes: usize) -> anyhow::Result<Option<Self>> {
        if nodes > 1 {
            return Ok(three_nodes(folder, name, &[]).await?.map(|cluster| Self::Three(Box::new(cluster))));
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

#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_of_three_nodes_follows_a_primary_of_three() -> anyhow::Result<()> {
    follows(3, 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_of_three_nodes_follows_a_primary_of_one_on_sqlite() -> anyhow::Result<()> {
    follows(1, 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_of_one_on_sqlite_follows_a_primary_of_three_nodes() -> anyhow::Result<()> {
    follows(3, 1).await
}

async fn follows(primary: usize, secondary: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(mut paris) = Shape::start(&folder, "paris", primary).await? else { return Ok(()) };
    let Some(mut tokyo) = Shape::start(&folder, "tokyo", secondary).await? else { return Ok(()) };
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
        "{primary} + {secondary} nodes: {pushes} pushes, {deletes} deletes, converged after {} ms",
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
