//! Whatever happens, and however much at once: the log replayed onto nothing is the state.

use rand::{Rng, SeedableRng, rngs::StdRng};
use twinport_access::TagGuard;
use twinport_metadata::{Error, Metadata, PutManifest};
use twinport_oci::{Digest, RepositoryName};

use crate::{
    on_both_databases,
    replay::{Closures, replay, stored},
    site::{TestSite, actor, blob, manifest, name, tag},
};

on_both_databases!(
    random_operations_of_one_client_replay_to_the_state,
    random_operations_of_many_clients_replay_to_the_state,
);

const REPOSITORIES: [&str; 4] = ["app", "base", "app/web", "tools"];
const BLOBS: usize = 5;
const MANIFESTS: usize = 6;
const TAGS: [&str; 4] = ["latest", "v1", "v2", "edge"];

async fn random_operations_of_one_client_replay_to_the_state(site: TestSite) {
    let seed = seed();
    operate(site.metadata.clone(), seed, 250).await;
    check(&site, seed).await;
}

async fn random_operations_of_many_clients_replay_to_the_state(site: TestSite) {
    let seed = seed();
    let clients =
        (0..8).map(|client| tokio::spawn(operate(site.metadata.clone(), seed.wrapping_add(client), 80)));
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    check(&site, seed).await;
    assert_eq!(site.deadlocks().await, 0, "seed {seed}");
}

/// From TWINPORT_TEST_SEED where a failure is to be repeated.
fn seed() -> u64 {
    let seed = std::env::var("TWINPORT_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    eprintln!("TWINPORT_TEST_SEED={seed}");
    seed
}

async fn check(site: &TestSite, seed: u64) {
    let closures: Closures = (0..MANIFESTS).map(image).map(|put| (put.digest, put.blobs)).collect();
    let log = site.log().await;
    let replayed = replay(&site.metadata, &log, &closures).await;
    assert_eq!(replayed, stored(&site.metadata).await, "seed {seed}");
    // Every tag can be pulled.
    for repository in replayed.0.values() {
        for (text, digest) in &repository.tags {
            assert_eq!(site.resolve(&repository.path, text).await, Some(*digest), "seed {seed}");
        }
    }
}

/// The manifest `number` names two blobs and, from the third on, the first manifest as its subject.
fn image(number: usize) -> PutManifest {
    let layer = |number: usize| Digest::sha256(content(number % BLOBS).as_bytes());
    PutManifest {
        blobs: vec![layer(number), layer(number + 2)],
        subject: (number > 2).then(|| Digest::sha256(b"image 0")),
        ..manifest("app", &format!("image {number}"))
    }
}

fn content(blob: usize) -> String {
    format!("content of blob {blob}")
}

async fn operate(metadata: Metadata, seed: u64, operations: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..operations {
        let outcome = operation(&metadata, &mut random).await;
        match outcome {
            Ok(()) | Err(Error::BlobsUnknown(_) | Error::RepositoryExists(_)) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}

async fn operation(metadata: &Metadata, random: &mut StdRng) -> Result<(), Error> {
    let repository = any_repository(random);
    let layer = content(random.random_range(0..BLOBS));
    let mut put = image(random.random_range(0..MANIFESTS));
    put.repository = repository.clone();
    match random.random_range(0..100) {
        0..35 => {
            metadata.commit_blob(blob(repository.as_str(), &layer)).await?;
        }
        35..43 => {
            let digest = Digest::sha256(layer.as_bytes());
            metadata.mount_blob(&any_repository(random), &repository, &digest, &actor()).await?;
        }
        43..47 => {
            metadata
                .unlink_blob(&repository, &Digest::sha256(layer.as_bytes()), &TagGuard::default(), &actor())
                .await?;
        }
        47..82 => {
            let count = random.random_range(0..3);
            put.tags = (0..count).map(|_| tag(TAGS[random.random_range(0..TAGS.len())])).collect();
            metadata.put_manifest(put).await?;
        }
        82..88 => {
            metadata.delete_manifest(&repository, &put.digest, &TagGuard::default(), &actor()).await?;
        }
        88..94 => {
            metadata
                .delete_tag(
                    &repository,
                    &tag(TAGS[random.random_range(0..TAGS.len())]),
                    &TagGuard::default(),
                    &actor(),
                )
                .await?;
        }
        94..98 => {
            metadata.rename_repository(&repository, &any_repository(random), &actor()).await?;
        }
        _ => {
            metadata.delete_repository(&repository, &TagGuard::default(), &actor()).await?;
        }
    }
    Ok(())
}

fn any_repository(random: &mut StdRng) -> RepositoryName {
    name(REPOSITORIES[random.random_range(0..REPOSITORIES.len())])
}
