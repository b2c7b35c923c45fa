//! Nodes that share one blob store (hazard S14): with one database between them they are one site, with a database each
//! they would be two that delete each other's blobs.
//! Guards: a store serves one database only, whoever comes first.

use std::{os::unix::fs::symlink, path::Path};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use twinport_testkit::{Image, SiteDatabase, SiteProcess, program, pull_whole, site_database};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
const REFUSAL: &str = "belongs to another database";

/// A folder in which the nodes' data directories share one blob store.
struct Shared(TempDir);

impl Shared {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("store"))?;
        Ok(Self(folder))
    }

    fn node(&self, name: &str, database: SiteDatabase) -> anyhow::Result<SiteProcess> {
        let data = self.0.path().join(name);
        std::fs::create_dir_all(&data)?;
        symlink(self.0.path().join("store"), data.join("blobs"))?;
        SiteProcess::spawned(Path::new(&program(BINARY)), &data, database)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_a_second_node_with_a_database_of_its_own_is_refused_the_store() -> anyhow::Result<()> {
    let (shared, http, image) = (Shared::new()?, reqwest::Client::new(), Image::random(14, 2, 5_000));
    let mut first = shared.node("first", SiteDatabase::Embedded)?;
    first.wait_ready()?;
    image.push(&http, &first.url(), "team/app", "one").await?;

    let mut second = shared.node("second", SiteDatabase::Embedded)?;
    let error = second.wait_ready().err().context("the second node serves a store that is not its own")?;
    ensure!(format!("{error:#}").contains(REFUSAL), "{error:#}");

    // The first did not notice, and has the store to itself after a restart too.
    first.terminate()?;
    first.start_again()?;
    ensure!(pull_whole(&http, &first.url(), "team/app", "one").await? == image.digest());
    Ok(())
}

#[test]
fn s14_of_two_nodes_that_start_on_one_new_store_at_once_one_serves() -> anyhow::Result<()> {
    for _ in 0..5 {
        let shared = Shared::new()?;
        let mut nodes =
            [shared.node("first", SiteDatabase::Embedded)?, shared.node("second", SiteDatabase::Embedded)?];
        let outcomes = nodes.each_mut().map(SiteProcess::wait_ready);
        let serving = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        ensure!(serving == 1, "{serving} nodes serve one store: {outcomes:?}");
        let refused = outcomes.into_iter().find_map(Result::err).context("one is refused")?;
        ensure!(format!("{refused:#}").contains(REFUSAL), "{refused:#}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_two_nodes_with_one_database_share_a_store() -> anyhow::Result<()> {
    let Some(database) = site_database("postgresql").await? else {
        println!("skip nodes on one database: PostgreSQL is not installed");
        return Ok(());
    };
    let (shared, http, image) = (Shared::new()?, reqwest::Client::new(), Image::random(15, 2, 5_000));
    let mut first = shared.node("first", database.clone())?;
    first.wait_ready()?;
    let mut second = shared.node("second", database)?;
    second.wait_ready()?;
    image.push(&http, &first.url(), "team/app", "one").await?;
    ensure!(pull_whole(&http, &second.url(), "team/app", "one").await? == image.digest());
    Ok(())
}
