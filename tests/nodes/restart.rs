//! One node after the other is restarted while clients work: no request fails.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use twinport_testkit::{Cluster, Image, number, pull_whole, push_in_chunks};

use super::{Runtime, Store, in_both_stores, three_nodes};

in_both_stores!(a_rolling_restart_fails_no_request);

/// How often all nodes are restarted; `scripts/test-nodes` asks for more.
const ROUNDS_VARIABLE: &str = "TWINPORT_RESTART_ROUNDS";
/// A program that loads the registry at `-url` and ends with status 0 only if nothing failed.
const BENCH_VARIABLE: &str = "TWINPORT_REGBENCH";
const CLIENTS: u64 = 4;

fn a_rolling_restart_fails_no_request(store: Store) -> anyhow::Result<()> {
    let (folder, runtime) = (tempfile::tempdir()?, Runtime::new()?);
    let Some(cluster) = three_nodes(&runtime, &folder, "rolling", store, &[])? else { return Ok(()) };
    runtime.block_on(under_load(cluster, restart_each))
}

/// Changes the nodes, as often as is asked for, while clients work.
pub(crate) async fn under_load(
    mut cluster: Cluster,
    change: fn(&mut Cluster) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(work(client, cluster.url(), stop.clone(), done.clone())))
        .collect();
    let bench = std::env::var(BENCH_VARIABLE).ok().map(|program| bench(program, cluster.url(), stop.clone()));
    let rounds = number(ROUNDS_VARIABLE, 1);
    let restarted = tokio::task::spawn_blocking(move || {
        let outcome = (0..rounds).try_for_each(|_| change(&mut cluster));
        (cluster, outcome)
    });
    let (cluster, outcome) = restarted.await?;
    stop.store(true, Ordering::SeqCst);
    outcome?;
    for client in clients {
        client.await?.with_context(|| cluster.log())?;
    }
    if let Some(bench) = bench {
        let runs = bench.await??;
        println!("{runs} runs of the bench without a failed operation");
        ensure!(runs > 0, "the bench did not run");
    }
    let done = done.load(Ordering::SeqCst);
    println!(
        "{rounds} rounds, {done} images pushed and pulled, requests by node {:?}",
        cluster.balancer.counts()
    );
    ensure!(done > 0, "no image was pushed while nodes restarted");
    Ok(())
}

/// SIGTERM, and the next one only once this one is back.
pub(crate) fn restart_each(cluster: &mut Cluster) -> anyhow::Result<()> {
    for index in 0..cluster.nodes.len() {
        cluster.nodes[index].terminate()?;
        cluster.nodes[index].start_again()?;
        cluster.wait_ready()?;
    }
    Ok(())
}

/// Pushes and pulls images; the first failure is the end.
async fn work(client: u64, url: String, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> anyhow::Result<()> {
    let http = reqwest::Client::new();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let image = Image::random(client << 32 | number, 2, 80_000);
        let repository = format!("rolling/client-{client}");
        if number % 2 == 0 {
            for blob in &image.blobs {
                push_in_chunks(&http, &url, &repository, blob).await?;
            }
        }
        image.push(&http, &url, &repository, "latest").await?;
        ensure!(pull_whole(&http, &url, &repository, "latest").await? == image.digest());
        done.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn bench(
    program: String,
    url: String,
    stop: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<anyhow::Result<u64>> {
    tokio::task::spawn_blocking(move || {
        let mut runs = 0;
        while !stop.load(Ordering::SeqCst) {
            let prefix = format!("bench-{runs}");
            let mut command = std::process::Command::new(&program);
            command.args([
                "-url",
                &url,
                "-only",
                "push-small,pull-small,push-chunked,mixed",
                "-prefix",
                &prefix,
            ]);
            command.args(["-images", "40", "-c", "4", "-big", "4", "-bign", "2", "-bigc", "2"]);
            let output = command.stdin(Stdio::null()).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "the bench failed: {said}");
            runs += 1;
        }
        Ok(runs)
    })
}
