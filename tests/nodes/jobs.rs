//! Which node does what, and how soon another does it when that one is gone.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use twinport_testkit::{Cluster, SiteProcess};

use super::{Runtime, Store, three_nodes};

/// Far more than a takeover takes; the figures are printed.
const BOUND: Duration = Duration::from_secs(60);

/// How long it took until nothing was a dead node's any more.
pub(super) struct Takeover {
    pub(super) jobs: usize,
    pub(super) after: Duration,
}

/// The jobs that a node has, with the token of each.
async fn jobs_of(asked: &SiteProcess, node: &str) -> anyhow::Result<BTreeSet<(String, i64)>> {
    let query = format!("SELECT job, token FROM leases WHERE holder = '\\x{}'", node.replace('-', ""));
    let rows = asked.rows(&query).await?;
    rows.iter().map(|row| Ok((row[0].text()?.to_owned(), row[1].int()?))).collect()
}

/// This run of a node, as it noted it for the next.
fn id_of(node: &SiteProcess) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(node.data().join("node"))?.trim().to_owned())
}

async fn until_none_is_its(asked: &SiteProcess, node: &str) -> anyhow::Result<Takeover> {
    let began = Instant::now();
    let jobs = jobs_of(asked, node).await?;
    loop {
        let left = jobs_of(asked, node).await?;
        if left.is_empty() {
            return Ok(Takeover { jobs: jobs.len(), after: began.elapsed() });
        }
        ensure!(began.elapsed() < BOUND, "nobody has taken over {left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `kill -9`, then waits until other nodes have its jobs.
pub(super) async fn kill_and_wait(cluster: &mut Cluster, victim: usize) -> anyhow::Result<Takeover> {
    let id = id_of(&cluster.nodes[victim])?;
    cluster.nodes[victim].kill();
    until_none_is_its(&cluster.nodes[victim], &id).await
}

#[test]
fn s14_a_paused_node_loses_its_jobs_and_comes_back_without_them() -> anyhow::Result<()> {
    let (folder, runtime) = (tempfile::tempdir()?, Runtime::new()?);
    let Some(cluster) = three_nodes(&runtime, &folder, "paused", Store::Directory, &[])? else {
        return Ok(());
    };
    runtime.block_on(pause_one(&cluster))
}

async fn pause_one(cluster: &Cluster) -> anyhow::Result<()> {
    let began = Instant::now();
    let (victim, id, held) = 'found: loop {
        for (index, node) in cluster.nodes.iter().enumerate() {
            let id = id_of(node)?;
            let held = jobs_of(node, &id).await?;
            if !held.is_empty() {
                break 'found (index, id, held);
            }
        }
        ensure!(began.elapsed() < BOUND, "no node has a job");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let paused = &cluster.nodes[victim];
    paused.pause()?;
    let takeover = until_none_is_its(paused, &id).await;
    paused.resume()?;
    let takeover = takeover?;
    println!(
        "a paused node's {} jobs were another's after {:.1} s",
        held.len(),
        takeover.after.as_secs_f64()
    );
    // It notices by itself, whatever it was at.
    let noticed = Instant::now();
    while !paused.log().contains("no longer has a job of its site") {
        ensure!(noticed.elapsed() < BOUND, "it did not notice:\n{}", paused.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (job, token) in held {
        let rows = paused.rows(&format!("SELECT token FROM leases WHERE job = '{job}'")).await?;
        let now = rows.first().context("the lease stands")?[0].int()?;
        ensure!(now > token, "{job} changed hands without another token");
    }
    // Each job has one holder, and who asks is told.
    let status = cluster.nodes[(victim + 1) % cluster.nodes.len()].json(&["db", "status"])?;
    let nodes = status["nodes"].as_array().context("nodes")?;
    ensure!(nodes.iter().filter(|node| node["live"] == true).count() == 3, "{status}");
    let jobs: Vec<&str> = nodes
        .iter()
        .flat_map(|node| node["jobs"].as_array().into_iter().flatten())
        .filter_map(|job| job["job"].as_str())
        .collect();
    let distinct: BTreeSet<&&str> = jobs.iter().collect();
    ensure!(distinct.len() == jobs.len(), "a job has two holders: {status}");
    Ok(())
}
