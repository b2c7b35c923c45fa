//! A site that dies inside a manifest push (hazard S1), held at the moment between the manifest and its references.
//! Guards: nothing of the push is there afterwards, and pushing it again links everything.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio_postgres::NoTls;
use twinport_testkit::{
    Image, MANIFEST, SiteDatabase, SiteProcess, program, pull_whole, push_blob, site_database,
};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
const PATIENCE: Duration = Duration::from_secs(60);
/// Sessions of this database that wait for a lock.
const WAITING: &str =
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

#[tokio::test(flavor = "multi_thread")]
async fn s1_a_site_killed_inside_a_manifest_push_links_nothing_and_the_retry_links_all() -> anyhow::Result<()>
{
    let Some(database) = site_database("postgresql").await? else {
        println!("skip a push held half way: PostgreSQL is not installed");
        return Ok(());
    };
    let SiteDatabase::Postgres(url) = &database else { anyhow::bail!("asked for PostgreSQL") };
    let (keeper, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let folder = tempfile::tempdir()?;
    let mut site = SiteProcess::start(&program(BINARY), &folder.path().join("site"), database)?;
    let (http, image) = (reqwest::Client::new(), Image::random(1, 3, 5_000));
    for blob in &image.blobs {
        push_blob(&http, &site.url(), "team/app", blob).await?;
    }

    keeper.batch_execute("BEGIN; LOCK TABLE manifest_references IN EXCLUSIVE MODE").await?;
    let request = http
        .put(format!("{}/v2/team/app/manifests/latest", site.url()))
        .header("Content-Type", MANIFEST)
        .body(image.manifest.clone());
    let push = tokio::spawn(request.send());
    let began = Instant::now();
    while keeper.query_one(WAITING, &[]).await?.get::<_, i64>(0) == 0 {
        ensure!(began.elapsed() < PATIENCE, "the push never came to its references");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    site.kill();
    ensure!(push.await?.is_err(), "a push was acknowledged half way");
    keeper.batch_execute("ROLLBACK").await?;

    site.start_again()?;
    for table in ["manifests", "manifest_references", "tags"] {
        ensure!(count(&site, table).await? == 0, "{table} has rows of the push that was cut off");
    }
    let answer = http.get(format!("{}/v2/team/app/manifests/latest", site.url())).send().await?;
    ensure!(answer.status() == 404, "{}", answer.status());

    image.push(&http, &site.url(), "team/app", "latest").await?;
    ensure!(pull_whole(&http, &site.url(), "team/app", "latest").await? == image.digest());
    ensure!(count(&site, "manifest_references").await? == i64::try_from(image.blobs.len())?);
    Ok(())
}

async fn count(site: &SiteProcess, table: &str) -> anyhow::Result<i64> {
    let rows = site.rows(&format!("SELECT COUNT(*) FROM {table}")).await?;
    rows.first().and_then(|row| row.first()).context("a count")?.int()
}
