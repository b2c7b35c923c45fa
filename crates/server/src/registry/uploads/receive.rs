//! Bytes on their way in: PATCH, the closing PUT, and the POST that brings a whole blob.
//! Invariant: 201 comes after the bytes, their directory entries and the link are durable, in that order; a body that
//! broke off leaves a session that says exactly how much arrived; a wrong digest leaves nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::header::{CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderMap, StatusCode};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use twinport_access::Action;
use twinport_blobs::{Progress, SpoolName};
use twinport_metadata::{CommitBlob, UploadSession};
use twinport_oci::{Algorithm, ContentRange, Digest, ErrorCode, Hasher, RepositoryName, UploadId};

use super::super::quotas::Addition;
use super::super::rules::Most;
use super::{Registry, check, created, describe, find, progressed};
use crate::answer::{Answer, UPLOAD_UUID};
use crate::body::{BodyError, RequestBody};
use crate::error::{Refusal, upload_out_of_step};
use crate::grant::Grant;

/// How long a request waits for another node that writes the same session, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(30);
const OCCUPIED: Duration = Duration::from_millis(20);

/// Whole blobs up to this many bytes are stored in one hop, without a spool of the session's own.
const SMALL: u64 = 64 << 10;

/// PATCH: the next bytes of a session, with a Content-Range or streamed.
pub(crate) async fn patch(
    registry: &Arc<Registry>,
    grant: &Grant,
    name: &RepositoryName,
    id: &UploadId,
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<Answer, Refusal> {
    check(grant, name, Action::Create)?;
    let chunk = Chunk::read(headers, body)?;
    let upload = Upload::open(registry, grant, name, id, &chunk, None).await?;
    let body = body.take();
    detached(async move { upload.patch(chunk, body).await }).await
}

/// PUT: the last bytes, if any, and the digest of the whole.
pub(crate) async fn finish(
    registry: &Arc<Registry>,
    grant: &Grant,
    name: &RepositoryName,
    id: &UploadId,
    headers: &HeaderMap,
    digest: Option<&str>,
    body: &mut RequestBody,
) -> Result<Answer, Refusal> {
    check(grant, name, Action::Create)?;
    let digest: Digest = digest
        .ok_or_else(|| {
            Refusal::bad_request(ErrorCode::DigestInvalid, "the query lacks digest, the digest of the blob")
        })?
        .parse()?;
    let chunk = Chunk::read(headers, body)?;
    let upload = Upload::open(registry, grant, name, id, &chunk, Some(&digest)).await?;
    let body = body.take();
    detached(async move { upload.finish(chunk, digest, body).await }).await
}

/// POST with a digest: a whole blob in one request, without a session.
pub(super) async fn whole(
    registry: &Arc<Registry>,
    grant: &Grant,
    name: &RepositoryName,
    digest: Digest,
    body: &mut RequestBody,
) -> Result<Answer, Refusal> {
    let rules = registry.rules().await?;
    let most = Most::blob(registry, &rules, name);
    most.check(body.declared().unwrap_or(0))?;
    // No session says that this site takes writes, and bytes published before a refusal would belong to nobody.
    registry.check_writable().await?;
    let addition = Addition::Blob { digest: &digest, bytes: body.declared().unwrap_or(1) };
    registry.check_quotas(&rules, name, addition).await?;
    let (registry, grant, name, body) = (registry.clone(), grant.clone(), name.clone(), body.take());
    detached(async move {
        if body.declared().is_some_and(|length| length <= SMALL) {
            let bytes = body.collect(SMALL).await.map_err(|(error, _)| error)?;
            most.check(bytes.len() as u64)?;
            return store_small(&registry, &grant, &name, None, digest, bytes).await;
        }
        let spool = SpoolName::Upload(UploadId::new());
        let stored = async {
            let start = Progress::start(digest.algorithm());
            let appended = registry
                .blobs
                .append(&spool, start, body, most.bytes)
                .await
                .map_err(|error| most.explain(error))?;
            if let Some(error) = appended.broken {
                return Err(Refusal::from(error));
            }
            same_digest(&digest, &appended.progress)?;
            let size = appended.progress.offset;
            registry.check_quotas(&rules, &name, Addition::Blob { digest: &digest, bytes: size }).await?;
            Ok(size)
        };
        match stored.await {
            Ok(size) => publish(&registry, &grant, &name, None, &spool, digest, size).await,
            Err(refusal) => {
                // No session leads back to these bytes.
                discard(&registry, &spool).await;
                Err(refusal)
            }
        }
    })
    .await
}

/// Runs to its end even when the client is gone: what arrived is to be recorded, and a publication finished.
async fn detached(
    work: impl Future<Output = Result<Answer, Refusal>> + Send + 'static,
) -> Result<Answer, Refusal> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(Refusal::internal("an upload", &error)),
    }
}

/// What a request says about the bytes that it brings.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    range: Option<ContentRange>,
    declared: Option<u64>,
}

impl Chunk {
    fn read(headers: &HeaderMap, body: &RequestBody) -> Result<Self, Refusal> {
        let declared = body.declared();
        let Some(value) = headers.get(CONTENT_RANGE) else { return Ok(Self { range: None, declared }) };
        let range: ContentRange = value.to_str().unwrap_or("(not ASCII)").parse()?;
        if declared.is_some_and(|length| length != range.len()) {
            let message = format!("the Content-Range {range} and the Content-Length do not agree");
            return Err(Refusal::bad_request(ErrorCode::SizeInvalid, message));
        }
        Ok(Self { range: Some(range), declared })
    }
}

/// A session's spool that no other node may write; dropping it lets go.
struct Occupied {
    registry: Arc<Registry>,
    spool: SpoolName,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.registry.blobs.release(&self.spool);
    }
}

impl Most {
    /// Says who set the limit that a body went past.
    fn explain(&self, error: twinport_blobs::Error) -> Refusal {
        match error {
            twinport_blobs::Error::SizeExceeded { limit } if limit == self.bytes => self.exceeded(),
            error => error.into(),
        }
    }
}

/// A session of which this request has the turn.
struct Upload {
    registry: Arc<Registry>,
    grant: Grant,
    session: UploadSession,
    most: Most,
    /// Against other nodes; let go before the turn, which is against other requests of this one.
    occupied: Option<Occupied>,
    turn: super::super::upload_turns::Turn,
}

impl Upload {
    /// Takes the turn and looks where the session stands: only then is that certain to stay so.
    async fn open(
        registry: &Arc<Registry>,
        grant: &Grant,
        name: &RepositoryName,
        id: &UploadId,
        chunk: &Chunk,
        digest: Option<&Digest>,
    ) -> Result<Self, Refusal> {
        let turn = registry.sessions.turn(*id).await?;
        let session = find(registry, name, id).await?;
        let rules = registry.rules().await?;
        let most = Most::blob(registry, &rules, name);
        let mut upload =
            Self { registry: registry.clone(), grant: grant.clone(), session, most, occupied: None, turn };
        if digest.is_none() || !upload.is_small(chunk) {
            upload.occupy().await?;
        }
        if chunk.range.is_some_and(|range| range.start != upload.session.offset) {
            return Err(upload.described(upload_out_of_step(upload.session.offset), upload.session.offset));
        }
        // What is certain to be too large is refused before it is sent.
        let bytes = upload.session.offset.saturating_add(chunk.declared.unwrap_or(0));
        upload.most.check(bytes)?;
        let addition = match digest {
            Some(digest) => Addition::Blob { digest, bytes },
            None => Addition::Upload { bytes },
        };
        registry.check_quotas(&rules, name, addition).await?;
        Ok(upload)
    }

    /// Whether a closing PUT brings all bytes, and so few that they need no spool of the session's own.
    fn is_small(&self, chunk: &Chunk) -> bool {
        self.session.offset == 0 && chunk.declared.is_some_and(|length| length <= SMALL)
    }

    /// Waits until no other node writes this session, and looks again where it stands: what was read before that may be
    /// history, and an append to where the session stood then would cut what another node has acknowledged since.
    async fn occupy(&mut self) -> Result<(), Refusal> {
        if !self.registry.blobs.has_holds() {
            // No other node has the store, or none could cut anything in it.
            return Ok(());
        }
        let spool = self.spool();
        let occupying = async {
            while !self.registry.blobs.occupy(&spool).await? {
                sleep(OCCUPIED).await;
            }
            Ok::<_, twinport_blobs::Error>(())
        };
        match timeout(PATIENCE, occupying).await {
            Ok(occupied) => occupied?,
            Err(_) => return Err(twinport_blobs::Error::SpoolBusy(spool).into()),
        }
        self.occupied = Some(Occupied { registry: self.registry.clone(), spool });
        self.session = match find(&self.registry, &self.session.repository, &self.session.id).await {
            Ok(session) => session,
            Err(refusal) => {
                // It ended meanwhile: nothing leads to these bytes.
                discard(&self.registry, &spool).await;
                return Err(refusal);
            }
        };
        Ok(())
    }

    fn spool(&self) -> SpoolName {
        SpoolName::Upload(self.session.id)
    }

    /// The session's row, where it has one, which the commit ends.
    fn stored(&self) -> Option<UploadId> {
        self.session.is_stored().then_some(self.session.id)
    }

    async fn patch(self, chunk: Chunk, body: RequestBody) -> Result<Answer, Refusal> {
        if body.is_ended() {
            return Ok(progressed(&self.registry, &self.session, StatusCode::ACCEPTED));
        }
        let start = self.start(None).await?;
        let (progress, broken) = self.append(start, &chunk, body).await?;
        let session = self.advance(&progress).await?;
        if let Some(error) = broken {
            return Err(self.described(error.into(), session.offset));
        }
        if chunk.range.is_some_and(|range| session.offset != range.end_inclusive + 1) {
            let message =
                "the body is shorter than its Content-Range: what arrived is kept, go on from there";
            return Err(self.described(Refusal::bad_request(ErrorCode::SizeInvalid, message), session.offset));
        }
        Ok(progressed(&self.registry, &session, StatusCode::ACCEPTED))
    }

    async fn finish(self, chunk: Chunk, digest: Digest, body: RequestBody) -> Result<Answer, Refusal> {
        if self.is_small(&chunk) {
            return self.finish_small(digest, body).await;
        }
        let mut progress = self.start(Some(digest.algorithm())).await?;
        if !body.is_ended() || self.session.offset == 0 {
            let (reached, broken) = self.append(progress, &chunk, body).await?;
            let short = chunk.range.is_some_and(|range| reached.offset != range.end_inclusive + 1);
            if broken.is_some() || short {
                let session = self.advance(&reached).await?;
                let refusal = broken.map_or_else(
                    || {
                        Refusal::bad_request(
                            ErrorCode::SizeInvalid,
                            "the body is shorter than its Content-Range",
                        )
                    },
                    Refusal::from,
                );
                return Err(self.described(refusal, session.offset));
            }
            progress = reached;
        }
        if progress.hasher.algorithm() != digest.algorithm() {
            // The client named the algorithm only now, and these bytes were hashed with the other.
            let known = Some(&progress.hasher);
            progress =
                self.registry.blobs.rehash(&self.spool(), progress.offset, digest.algorithm(), known).await?;
        }
        if let Err(refusal) = same_digest(&digest, &progress) {
            self.abandon().await;
            return Err(refusal);
        }
        // Before it is published: bytes that nothing links would stay until the next start.
        if let Err(refusal) = self.check_quotas(&digest, progress.offset).await {
            self.abandon().await;
            return Err(refusal);
        }
        let (name, stored) = (&self.session.repository, self.stored());
        let answer =
            publish(&self.registry, &self.grant, name, stored, &self.spool(), digest, progress.offset)
                .await?;
        self.turn.end();
        Ok(answer)
    }

    /// All bytes at once, and few: they are stored in one hop, and the session's spool never comes to be.
    async fn finish_small(mut self, digest: Digest, body: RequestBody) -> Result<Answer, Refusal> {
        let cancelled = self.turn.cancelled();
        let collected = tokio::select! {
            collected = body.collect(SMALL) => collected,
            () = cancelled.cancelled() => return Err(BodyError::Cancelled.into()),
        };
        match collected {
            Ok(bytes) => {
                self.most.check(bytes.len() as u64)?;
                if let Err(refusal) = self.check_quotas(&digest, bytes.len() as u64).await {
                    self.abandon().await;
                    return Err(refusal);
                }
                let (name, row) = (&self.session.repository, self.stored());
                let stored = store_small(&self.registry, &self.grant, name, row, digest, bytes).await;
                match &stored {
                    Ok(_) => self.turn.end(),
                    Err(refusal) if refusal.status() == StatusCode::BAD_REQUEST => self.abandon().await,
                    Err(_) => {}
                }
                stored
            }
            Err((error, arrived)) => {
                self.occupy().await?;
                if self.session.offset > 0 {
                    return Err(self.described(upload_out_of_step(self.session.offset), self.session.offset));
                }
                let start = self.start(Some(digest.algorithm())).await?;
                let kept = stream::iter([Ok::<_, BodyError>(arrived)]);
                let appended = self.registry.blobs.append(&self.spool(), start, kept, SMALL).await?;
                let session = self.advance(&appended.progress).await?;
                Err(self.described(error.into(), session.offset))
            }
        }
    }

    /// Where the session stands: its stored hash state, or the spool hashed anew where that cannot be read. Before
    /// the first byte the algorithm is still open: the digest's, else the session's own.
    async fn start(&self, digest: Option<Algorithm>) -> Result<Progress, Refusal> {
        let offset = self.session.offset;
        let stored = self.session.hash_state.as_deref().and_then(|state| Hasher::resume(state).ok());
        if offset == 0 {
            let own = stored.map(|hasher| hasher.algorithm());
            return Ok(Progress::start(digest.or(own).unwrap_or(Algorithm::Sha256)));
        }
        match stored {
            Some(hasher) => Ok(Progress { offset, hasher }),
            None => {
                let algorithm = digest.unwrap_or(Algorithm::Sha256);
                Ok(self.registry.blobs.rehash(&self.spool(), offset, algorithm, None).await?)
            }
        }
    }

    async fn append(
        &self,
        start: Progress,
        chunk: &Chunk,
        body: RequestBody,
    ) -> Result<(Progress, Option<BodyError>), Refusal> {
        let most = self.most.bytes;
        let limit = chunk.range.map_or(most, |range| most.min(range.end_inclusive.saturating_add(1)));
        let body = until_cancelled(body, self.turn.cancelled());
        match self.registry.blobs.append(&self.spool(), start, body, limit).await {
            Ok(appended) => Ok((appended.progress, appended.broken)),
            Err(twinport_blobs::Error::SizeExceeded { .. }) if limit < most => {
                let message = "the body is longer than its Content-Range: nothing of it was kept";
                let refusal = Refusal::bad_request(ErrorCode::SizeInvalid, message);
                Err(self.described(refusal, self.session.offset))
            }
            Err(error) => Err(self.most.explain(error)),
        }
    }

    /// Records what is durable. Another node may have got there first: then its bytes count, and 416 says so.
    async fn advance(&self, progress: &Progress) -> Result<UploadSession, Refusal> {
        let state = progress.hasher.state();
        let advanced = self.registry.metadata.advance_upload(&self.session, progress.offset, state).await;
        match advanced {
            Err(twinport_metadata::Error::UploadUnknown) => {
                // Cancelled or expired at another node, which left the spool to whoever was writing it.
                discard(&self.registry, &self.spool()).await;
                Err(twinport_metadata::Error::UploadUnknown.into())
            }
            Err(twinport_metadata::Error::UploadConflict { offset }) => {
                Err(self.described(upload_out_of_step(offset), offset))
            }
            advanced => Ok(advanced?),
        }
    }

    async fn check_quotas(&self, digest: &Digest, bytes: u64) -> Result<(), Refusal> {
        let rules = self.registry.rules().await?;
        self.registry.check_quotas(&rules, &self.session.repository, Addition::Blob { digest, bytes }).await
    }

    /// Ends a session whose bytes are not what the client took them for, or have no room.
    async fn abandon(&self) {
        let cancelled =
            self.registry.metadata.cancel_upload(&self.session.repository, &self.session.id).await;
        if let Err(error) = cancelled {
            tracing::warn!(upload = %self.session.id, %error, "could not end an upload with a wrong digest");
            return;
        }
        self.turn.end();
        discard(&self.registry, &self.spool()).await;
    }

    /// A refusal that tells the client where to go on.
    fn described(&self, mut refusal: Refusal, offset: u64) -> Refusal {
        let mut headers = HeaderMap::new();
        describe(&self.registry, &self.session.repository, &self.session.id, offset, &mut headers);
        for name in [LOCATION, RANGE, UPLOAD_UUID] {
            if let Some(value) = headers.remove(&name) {
                refusal = refusal.with_header(name, value);
            }
        }
        refusal
    }
}

/// The body, broken off when the session is cancelled.
fn until_cancelled(
    body: RequestBody,
    cancelled: CancellationToken,
) -> impl Stream<Item = Result<Bytes, BodyError>> {
    let end = cancelled.clone();
    let broken = stream::once(async move { end.is_cancelled().then_some(Err(BodyError::Cancelled)) });
    body.take_until(cancelled.cancelled_owned()).chain(broken.filter_map(|item| async move { item }))
}

fn same_digest(expected: &Digest, progress: &Progress) -> Result<(), Refusal> {
    let actual = progress.hasher.clone().finish();
    if actual == *expected {
        return Ok(());
    }
    Err(Refusal::digest_mismatch(expected, &actual))
}

async fn store_small(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    upload: Option<UploadId>,
    digest: Digest,
    bytes: Bytes,
) -> Result<Answer, Refusal> {
    let size = bytes.len() as u64;
    let spool = registry.blobs.put(&digest, bytes).await?;
    commit(registry, grant, name, upload, &spool, digest, size).await
}

async fn publish(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    upload: Option<UploadId>,
    spool: &SpoolName,
    digest: Digest,
    size: u64,
) -> Result<Answer, Refusal> {
    registry.blobs.publish(spool, &digest, size).await?;
    commit(registry, grant, name, upload, spool, digest, size).await
}

/// Links a published blob. The spool is kept when that fails: it names what nothing owns, and recovery clears both.
async fn commit(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    upload: Option<UploadId>,
    spool: &SpoolName,
    digest: Digest,
    size: u64,
) -> Result<Answer, Refusal> {
    let commit = CommitBlob { repository: name.clone(), digest, size, upload, actor: grant.actor() };
    if let Err(error) = registry.metadata.commit_blob(commit).await {
        registry.blobs.release(spool);
        return Err(error.into());
    }
    discard(registry, spool).await;
    Ok(created(registry, name, &digest))
}

async fn discard(registry: &Registry, spool: &SpoolName) {
    if let Err(error) = registry.blobs.discard(spool).await {
        tracing::warn!(%spool, %error, "could not remove a spool: the next start will");
    }
}
