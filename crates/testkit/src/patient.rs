//! Pushes of clients that come back when they are told to, or when their connection broke.
//! Guards: a refusal for good fails the test; what was acknowledged is held against any site, byte by byte.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use twinport_oci::Digest;

use crate::{Image, TagName, pull_whole, push_in_chunks};

/// How long one push may take on a loaded machine, and one image on its way to a site.
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(200);

/// What was pushed under each tag, and how often a push was told to come back.
#[derive(Debug, Default)]
pub struct Pushed {
    pub acknowledged: BTreeMap<TagName, Digest>,
    pub refusals: u64,
}

impl Pushed {
    /// Pushes an image until it is acknowledged; `in_chunks` sends its blobs in several requests first.
    ///
    /// # Errors
    /// When it is refused for good, or not acknowledged within three minutes.
    pub async fn push(
        &mut self,
        http: &reqwest::Client,
        url: &str,
        tag: TagName,
        image: &Image,
        in_chunks: bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = attempt(http, url, &tag, image, in_chunks).await {
            let text = format!("{error:#}");
            let passing = text.contains(": 503 ") || error.downcast_ref::<reqwest::Error>().is_some();
            ensure!(passing, "a push was refused for good: {text}");
            ensure!(Instant::now() < deadline, "a push did not come through: {text}");
            self.refusals += 1;
            tokio::time::sleep(PAUSE).await;
        }
        self.acknowledged.insert(tag, image.digest());
        Ok(())
    }

    /// Adds what another client pushed, under tags of its own.
    pub fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.refusals += other.refusals;
    }

    /// Pulls every image from a site, which may be some events behind.
    ///
    /// # Errors
    /// When one is not there, whole, within three minutes.
    pub async fn arrive_at(&self, http: &reqwest::Client, url: &str) -> anyhow::Result<()> {
        for ((repository, tag), digest) in &self.acknowledged {
            let deadline = Instant::now() + PATIENCE;
            loop {
                match pull_whole(http, url, repository, tag).await {
                    Ok(found) if found == *digest => break,
                    found if Instant::now() >= deadline => {
                        bail!("{repository}:{tag} at {url}: {found:?} instead of {digest}")
                    }
                    _ => tokio::time::sleep(PAUSE / 2).await,
                }
            }
        }
        Ok(())
    }
}

async fn attempt(
    http: &reqwest::Client,
    url: &str,
    (repository, tag): &TagName,
    image: &Image,
    in_chunks: bool,
) -> anyhow::Result<()> {
    if in_chunks {
        for blob in &image.blobs {
            push_in_chunks(http, url, repository, blob).await?;
        }
    }
    image.push(http, url, repository, tag).await
}
