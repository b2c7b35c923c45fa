//! What crosses the link between two sites: every byte once, however many repositories hold it.
//! Guards hazard R11, by counting the sockets' bytes in both directions, log and reports included.
#![expect(clippy::print_stdout, reason = "figures of a run")]

use bytes::Bytes;
use twinport_testkit::{Image, Pair, SiteDatabase, SiteProcess, number, pull_whole};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
const REPOSITORIES: u64 = 20;
/// Socket bytes allowed for each 100 unique bytes.
const PERCENT: u64 = 102;

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_layer_pushed_into_twenty_repositories_crosses_the_link_once() -> anyhow::Result<()> {
    let pair = Pair::joined(BINARY, SiteDatabase::Embedded, SiteDatabase::Embedded)?;
    let images = images();
    push_all(&pair.primary, &images).await?;
    arrive(&pair.secondary, &images).await?;
    report("pushed concurrently", pair.link.traffic().total(), &images);
    pull_all(&pair.secondary, &images).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_layer_of_twenty_repositories_crosses_the_link_once_in_a_backfill() -> anyhow::Result<()> {
    let pair = Pair::apart(BINARY, SiteDatabase::Embedded, SiteDatabase::Embedded)?;
    let images = images();
    push_all(&pair.primary, &images).await?;
    pair.join()?;
    arrive(&pair.secondary, &images).await?;
    report("backfilled", pair.link.traffic().total(), &images);
    pull_all(&pair.secondary, &images).await
}

/// Of the shared layer; the acceptance figure is of 64 MiB.
fn layer_bytes() -> usize {
    usize::try_from(number("TWINPORT_TEST_LAYER_MIB", 16)).map_or(usize::MAX, |size| size << 20)
}

/// One layer, and a configuration of each repository's own.
fn images() -> Vec<Image> {
    let layer = Image::random(11, 1, layer_bytes()).blobs.remove(1);
    (0..REPOSITORIES)
        .map(|number| {
            let config = Bytes::from(format!(r#"{{"architecture":"amd64","os":"linux","number":{number}}}"#));
            Image::of(vec![config, layer.clone()])
        })
        .collect()
}

fn repository(number: usize) -> String {
    format!("team/app-{number}")
}

async fn push_all(site: &SiteProcess, images: &[Image]) -> anyhow::Result<()> {
    let http = reqwest::Client::new();
    let pushes = images.iter().enumerate().map(|(number, image)| {
        let (http, url, image) = (http.clone(), site.url(), image.clone());
        tokio::spawn(async move { image.push(&http, &url, &repository(number), "latest").await })
    });
    for push in pushes.collect::<Vec<_>>() {
        push.await??;
    }
    Ok(())
}

async fn arrive(site: &SiteProcess, images: &[Image]) -> anyhow::Result<()> {
    let every = "SELECT count(*) FROM tracked_items WHERE kind = 'tag' AND verification = 'succeeded'";
    site.wait_for_count(every, images.len()).await
}

/// What was counted since the link was made, the join's handshake included, as a line; and the bound that it keeps.
fn report(how: &str, crossed: u64, images: &[Image]) {
    let own = images.iter().map(|image| image.manifest.len() + image.blobs[0].len()).sum::<usize>();
    let unique = (layer_bytes() + own) as u64;
    let ratio = format!("{}.{:04}", crossed / unique, crossed % unique * 10_000 / unique);
    println!("figure: {how}: {crossed} socket bytes for {unique} unique bytes, ratio {ratio}");
    assert!(
        crossed >= unique,
        "{how}: {crossed} bytes crossed, fewer than the {unique} that had to: something went past the proxy"
    );
    assert!(crossed * 100 <= unique * PERCENT, "{how}: {crossed} bytes crossed for {unique} unique ones");
}

async fn pull_all(site: &SiteProcess, images: &[Image]) -> anyhow::Result<()> {
    let http = reqwest::Client::new();
    for (number, image) in images.iter().enumerate() {
        let digest = pull_whole(&http, &site.url(), &repository(number), "latest").await?;
        assert_eq!(digest, image.digest());
    }
    Ok(())
}
