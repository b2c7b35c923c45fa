//! The primary in the same process, behind faults that a test turns on and off, and counters of what crossed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::ready, stream};
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::watch;
use twinport_blobs::Blobs;
use twinport_geo::{
    BlobBody, Error, Feed, LogStream, ManifestBody, Peer, Refusal, RefusalCode, Result, Upstream,
    protocol::{
        AccessPage, Frame, FrameDecoder, ListingPage, RepositoryChecksum, RepositoryEntry, RepositoryPage,
        StatusReport,
    },
};
use twinport_metadata::{
    Incarnation, ListingCursor, LogHead, Metadata, RecordCursor, RecordName, RepositoryUuid,
};
use twinport_oci::Digest;

/// What happens to a blob on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlobFault {
    /// The primary says that it has no such blob.
    Absent,
    /// One byte is another.
    Altered,
    /// The connection breaks after this many bytes of each request.
    CutAfter(u64),
    /// After this many bytes nothing comes, and nothing breaks.
    SilentAfter(u64),
}

/// What happens to a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListingFault {
    #[default]
    None,
    /// It fails.
    Failing,
    /// It is empty, and does not say that it is complete.
    Empty,
    /// Its second half is missing, and it does not say that it is complete.
    Truncated,
    /// At most this many rows a page.
    Paged(u32),
}

/// A frame of the log as a test wants it seen.
pub(crate) type FrameHook = Box<dyn Fn(Frame) -> Frame + Send + Sync>;

/// What is broken, and what crossed.
pub(crate) struct Faults {
    online: watch::Sender<bool>,
    pub(crate) blobs: Mutex<HashMap<Digest, BlobFault>>,
    pub(crate) absent_manifests: Mutex<Vec<Digest>>,
    /// Manifests asked for are not answered before the primary goes out of reach.
    pub(crate) manifests_hang: Mutex<bool>,
    pub(crate) listings: Mutex<ListingFault>,
    pub(crate) frames: Mutex<Option<FrameHook>>,
    /// Calls that fail at random: one in this many.
    pub(crate) random: Mutex<Option<(StdRng, u32)>>,
    /// Bytes sent, by blob.
    pub(crate) sent: Mutex<BTreeMap<Digest, u64>>,
    /// Offsets asked for, by blob.
    pub(crate) offsets: Mutex<BTreeMap<Digest, Vec<u64>>>,
    /// Listing pages asked for.
    pub(crate) pages: Mutex<u64>,
    /// Access records that are not given out, by name.
    pub(crate) withheld_records: Mutex<Vec<String>>,
    /// Times that access records were asked for.
    pub(crate) access_pages: Mutex<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            online: watch::Sender::new(true),
            blobs: Mutex::default(),
            absent_manifests: Mutex::default(),
            manifests_hang: Mutex::default(),
            listings: Mutex::default(),
            frames: Mutex::default(),
            random: Mutex::default(),
            sent: Mutex::default(),
            offsets: Mutex::default(),
            pages: Mutex::default(),
            withheld_records: Mutex::default(),
            access_pages: Mutex::default(),
        }
    }
}

impl Faults {
    /// Takes the primary out of reach, breaking every stream, or brings it back.
    pub(crate) fn set_online(&self, online: bool) {
        self.online.send_replace(online);
    }

    pub(crate) fn fail_blob(&self, digest: Digest, fault: BlobFault) {
        self.blobs.lock().insert(digest, fault);
    }

    pub(crate) fn heal(&self) {
        self.set_online(true);
        self.blobs.lock().clear();
        self.absent_manifests.lock().clear();
        self.withheld_records.lock().clear();
        *self.manifests_hang.lock() = false;
        *self.listings.lock() = ListingFault::None;
        *self.frames.lock() = None;
        *self.random.lock() = None;
    }

    pub(crate) fn fail_at_random(&self, seed: u64, one_in: u32) {
        *self.random.lock() = Some((StdRng::seed_from_u64(seed), one_in));
    }

    fn check(&self) -> Result<()> {
        if !*self.online.borrow() {
            return Err(away("it is switched off"));
        }
        if let Some((random, one_in)) = &mut *self.random.lock()
            && random.random_ratio(1, *one_in)
        {
            return Err(away("this call was to fail"));
        }
        Ok(())
    }
}

fn away(reason: &str) -> Error {
    Error::Unreachable { url: "the primary in this process".to_owned(), reason: reason.to_owned() }
}

fn unknown(code: RefusalCode) -> Error {
    Refusal::new(code, "not here").into()
}

/// The primary in the same process.
pub(crate) struct InProcess {
    pub(crate) metadata: Metadata,
    pub(crate) blobs: Blobs,
    pub(crate) feed: Feed,
    pub(crate) reader: Incarnation,
    pub(crate) faults: Arc<Faults>,
}

impl InProcess {
    async fn peer(&self) -> Result<Peer> {
        self.faults.check()?;
        let site = self.metadata.site_record(self.reader).await?;
        let site = site.ok_or_else(|| unknown(RefusalCode::CredentialInvalid))?;
        if site.state == twinport_metadata::SiteState::Removed {
            return Err(unknown(RefusalCode::SiteRemoved));
        }
        Ok(Peer { site })
    }
}

impl Upstream for InProcess {
    async fn log(&self, from: LogHead) -> Result<LogStream> {
        let peer = self.peer().await?;
        let chunks = self.feed.open(&peer, from.into()).await?.into_stream().boxed();
        let online = self.faults.online.subscribe();
        let faults = Arc::clone(&self.faults);
        let state = (chunks, FrameDecoder::new(), online, faults);
        let frames = stream::unfold(Some(state), |state| async move {
            let (mut chunks, mut decoder, mut online, faults) = state?;
            loop {
                if let Some(frame) = decoder.next_frame().unwrap() {
                    let frame = match &*faults.frames.lock() {
                        Some(hook) => hook(frame),
                        None => frame,
                    };
                    return Some((Ok(frame), Some((chunks, decoder, online, faults))));
                }
                let chunk = tokio::select! {
                    _ = online.wait_for(|online| !online) => return Some((Err(away("it was switched off")), None)),
                    chunk = chunks.next() => chunk?,
                };
                match chunk {
                    Ok(chunk) => decoder.push(&chunk),
                    Err(error) => return Some((Err(error), None)),
                }
            }
        });
        Ok(frames.boxed())
    }

    async fn report(&self, report: &StatusReport) -> Result<()> {
        let peer = self.peer().await?;
        self.feed.report(&peer, report).await
    }

    async fn repositories(&self, after: &str, limit: u32) -> Result<RepositoryPage> {
        self.peer().await?;
        let fault = *self.faults.listings.lock();
        let limit = if let ListingFault::Paged(rows) = fault { rows } else { limit };
        let page = self.metadata.repository_rows(after, limit).await?;
        let mut repositories: Vec<_> = page
            .rows
            .into_iter()
            .map(|row| RepositoryEntry { uuid: row.uuid, path: row.path, position_seq: row.position_seq })
            .collect();
        match fault {
            ListingFault::None | ListingFault::Paged(_) => {
                Ok(RepositoryPage { repositories, complete: page.complete })
            }
            ListingFault::Failing => Err(away("listings fail")),
            ListingFault::Empty => Ok(RepositoryPage { repositories: Vec::new(), complete: false }),
            ListingFault::Truncated => {
                repositories.truncate(repositories.len() / 2);
                Ok(RepositoryPage { repositories, complete: false })
            }
        }
    }

    async fn listing(
        &self,
        repository: RepositoryUuid,
        after: Option<&str>,
        limit: u32,
    ) -> Result<ListingPage> {
        self.peer().await?;
        *self.faults.pages.lock() += 1;
        let cursor = after.map_or_else(ListingCursor::start, |after| after.parse().unwrap());
        let fault = *self.faults.listings.lock();
        let limit = if let ListingFault::Paged(rows) = fault { rows } else { limit };
        let page = self.metadata.repository_listing(repository, cursor, limit).await?;
        let page = page.ok_or_else(|| unknown(RefusalCode::RepositoryUnknown))?;
        let mut page = ListingPage {
            complete: page.next.is_none(),
            next: page.next.map(|next| next.to_string()),
            entries: page.rows.into_iter().map(Into::into).collect(),
        };
        match fault {
            ListingFault::None | ListingFault::Paged(_) => {}
            ListingFault::Failing => return Err(away("listings fail")),
            ListingFault::Empty => page = ListingPage { entries: Vec::new(), next: None, complete: false },
            ListingFault::Truncated => {
                page.entries.truncate(page.entries.len() / 2);
                page.complete = false;
                page.next = None;
            }
        }
        Ok(page)
    }

    async fn checksum(&self, repository: RepositoryUuid) -> Result<RepositoryChecksum> {
        self.peer().await?;
        let checksum = self.metadata.repository_checksum(repository).await?;
        Ok(checksum.ok_or_else(|| unknown(RefusalCode::RepositoryUnknown))?.into())
    }

    async fn access(&self, after: Option<&str>, limit: u32) -> Result<AccessPage> {
        self.peer().await?;
        *self.faults.access_pages.lock() += 1;
        let fault = *self.faults.listings.lock();
        let limit = if let ListingFault::Paged(rows) = fault { rows } else { limit };
        let after: Option<RecordCursor> = after.map(|after| after.parse().unwrap());
        let page = self.metadata.access_listing(after.as_ref(), limit).await?;
        let next = page.rows.last().filter(|_| !page.complete).map(|row| RecordCursor::after(&row.record));
        let mut page = AccessPage {
            records: page.rows.into_iter().map(Into::into).collect(),
            next: next.map(|next| next.to_string()),
            complete: page.complete,
        };
        match fault {
            ListingFault::None | ListingFault::Paged(_) => {}
            ListingFault::Failing => return Err(away("listings fail")),
            ListingFault::Empty => page = AccessPage { records: Vec::new(), next: None, complete: false },
            ListingFault::Truncated => {
                page.records.truncate(page.records.len() / 2);
                page.complete = false;
                page.next = None;
            }
        }
        Ok(page)
    }

    async fn access_records(&self, records: &[RecordName]) -> Result<AccessPage> {
        self.peer().await?;
        *self.faults.access_pages.lock() += 1;
        let mut records = self.metadata.access_records_named(records.to_vec()).await?;
        let withheld = self.faults.withheld_records.lock().clone();
        records.retain(|row| !withheld.contains(&row.record.name));
        Ok(AccessPage { records: records.into_iter().map(Into::into).collect(), next: None, complete: true })
    }

    async fn manifest(&self, repository: RepositoryUuid, digest: &Digest) -> Result<ManifestBody> {
        self.peer().await?;
        if *self.faults.manifests_hang.lock() {
            let _ = self.faults.online.subscribe().wait_for(|online| !online).await;
            // The log's end is noticed first.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            return Err(away("it was switched off"));
        }
        if self.faults.absent_manifests.lock().contains(digest) {
            return Err(unknown(RefusalCode::ManifestUnknown));
        }
        let manifest = self.metadata.manifest_of(repository, digest).await?;
        let manifest = manifest.ok_or_else(|| unknown(RefusalCode::ManifestUnknown))?;
        Ok(ManifestBody { media_type: Some(manifest.media_type), bytes: manifest.body })
    }

    async fn blob(&self, digest: &Digest, offset: u64) -> Result<BlobBody> {
        self.peer().await?;
        self.faults.offsets.lock().entry(*digest).or_default().push(offset);
        let fault = self.faults.blobs.lock().get(digest).copied();
        if fault == Some(BlobFault::Absent) {
            return Err(unknown(RefusalCode::BlobUnknown));
        }
        let size =
            self.metadata.blob_is_known(digest).await?.ok_or_else(|| unknown(RefusalCode::BlobUnknown))?;
        let file = self.blobs.open(digest).await?;
        let (faults, digest) = (Arc::clone(&self.faults), *digest);
        let mut left = match fault {
            Some(BlobFault::CutAfter(bytes) | BlobFault::SilentAfter(bytes)) => bytes,
            _ => u64::MAX,
        };
        let chunks = file.stream(offset..size).map(move |chunk| {
            let mut chunk = chunk?;
            if fault == Some(BlobFault::Altered) && !chunk.is_empty() {
                let mut bytes = chunk.to_vec();
                bytes[0] ^= 1;
                chunk = bytes.into();
            }
            if chunk.len() as u64 > left {
                chunk.truncate(usize::try_from(left).unwrap());
            }
            left -= chunk.len() as u64;
            *faults.sent.lock().entry(digest).or_default() += chunk.len() as u64;
            Ok(chunk)
        });
        let cut = matches!(fault, Some(BlobFault::CutAfter(_)));
        let mut broken = false;
        let chunks = chunks.flat_map(move |chunk: Result<Bytes>| {
            let mut items = Vec::new();
            if !broken {
                if cut && chunk.as_ref().is_ok_and(Bytes::is_empty) {
                    broken = true;
                    items.push(Err(away("the connection broke")));
                } else {
                    items.push(chunk);
                }
            }
            stream::iter(items)
        });
        let stream = if matches!(fault, Some(BlobFault::SilentAfter(_))) {
            let some = chunks.take_while(|chunk| ready(chunk.as_ref().is_ok_and(|bytes| !bytes.is_empty())));
            some.chain(stream::pending()).boxed()
        } else {
            chunks.boxed()
        };
        Ok(BlobBody { offset, size: Some(size), stream })
    }
}
