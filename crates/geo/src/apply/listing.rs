//! Going through the primary's listing of a repository: what was there before this site followed it, and what a
//! checksum found to differ.
//! Invariant: a listing adds, and never takes away; one that fails, or does not say that it is complete, ends
//! nothing (hazard R3).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::timeout;
use twinport_metadata::{Listing, RepositoryUuid, TrackedRepository};
use twinport_oci::{Digest, MediaType, Tag};

use super::{
    CHUNK_MANIFEST_BYTES, Stop, commit,
    reduce::{At, Wanted, WantedLink, WantedManifest, WantedTag},
    resolve::{Ahead, Mode, resolve},
    whole,
};
use crate::{
    protocol::{EntryKind, ListingEntry, ListingPage},
    secondary::Engine,
    upstream::Upstream,
};

/// Rows asked for at a time.
const PAGE: u32 = 500;
const ANSWER: Duration = Duration::from_secs(90);

/// A listing on its way through.
struct Walk<'w, U> {
    engine: &'w Engine<U>,
    uuid: RepositoryUuid,
    /// Every event of the repository up to here is applied: what is listed at a later position comes by the log.
    base: At,
    /// Indexes, which wait until all that they may name has been seen.
    deferred: BTreeMap<Digest, WantedManifest>,
    last: Option<(EntryKind, Vec<u8>)>,
}

/// Applies the whole listing; whether more is waiting.
pub(super) async fn go_through<U: Upstream>(
    engine: &Engine<U>,
    tracked: &TrackedRepository,
) -> Result<bool, Stop> {
    let uuid = tracked.repository;
    let base = At { position: engine.position(tracked.applied_seq), at_us: engine.now_us(), certain: true };
    let mut walk = Walk { engine, uuid, base, deferred: BTreeMap::new(), last: None };
    let mut cursor: Option<String> = None;
    loop {
        let page = timeout(ANSWER, engine.upstream.listing(uuid, cursor.as_deref(), PAGE)).await;
        let page = page.map_err(|_| Stop::Failed(format!("the primary did not list it in {ANSWER:?}")))?;
        let page = page.map_err(|error| whole(engine.is_connected(), error))?;
        walk.check(&page).map_err(Stop::Failed)?;
        walk.page(&page).await?;
        cursor = page.next;
        if page.complete {
            break;
        }
    }
    let resolved = resolve(engine, uuid, Wanted::default(), Mode::Retries, false).await?;
    commit(engine, uuid, resolved, None, Listing::Finished).await
}

impl<U: Upstream> Walk<'_, U> {
    /// Refuses a page that cannot be part of a listing that only goes forward and says where it ends.
    fn check(&mut self, page: &ListingPage) -> Result<(), String> {
        if page.complete == page.next.is_some() || (page.entries.is_empty() && !page.complete) {
            return Err("the primary's listing neither goes on nor says that it is complete".to_owned());
        }
        for entry in &page.entries {
            let key = match (entry.kind, &entry.name) {
                (EntryKind::Tag, Some(name)) => name.as_bytes().to_vec(),
                (EntryKind::Tag, None) => return Err("the primary listed a tag without a name".to_owned()),
                _ => entry.digest.to_key(),
            };
            let place = Some((entry.kind, key));
            if place <= self.last {
                return Err("the primary's listing goes back, or repeats itself".to_owned());
            }
            self.last = place;
        }
        Ok(())
    }

    async fn page(&mut self, page: &ListingPage) -> Result<(), Stop> {
        let of = |kind: EntryKind| page.entries.iter().filter(move |entry| entry.kind == kind);
        let mut wanted = Wanted::default();
        // A link of a later position is made all the same: a manifest listed here may rest on it.
        for entry in of(EntryKind::BlobLink) {
            wanted.links.insert(entry.digest, WantedLink { at: self.at(entry), size: entry.size });
        }
        self.drop_held_links(&mut wanted).await?;
        self.apply(wanted, Ahead::Anything).await?;
        self.manifests(of(EntryKind::Manifest)).await?;
        let tags: Vec<_> = of(EntryKind::Tag).collect();
        if !tags.is_empty() || page.complete {
            self.indexes().await?;
        }
        let mut wanted = Wanted::default();
        for entry in tags.into_iter().filter(|entry| !self.comes_later(entry)) {
            let name = entry.name.as_deref().unwrap_or_default();
            let tag =
                Tag::parse(name).map_err(|error| Stop::Failed(format!("listed tag {name:?}: {error}")))?;
            wanted.tags.insert(tag, WantedTag { at: self.at(entry), digest: entry.digest });
        }
        self.apply(wanted, Ahead::Only(&BTreeSet::new())).await
    }

    fn comes_later(&self, entry: &ListingEntry) -> bool {
        entry.position_seq.is_some_and(|seq| seq > self.base.position.seq)
    }

    /// A row in motion was written at an unknown position: the base is one that none of its later events is below.
    fn at(&self, entry: &ListingEntry) -> At {
        match entry.position_seq {
            Some(seq) => At { position: self.engine.position(seq), ..self.base },
            None => At { certain: false, ..self.base },
        }
    }

    async fn drop_held_links(&self, wanted: &mut Wanted) -> Result<(), Stop> {
        let digests: Vec<Digest> = wanted.links.keys().copied().collect();
        let held = self.engine.metadata.linked_blobs(self.uuid, &digests).await?;
        wanted.links.retain(|digest, _| held.get(digest).is_none_or(|blob| !(blob.linked && blob.verified)));
        Ok(())
    }

    /// Images and everything else that names no manifest at once; indexes when all of them have been seen.
    async fn manifests<'e>(&mut self, entries: impl Iterator<Item = &'e ListingEntry>) -> Result<(), Stop> {
        let entries: Vec<_> = entries.filter(|entry| !self.comes_later(entry)).collect();
        let digests: Vec<Digest> = entries.iter().map(|entry| entry.digest).collect();
        let held = self.engine.metadata.held_manifests(self.uuid, &digests).await?;
        let mut wanted = Wanted::default();
        let mut bytes = 0;
        for entry in entries {
            if held.get(&entry.digest).is_some_and(|held| held.verified) {
                continue;
            }
            let manifest = WantedManifest { at: self.at(entry), media_type: entry.media_type.clone() };
            if entry.media_type.as_deref().is_some_and(is_index) {
                self.deferred.insert(entry.digest, manifest);
                continue;
            }
            bytes += entry.size.unwrap_or(0);
            wanted.manifests.insert(entry.digest, manifest);
            if bytes > CHUNK_MANIFEST_BYTES {
                self.apply(std::mem::take(&mut wanted), Ahead::Anything).await?;
                bytes = 0;
            }
        }
        self.apply(wanted, Ahead::Anything).await
    }

    /// Every manifest of the listing has been seen: indexes, those first that name none of the others.
    async fn indexes(&mut self) -> Result<(), Stop> {
        const AT_ONCE: usize = 16;
        while !self.deferred.is_empty() {
            let mut waiting = std::mem::take(&mut self.deferred);
            let before = waiting.len();
            while !waiting.is_empty() {
                let rest = match waiting.keys().nth(AT_ONCE).copied() {
                    Some(next) => waiting.split_off(&next),
                    None => BTreeMap::new(),
                };
                let manifests = std::mem::replace(&mut waiting, rest);
                let ahead = waiting.keys().chain(self.deferred.keys()).copied().collect();
                self.apply(Wanted { manifests, ..Wanted::default() }, Ahead::Only(&ahead)).await?;
            }
            if self.deferred.len() == before {
                return Err(Stop::Failed("the primary's indexes contain each other".to_owned()));
            }
        }
        Ok(())
    }

    async fn apply(&mut self, wanted: Wanted, ahead: Ahead<'_>) -> Result<(), Stop> {
        if wanted.links.is_empty() && wanted.manifests.is_empty() && wanted.tags.is_empty() {
            return Ok(());
        }
        let mut resolved = resolve(self.engine, self.uuid, wanted, Mode::Listing(ahead), true).await?;
        self.deferred.append(&mut resolved.deferred);
        commit(self.engine, self.uuid, resolved, None, Listing::AsBefore).await.map(drop)
    }
}

fn is_index(media_type: &str) -> bool {
    [MediaType::OCI_IMAGE_INDEX, MediaType::DOCKER_MANIFEST_LIST]
        .iter()
        .any(|known| known.as_str() == media_type)
}
