//! What nobody came back to: spools without a session, uploads in parts that were never completed.
//! Guards: a shared bucket is cleaned by age alone. Another node may be at work on what looks abandoned, so nothing that
//! was written to lately is touched.

use std::collections::BTreeMap;

use futures_util::stream::TryStreamExt;
use object_store::multipart::MultipartStore;
use twinport_oci::Digest;

use super::BucketBlobs;
use crate::{Error, Result, SpoolName};

/// A blob may wait this long for the commit that links it, in µs: longer than any request.
const COMMITTING_US: i64 = 3_600_000_000;

impl BucketBlobs {
    /// Spools that nothing was written to since `before_us`, by the bucket's clock.
    pub(crate) async fn stale_spools(&self, before_us: i64) -> Result<Vec<SpoolName>> {
        let mut newest: BTreeMap<SpoolName, i64> = BTreeMap::new();
        let mut objects = Box::pin(self.list(&self.keys.uploads(), true));
        while let Some(object) = objects.try_next().await? {
            if let Some((spool, _)) = self.keys.in_spool(&object.location) {
                let written = object.last_modified.timestamp_micros();
                newest.entry(spool).and_modify(|at| *at = written.max(*at)).or_insert(written);
            }
        }
        Ok(newest.into_iter().filter(|(_, written)| *written < before_us).map(|(spool, _)| spool).collect())
    }

    /// Aborts uploads in parts that were begun before `before_us`; how many.
    pub(crate) async fn abort_stale_uploads(&self, before_us: i64) -> Result<u64> {
        let mut aborted = 0;
        for prefix in [self.keys.uploads(), self.keys.blobs(twinport_oci::Algorithm::Sha256)] {
            for (key, id, begun) in self.open_uploads(&prefix).await? {
                let begun_us = begun.parse::<jiff::Timestamp>().map(|at| at.as_microsecond());
                if begun_us.is_ok_and(|begun_us| begun_us < before_us) {
                    let ended = self.s3.abort_multipart(&key, &id).await;
                    ended.map_err(|e| self.attempt("aborting the upload of", &key).failed(&e))?;
                    aborted += 1;
                }
            }
        }
        Ok(aborted)
    }

    /// Whether a blob was written so lately that its commit may still be under way.
    pub(crate) async fn may_await_commit(&self, digest: &Digest, now_us: i64) -> Result<bool, Error> {
        let meta = self.look(&self.keys.blob(digest)).await?;
        Ok(meta.is_some_and(|meta| meta.last_modified.timestamp_micros() > now_us - COMMITTING_US))
    }
}
