//! Pushing: blobs first, children before parents, the tag last. An upload that breaks goes on where the registry says
//! it stands.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Body, StatusCode, header};
use twinport_oci::{Digest, Reference, RepositoryName, Tag};
use url::Url;

use super::{ATTEMPTS, RegistryClient, accept, location, pause, send, with_query};
use crate::{Error, Image, ImageBlob, ImageManifest, Result, Slice};

/// Blobs on their way at one time.
const CONCURRENT_BLOBS: usize = 4;
/// Up to this size (bytes) a blob goes in the request that closes its upload.
const ONE_REQUEST: u64 = 1024 * 1024;

/// What a push reports while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushStep {
    /// The registry has this blob already.
    Present { digest: Digest, size: u64 },
    /// Bytes handed to the network since the last report.
    Sent { bytes: u64 },
    /// Bytes that were handed to the network and did not arrive; they will be sent again.
    Lost { bytes: u64 },
    /// The registry acknowledged this blob.
    Blob { digest: Digest, size: u64 },
    /// The registry acknowledged this manifest.
    Manifest { digest: Digest },
}

impl RegistryClient {
    /// Pushes a whole image and tags it. Reports each step; the report must not block.
    pub async fn push_image(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        image: &Image,
        report: &(dyn Fn(PushStep) + Send + Sync),
    ) -> Result<()> {
        stream::iter(&image.blobs)
            .map(|blob| self.push_blob(repository, blob, report))
            .buffer_unordered(CONCURRENT_BLOBS)
            .try_collect::<Vec<()>>()
            .await?;
        let (root, children) = image.manifests.split_at(image.manifests.len() - 1);
        let (children, root) = (root, children);
        for child in children {
            self.put_manifest(repository, &Reference::Digest(child.digest), child).await?;
            report(PushStep::Manifest { digest: child.digest });
        }
        for root in root {
            self.put_manifest(repository, &Reference::Tag(tag.clone()), root).await?;
            report(PushStep::Manifest { digest: root.digest });
        }
        Ok(())
    }

    /// Pushes one blob unless the registry has it.
    pub async fn push_blob(
        &self,
        repository: &RepositoryName,
        blob: &ImageBlob,
        report: &(dyn Fn(PushStep) + Send + Sync),
    ) -> Result<()> {
        let (digest, size) = (blob.digest, blob.slice.len);
        if self.has_blob(repository, &digest).await? {
            report(PushStep::Present { digest, size });
            return Ok(());
        }
        let begin = self.http.post(self.url(repository, "blobs/uploads/")?).header(header::CONTENT_LENGTH, 0);
        let begun =
            accept("begin an upload", send("begin an upload", begin).await?, &[StatusCode::ACCEPTED]).await?;
        let mut at = location(&begun)?;
        if size <= ONE_REQUEST {
            let sent = AtomicU64::new(0);
            let closed = self.close(&at, &digest, Some((&blob.slice, &sent))).await;
            report(PushStep::Sent { bytes: size });
            closed?;
        } else {
            at = self.send_slice(at, &blob.slice, report).await?;
            self.close(&at, &digest, None).await?;
        }
        report(PushStep::Blob { digest, size });
        Ok(())
    }

    /// Puts a manifest under a tag or its digest.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        manifest: &ImageManifest,
    ) -> Result<()> {
        let doing = "take the manifest";
        let request = self
            .http
            .put(self.url(repository, &format!("manifests/{reference}"))?)
            .header(header::CONTENT_TYPE, manifest.media_type.as_str())
            .body(manifest.bytes.clone());
        let response = accept(doing, send(doing, request).await?, &[StatusCode::CREATED]).await?;
        if let Some(stored) = response.headers().get("docker-content-digest")
            && stored.to_str().ok() != Some(manifest.digest.to_string().as_str())
        {
            let reason = format!("it stored {} under another digest", manifest.digest);
            return Err(Error::Protocol { url: response.url().to_string(), reason });
        }
        Ok(())
    }

    /// Whether the repository links this blob.
    pub async fn has_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool> {
        let doing = "look for a blob";
        let response = send(doing, self.http.head(self.url(repository, &format!("blobs/{digest}"))?)).await?;
        let response = accept(doing, response, &[StatusCode::OK, StatusCode::NOT_FOUND]).await?;
        Ok(response.status() == StatusCode::OK)
    }

    /// Streams a slice into an upload, resuming after breaks. Answers the upload's last Location.
    async fn send_slice(
        &self,
        mut at: Url,
        slice: &Slice,
        report: &(dyn Fn(PushStep) + Send + Sync),
    ) -> Result<Url> {
        let doing = "take the upload";
        let mut offset = 0;
        let mut attempt = 0;
        loop {
            let sent = std::sync::Arc::new(AtomicU64::new(0));
            let mut request = self
                .http
                .patch(at.clone())
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_LENGTH, slice.len - offset)
                .body(counted(slice, offset, sent.clone()));
            if attempt > 0 || offset > 0 {
                request = request.header(header::CONTENT_RANGE, format!("{offset}-{}", slice.len - 1));
            }
            let answer = reporting(send(doing, request), &sent, report).await;
            let accepted = match answer {
                Ok(response) => accept(doing, response, &[StatusCode::ACCEPTED]).await,
                Err(error) => Err(error),
            };
            let error = match accepted {
                Ok(response) => return location(&response),
                Err(error) => error,
            };
            // 416: an earlier attempt got further than this process knew.
            let resumable = error.is_transient() || matches!(error, Error::Refused { status: 416, .. });
            attempt += 1;
            if !resumable || attempt > ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(pause(attempt)).await;
            let Ok((next, arrived)) = self.upload_status(&at).await else { continue };
            let claimed = offset + sent.load(Ordering::Relaxed);
            report(PushStep::Lost { bytes: claimed.saturating_sub(arrived) });
            if arrived > offset {
                attempt = 0;
            }
            offset = arrived.min(slice.len);
            at = next;
            if offset == slice.len {
                return Ok(at);
            }
        }
    }

    /// Where an upload stands: its Location and the bytes that arrived.
    async fn upload_status(&self, at: &Url) -> Result<(Url, u64)> {
        let doing = "tell an upload's status";
        let response =
            accept(doing, send(doing, self.http.get(at.clone())).await?, &[StatusCode::NO_CONTENT]).await?;
        // `Range: 0-N` counts the last byte; an empty upload also says 0-0, which costs one byte sent twice at most.
        let range =
            response.headers().get(header::RANGE).and_then(|value| value.to_str().ok()).unwrap_or("0-0");
        let last =
            range.trim_start_matches("bytes=").split_once('-').and_then(|(_, last)| last.parse::<u64>().ok());
        let arrived = last.filter(|last| *last > 0).map_or(0, |last| last + 1);
        Ok((location(&response).unwrap_or_else(|_| at.clone()), arrived))
    }

    /// Closes an upload, with its bytes where they all go at once.
    async fn close(&self, at: &Url, digest: &Digest, whole: Option<(&Slice, &AtomicU64)>) -> Result<()> {
        let doing = "take the blob";
        let request = self.http.put(with_query(at, "digest", &digest.to_string()));
        let request = match whole {
            None => request.header(header::CONTENT_LENGTH, 0),
            Some((slice, _)) => {
                let bytes: Vec<Bytes> = slice.stream(0).try_collect().await?;
                request.header(header::CONTENT_TYPE, "application/octet-stream").body(bytes.concat())
            }
        };
        accept(doing, send(doing, request).await?, &[StatusCode::CREATED]).await.map(drop)
    }
}

/// A body that counts what the network took.
fn counted(slice: &Slice, from: u64, sent: std::sync::Arc<AtomicU64>) -> Body {
    Body::wrap_stream(slice.stream(from).inspect_ok(move |chunk| {
        sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }))
}

/// Reports what `sent` grows by while a request is under way, and what is left when it ends.
async fn reporting<T>(
    request: impl Future<Output = T>,
    sent: &AtomicU64,
    report: &(dyn Fn(PushStep) + Send + Sync),
) -> T {
    let mut reported = 0;
    let mut tell = || {
        let now = sent.load(Ordering::Relaxed);
        if now > reported {
            report(PushStep::Sent { bytes: now - reported });
            reported = now;
        }
    };
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(100));
    tokio::pin!(request);
    loop {
        tokio::select! {
            answer = &mut request => {
                tell();
                return answer;
            }
            _ = ticks.tick() => tell(),
        }
    }
}
