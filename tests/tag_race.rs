//! Two writers on one tag: the log tells every push in an order that clients could have seen, and replays to the state.
//! Guards the numbering on both databases; on PostgreSQL while nodes that number are killed and replaced.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests, with the seeds of a run")]

// Shared with the tests of the metadata crate, which use more of it.
#[path = "../crates/metadata/tests/support/replay.rs"]
mod replay;

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use tokio::time::Instant;
use twinport_metadata::{Clock, Database, EventKind, LoggedEvent, Metadata, OpenOptions, PostgresOptions};
use twinport_oci::Digest;
use twinport_testkit::{
    Image, MANIFEST, SiteDatabase, SiteProcess, number, postgres_database, program, push_blob,
};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
const REPOSITORY: &str = "race/app";
const TAG: &str = "latest";
/// How long a push may look for a node that answers.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_on_one_tag_replay_to_the_state_on_sqlite() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node =
        SiteProcess::start(&program(BINARY), &folder.path().join("paris"), SiteDatabase::Embedded)?;
    let race = Race::prepare(vec![node.url()]).await?;
    race.run().await?;
    node.terminate()?;
    race.check(Database::Sqlite { path: node.data().join("metadata.db") }, "sqlite", 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_on_one_tag_replay_to_the_state_while_postgresql_sequencers_are_killed()
-> anyhow::Result<()> {
    let (Some(url), Some(other)) = (postgres_database().await?, postgres_database().await?) else {
        println!("skip two writers on one tag on postgresql: it is not installed");
        return Ok(());
    };
    // Writing gives it a transaction id, which holds back the whole server's snapshots, and must delay no event.
    let (client, connection) = tokio_postgres::connect(&other, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("BEGIN; CREATE TABLE held (id BIGINT)").await?;

    let folder = tempfile::tempdir()?;
    let nodes = nodes_of_one_site(folder.path(), &url)?;
    let race = Race::prepare(nodes.iter().map(SiteProcess::url).collect()).await?;
    let ended = Arc::new(AtomicBool::new(false));
    let killing = tokio::task::spawn_blocking({
        let ended = Arc::clone(&ended);
        move || kill_and_replace(nodes, &ended)
    });
    let ran = race.run().await;
    ended.store(true, Ordering::SeqCst);
    let (mut nodes, kills) = killing.await??;
    ran?;
    // Whoever is left numbers what the killed ones did not.
    nodes[0].wait_for_count("SELECT count(*) FROM events WHERE seq IS NULL", 0).await?;
    for node in &mut nodes {
        node.terminate()?;
    }
    race.check(Database::Postgres(PostgresOptions::parse(&url)?), "postgresql", kills).await
}

/// Two processes on one database: each numbers, and whichever holds the lease polls.
fn nodes_of_one_site(folder: &Path, url: &str) -> anyhow::Result<Vec<SiteProcess>> {
    const MARKER: &str = "blobs/twinport/incarnation";
    let (first, second) = (folder.join("node-0"), folder.join("node-1"));
    let founder = SiteProcess::start(&program(BINARY), &first, SiteDatabase::Postgres(url.to_owned()))?;
    fs::create_dir_all(second.join(MARKER).parent().context("a file in a folder")?)?;
    fs::copy(first.join(MARKER), second.join(MARKER))?;
    let joiner = SiteProcess::start(&program(BINARY), &second, SiteDatabase::Postgres(url.to_owned()))?;
    Ok(vec![founder, joiner])
}

/// Kills one node after the other while the race goes on, at most one at a time; how often.
fn kill_and_replace(
    mut nodes: Vec<SiteProcess>,
    ended: &AtomicBool,
) -> anyhow::Result<(Vec<SiteProcess>, u64)> {
    let mut kills = 0;
    while !ended.load(Ordering::SeqCst) {
        let victim = usize::try_from(kills)? % nodes.len();
        // A pace, not a synchronisation: any moment is a good one.
        std::thread::sleep(Duration::from_millis(100 + 37 * (kills % 7)));
        nodes[victim].kill();
        nodes[victim].start_again()?;
        kills += 1;
    }
    Ok((nodes, kills))
}

/// When a push began and was acknowledged, on one logical clock.
type Spans = HashMap<Digest, (u64, u64)>;

struct Race {
    http: reqwest::Client,
    nodes: Vec<String>,
    layer: Bytes,
    ticks: AtomicU64,
    spans: parking_lot::Mutex<Spans>,
}

impl Race {
    async fn prepare(nodes: Vec<String>) -> anyhow::Result<Self> {
        // Connections to a killed node are worth nothing, and asking is cheap on loopback.
        let http = reqwest::Client::builder().pool_max_idle_per_host(4).build()?;
        let layer = Bytes::from_static(b"a layer that every image of the race has");
        push_blob(&http, &nodes[0], REPOSITORY, &layer).await?;
        Ok(Self { http, nodes, layer, ticks: AtomicU64::new(0), spans: parking_lot::Mutex::default() })
    }

    /// In each round two writers push an image of their own under the same tag at the same time.
    async fn run(&self) -> anyhow::Result<()> {
        for round in 0..rounds() {
            let (first, second) = tokio::join!(self.push(round, 0), self.push(round, 1));
            first?;
            second?;
        }
        Ok(())
    }

    /// Pushes until it is acknowledged, by whichever node is there: a push that a kill cut off may have happened.
    async fn push(&self, round: u64, writer: u64) -> anyhow::Result<()> {
        let manifest = self.manifest(&format!("{round}-{writer}"))?;
        let began = self.ticks.fetch_add(1, Ordering::SeqCst);
        let deadline = Instant::now() + PATIENCE;
        for attempt in round + writer.. {
            let node = &self.nodes[usize::try_from(attempt)? % self.nodes.len()];
            let address = format!("{node}/v2/{REPOSITORY}/manifests/{TAG}");
            let request = self.http.put(address).header("Content-Type", MANIFEST).body(manifest.clone());
            match request.send().await {
                Ok(answer) if answer.status() == 201 => break,
                Ok(answer) => {
                    let status = answer.status();
                    anyhow::bail!("push {round}-{writer} to {node}: {status}: {}", answer.text().await?);
                }
                Err(error) => ensure!(Instant::now() < deadline, "push {round}-{writer} to {node}: {error}"),
            }
        }
        let acknowledged = self.ticks.fetch_add(1, Ordering::SeqCst);
        self.spans.lock().insert(Digest::sha256(&manifest), (began, acknowledged));
        Ok(())
    }

    /// An image of the one blob; no two pushes are of the same.
    fn manifest(&self, version: &str) -> anyhow::Result<Bytes> {
        let image = Image::of(vec![self.layer.clone()]);
        let mut manifest = serde_json::from_slice::<serde_json::Value>(&image.manifest)?;
        manifest["annotations"] = serde_json::json!({ "org.opencontainers.image.version": version });
        Ok(manifest.to_string().into())
    }

    /// Reads the log of the site, whose processes have ended.
    async fn check(&self, database: Database, kind: &str, kills: u64) -> anyhow::Result<()> {
        let metadata = Metadata::open(OpenOptions { database, clock: Clock::System }).await?;
        let log = metadata.events_after(0, u32::MAX).await?;
        let spans = self.spans.lock().clone();
        let layer = Digest::sha256(&self.layer);
        let closures = spans.keys().map(|manifest| (*manifest, vec![layer])).collect();
        let replayed = replay::replay(&metadata, &log, &closures).await;
        assert_eq!(replayed, replay::stored(&metadata).await, "the log replays to the state");
        let repository = replayed.0.values().next().context("one repository")?;
        assert_eq!(repository.manifests.len(), spans.len(), "every acknowledged manifest is there");

        let moves = check_order(&log, &spans)?;
        println!(
            "figure: tag race on {kind}: {} rounds, {} pushes acknowledged, {moves} moves of the tag, {} events, {kills} kills",
            rounds(),
            spans.len(),
            log.len()
        );
        metadata.close().await;
        Ok(())
    }
}

/// Acknowledged before another began: lower numbers. How often the tag moved.
fn check_order(log: &[LoggedEvent], spans: &Spans) -> anyhow::Result<usize> {
    let (mut latest_begin, mut moves) = (0, 0);
    for logged in log {
        let event = logged.event()?;
        if !matches!(event.kind, EventKind::ManifestPushed | EventKind::TagSet) {
            continue;
        }
        moves += usize::from(event.kind == EventKind::TagSet);
        let (began, acknowledged) = spans[&event.digest.context("a push names a digest")?];
        let seq = logged.position.seq;
        ensure!(
            acknowledged > latest_begin,
            "event {seq} is of a push that was acknowledged before one with a lower number began"
        );
        latest_begin = latest_begin.max(began);
    }
    Ok(moves)
}

/// How many; the acceptance figure is 10,000.
fn rounds() -> u64 {
    number("TWINPORT_TEST_ROUNDS", 300)
}
