//! Sites on PostgreSQL whose blobs are in a bucket: pushed, pulled from the bucket itself or through the site, replicated
//! from and to sites with a local store, uploaded through several nodes.
//! Guards: clients are sent to the bucket without anything that would let them do more than read one blob for a while.
#![expect(clippy::print_stdout, reason = "figures of a run")]

use std::process::Command;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Client, StatusCode, redirect::Policy};
use tempfile::TempDir;
use twinport_oci::{Algorithm, Digest, Hasher};
use twinport_testkit::{
    Image, MemoryWatch, ObjectServer, ObjectServerKind, Pair, SiteBucket, SiteDatabase, SiteProcess, number,
    object_server, program, pull_whole, push_blob, site_database,
};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
const TEAM: &str = "team/app";
const BOUND_MIB: f64 = 100.0;
const PIECE: usize = 1 << 20;

/// A bucket's prefix on a server of this kind, and a database; `None`, with a line that says so, where one is missing.
async fn place(kind: ObjectServerKind) -> anyhow::Result<Option<(SiteDatabase, SiteBucket)>> {
    let Some(server) = tokio::task::spawn_blocking(move || object_server(kind)).await? else {
        return Ok(None);
    };
    let Some(database) = site_database("postgresql").await? else {
        println!("skip tests of object storage: PostgreSQL is not installed");
        return Ok(None);
    };
    Ok(Some((database, SiteBucket::at(server.url()))))
}

fn start(folder: &TempDir, name: &str, place: (SiteDatabase, SiteBucket)) -> anyhow::Result<SiteProcess> {
    SiteProcess::start_on(&program(BINARY), &folder.path().join(name), place.0, Some(place.1))
}

fn without_redirects() -> anyhow::Result<Client> {
    Ok(Client::builder().redirect(Policy::none()).build()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_sent_to_the_bucket_for_a_blob_and_for_nothing_else() -> anyhow::Result<()> {
    for kind in [ObjectServerKind::MinIo, ObjectServerKind::Versity] {
        let Some((database, bucket)) = place(kind).await? else { continue };
        let (folder, http, direct) = (tempfile::tempdir()?, Client::new(), without_redirects()?);
        let site = start(&folder, "site", (database, bucket.clone()))?;
        let image = Image::random(1, 2, 300_000);
        image.push(&http, &site.url(), TEAM, "one").await?;
        ensure!(pull_whole(&http, &site.url(), TEAM, "one").await? == image.digest());

        let layer = &image.blobs[1];
        let address = format!("{}/v2/{TEAM}/blobs/{}", site.url(), Digest::sha256(layer));
        let sent = direct.get(&address).send().await?;
        ensure!(sent.status() == StatusCode::TEMPORARY_REDIRECT, "{}", sent.status());
        let location = sent.headers()["Location"].to_str()?.to_owned();
        ensure!(
            location.starts_with(&bucket.endpoint) && location.contains("X-Amz-Expires=1200"),
            "{location}"
        );
        ensure!(!location.contains(ObjectServer::SECRET_KEY), "{location}");
        ensure!(sent.headers()["Cache-Control"] == "no-store" && sent.headers().get("ETag").is_none());
        ensure!(direct.head(&address).send().await?.status() == StatusCode::OK, "HEAD is answered here");
        let manifest = format!("{}/v2/{TEAM}/manifests/one", site.url());
        ensure!(direct.get(&manifest).send().await?.status() == StatusCode::OK);

        // Whoever follows with credentials for the site shows the bucket none: it would refuse two kinds at once.
        let followed = http.get(&address).basic_auth("user", Some("password")).send().await?;
        ensure!(followed.headers()["Content-Type"] == "application/octet-stream");
        ensure!(followed.headers()["Content-Disposition"] == "attachment");
        ensure!(followed.bytes().await? == *layer);
        let part = http.get(&address).header("Range", "bytes=5-9").send().await?;
        ensure!(part.status() == StatusCode::PARTIAL_CONTENT && part.bytes().await? == layer[5..10]);
        // The URL is good for this blob and for reading alone.
        ensure!(http.put(&location).body("x").send().await?.status() == StatusCode::FORBIDDEN);
        let log = site.log();
        ensure!(!log.contains(ObjectServer::SECRET_KEY) && !log.contains("X-Amz-Signature"), "{log}");
        crane(&site, &folder)?;
        let checks = site.json(&["doctor"])?;
        ensure!(checks.to_string().contains("can be listed, written and read"), "{checks}");
    }
    Ok(())
}

/// A real client, through the redirects; left out where it is not installed.
fn crane(site: &SiteProcess, folder: &TempDir) -> anyhow::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".cache/twinport/bin"));
    let Some(crane) = std::env::split_paths(&path)
        .chain(tools)
        .map(|folder| folder.join("crane"))
        .find(|crane| crane.is_file())
    else {
        println!("crane was left out: it is not installed, scripts/install-tools does it");
        return Ok(());
    };
    // Every blob is pulled, and its digest compared.
    let from = format!("{}/{TEAM}:one", site.address());
    let archive = folder.path().join("one.tar");
    let output = Command::new(&crane).args(["pull", "--insecure", &from]).arg(&archive).output()?;
    ensure!(output.status.success(), "crane pull: {}", String::from_utf8_lossy(&output.stderr));
    let to = format!("{}/{TEAM}-copy:one", site.address());
    let output = Command::new(&crane).args(["push", "--insecure"]).arg(&archive).arg(&to).output()?;
    ensure!(output.status.success(), "crane push: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_redirects_nobody_sends_blobs_itself() -> anyhow::Result<()> {
    let Some((database, bucket)) = place(ObjectServerKind::MinIo).await? else { return Ok(()) };
    let (folder, direct) = (tempfile::tempdir()?, without_redirects()?);
    let mut site = start(&folder, "site", (database, SiteBucket { redirect: false, ..bucket }))?;
    let image = Image::random(2, 2, 9 << 20);
    image.push(&direct, &site.url(), TEAM, "one").await?;
    ensure!(pull_whole(&direct, &site.url(), TEAM, "one").await? == image.digest());
    let layer = &image.blobs[1];
    let address = format!("{}/v2/{TEAM}/blobs/{}", site.url(), Digest::sha256(layer));
    let part = direct.get(&address).header("Range", "bytes=8000000-9000000").send().await?;
    ensure!(part.bytes().await? == layer[8_000_000..9_000_001]);
    site.kill();
    site.start_again()?;
    ensure!(pull_whole(&direct, &site.url(), TEAM, "one").await? == image.digest());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_an_upload_begun_at_one_node_goes_on_at_another_and_is_pulled_from_both() -> anyhow::Result<()> {
    let Some((database, bucket)) = place(ObjectServerKind::Versity).await? else { return Ok(()) };
    let (folder, http) = (tempfile::tempdir()?, Client::new());
    let first = start(&folder, "first", (database.clone(), bucket.clone()))?;
    // A start beside a node that works leaves its uploads alone.
    let layer = Image::random(3, 1, 12 << 20).blobs.remove(1);
    let digest = Digest::sha256(&layer);
    let begun = http.post(format!("{}/v2/{TEAM}/blobs/uploads/", first.url())).send().await?;
    let session = begun.headers()["Location"].to_str()?.to_owned();
    let session = session.strip_prefix(&first.url()).unwrap_or(&session).to_owned();
    let patch = async |site: &SiteProcess, range: std::ops::Range<usize>| {
        let request = http
            .patch(format!("{}{session}", site.url()))
            .header("Content-Range", format!("{}-{}", range.start, range.end - 1))
            .body(layer.slice(range));
        let answer = request.send().await?;
        ensure!(answer.status() == StatusCode::ACCEPTED, "{}: {}", answer.status(), answer.text().await?);
        anyhow::Ok(())
    };
    patch(&first, 0..100).await?;
    let second = start(&folder, "second", (database, bucket))?;
    patch(&second, 100..9_000_000).await?;
    patch(&first, 9_000_000..9_000_001).await?;
    let close = http
        .put(format!("{}{session}?digest={digest}", second.url()))
        .body(layer.slice(9_000_001..))
        .send()
        .await?;
    ensure!(close.status() == StatusCode::CREATED, "{}: {}", close.status(), close.text().await?);
    for site in [&first, &second] {
        let pulled = http.get(format!("{}/v2/{TEAM}/blobs/{digest}", site.url())).send().await?;
        ensure!(pulled.bytes().await? == layer, "{}", site.url());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_in_a_bucket_follows_one_with_a_local_store_and_is_followed_by_one() -> anyhow::Result<()> {
    for bucket_is_primary in [false, true] {
        let Some((database, bucket)) = place(ObjectServerKind::MinIo).await? else { return Ok(()) };
        let http = Client::new();
        let (cloud, local) = ((database, Some(bucket)), (SiteDatabase::Embedded, None));
        let pair = if bucket_is_primary {
            Pair::apart_on(BINARY, cloud, local)?
        } else {
            Pair::apart_on(BINARY, local, cloud)?
        };
        // Before and after they know each other: by backfill and by the log.
        let images = [Image::random(4, 2, 40_000), Image::random(5, 2, 11 << 20)];
        images[0].push(&http, &pair.primary.url(), TEAM, "one").await?;
        pair.join()?;
        images[1].push(&http, &pair.primary.url(), TEAM, "two").await?;
        let verified = "SELECT count(*) FROM tracked_items WHERE kind = 'tag' AND verification = 'succeeded'";
        pair.secondary.wait_for_count(verified, 2).await?;
        for (image, tag) in images.iter().zip(["one", "two"]) {
            ensure!(pull_whole(&http, &pair.secondary.url(), TEAM, tag).await? == image.digest());
        }
        let scrubbed = pair.secondary.run(&["blobs", "scrub"])?;
        ensure!(scrubbed.status.success(), "{}", String::from_utf8_lossy(&scrubbed.stdout));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_large_layer_goes_in_and_out_of_a_bucket_in_bounded_memory() -> anyhow::Result<()> {
    let Some((database, bucket)) = place(ObjectServerKind::MinIo).await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let site = start(&folder, "site", (database, SiteBucket { redirect: false, ..bucket }))?;
    layer_in_and_out(&site, "in a bucket").await
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_a_large_layer_goes_in_and_out_of_a_local_store_in_bounded_memory() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let site = SiteProcess::start(&program(BINARY), &folder.path().join("site"), SiteDatabase::Embedded)?;
    layer_in_and_out(&site, "in files").await
}

/// One layer, of 128 MiB or of what `TWINPORT_TEST_LAYER_MIB` says, by PUT, by streamed PATCH and out through the site.
async fn layer_in_and_out(site: &SiteProcess, place: &str) -> anyhow::Result<()> {
    let pieces = usize::try_from(number("TWINPORT_TEST_LAYER_MIB", 128))?;
    let (http, watch) = (Client::new(), MemoryWatch::of(site.pid().context("it runs")?));
    push_blob(&http, &site.url(), TEAM, &Bytes::from_static(b"{}")).await?;
    for form in ["PUT", "PATCH"] {
        let content = Content::new(form.len() as u64, pieces);
        content.push(&http, &site.url(), form).await?;
        let (pushed, _) = watch.take_peak();
        content.pull(&http, &site.url()).await?;
        let (pulled, _) = watch.take_peak();
        println!("figure: memory {place}, {pieces} MiB by {form}: in {pushed:.1} MiB, out {pulled:.1} MiB");
        ensure!(pushed.max(pulled) < BOUND_MIB, "{pushed:.1} MiB, {pulled:.1} MiB");
    }
    Ok(())
}

/// A piece of its own, then one that repeats.
struct Content {
    own: Bytes,
    common: Bytes,
    pieces: usize,
    digest: Digest,
}

impl Content {
    fn new(seed: u64, pieces: usize) -> Self {
        let random = |seed| {
            let mut bytes = vec![0; PIECE];
            StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
            Bytes::from(bytes)
        };
        let mut content = Self { own: random(seed), common: random(0), pieces, digest: Digest::sha256(b"") };
        let mut hasher = Hasher::new(Algorithm::Sha256);
        content.pieces().for_each(|piece| hasher.update(&piece));
        content.digest = hasher.finish();
        content
    }

    fn pieces(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        let (own, common, pieces) = (self.own.clone(), self.common.clone(), self.pieces);
        (0..pieces).map(move |index| if index == 0 { own.clone() } else { common.clone() })
    }

    async fn push(&self, http: &Client, url: &str, form: &str) -> anyhow::Result<()> {
        let begun = http.post(format!("{url}/v2/{TEAM}/blobs/uploads/")).send().await?;
        let location = begun.headers()["Location"].to_str()?;
        let session =
            if location.starts_with('/') { format!("{url}{location}") } else { location.to_owned() };
        let body = reqwest::Body::wrap_stream(stream::iter(self.pieces()).map(std::io::Result::Ok));
        let last = http.put(format!("{session}?digest={}", self.digest));
        let last = if form == "PATCH" {
            let answer = http.patch(&session).body(body).send().await?;
            ensure!(answer.status() == StatusCode::ACCEPTED, "{}", answer.status());
            last
        } else {
            last.header("Content-Length", self.pieces * PIECE).body(body)
        };
        let answer = last.send().await?;
        ensure!(answer.status() == StatusCode::CREATED, "{}: {}", answer.status(), answer.text().await?);
        Ok(())
    }

    async fn pull(&self, http: &Client, url: &str) -> anyhow::Result<()> {
        let answer = http.get(format!("{url}/v2/{TEAM}/blobs/{}", self.digest)).send().await?;
        ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
        let (mut hasher, mut arriving) = (Hasher::new(Algorithm::Sha256), answer.bytes_stream());
        while let Some(part) = arriving.try_next().await? {
            hasher.update(&part);
        }
        ensure!(hasher.finish() == self.digest, "altered on its way");
        Ok(())
    }
}
