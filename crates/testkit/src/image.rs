//! Images made from a seed, pushed and pulled over HTTP with every byte hashed.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use twinport_oci::Digest;

/// The media type of the manifests made here.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A small image: its blobs (config first) and its manifest.
#[derive(Clone, Debug)]
pub struct Image {
    pub blobs: Vec<Bytes>,
    pub manifest: Bytes,
}

impl Image {
    /// An image of `layers` layers of `size` bytes each; equal seeds give equal bytes.
    #[must_use]
    pub fn random(seed: u64, layers: usize, size: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let config = format!(r#"{{"architecture":"amd64","os":"linux","seed":{seed}}}"#);
        let mut blobs = vec![Bytes::from(config)];
        for _ in 0..layers {
            let mut layer = vec![0; size];
            random.fill_bytes(&mut layer);
            blobs.push(layer.into());
        }
        Self::of(blobs)
    }

    /// An image of these blobs, config first.
    #[must_use]
    pub fn of(blobs: Vec<Bytes>) -> Self {
        let describe = |media_type: &str, blob: &Bytes| serde_json::json!({"mediaType": media_type, "digest": Digest::sha256(blob).to_string(), "size": blob.len()});
        let layer = "application/vnd.oci.image.layer.v1.tar";
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": describe("application/vnd.oci.image.config.v1+json", &blobs[0]),
            "layers": blobs[1..].iter().map(|blob| describe(layer, blob)).collect::<Vec<_>>(),
        });
        Self { blobs, manifest: manifest.to_string().into() }
    }

    /// The manifest's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    /// Pushes blobs that the registry does not have, then the manifest under `reference`.
    ///
    /// # Errors
    /// When a request is refused, with its answer: the push is not acknowledged.
    pub async fn push(
        &self,
        http: &reqwest::Client,
        url: &str,
        repository: &str,
        reference: &str,
    ) -> anyhow::Result<()> {
        for blob in &self.blobs {
            push_blob(http, url, repository, blob).await?;
        }
        let address = format!("{url}/v2/{repository}/manifests/{reference}");
        let request = http.put(address).header("Content-Type", MANIFEST).body(self.manifest.clone());
        expect(request.send().await?, 201).await
    }
}

/// Pushes one blob in one request after its session, unless the registry has it.
///
/// # Errors
/// When a request is refused, with its answer.
pub async fn push_blob(
    http: &reqwest::Client,
    url: &str,
    repository: &str,
    blob: &Bytes,
) -> anyhow::Result<()> {
    let digest = Digest::sha256(blob);
    let head = http.head(format!("{url}/v2/{repository}/blobs/{digest}")).send().await?;
    if head.status().is_success() {
        return Ok(());
    }
    let address = format!("{url}/v2/{repository}/blobs/uploads/?digest={digest}");
    let request = http.post(address).header("Content-Type", "application/octet-stream").body(blob.clone());
    expect(request.send().await?, 201).await
}

/// Pulls a manifest by tag or digest and every blob it names; all bytes hashed. Its digest.
///
/// # Errors
/// When anything is missing or differs from its digest.
pub async fn pull_whole(
    http: &reqwest::Client,
    url: &str,
    repository: &str,
    reference: &str,
) -> anyhow::Result<Digest> {
    let address = format!("{url}/v2/{repository}/manifests/{reference}");
    let answer = http.get(&address).header("Accept", MANIFEST).send().await?;
    ensure!(answer.status().is_success(), "{address}: {}", answer.status());
    let manifest = answer.bytes().await?;
    let read: serde_json::Value = serde_json::from_slice(&manifest)?;
    let layers = read["layers"].as_array().context("layers")?;
    for described in std::iter::once(&read["config"]).chain(layers) {
        let digest = described["digest"].as_str().context("a digest")?;
        let answer = http.get(format!("{url}/v2/{repository}/blobs/{digest}")).send().await?;
        ensure!(answer.status().is_success(), "blob {digest} of {address}: {}", answer.status());
        ensure!(
            Digest::sha256(&answer.bytes().await?).to_string() == digest,
            "blob {digest} of {address} is altered"
        );
    }
    Ok(Digest::sha256(&manifest))
}

async fn expect(answer: reqwest::Response, status: u16) -> anyhow::Result<()> {
    let (address, got) = (answer.url().clone(), answer.status());
    ensure!(got.as_u16() == status, "{address}: {got}: {}", answer.text().await?);
    Ok(())
}
