//! `/v2/<name>/blobs/<digest>`: whether a blob is there, its bytes or a part of them, and taking it away.
//! Invariant: knowing a digest is no permission: every answer begins with the link of this repository (hazard A6).

use std::ops::Range;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use twinport_access::Action;
use twinport_blobs::BlobFile;
use twinport_oci::{Digest, ErrorCode, RepositoryName};

use super::manifests::HEADERS;
use super::{Registry, check};
use crate::answer::{self, Answer, Caching, DigestNames};
use crate::error::Refusal;
use crate::grant::Grant;
use crate::range_response::{Multipart, Selection, content_range, unsatisfied_range};

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");
const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-store");
/// A browser that is sent here must not render what somebody pushed.
const ATTACHMENT: HeaderValue = HeaderValue::from_static("attachment");

/// HEAD: one index probe, no access to storage.
pub(crate) async fn head(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    digest: &Digest,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    let (size, names) = find(registry, grant, name, digest).await?;
    Ok(if names.none_match_fails(headers) { not_modified(grant, &names) } else { found(grant, size, &names) })
}

/// GET, whole or in part (OCI Distribution, "Pulling blobs").
pub(crate) async fn get(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    digest: &Digest,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    let (size, names) = find(registry, grant, name, digest).await?;
    if names.none_match_fails(headers) {
        return Ok(not_modified(grant, &names));
    }
    let selection = Selection::of(headers, size, names.etag());
    if selection == Selection::Unsatisfiable {
        let message = format!("no byte of the range exists: the blob has {size} bytes");
        return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::SizeInvalid, message)
            .with_header(CONTENT_RANGE, unsatisfied_range(size)));
    }
    if let Some(expiry) = registry.settings.redirect
        && let Some(url) = registry.blobs.presigned(digest, expiry).await?
    {
        return Ok(elsewhere(url, &names));
    }
    // A blob that metadata links and storage lacks is this site's fault, not the client's: never a 404.
    let file = registry.blobs.open_sized(digest, size).await?;
    let mut answer = found(grant, size, &names);
    if let Selection::Part(_) | Selection::Parts(_) = selection {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    *answer.body_mut() = match selection {
        Selection::Whole | Selection::Unsatisfiable => body(&file, 0..size).await?,
        Selection::Part(part) => {
            let headers = answer.headers_mut();
            headers.insert(CONTENT_RANGE, content_range(&part, size));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
            body(&file, part).await?
        }
        Selection::Parts(parts) => {
            let multipart = Multipart::new(parts, size, "application/octet-stream");
            let headers = answer.headers_mut();
            headers.insert(CONTENT_TYPE, multipart.content_type());
            headers.insert(CONTENT_LENGTH, HeaderValue::from(multipart.len()));
            Body::from_stream(logged(multipart.stream(move |part| file.stream(part))))
        }
    };
    Ok(answer)
}

/// DELETE: takes the blob away from this repository; its bytes stay until nothing links them.
pub(crate) async fn delete(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Answer, Refusal> {
    super::check_deletable(registry, grant, name)?;
    let guard = registry.tag_guard(grant, name).await?;
    if !registry.metadata.unlink_blob(name, digest, &guard, &grant.actor()).await? {
        return Err(unknown(digest));
    }
    Ok(answer::empty(StatusCode::ACCEPTED))
}

async fn find(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<(u64, DigestNames), Refusal> {
    check(grant, name, Action::Pull)?;
    let row = registry.metadata.blob(name, digest).await?.ok_or_else(|| unknown(digest))?;
    Ok((row.size, DigestNames::new(digest)))
}

fn unknown(digest: &Digest) -> Refusal {
    Refusal::not_found(ErrorCode::BlobUnknown)
        .with_detail(serde_json::json!({ "digest": digest.to_string() }))
}

/// The headers of a whole blob, for GET and HEAD alike.
fn found(grant: &Grant, size: u64, names: &DigestNames) -> Answer {
    let mut answer = Response::new(Body::empty());
    let headers = answer.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(CONTENT_TYPE, OCTETS);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    headers.insert(ACCEPT_RANGES, BYTES);
    Caching::Immutable.insert_into(grant, headers);
    headers.insert(CONTENT_DISPOSITION, ATTACHMENT);
    names.insert_into(headers);
    answer
}

/// 307: the bytes are to be had from the object storage, for a while, by whoever has this URL. So it is nobody else's to keep.
fn elsewhere(url: String, names: &DigestNames) -> Answer {
    let mut answer = answer::empty(StatusCode::TEMPORARY_REDIRECT);
    let headers = answer.headers_mut();
    answer::set_location(headers, url);
    headers.insert(CACHE_CONTROL, NOT_KEPT);
    names.insert_into(headers);
    // Of the blob, which this answer is not.
    headers.remove(ETAG);
    answer
}

fn not_modified(grant: &Grant, names: &DigestNames) -> Answer {
    let mut answer = answer::empty(StatusCode::NOT_MODIFIED);
    Caching::Immutable.insert_into(grant, answer.headers_mut());
    names.insert_into(answer.headers_mut());
    answer
}

/// A small part leaves in one segment with its header; of a larger one the first slice is had before the status is
/// sent, so that a disk that fails at once is still told apart from a blob.
async fn body(file: &BlobFile, part: Range<u64>) -> Result<Body, Refusal> {
    if part.is_empty() {
        return Ok(Body::empty());
    }
    let length = part.end - part.start;
    let mut slices = Box::pin(file.stream(part));
    let first = slices.try_next().await?.unwrap_or_default();
    if first.len() as u64 == length {
        return Ok(Body::from(first));
    }
    Ok(Body::from_stream(logged(stream::once(async { Ok(first) }).chain(slices))))
}

/// A failure in the middle cannot become a status any more: the connection breaks, and the log says why.
fn logged(
    slices: impl Stream<Item = twinport_blobs::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = twinport_blobs::Result<Bytes>> + Send + 'static {
    slices.inspect_err(|error| tracing::error!(%error, "a download broke off"))
}
