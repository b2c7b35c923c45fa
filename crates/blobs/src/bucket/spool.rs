//! Spools at rest: their length, their hash made anew, their list and their end.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::TryStreamExt;
use twinport_oci::{Algorithm, Digest, Hasher};

use super::BucketBlobs;
use super::publish::Source;
use super::segments::{Mark, Segment, Segments};
use crate::{Error, LeftoverSpool, Progress, Result, SpoolName};

impl BucketBlobs {
    pub(super) async fn segments(&self, spool: &SpoolName) -> Result<Segments> {
        let mut segments = Vec::new();
        // A segment that a list left out makes a chain that leads nowhere, which is an error and no loss.
        let mut objects = Box::pin(self.list(&self.keys.spool(spool), false));
        while let Some(object) = objects.try_next().await? {
            if let Some((_, name)) = self.keys.in_spool(&object.location) {
                segments.extend(Segment::parse(&name, object.last_modified.timestamp_micros()));
            }
        }
        Ok(Segments(segments))
    }

    pub(crate) async fn spool_len(&self, spool: &SpoolName) -> Result<Option<u64>> {
        Ok(self.segments(spool).await?.reach())
    }

    /// See [`crate::Blobs::rehash`]. Where the new hash is another than the one that the segments were named by, a bridge
    /// is left, an empty segment that leads from the one to the other, so that appending and publishing go on from it.
    pub(crate) async fn rehash(
        self: &Arc<Self>,
        spool: &SpoolName,
        len: u64,
        algorithm: Algorithm,
        known: Option<&Hasher>,
    ) -> Result<Progress> {
        let _claim = self.claim(spool)?;
        let segments = self.segments(spool).await?;
        let Some(reach) = segments.reach() else { return Err(Error::SpoolMissing(*spool)) };
        if reach < len {
            return Err(Error::OffsetMismatch { spool: *spool, offset: len, len: reach });
        }
        let end = match known {
            Some(hasher) => Mark::of(&Progress { offset: len, hasher: hasher.clone() }),
            None => likely_end(&segments, len),
        };
        let chain = segments.chain_to(&end).ok_or(Error::SpoolMissing(*spool))?;
        let sources = self.sources(spool, &chain);
        let hasher = self.hash_sources(&sources, len, Hasher::new(algorithm)).await?;
        let progress = Progress { offset: len, hasher };
        let mark = Mark::of(&progress);
        if len > 0 && end.offset == len && mark != end {
            let bridge = Segment { start: end, end: mark, long: None, written_us: 0 };
            self.put(&self.keys.spool(spool).join(bridge.name()), Vec::new()).await?;
        }
        Ok(progress)
    }

    async fn hash_sources(
        self: &Arc<Self>,
        sources: &[Source],
        len: u64,
        mut hasher: Hasher,
    ) -> Result<Hasher> {
        let mut left = len;
        for source in sources {
            let taken = left.min(source.len);
            hasher = self.hash_range(&source.key, 0..taken, hasher).await?;
            left -= taken;
        }
        Ok(hasher)
    }

    /// Removes all segments of a spool, also those in nobody's chain.
    pub(crate) async fn discard(&self, spool: &SpoolName) -> Result<()> {
        // A put has none: it was written where it belongs.
        if let SpoolName::Put(..) = spool {
            return Ok(());
        }
        let keys = self.list(&self.keys.spool(spool), false).map_ok(|object| object.location).try_collect();
        self.delete_all(keys.await?).await
    }

    pub(crate) async fn settle(&self, digest: &Digest) -> Result<()> {
        self.discard(&SpoolName::Transfer(*digest)).await
    }

    pub(crate) async fn spools(&self) -> Result<Vec<LeftoverSpool>> {
        let mut spools: BTreeMap<SpoolName, Segments> = BTreeMap::new();
        let mut objects = Box::pin(self.list(&self.keys.uploads(), true));
        while let Some(object) = objects.try_next().await? {
            if let Some((spool, name)) = self.keys.in_spool(&object.location) {
                let segments = &mut spools.entry(spool).or_default().0;
                segments.extend(Segment::parse(&name, object.last_modified.timestamp_micros()));
            }
        }
        let leftover = |(name, segments): (SpoolName, Segments)| LeftoverSpool {
            name,
            len: segments.reach().unwrap_or(0),
            links: 1,
        };
        Ok(spools.into_iter().map(leftover).collect())
    }
}

/// Where a session whose hash state was lost most likely stands: of the chains that reach `len`, the newest. Who goes on
/// from there checks the digest of the whole, as always.
fn likely_end(segments: &Segments, len: u64) -> Mark {
    let ends = segments.ends();
    let exact = ends.iter().filter(|(mark, _)| mark.offset == len).max_by_key(|(_, written)| *written);
    let longest = || ends.iter().filter(|(mark, _)| mark.offset > len).max_by_key(|(_, written)| *written);
    let found = exact.or_else(longest).map(|(mark, _)| (*mark).clone());
    found.unwrap_or_else(|| Mark::of(&Progress::start(Algorithm::Sha256)))
}
