//! One object that is sent in parts: completed as a whole, or aborted.
//! Guards: an upload whose future is dropped is aborted once its last request has ended, as far as the process lives;
//! what a crash leaves is found by [`BucketBlobs::abort_stale_uploads`].

use std::sync::Arc;

use object_store::PutMultipartOptions;
use object_store::PutPayload;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;

use super::BucketBlobs;
use super::part_plan::MOST_PARTS;
use crate::Result;

/// An upload that is neither completed nor aborted.
#[derive(Debug)]
pub(super) struct LongUpload {
    store: Arc<BucketBlobs>,
    key: Path,
    /// None once it is completed or aborted.
    id: Option<String>,
    parts: Vec<PartId>,
}

impl LongUpload {
    pub(super) async fn begin(store: &Arc<BucketBlobs>, key: Path) -> Result<Self> {
        let target = &key;
        let begin = || async move {
            let options =
                PutMultipartOptions { attributes: store.attributes(), ..PutMultipartOptions::default() };
            let begun = store.s3.create_multipart_opts(target, options).await;
            begun.map_err(|e| store.attempt("beginning an upload of", target).failed(&e))
        };
        // One whose answer was lost stays until it is purged.
        let id = store.persist(begin).await?;
        Ok(Self { store: store.clone(), key, id: Some(id), parts: Vec::new() })
    }

    /// Where one part goes; its answer is handed to [`LongUpload::landed`] in order.
    pub(super) fn part(&self, number: usize) -> PartRequest {
        PartRequest {
            store: self.store.clone(),
            key: self.key.clone(),
            id: self.id.clone().unwrap_or_default(),
            number,
        }
    }

    pub(super) fn landed(&mut self, part: PartId) {
        self.parts.push(part);
    }

    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.parts.len() as u64 + 1 >= MOST_PARTS
    }

    /// Makes the parts one object of `size` bytes.
    pub(super) async fn complete(mut self, size: u64) -> Result<()> {
        let (Some(id), parts) = (self.id.clone(), std::mem::take(&mut self.parts)) else { return Ok(()) };
        let (store, key, id, parts) = (&self.store, &self.key, &id, &parts);
        let complete = || async move {
            let completed = store.s3.complete_multipart(key, id, parts.clone()).await;
            let Err(e) = completed else { return Ok(()) };
            // The answer to an attempt that succeeded may have been lost, and the next one finds no upload.
            if store.look(key).await?.is_some_and(|meta| meta.size == size) {
                return Ok(());
            }
            Err(store.attempt("completing the upload of", key).failed(&e))
        };
        store.persist(complete).await?;
        self.id = None;
        Ok(())
    }

    pub(super) async fn abort(mut self) {
        if let Some(id) = self.id.take() {
            abort(&self.store, &self.key, &id).await;
        }
    }
}

impl Drop for LongUpload {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let (store, key) = (self.store.clone(), self.key.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { abort(&store, &key, &id).await });
        }
    }
}

async fn abort(store: &BucketBlobs, key: &Path, id: &String) {
    if let Err(error) = store.s3.abort_multipart(key, id).await {
        let error = store.attempt("aborting the upload of", key).failed(&error);
        tracing::warn!(%error, "parts of an upload are left until they are purged");
    }
}

/// What a part needs to be sent, apart from the upload it belongs to.
#[derive(Debug)]
pub(super) struct PartRequest {
    store: Arc<BucketBlobs>,
    key: Path,
    id: String,
    number: usize,
}

impl PartRequest {
    pub(super) async fn send(self, payload: PutPayload) -> Result<PartId> {
        let (request, payload) = (&self, &payload);
        let send = || async move {
            let Self { store, key, id, number } = request;
            let sent = store.s3.put_part(key, id, *number, payload.clone()).await;
            sent.map_err(|e| store.attempt("sending a part of", key).failed(&e))
        };
        self.store.persist(send).await
    }

    pub(super) async fn copy(self, from: &Path, range: &std::ops::Range<u64>) -> Result<PartId> {
        let tag = self.store.copy_part(from, range, &self.key, &self.id, self.number + 1).await?;
        Ok(PartId { content_id: tag })
    }
}
