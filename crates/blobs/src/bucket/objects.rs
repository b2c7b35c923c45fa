//! Single objects: written, read whole, looked at, listed, removed. Every failure says what was done to which key.
//! Guards: a listing that a server cut short without saying so (hazard S7) is gone on with, not taken for whole.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error as Refusal, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutOptions, PutPayload,
};

use super::BucketBlobs;
use super::failure::Attempt;
use tokio::time::sleep;

use crate::{Error, Result};

/// Objects removed at one time, by a request each: not every server removes many in one.
const REMOVALS: usize = 16;
/// Answers to one request that may be lost in a row.
const ANSWERS_LOST: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);
/// An attempt of this length was one of many.
const LONG: Duration = Duration::from_secs(20);
/// What is read whole is never larger, unless somebody else wrote it.
const MOST_HELD: u64 = 1 << 20;
const OCTETS: &str = "application/octet-stream";

impl BucketBlobs {
    pub(super) fn attempt<'a>(&'a self, doing: &'static str, key: &'a Path) -> Attempt<'a> {
        Attempt { doing, bucket: &self.place, key: key.as_ref() }
    }

    /// What every object of ours carries.
    pub(super) fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::from_iter([(Attribute::ContentType, OCTETS)]);
        if let Some(class) = &self.settings.storage_class {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        attributes
    }

    /// Does something again that may be done twice, where an answer was lost on its way: `object_store` tries again what
    /// was refused, not what it could not read the answer of. What took long has been tried often enough.
    pub(super) async fn persist<T, F>(&self, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        for pause in (1..=ANSWERS_LOST).map(|number| PAUSE * number) {
            let began = Instant::now();
            match attempt().await {
                Err(error) if error.is_passing() && began.elapsed() < LONG => {
                    tracing::debug!(%error, "asking the object storage again");
                    sleep(pause).await;
                }
                settled => return settled,
            }
        }
        attempt().await
    }

    pub(super) async fn put(&self, key: &Path, pieces: Vec<Bytes>) -> Result<()> {
        let payload = PutPayload::from_iter(pieces);
        let payload = &payload;
        self.persist(|| async move {
            let options = PutOptions { attributes: self.attributes(), ..PutOptions::default() };
            let written = self.s3.put_opts(key, payload.clone(), options).await;
            written.map(drop).map_err(|e| self.attempt("writing", key).failed(&e))
        })
        .await
    }

    /// False where an object had the key already.
    pub(super) async fn put_new(&self, key: &Path, bytes: Bytes) -> Result<bool> {
        let options =
            PutOptions { mode: PutMode::Create, attributes: self.attributes(), ..PutOptions::default() };
        match self.s3.put_opts(key, bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(Refusal::AlreadyExists { .. } | Refusal::Precondition { .. }) => Ok(false),
            Err(e) => Err(self.attempt("claiming", key).failed(&e)),
        }
    }

    /// A small object whole; none where there is none.
    pub(super) async fn read_small(&self, key: &Path) -> Result<Option<Bytes>> {
        let failed = |e: Refusal| self.attempt("reading", key).failed(&e);
        let failed = &failed;
        self.persist(|| async move {
            match self.s3.get(key).await {
                Ok(got) if got.meta.size > MOST_HELD => {
                    let key = format!("{}/{key}", self.place);
                    Err(Error::Altered { key, expected: MOST_HELD, actual: got.meta.size })
                }
                Ok(got) => Ok(Some(got.bytes().await.map_err(failed)?)),
                Err(e) if is_absent(&e) => Ok(None),
                Err(e) => Err(failed(e)),
            }
        })
        .await
    }

    /// A range of an object, as it comes, and the size of the whole; none where there is no object.
    pub(super) async fn read_range(
        &self,
        key: &Path,
        range: std::ops::Range<u64>,
    ) -> Result<Option<(u64, impl Stream<Item = object_store::Result<Bytes>> + Send + 'static + use<>)>> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        match self.s3.get_opts(key, options).await {
            Ok(got) => Ok(Some((got.meta.size, got.into_stream()))),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(self.attempt("reading", key).failed(&e)),
        }
    }

    pub(super) async fn look(&self, key: &Path) -> Result<Option<ObjectMeta>> {
        self.persist(|| async move {
            match self.s3.head(key).await {
                Ok(meta) => Ok(Some(meta)),
                Err(e) if is_absent(&e) => Ok(None),
                Err(e) => Err(self.attempt("looking at", key).failed(&e)),
            }
        })
        .await
    }

    /// Removes an object; one that is absent is fine.
    pub(super) async fn delete(&self, key: &Path) -> Result<()> {
        self.persist(|| async move {
            match self.s3.delete(key).await {
                Ok(()) => Ok(()),
                Err(e) if is_absent(&e) => Ok(()),
                Err(e) => Err(self.attempt("removing", key).failed(&e)),
            }
        })
        .await
    }

    pub(super) async fn delete_all(&self, keys: Vec<Path>) -> Result<()> {
        // Boxed: the compiler proves of no borrowing future in a stream that it may change threads.
        let removals: Vec<_> = keys.iter().map(|key| self.delete(key).boxed()).collect();
        stream::iter(removals).buffer_unordered(REMOVALS).try_collect().await
    }

    /// Whether any object's key begins with `prefix`, by its text; the first of them.
    pub(super) async fn first_with(&self, prefix: &str) -> Result<Option<Path>> {
        let page = self.persist(|| async move {
            let options = PaginatedListOptions { max_keys: Some(1), ..PaginatedListOptions::default() };
            let listed = self.s3.list_paginated(Some(prefix), options).await;
            listed.map_err(|e| Attempt { doing: "listing", bucket: &self.place, key: prefix }.failed(&e))
        });
        let page = page.await?;
        Ok(page.result.objects.into_iter().next().map(|object| object.location))
    }

    pub(super) async fn first_below(&self, prefix: &Path) -> Result<Option<Path>> {
        self.first_with(&format!("{prefix}/")).await
    }

    /// Every object below `prefix`, by key. With `doubting`, a list ends when a page after its last key is empty: a server that
    /// forgets to say that there is more loses nothing.
    pub(super) fn list(
        &self,
        prefix: &Path,
        doubting: bool,
    ) -> impl Stream<Item = Result<ObjectMeta>> + Send + 'static + use<> {
        let (s3, place, prefix) = (self.s3.clone(), self.place.clone(), prefix.clone());
        async_stream::try_stream! {
            let attempt = Attempt { doing: "listing", bucket: &place, key: prefix.as_ref() };
            let (mut last, mut breaks): (Option<Path>, u32) = (None, 0);
            loop {
                let before = last.clone();
                let mut objects = match &before {
                    None => s3.list(Some(&prefix)),
                    Some(last) => s3.list_with_offset(Some(&prefix), last),
                };
                let broke = loop {
                    match objects.next().await {
                        // A server that starts over would have this go on for ever.
                        Some(Ok(object)) if last.as_ref().is_some_and(|last| *last >= object.location) => {}
                        Some(Ok(object)) => {
                            (last, breaks) = (Some(object.location.clone()), 0);
                            yield object;
                        }
                        Some(Err(e)) => break Some(attempt.failed(&e)),
                        None => break None,
                    }
                };
                match broke {
                    None if last == before || !doubting => break,
                    None => {}
                    Some(error) if breaks == ANSWERS_LOST || !error.is_passing() => Err(error)?,
                    Some(_) => {
                        breaks += 1;
                        sleep(PAUSE * breaks).await;
                    }
                }
            }
        }
    }
}

/// A key that is absent, which a bucket that is absent is not.
fn is_absent(error: &Refusal) -> bool {
    matches!(error, Refusal::NotFound { source, .. } if !source.to_string().contains("NoSuchBucket"))
}
