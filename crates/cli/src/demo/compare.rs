//! Pulls the image back from the secondary and compares every byte with what was pushed.

use std::pin::pin;

use anyhow::{Context as _, bail};
use futures_util::TryStreamExt as _;
use twinport_client::{Image, ImageBlob, RegistryClient};
use twinport_oci::{Reference, RepositoryName, Tag};

use super::progress::Meter;

/// What was compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compared {
    pub(super) manifests: usize,
    pub(super) blobs: usize,
    pub(super) bytes: u64,
}

/// Compares; the first difference is the error.
pub(super) async fn compare(
    secondary: &RegistryClient,
    repository: &RepositoryName,
    tag: &Tag,
    image: &Image,
) -> anyhow::Result<Compared> {
    let mut compared = Compared { manifests: 0, blobs: 0, bytes: 0 };
    let meter = Meter::of("compared", image.blob_bytes());
    let tagged = secondary.pull_manifest(repository, &Reference::Tag(tag.clone())).await?;
    if tagged.bytes != image.root().bytes {
        bail!(
            "{repository}:{tag} is another manifest on the secondary: {} instead of {}",
            tagged.digest,
            image.root().digest
        );
    }
    for manifest in &image.manifests {
        let pulled = secondary.pull_manifest(repository, &Reference::Digest(manifest.digest)).await?;
        if pulled.bytes != manifest.bytes || pulled.media_type.as_ref() != Some(&manifest.media_type) {
            bail!("manifest {} differs on the secondary", manifest.digest);
        }
        compared.manifests += 1;
        compared.bytes += manifest.bytes.len() as u64;
    }
    for blob in &image.blobs {
        compare_blob(secondary, repository, blob, &meter)
            .await
            .with_context(|| format!("the secondary's copy of {} is not what was pushed", blob.digest))?;
        compared.blobs += 1;
        compared.bytes += blob.slice.len;
    }
    meter.finish();
    Ok(compared)
}

/// Both sides a chunk at a time; nothing is held but the chunk.
async fn compare_blob(
    secondary: &RegistryClient,
    repository: &RepositoryName,
    blob: &ImageBlob,
    meter: &Meter,
) -> anyhow::Result<()> {
    let mut pushed = blob.slice.reader().await?;
    let mut pulled = pin!(secondary.pull_blob(repository, &blob.digest));
    let mut offset = 0u64;
    while let Some(chunk) = pulled.try_next().await? {
        let expected = pushed.next(chunk.len()).await?;
        if let Some(at) = first_difference(&expected, &chunk) {
            bail!("byte {} differs", offset + at as u64);
        }
        offset += chunk.len() as u64;
        meter.add(i64::try_from(chunk.len()).unwrap_or(i64::MAX));
    }
    if pushed.left() > 0 {
        bail!("it ends after {offset} bytes, {} are missing", pushed.left());
    }
    Ok(())
}

fn first_difference(expected: &[u8], actual: &[u8]) -> Option<usize> {
    if expected == actual {
        return None;
    }
    let equal = expected.iter().zip(actual).take_while(|(a, b)| a == b).count();
    Some(equal)
}
