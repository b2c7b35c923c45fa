//! `/v2/<name>/manifests/<reference>`: manifests by tag and by digest, verbatim whatever the client accepts.
//! Invariant: what is answered has the bytes, the digest and the media type that were pushed; nothing is converted.

use std::collections::HashSet;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;
use tokio::time::timeout;
use twinport_access::{Action, TagGuard};
use twinport_metadata::{ManifestHead, PutManifest};
use twinport_oci::{
    Algorithm, Digest, ErrorCode, Manifest, ManifestError, MediaType, Reference, RepositoryName, Tag,
    canonical_digest,
};

use super::quotas::Addition;
use super::rules::{Most, check_foreign_urls};
use super::{Registry, check};
use crate::answer::{self, Answer, Caching, DigestNames, OCI_SUBJECT, OCI_TAG};
use crate::body::{BodyError, RequestBody};
use crate::error::Refusal;
use crate::grant::Grant;
use crate::query::Query;

/// Room for every header of an answer at once, with those that come later.
pub(super) const HEADERS: usize = 16;
/// Tags that one push may set; the specification wants at least 10.
const MAX_TAGS: usize = 100;
/// Manifests up to here are parsed and hashed where they arrived; larger ones on the blocking pool.
const SMALL: usize = 64 << 10;
/// Manifests up to here are not counted among the large ones.
const MEDIUM: u64 = 256 << 10;
/// A manifest has to arrive within this time: unlike a blob it is held in memory until it is there.
const RECEIVING: Duration = Duration::from_secs(120);

/// HEAD: one statement, which does not read the bytes.
pub(crate) async fn head(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    reference: &Reference,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    check(grant, name, Action::Pull)?;
    let head = registry.metadata.manifest_head(name, reference).await?.ok_or_else(|| unknown(reference))?;
    Ok(found(&head, grant, reference, headers))
}

/// GET: one statement (OCI Distribution, "Pulling manifests").
pub(crate) async fn get(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    reference: &Reference,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    check(grant, name, Action::Pull)?;
    let manifest = registry.metadata.manifest(name, reference).await?.ok_or_else(|| unknown(reference))?;
    let size = manifest.body.len() as u64;
    let head = ManifestHead { digest: manifest.digest, media_type: manifest.media_type, size };
    let mut answer = found(&head, grant, reference, headers);
    if answer.status() == StatusCode::OK {
        *answer.body_mut() = Body::from(manifest.body);
    }
    Ok(answer)
}

/// DELETE of a tag, or of a manifest with the tags that point at it.
pub(crate) async fn delete(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Answer, Refusal> {
    super::check_deletable(registry, grant, name)?;
    let (guard, actor) = (registry.tag_guard(grant, name).await?, grant.actor());
    if reference.digest().is_some() {
        // As GitLab has it: whatever tags the manifest has, a token that protects any deletes none by digest.
        for limits in grant.tag_limits(name) {
            limits.may_delete_manifests().map_err(|said| Refusal::denied(said.to_string()))?;
        }
    }
    let deleted = match reference {
        Reference::Tag(tag) => registry.metadata.delete_tag(name, tag, &guard, &actor).await?,
        Reference::Digest(digest) => registry.metadata.delete_manifest(name, digest, &guard, &actor).await?,
    };
    if !deleted {
        return Err(unknown(reference));
    }
    Ok(answer::empty(StatusCode::ACCEPTED))
}

/// PUT (OCI Distribution, "Pushing Manifests"; `?tag=` with a digest sets several tags at once).
pub(crate) async fn put(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    reference: &Reference,
    headers: &HeaderMap,
    query: &Query,
    body: &mut RequestBody,
) -> Result<Answer, Refusal> {
    check(grant, name, Action::Create)?;
    let tags = tags(reference, query)?;
    let content_type = content_type(headers)?;
    if body.is_worth_asking_first() {
        registry.check_writable().await?;
    }
    let rules = registry.rules().await?;
    let bytes = receive(registry, &Most::manifest(registry, &rules, name), body).await?;
    let algorithm = reference.digest().map_or(Algorithm::Sha256, |digest| digest.algorithm());
    let (manifest, digest) = read(bytes.clone(), content_type, algorithm).await?;
    if let Some(expected) = reference.digest().filter(|expected| *expected != digest) {
        return Err(Refusal::digest_mismatch(&expected, &digest));
    }
    check_foreign_urls(&rules, name, &manifest)?;
    let subject = manifest.subject.as_ref().map(|subject| subject.digest);
    let mut put = put_of(name, digest, manifest, bytes, tags.clone(), grant)?;
    put.guard = registry.tag_guard(grant, name).await?;
    let addition = Addition::Manifest { digest: &digest, bytes: put.body.len() as u64 };
    registry.check_quotas(&rules, name, addition).await?;
    registry.metadata.put_manifest(put).await?;

    let mut answer = answer::empty(StatusCode::CREATED);
    let headers = answer.headers_mut();
    DigestNames::new(&digest).insert_into(headers);
    answer::set_location(headers, registry.location(name, format_args!("manifests/{digest}")));
    if let Some(subject) = subject {
        headers.insert(OCI_SUBJECT, answer::digest_value(&subject));
    }
    if reference.digest().is_some() {
        for tag in &tags {
            headers.append(OCI_TAG, answer::visible(Bytes::from(tag.to_string())));
        }
    }
    Ok(answer)
}

/// The headers of a manifest, for GET and HEAD alike; 304 when the client holds it.
fn found(head: &ManifestHead, grant: &Grant, reference: &Reference, request: &HeaderMap) -> Answer {
    let names = DigestNames::new(&head.digest);
    let mut answer = Response::new(Body::empty());
    let caching = match reference {
        Reference::Tag(_) => Caching::Revalidate,
        Reference::Digest(_) => Caching::Immutable,
    };
    let unchanged = names.none_match_fails(request);
    let headers = answer.headers_mut();
    headers.reserve(HEADERS);
    if !unchanged {
        headers.insert(CONTENT_TYPE, answer::visible(Bytes::copy_from_slice(head.media_type.as_bytes())));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(head.size));
    }
    caching.insert_into(grant, headers);
    names.insert_into(headers);
    if unchanged {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    answer
}

fn unknown(reference: &Reference) -> Refusal {
    let what = match reference {
        Reference::Tag(tag) => json!({ "tag": tag.as_str() }),
        Reference::Digest(digest) => json!({ "digest": digest.to_string() }),
    };
    Refusal::not_found(ErrorCode::ManifestUnknown).with_detail(what)
}

/// The tags that a push sets: the one in its path, or those in its query.
fn tags(reference: &Reference, query: &Query) -> Result<Vec<Tag>, Refusal> {
    if let Reference::Tag(tag) = reference {
        return Ok(vec![tag.clone()]);
    }
    let mut tags: Vec<Tag> = Vec::new();
    for text in query.all("tag") {
        let tag: Tag = text.parse()?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() > MAX_TAGS {
            let message = format!("more than {MAX_TAGS} tags in one push: send the others in another");
            return Err(Refusal::new(StatusCode::URI_TOO_LONG, ErrorCode::TagInvalid, message));
        }
    }
    Ok(tags)
}

/// The media type without its parameters; none where the client sent none.
fn content_type(headers: &HeaderMap) -> Result<Option<MediaType>, Refusal> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().map_err(|_| {
        Refusal::bad_request(ErrorCode::ManifestInvalid, "the Content-Type holds bytes that are not ASCII")
    })?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(MediaType::parse(text)?))
}

async fn receive(registry: &Registry, most: &Most, body: &mut RequestBody) -> Result<Bytes, Refusal> {
    most.check(body.declared().unwrap_or(0))?;
    let large = body.declared().is_none_or(|size| size > MEDIUM);
    let receiving = async {
        // A permit holds until the bytes are here; what is parsed afterwards is bounded by the cores.
        let _held = if large { registry.large_manifests.acquire().await.ok() } else { None };
        body.take().collect(most.bytes).await
    };
    let Ok(received) = timeout(RECEIVING, receiving).await else {
        return Err(BodyError::Stalled.into());
    };
    match received {
        Ok(bytes) => Ok(bytes),
        Err((BodyError::TooLarge(_), _)) => Err(most.exceeded()),
        Err((error, _)) => Err(error.into()),
    }
}

/// Parses and hashes. Four MiB of JSON take long enough to hold up a reactor thread.
async fn read(
    bytes: Bytes,
    content_type: Option<MediaType>,
    algorithm: Algorithm,
) -> Result<(Manifest, Digest), Refusal> {
    let small = bytes.len() <= SMALL;
    let read = move || {
        let manifest = Manifest::parse(&bytes, content_type.as_ref())?;
        let digest = canonical_digest(&bytes, &manifest, algorithm);
        Ok::<_, ManifestError>((manifest, digest))
    };
    if small {
        return Ok(read()?);
    }
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => Ok(read?),
        Err(error) => Err(Refusal::internal("reading a manifest", &error)),
    }
}

fn put_of(
    name: &RepositoryName,
    digest: Digest,
    manifest: Manifest,
    body: Bytes,
    tags: Vec<Tag>,
    grant: &Grant,
) -> Result<PutManifest, Refusal> {
    let annotations = match manifest.annotations.is_empty() {
        true => String::new(),
        false => serde_json::to_string(&manifest.annotations)
            .map_err(|error| Refusal::internal("writing annotations", &error))?,
    };
    // Foreign layers are served by someone else: their bytes need not be here.
    let blobs = distinct(manifest.blobs().filter(|blob| !blob.is_foreign()).map(|blob| blob.digest));
    let manifests = distinct(manifest.children().map(|child| child.digest));
    Ok(PutManifest {
        repository: name.clone(),
        digest,
        media_type: manifest.media_type.as_str().to_owned(),
        artifact_type: manifest.artifact_type,
        subject: manifest.subject.map(|subject| subject.digest),
        annotations,
        body,
        blobs,
        manifests,
        tags,
        guard: TagGuard::default(),
        actor: grant.actor(),
    })
}

fn distinct(digests: impl Iterator<Item = Digest>) -> Vec<Digest> {
    let mut seen = HashSet::new();
    digests.filter(|digest| seen.insert(*digest)).collect()
}
