//! Putting a blob's bytes under its digest, mostly without moving them: the server copies segments, and only small
//! neighbours are read and joined.
//! Guards: an object appears under its digest as a whole, with the right length, or not at all. One that stands there
//! already is written again, never trusted: it may be the bad copy that this publish repairs (hazard S6).

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::PutPayload;
use object_store::multipart::PartId;
use object_store::path::Path;
use twinport_oci::Digest;
use uuid::Uuid;

use super::BucketBlobs;
use super::long_upload::{LongUpload, PartRequest};
use super::part_plan::{Part, Stretch, plan};
use super::segments::{Fingerprint, Mark, Segment};
use crate::local::blocking;
use crate::{Error, Result, SpoolName};

/// Bytes of a blob, as an object.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) key: Path,
    pub(super) len: u64,
}

impl BucketBlobs {
    /// The objects that a chain's bytes are in. Bridges and other empty segments have none.
    pub(super) fn sources(&self, spool: &SpoolName, chain: &[&Segment]) -> Vec<Source> {
        let folder = self.keys.spool(spool);
        let full = chain.iter().filter(|segment| segment.len() > 0);
        full.map(|segment| Source { key: folder.clone().join(segment.data_name()), len: segment.len() })
            .collect()
    }

    /// See [`crate::Blobs::publish`].
    pub(crate) async fn publish(
        self: &Arc<Self>,
        spool: &SpoolName,
        digest: &Digest,
        size: u64,
    ) -> Result<()> {
        let _claim = self.claim(spool)?;
        let segments = self.segments(spool).await?;
        let end = Mark { offset: size, fingerprint: Fingerprint::of_digest(digest) };
        let Some(chain) = segments.chain_to(&end) else {
            return Err(match segments.reach() {
                Some(actual) if actual != size => {
                    Error::SizeMismatch { spool: *spool, expected: size, actual }
                }
                _ => Error::SpoolMissing(*spool),
            });
        };
        let sources = self.sources(spool, &chain);
        let key = self.keys.blob(digest);
        self.assemble(&sources, &key, size).await?;
        match self.look(&key).await? {
            Some(meta) if meta.size == size => Ok(()),
            found => {
                let actual = found.map_or(0, |meta| meta.size);
                Err(Error::Corrupt { digest: *digest, expected: size, actual })
            }
        }
    }

    async fn assemble(self: &Arc<Self>, sources: &[Source], to: &Path, size: u64) -> Result<()> {
        match sources {
            [] => self.put(to, Vec::new()).await,
            [source] if size <= self.settings.copy_threshold => self.copy(&source.key, to).await,
            sources => {
                let lens: Vec<u64> = sources.iter().map(|source| source.len).collect();
                let parts = plan(&lens, self.settings.copy_chunk);
                if let [Part::Joined(stretches)] = parts.as_slice() {
                    let _turn = self.joining.acquire().await;
                    return self.put(to, self.join(sources, stretches).await?).await;
                }
                self.put_together(sources, parts, to, size).await
            }
        }
    }

    async fn put_together(
        self: &Arc<Self>,
        sources: &[Source],
        parts: Vec<Part>,
        to: &Path,
        size: u64,
    ) -> Result<()> {
        let mut upload = LongUpload::begin(self, to.clone()).await?;
        // Boxed: the compiler proves of no borrowing future in a stream that it may change threads.
        let requests: Vec<BoxFuture<'_, Result<PartId>>> = parts
            .iter()
            .enumerate()
            .map(|(number, part)| self.send_part(upload.part(number), sources, part).boxed())
            .collect();
        let at_once = self.settings.copy_concurrency.max(1);
        let sent: Result<Vec<PartId>> = stream::iter(requests).buffered(at_once).try_collect().await;
        match sent {
            Ok(parts) => {
                parts.into_iter().for_each(|part| upload.landed(part));
                upload.complete(size).await
            }
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    async fn send_part(
        self: &Arc<Self>,
        request: PartRequest,
        sources: &[Source],
        part: &Part,
    ) -> Result<PartId> {
        match part {
            Part::Copied(Stretch { source, range }) => {
                let _turn = self.copying.acquire().await;
                request.copy(&sources[*source].key, range).await
            }
            Part::Joined(stretches) => {
                // Held until it is sent: what is joined is in memory until then.
                let _turn = self.joining.acquire().await;
                let pieces = self.join(sources, stretches).await?;
                request.send(PutPayload::from_iter(pieces)).await
            }
        }
    }

    async fn join(self: &Arc<Self>, sources: &[Source], stretches: &[Stretch]) -> Result<Vec<Bytes>> {
        let mut joined = Vec::new();
        for Stretch { source, range } in stretches {
            let Source { key, len } = &sources[*source];
            let mut pieces = Box::pin(self.stream(key.clone(), range.clone(), Some(*len)));
            while let Some(piece) = pieces.try_next().await? {
                joined.push(piece);
            }
        }
        Ok(joined)
    }

    /// See [`crate::Blobs::put`]: one request. The name that is answered stands for nothing in the bucket.
    pub(crate) async fn store(self: &Arc<Self>, digest: &Digest, bytes: Bytes) -> Result<SpoolName> {
        let digest = *digest;
        let hashed = bytes.clone();
        let actual = blocking("hashing", move || Ok(Digest::of(digest.algorithm(), &hashed))).await?;
        if actual != digest {
            return Err(Error::DigestMismatch { expected: digest, actual: Box::new(actual) });
        }
        self.put(&self.keys.blob(&digest), vec![bytes]).await?;
        Ok(SpoolName::Put(digest, Uuid::new_v4()))
    }

    pub(crate) async fn unpublish(&self, digest: &Digest) -> Result<()> {
        self.delete(&self.keys.blob(digest)).await
    }
}
