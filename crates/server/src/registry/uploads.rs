//! `/v2/<name>/blobs/uploads/`: sessions are begun, asked after and cancelled here; `receive` takes their bytes.
//! Invariant: a session is reached through its own repository only (hazard A5).

mod receive;

use std::sync::Arc;

use bytes::Bytes;
use http::header::RANGE;
use http::{HeaderMap, HeaderValue, StatusCode};
use twinport_access::Action;
use twinport_blobs::SpoolName;
use twinport_metadata::UploadSession;
use twinport_oci::{Algorithm, Digest, ErrorCode, Hasher, RepositoryName, UploadId};

pub(crate) use self::receive::{finish, patch};
use super::quotas::Addition;
use super::rules::Most;
use super::{Registry, check};
use crate::answer::{self, Answer, UPLOAD_UUID};
use crate::body::RequestBody;
use crate::error::Refusal;
use crate::grant::Grant;
use crate::query::Query;

/// Repositories looked at for a mount that names none: more would cost more than the upload of a small blob.
const SOURCES: u32 = 100;

/// POST: mounts a blob, takes a whole one, or begins a session (OCI Distribution, "Pushing blobs").
pub(crate) async fn begin(
    registry: &Arc<Registry>,
    grant: &Grant,
    name: &RepositoryName,
    query: &Query,
    body: &mut RequestBody,
) -> Result<Answer, Refusal> {
    check(grant, name, Action::Create)?;
    if let Some(mount) = query.get("mount") {
        let digest: Digest = mount.parse()?;
        if mounted(registry, grant, name, query.get("from"), &digest).await? {
            return Ok(created(registry, name, &digest));
        }
        // Not to be had: the client is given a session to push it.
    } else if let Some(digest) = query.get("digest") {
        return receive::whole(registry, grant, name, digest.parse()?, body).await;
    }
    let algorithm = query.get("digest-algorithm").map_or(Ok(Algorithm::Sha256), str::parse::<Algorithm>)?;
    registry.check_writable().await?;
    let bytes = body.declared().unwrap_or(0);
    registry.check_quotas(&*registry.rules().await?, name, Addition::Upload { bytes }).await?;
    let mut session = registry.metadata.begin_upload(name);
    if algorithm != Algorithm::Sha256 {
        // The session remembers it, so that no byte is hashed twice.
        session = registry.metadata.advance_upload(&session, 0, Hasher::new(algorithm).state()).await?;
    }
    Ok(progressed(registry, &session, StatusCode::ACCEPTED))
}

/// GET: how far a session is.
pub(crate) async fn status(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    id: &UploadId,
) -> Result<Answer, Refusal> {
    check(grant, name, Action::Create)?;
    let session = find(registry, name, id).await?;
    Ok(progressed(registry, &session, StatusCode::NO_CONTENT))
}

/// DELETE: ends a session without a blob; a body that is being written breaks off.
pub(crate) async fn cancel(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    id: &UploadId,
) -> Result<Answer, Refusal> {
    check(grant, name, Action::Create)?;
    find(registry, name, id).await?;
    let turn = registry.sessions.turn_after_cancelling(*id).await?;
    if turn.has_ended() || !registry.metadata.cancel_upload(name, id).await? {
        return Err(Refusal::not_found(ErrorCode::BlobUploadUnknown));
    }
    turn.end();
    registry.blobs.discard(&SpoolName::Upload(*id)).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Whether the blob could be linked from a repository that the client may read (hazard A6).
async fn mounted(
    registry: &Registry,
    grant: &Grant,
    to: &RepositoryName,
    from: Option<&str>,
    digest: &Digest,
) -> Result<bool, Refusal> {
    let sources = match from {
        // A name that no repository can have is a repository that does not exist.
        Some(from) => RepositoryName::parse(from).into_iter().collect(),
        None => registry.metadata.repositories_linking(digest, SOURCES).await?,
    };
    for source in sources.iter().filter(|source| grant.allows(source, Action::Pull)) {
        if !fits(registry, source, to, digest).await? {
            continue;
        }
        if registry.metadata.mount_blob(source, to, digest, &grant.actor()).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the rules of a repository have room for a blob of another one. A mount that does not fit is an upload, which is
/// refused with its reason.
async fn fits(
    registry: &Registry,
    from: &RepositoryName,
    to: &RepositoryName,
    digest: &Digest,
) -> Result<bool, Refusal> {
    let rules = registry.rules().await?;
    let most = Most::blob(registry, &rules, to);
    if !most.is_of_a_rule() && rules.quotas_on(to).next().is_none() {
        return Ok(true);
    }
    let Some(blob) = registry.metadata.blob(from, digest).await? else { return Ok(false) };
    let fits = match most.check(blob.size) {
        Ok(()) => registry.check_quotas(&rules, to, Addition::Blob { digest, bytes: blob.size }).await,
        refused => refused,
    };
    match fits {
        Err(refusal) if refusal.status().is_server_error() => Err(refusal),
        fits => Ok(fits.is_ok()),
    }
}

async fn find(registry: &Registry, name: &RepositoryName, id: &UploadId) -> Result<UploadSession, Refusal> {
    // A session without a row leaves nothing in the database when it ends.
    let session =
        if registry.sessions.have_ended(id) { None } else { registry.metadata.upload(name, id).await? };
    session.ok_or_else(|| Refusal::not_found(ErrorCode::BlobUploadUnknown))
}

/// 201 for a blob that can be pulled.
fn created(registry: &Registry, name: &RepositoryName, digest: &Digest) -> Answer {
    let mut answer = answer::empty(StatusCode::CREATED);
    let headers = answer.headers_mut();
    answer::set_location(headers, registry.location(name, format_args!("blobs/{digest}")));
    headers.insert(answer::CONTENT_DIGEST, answer::digest_value(digest));
    answer
}

/// Where a session is reached and how far it is.
fn progressed(registry: &Registry, session: &UploadSession, status: StatusCode) -> Answer {
    let mut answer = answer::empty(status);
    describe(registry, &session.repository, &session.id, session.offset, answer.headers_mut());
    answer
}

fn describe(registry: &Registry, name: &RepositoryName, id: &UploadId, offset: u64, headers: &mut HeaderMap) {
    answer::set_location(headers, registry.location(name, format_args!("blobs/uploads/{id}")));
    headers.insert(RANGE, received(offset));
    headers.insert(UPLOAD_UUID, answer::visible(Bytes::from(id.to_string())));
}

/// `0-<last byte>`. Nothing received is `0-0` too, as every registry says it and clients expect it.
fn received(offset: u64) -> HeaderValue {
    answer::visible(Bytes::from(format!("0-{}", offset.saturating_sub(1))))
}
