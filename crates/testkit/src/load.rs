//! Pushers and a reader that go on while sites are killed, and write down what they were told.
//! Guards: an answer that refuses a proper push is a failure; only a connection that broke is tried again.

mod chunked;
mod convergence;
mod silence;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinSet;
use twinport_oci::Digest;

pub use self::{chunked::push_in_chunks, silence::load_client};
use crate::{Image, Ledger, MANIFEST, Removal, load::silence::broke};

/// How long a site may be away before the load gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Before a request that found nobody is sent again.
const PAUSE: Duration = Duration::from_millis(20);
const REPOSITORIES: [&str; 4] = ["load/alpha", "load/beta", "load/gamma/deep", "delta"];
/// Tags of one pusher in one repository: few, so that they are overwritten.
const TAGS: u32 = 3;

/// A load on a primary.
#[derive(Clone, Debug)]
pub struct Load {
    pub http: reqwest::Client,
    /// URL of the site that takes the pushes.
    pub primary: String,
    /// URL of a site whose visible tags must always be complete.
    pub secondary: Option<String>,
    pub ledger: Arc<Ledger>,
    pub pushers: u32,
    /// Pushes that each pusher brings to an end, whatever happens.
    pub least: u32,
    /// Pushes of each pusher at most, if nobody says stop before.
    pub most: u32,
}

impl Load {
    /// Pushes until `stop`, deletes once, and returns when all pushers have had their least. Equal seeds try equal
    /// images.
    ///
    /// # Errors
    /// When a proper request is refused, a site stays away, or a visible tag is not complete.
    pub async fn run(&self, seed: u64, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pushers = JoinSet::new();
        for pusher in 0..self.pushers {
            let (load, stop) = (self.clone(), stop.clone());
            let random = StdRng::seed_from_u64(random.random());
            pushers.spawn(async move { load.pusher(pusher, random, &stop).await });
        }
        let ended = Arc::new(AtomicBool::new(false));
        let (load, until) = (self.clone(), ended.clone());
        let reader = tokio::spawn(async move { load.reader(random, &until).await });
        let mut outcome = Ok(());
        while let Some(pusher) = pushers.join_next().await {
            outcome = outcome.and(pusher?);
        }
        ended.store(true, Ordering::SeqCst);
        outcome.and(reader.await?)
    }

    async fn pusher(&self, pusher: u32, mut random: StdRng, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut acknowledged = 0;
        let mut has_deleted = pusher != 0;
        while acknowledged < self.least || (acknowledged < self.most && !stop.load(Ordering::SeqCst)) {
            if !has_deleted && acknowledged > 0 {
                has_deleted = self.delete_one(pusher, &mut random).await?;
            }
            if self.push_one(pusher, &mut random).await? {
                acknowledged += 1;
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..25))).await;
        }
        let deadline = Instant::now() + PATIENCE;
        while !has_deleted {
            ensure!(Instant::now() < deadline, "nothing could be deleted at {}", self.primary);
            // The one push may have left a doubt about the only tag.
            self.push_one(pusher, &mut random).await?;
            has_deleted = self.delete_one(pusher, &mut random).await?;
        }
        Ok(())
    }

    /// Pushes a new image, mostly until it is acknowledged; sometimes a broken connection is left at that.
    async fn push_one(&self, pusher: u32, random: &mut StdRng) -> anyhow::Result<bool> {
        let repository = REPOSITORIES[random.random_range(0..REPOSITORIES.len())];
        let tag = (repository.to_owned(), format!("p{pusher}-{}", random.random_range(0..TAGS)));
        let image =
            Image::random(random.random(), random.random_range(1..=2), random.random_range(100..12_000));
        let (gives_up, in_chunks) = (random.random_ratio(1, 4), random.random_ratio(1, 3));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.push(&image, &tag, in_chunks).await {
                Ok(()) => return Ok(true),
                Err(error) => self.survive(error, deadline).await?,
            }
            if gives_up {
                return Ok(false);
            }
        }
    }

    async fn push(&self, image: &Image, tag: &(String, String), in_chunks: bool) -> anyhow::Result<()> {
        if in_chunks {
            for blob in &image.blobs {
                push_in_chunks(&self.http, &self.primary, &tag.0, blob).await?;
            }
        }
        // From here on the site may have it: `Image::push` skips the blobs that are there.
        self.ledger.pushing(tag, image.digest());
        image.push(&self.http, &self.primary, &tag.0, &tag.1).await?;
        self.ledger.pushed(tag, image.digest());
        Ok(())
    }

    async fn delete_one(&self, pusher: u32, random: &mut StdRng) -> anyhow::Result<bool> {
        let own = format!("p{pusher}-");
        let Some(removal) = self.ledger.removal(random, |tag| tag.starts_with(&own)) else {
            return Ok(false);
        };
        let (repository, reference) = match &removal {
            Removal::Tag((repository, tag)) => (repository, tag.clone()),
            Removal::Manifest { manifest: (repository, digest), .. } => (repository, digest.to_string()),
        };
        let address = format!("{}/v2/{repository}/manifests/{reference}", self.primary);
        self.ledger.deleting(&removal);
        let deadline = Instant::now() + PATIENCE;
        let mut unanswered = false;
        loop {
            match self.http.delete(&address).send().await {
                Ok(answer) if answer.status() == 202 || (unanswered && answer.status() == 404) => break,
                Ok(answer) => bail!("DELETE {address}: {}: {}", answer.status(), answer.text().await?),
                Err(error) => self.survive(error.into(), deadline).await?,
            }
            unanswered = true;
        }
        self.ledger.deleted(&removal);
        Ok(true)
    }

    /// A connection that broke is the point of it all; anything else is a failure.
    async fn survive(&self, error: anyhow::Error, deadline: Instant) -> anyhow::Result<()> {
        if Instant::now() >= deadline {
            return Err(error);
        }
        broke(error)?;
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// Looks at tags of the secondary for as long as there is load: whatever is visible there is complete.
    async fn reader(&self, mut random: StdRng, ended: &AtomicBool) -> anyhow::Result<()> {
        let Some(secondary) = &self.secondary else { return Ok(()) };
        while !ended.load(Ordering::SeqCst) {
            if let Some(tag) = self.ledger.any_tag(&mut random) {
                self.look(secondary, &tag).await.or_else(broke)?;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn look(&self, url: &str, (repository, tag): &(String, String)) -> anyhow::Result<()> {
        let address = format!("{url}/v2/{repository}/manifests/{tag}");
        let answer = self.http.get(&address).header("Accept", MANIFEST).send().await?;
        if answer.status() != 200 {
            return Ok(());
        }
        let manifest = answer.bytes().await?;
        for digest in digests_in(&manifest) {
            let blob = self.http.head(format!("{url}/v2/{repository}/blobs/{digest}")).send().await?;
            ensure!(blob.status() != 404, "{address} is visible without its blob {digest}");
        }
        Ok(())
    }
}

/// Every digest that a manifest of ours names.
fn digests_in(manifest: &Bytes) -> Vec<Digest> {
    let text = String::from_utf8_lossy(manifest);
    text.split('"').filter_map(|word| word.parse().ok()).collect()
}
