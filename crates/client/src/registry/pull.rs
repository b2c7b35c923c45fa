//! Pulling: every byte is hashed on its way, and a stream that breaks goes on from where it stopped.

use async_stream::try_stream;
use bytes::Bytes;
use futures_util::Stream;
use reqwest::{Response, StatusCode, header};
use twinport_oci::{
    Digest, Hasher, MAX_MANIFEST_BYTES, Manifest, MediaType, Reference, RepositoryName, canonical_digest,
};

use super::{ATTEMPTS, RegistryClient, accept, pause, send, unreachable};
use crate::{Error, Result};

/// Everything a manifest may be, so that an index is never answered by one of its children.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws, application/vnd.docker.distribution.manifest.v1+json, \
     application/vnd.oci.artifact.manifest.v1+json, */*";

/// A manifest as a registry served it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledManifest {
    pub digest: Digest,
    pub media_type: Option<MediaType>,
    pub bytes: Bytes,
}

impl RegistryClient {
    /// Pulls a manifest; a pull by digest is checked against it.
    pub async fn pull_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<PulledManifest> {
        let doing = "give the manifest";
        let request = self
            .http
            .get(self.url(repository, &format!("manifests/{reference}"))?)
            .header(header::ACCEPT, ACCEPT);
        let mut response = accept(doing, send(doing, request).await?, &[StatusCode::OK]).await?;
        let url = response.url().to_string();
        let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.and_then(|text| MediaType::parse(text).ok());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(doing, &url, &error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_MANIFEST_BYTES {
                let reason = format!("a manifest of more than {MAX_MANIFEST_BYTES} bytes");
                return Err(Error::Protocol { url, reason });
            }
        }
        let expected = reference.digest();
        let algorithm = expected.map_or(twinport_oci::Algorithm::Sha256, |digest| digest.algorithm());
        let digest = match Manifest::parse(&bytes, media_type.as_ref()) {
            Ok(manifest) => canonical_digest(&bytes, &manifest, algorithm),
            Err(_) => Digest::of(algorithm, &bytes),
        };
        match expected {
            Some(expected) if expected != digest => {
                Err(Error::DigestMismatch { expected, actual: Box::new(digest) })
            }
            _ => Ok(PulledManifest { digest, media_type, bytes: bytes.into() }),
        }
    }

    /// The bytes of a blob. The stream ends well only if they hash to its digest.
    pub fn pull_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let (client, repository, digest) = (self.clone(), repository.clone(), *digest);
        try_stream! {
            let mut hasher = Hasher::new(digest.algorithm());
            let mut offset = 0u64;
            let mut attempt = 0;
            loop {
                let mut response = match client.blob_from(&repository, &digest, offset).await {
                    Ok(response) => response,
                    Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                        attempt += 1;
                        tokio::time::sleep(pause(attempt)).await;
                        continue;
                    }
                    Err(error) => Err(error)?,
                };
                let broke = loop {
                    match response.chunk().await {
                        Ok(Some(chunk)) => {
                            attempt = 0;
                            offset += chunk.len() as u64;
                            hasher.update(&chunk);
                            yield chunk;
                        }
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                };
                let Some(error) = broke else { break };
                attempt += 1;
                if attempt > ATTEMPTS {
                    Err(unreachable("give the blob", response.url().as_str(), &error))?;
                }
                tokio::time::sleep(pause(attempt)).await;
            }
            let actual = hasher.finish();
            if actual != digest {
                Err(Error::DigestMismatch { expected: digest, actual: Box::new(actual) })?;
            }
        }
    }

    async fn blob_from(&self, repository: &RepositoryName, digest: &Digest, offset: u64) -> Result<Response> {
        let doing = "give the blob";
        let mut request = self.http.get(self.url(repository, &format!("blobs/{digest}"))?);
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        let expected = if offset > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        accept(doing, send(doing, request).await?, &[expected]).await
    }
}
