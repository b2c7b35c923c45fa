//! Each 201 that stored something new comes after the syncs that make it durable, as strace sees them.
//! Guards: file data before its name, the name's directory and its parent before the commit, the commit before the answer;
//! of a small blob the journal before its place, and both before the commit.
#![expect(clippy::print_stdout, reason = "figures of a run")]

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use twinport_oci::Digest;
use twinport_testkit::{
    Call, Image, MANIFEST, SiteDatabase, SiteProcess, Strace, postgres_processes, program, push_blob,
    site_database,
};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
const ROUNDS: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn s5_file_directories_and_database_are_synced_before_each_201_on_sqlite() -> anyhow::Result<()> {
    in_order("sqlite").await
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_file_directories_and_database_are_synced_before_each_201_on_postgresql() -> anyhow::Result<()> {
    in_order("postgresql").await
}

/// What a 201 said to be stored.
enum Stored {
    /// A blob: a file and a row.
    Blob(Digest),
    /// Rows only.
    Rows,
}

async fn in_order(kind: &str) -> anyhow::Result<()> {
    let skip = |why: &str| println!("skip the order of syncs on {kind}: {why}");
    if !Strace::is_installed() {
        skip("strace is not installed");
        return Ok(());
    }
    let Some(database) = site_database(kind).await? else {
        skip("PostgreSQL is not installed");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let site = SiteProcess::start(&program(BINARY), &folder.path().join("paris"), database.clone())?;
    let mut watched = vec![site.pid().context("it runs")?];
    if let SiteDatabase::Postgres(url) = &database {
        watched.extend(postgres_processes(url).await?);
    }
    let strace = Strace::attach(&watched, &folder.path().join("trace"))?;
    let stored = push_everything(&site.url()).await?;
    let calls = strace.finish()?;
    let answers: Vec<&Call> =
        calls.iter().filter(|call| call.arguments.contains("\"HTTP/1.1 201 ")).collect();
    ensure!(answers.len() == stored.len(), "{} answers of {} were traced", answers.len(), stored.len());
    let mut since = 0;
    for (number, (answer, stored)) in answers.iter().zip(&stored).enumerate() {
        let window: Vec<&Call> =
            calls.iter().filter(|call| call.began > since && call.ended < answer.began).collect();
        let durable = match stored {
            Stored::Blob(digest) => bytes_are_synced(&window, &calls, digest),
            Stored::Rows => Ok(since),
        };
        durable
            .and_then(|at| database_is_synced(&window, at, &database))
            .with_context(|| format!("before 201 number {} of {}", number + 1, stored_as(stored)))?;
        since = answer.ended;
    }
    // Only the journal renames what it wrote to a blob's place.
    let placed = |call: &&Call| call.name.starts_with("rename") && call.arguments.contains("/data\"");
    let journaled = calls.iter().filter(placed).count();
    ensure!(
        (journaled > 0) == (kind == "sqlite"),
        "no blob came by way of the journal: this run shows nothing of it"
    );
    println!("{kind}: {} answers 201 in order, {} calls looked at", answers.len(), calls.len());
    Ok(())
}

fn stored_as(stored: &Stored) -> String {
    match stored {
        Stored::Blob(digest) => format!("blob {digest}"),
        Stored::Rows => "rows only".to_owned(),
    }
}

/// One request after the other: a blob at once, a blob in chunks, a mount, a manifest by tag and one by digest.
async fn push_everything(url: &str) -> anyhow::Result<Vec<Stored>> {
    let http = reqwest::Client::new();
    let mut stored = Vec::new();
    for round in 0..ROUNDS {
        let image = Image::random(round, 2, 40_000 + 300_000 * usize::try_from(round)?);
        let [config, first, second] = &image.blobs[..] else { bail!("a config and two layers") };
        for blob in [config, first] {
            push_blob(&http, url, "order/one", blob).await?;
            stored.push(Stored::Blob(Digest::sha256(blob)));
        }
        push_in_chunks(&http, url, second).await?;
        stored.push(Stored::Blob(Digest::sha256(second)));
        let mount =
            format!("{url}/v2/order/two/blobs/uploads/?mount={}&from=order/one", Digest::sha256(first));
        created(http.post(mount)).await?;
        stored.push(Stored::Rows);
        for reference in [format!("v{round}"), "latest".to_owned()] {
            let address = format!("{url}/v2/order/one/manifests/{reference}");
            let body = image.manifest.clone();
            created(http.put(address).header("Content-Type", MANIFEST).body(body)).await?;
            stored.push(Stored::Rows);
        }
    }
    // An answer arrives before the call that sent it returns, and only calls that returned are counted. What comes over the
    // same connection is not read before.
    ensure!(http.get(format!("{url}/v2/")).send().await?.status() == 200, "the site answers");
    Ok(stored)
}

async fn push_in_chunks(http: &reqwest::Client, url: &str, blob: &Bytes) -> anyhow::Result<()> {
    let begun = http.post(format!("{url}/v2/order/one/blobs/uploads/")).send().await?;
    let location = begun.headers().get("Location").context("a location")?.to_str()?;
    let session = if location.starts_with('/') { format!("{url}{location}") } else { location.to_owned() };
    let sent = http.patch(&session).header("Content-Type", "application/octet-stream").body(blob.clone());
    ensure!(sent.send().await?.status() == 202, "a chunk was refused");
    created(http.put(format!("{session}?digest={}", Digest::sha256(blob)))).await
}

async fn created(request: reqwest::RequestBuilder) -> anyhow::Result<()> {
    let answer = request.send().await?;
    ensure!(
        answer.status() == 201,
        "{}: {}: {}",
        answer.url().clone(),
        answer.status(),
        answer.text().await?
    );
    Ok(())
}

/// When a blob was durable. One that came by way of the journal may be put in its place later.
fn bytes_are_synced(window: &[&Call], calls: &[Call], digest: &Digest) -> anyhow::Result<usize> {
    let place = format!("\"sha256/{}/{}/data\"", &digest.hex()[..2], digest.hex());
    let renamed =
        |call: &&Call| call.succeeded && call.name.starts_with("rename") && call.arguments.contains(&place);
    match calls.iter().find(renamed) {
        Some(placed) => journal_is_synced(window, placed),
        None => file_and_directories_are_synced(window, digest),
    }
}

/// When the journal had the bytes of a small blob, which were put in their place after that.
fn journal_is_synced(window: &[&Call], placed: &Call) -> anyhow::Result<usize> {
    let of_journal =
        |call: &&&Call| call.path().is_some_and(|path| path.extension().is_some_and(|end| end == "journal"));
    let written = window
        .iter()
        .filter(of_journal)
        .filter(|call| call.is_write() && call.ended < placed.began)
        .map(|call| call.ended)
        .max()
        .context("nothing was written to the journal before the blob was placed")?;
    let synced = window
        .iter()
        .filter(of_journal)
        .find(|call| call.is_sync() && call.began > written && call.ended < placed.began)
        .context("the journal was not synced before the blob was placed")?;
    Ok(synced.ended)
}

/// When the last of a blob's directories was synced.
fn file_and_directories_are_synced(window: &[&Call], digest: &Digest) -> anyhow::Result<usize> {
    let directory = format!("sha256/{}/{}", &digest.hex()[..2], digest.hex());
    let place = format!("\"{directory}/data\"");
    let linked = window
        .iter()
        .find(|call| call.succeeded && call.name.starts_with("link") && call.arguments.contains(&place))
        .context("the file got no name")?;
    let spool = linked.path().context("the spool's directory")?;
    let name = linked.arguments.split('"').nth(1).context("the spool's name")?;
    let spool = spool.join(name);

    let of_spool = |call: &&&Call| call.path() == Some(spool.as_path());
    let written = window.iter().filter(of_spool).filter(|call| call.is_write()).map(|call| call.ended).max();
    let written = written.context("the file's data was not written")?;
    window
        .iter()
        .filter(of_spool)
        .find(|call| call.is_sync() && call.began > written && call.ended < linked.began)
        .context("the file's data was not synced before the file got its name")?;

    let synced = |path: &str| {
        let sync = window
            .iter()
            .find(|call| call.is_sync() && call.began > linked.ended && is_at(call.path(), path));
        sync.map(|call| call.ended)
            .with_context(|| format!("{path} was not synced after the file got its name"))
    };
    Ok(synced(&directory)?.max(synced(&directory[..9])?))
}

fn is_at(path: Option<&Path>, end: &str) -> bool {
    path.is_some_and(|path| path.ends_with(end))
}

/// The commit comes after `at`, and is synced before the window ends.
fn database_is_synced(window: &[&Call], at: usize, database: &SiteDatabase) -> anyhow::Result<()> {
    match database {
        SiteDatabase::Embedded => {
            let of_log = |call: &&&Call| is_at(call.path(), "metadata.db-wal") && call.began > at;
            let written =
                window.iter().filter(of_log).filter(|call| call.is_write()).map(|call| call.ended).max();
            let written = written.context("nothing was committed after the files were durable")?;
            let mut synced =
                window.iter().filter(of_log).filter(|call| call.is_sync() && call.began > written);
            synced.next().context("the commit was not synced")?;
        }
        SiteDatabase::Postgres(_) => {
            let mut commits =
                window.iter().filter(|call| call.began > at && call.arguments.contains("COMMIT\\0"));
            let asked = commits.next().context("nothing was committed after the files were durable")?;
            let of_log =
                |call: &&&Call| call.path().is_some_and(|path| path.to_string_lossy().contains("/pg_wal/"));
            window
                .iter()
                .filter(of_log)
                .find(|call| call.is_write() && call.began > at)
                .context("the server wrote no log")?;
            window
                .iter()
                .filter(of_log)
                .find(|call| call.is_sync() && call.ended > asked.began)
                .context("the server did not sync its log")?;
        }
    }
    Ok(())
}
