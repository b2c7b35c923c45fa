//! A seeded life of two sites: pushes, deletes and renames, breaks, restarts and lies; after healing they are equal.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use twinport_oci::Digest;

use crate::{
    pair::Pair,
    transport::{BlobFault, ListingFault},
};

const REPOSITORIES: [&str; 5] = ["a/one", "a/two", "b", "c/deep/er", "d"];
const TAGS: [&str; 4] = ["latest", "v1", "v2", "edge"];
const LAYERS: u32 = 24;
const STEPS: u32 = 120;

struct Life {
    random: StdRng,
    pair: Pair,
    /// Manifests that a push may build on: repository, digest, size.
    images: Vec<(&'static str, Digest, usize)>,
}

impl Life {
    fn layer(&mut self) -> Vec<u8> {
        let number = self.random.random_range(0..LAYERS);
        // Some are large enough to cross in pieces.
        let size = if number % 8 == 0 { 700_000 } else { 40 };
        let mut layer = vec![u8::try_from(number).unwrap(); size];
        layer.extend_from_slice(&number.to_le_bytes());
        layer
    }

    fn repository(&mut self) -> &'static str {
        REPOSITORIES.choose(&mut self.random).unwrap()
    }

    fn tags(&mut self) -> Vec<&'static str> {
        let count = self.random.random_range(0..3);
        TAGS.choose_multiple(&mut self.random, count).copied().collect()
    }

    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..40 => self.push_image().await,
            40..50 => self.push_index().await,
            50..55 => self.push_referrer().await,
            55..62 => {
                let (repository, tag) = (self.repository(), *TAGS.choose(&mut self.random).unwrap());
                self.pair.primary.delete_tag(repository, tag).await;
            }
            62..70 => {
                if let Some((repository, digest, _)) = self.images.choose(&mut self.random).copied() {
                    self.pair.primary.delete_manifest(repository, &digest).await;
                }
            }
            70..73 => {
                let repository = self.repository();
                self.pair.primary.delete_repository(repository).await;
                self.images.retain(|(of, ..)| *of != repository);
            }
            73..76 => self.rename().await,
            76..82 => {
                let layer = self.layer();
                let fault = *[
                    BlobFault::Absent,
                    BlobFault::Altered,
                    BlobFault::CutAfter(1),
                    BlobFault::CutAfter(300_000),
                ]
                .choose(&mut self.random)
                .unwrap();
                self.pair.faults.fail_blob(Digest::sha256(&layer), fault);
            }
            82..85 => self.pair.faults.blobs.lock().clear(),
            85..88 => self.pair.faults.set_online(self.random.random()),
            88..92 => {
                let fault = [
                    ListingFault::None,
                    ListingFault::Truncated,
                    ListingFault::Failing,
                    ListingFault::Paged(3),
                ];
                *self.pair.faults.listings.lock() = *fault.choose(&mut self.random).unwrap();
            }
            92..95 => {
                let seed = self.random.random();
                self.pair.faults.fail_at_random(seed, 4);
            }
            _ => {
                self.pair.stop().await;
                self.pair.start().await;
            }
        }
    }

    async fn push_image(&mut self) {
        let repository = self.repository();
        let layers = [self.layer(), self.layer()];
        let tags = self.tags();
        let (digest, size) = self.pair.primary.push_image(repository, &[&layers[0], &layers[1]], &tags).await;
        self.images.push((repository, digest, size));
    }

    async fn push_index(&mut self) {
        let repository = self.repository();
        // Of another repository now and then: an index may be sparse.
        let sparse = self.random.random_ratio(1, 4);
        let known: Vec<_> =
            self.images.iter().filter(|(of, ..)| sparse || *of == repository).copied().collect();
        let children: Vec<_> =
            known.choose_multiple(&mut self.random, 3).map(|(_, d, s)| (*d, *s, "amd64")).collect();
        let tags = self.tags();
        let (digest, size) = self.pair.primary.push_index(repository, &children, &tags).await;
        self.images.push((repository, digest, size));
    }

    async fn push_referrer(&mut self) {
        if let Some((repository, digest, size)) = self.images.choose(&mut self.random).copied() {
            let referrer = self.pair.primary.push_referrer(repository, (digest, size)).await;
            self.images.push((repository, referrer.0, referrer.1));
        }
    }

    async fn rename(&mut self) {
        let (from, to) = (self.repository(), self.repository());
        let exists =
            self.pair.primary.metadata.repository(&crate::registry::name(to)).await.unwrap().is_some();
        if from != to && !exists && self.pair.primary.rename(from, to).await {
            for (of, ..) in self.images.iter_mut().filter(|(of, ..)| *of == from) {
                *of = to;
            }
        }
    }
}

async fn live(seed: u64, pair: Pair) {
    // Shown where the test fails.
    eprintln!("seed {seed}");
    let mut life = Life { random: StdRng::seed_from_u64(seed), pair, images: Vec::new() };
    let join_at = life.random.random_range(0..STEPS / 2);
    for step in 0..STEPS {
        if step == join_at {
            life.pair.join().await;
            life.pair.start().await;
        }
        if step < join_at {
            life.push_image().await;
        } else {
            life.step().await;
        }
    }
    life.pair.faults.heal();
    life.pair.converged().await;
    life.pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sites_are_equal_after_any_life_on_sqlite() {
    let seed = twinport_testkit::seed();
    for offset in 0..twinport_testkit::number("TWINPORT_TEST_LIVES", 4) {
        Box::pin(live(seed + offset, Pair::on_sqlite().await)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sites_are_equal_after_any_life_on_postgresql() {
    let seed = twinport_testkit::seed();
    for offset in 0..twinport_testkit::number("TWINPORT_TEST_LIVES", 2) {
        match Pair::on_postgresql().await {
            Some(pair) => Box::pin(live(seed + offset, pair)).await,
            None => println!("skipped: PostgreSQL is not installed"),
        }
    }
}
