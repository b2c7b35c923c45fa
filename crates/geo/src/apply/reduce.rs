//! Many events of a repository, reduced to the last word on each link, manifest and tag.
//! Guards: events are taken in order, and none that says something about the content is passed over.

use std::collections::{BTreeMap, btree_map::Entry};

use twinport_metadata::{Event, EventKind, ItemKind, LogPosition, LoggedEvent, Removal, Removed, Unsettled};
use twinport_oci::{Digest, Tag};

use super::CHUNK_MANIFEST_BYTES;

/// When something became so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) position: LogPosition,
    /// By the origin's clock (µs since the epoch, UTC).
    pub(crate) at_us: i64,
    /// False for a listed row whose event may still be on its way: it is left alone where something is missing.
    pub(crate) certain: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WantedLink {
    pub(crate) at: At,
    /// Bytes, where known.
    pub(crate) size: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct WantedManifest {
    pub(crate) at: At,
    pub(crate) media_type: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WantedTag {
    pub(crate) at: At,
    pub(crate) digest: Digest,
}

/// What a repository is to have, and to have no more.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) links: BTreeMap<Digest, WantedLink>,
    pub(crate) manifests: BTreeMap<Digest, WantedManifest>,
    pub(crate) tags: BTreeMap<Tag, WantedTag>,
    /// In the order of the last event of each.
    pub(crate) removals: Vec<Removal>,
}

/// The last word of `events` on each thing, and the seq up to which they were taken: a chunk's manifests are held
/// in memory, so that a long run of large ones is cut.
pub(super) fn reduce(events: &[LoggedEvent]) -> Result<(Wanted, i64), String> {
    let mut wanted = Wanted::default();
    let mut through = 0;
    let mut bytes = 0;
    for logged in events {
        let event = logged.event().map_err(|error| error.to_string())?;
        if event.kind == EventKind::ManifestPushed {
            bytes += event.size.unwrap_or(0);
            if bytes > CHUNK_MANIFEST_BYTES && through > 0 {
                break;
            }
        }
        wanted
            .take(logged.position, &event)
            .ok_or_else(|| format!("event {} does not say what it is about", logged.position.seq))?;
        through = logged.position.seq;
    }
    Ok((wanted, through))
}

impl Wanted {
    /// Nothing that a client can see depends on it yet.
    pub(super) fn is_of_blobs_alone(&self) -> bool {
        self.manifests.is_empty() && self.tags.is_empty() && self.removals.is_empty()
    }

    fn take(&mut self, position: LogPosition, event: &Event) -> Option<()> {
        let at = At { position, at_us: event.at_us, certain: true };
        match event.kind {
            EventKind::BlobLinked => {
                self.links.insert(event.digest?, WantedLink { at, size: event.size });
                self.keep(&Removed::BlobLink(event.digest?));
            }
            EventKind::BlobUnlinked => {
                self.links.remove(&event.digest?);
                self.remove(Removed::BlobLink(event.digest?), at);
            }
            EventKind::ManifestPushed => {
                let manifest = WantedManifest { at, media_type: event.media_type.clone() };
                self.manifests.insert(event.digest?, manifest);
                self.keep(&Removed::Manifest(event.digest?));
            }
            EventKind::ManifestDeleted => {
                self.manifests.remove(&event.digest?);
                self.remove(Removed::Manifest(event.digest?), at);
            }
            EventKind::TagSet => {
                let tag = event.tag.clone()?;
                self.keep(&Removed::Tag(tag.clone()));
                self.tags.insert(tag, WantedTag { at, digest: event.digest? });
            }
            EventKind::TagDeleted => {
                let tag = event.tag.clone()?;
                self.tags.remove(&tag);
                self.remove(Removed::Tag(tag), at);
            }
            // Ingest has dealt with them.
            EventKind::RepositoryCreated
            | EventKind::RepositoryRenamed
            | EventKind::RepositoryDeleted
            | EventKind::SiteChanged
            | EventKind::AccessChanged => {}
            EventKind::Unknown(_) => return None,
        }
        Some(())
    }

    fn keep(&mut self, what: &Removed) {
        self.removals.retain(|removal| removal.what != *what);
    }

    fn remove(&mut self, what: Removed, at: At) {
        self.keep(&what);
        self.removals.push(Removal { what, position: at.position, at_us: at.at_us });
    }

    /// Wants again what failed before, unless something newer is wanted in its place.
    pub(super) fn again(
        &mut self,
        item: &Unsettled,
        position: LogPosition,
        now_us: i64,
    ) -> Result<(), String> {
        let at = At { position, at_us: now_us, certain: true };
        match item.kind {
            ItemKind::BlobLink => {
                if let Entry::Vacant(free) = self.links.entry(item.digest) {
                    free.insert(WantedLink { at, size: None });
                }
            }
            ItemKind::Manifest => {
                if let Entry::Vacant(free) = self.manifests.entry(item.digest) {
                    free.insert(WantedManifest { at, media_type: None });
                }
            }
            ItemKind::Tag => {
                let tag = Tag::parse(&item.key).map_err(|error| format!("tag {:?}: {error}", item.key))?;
                if let Entry::Vacant(free) = self.tags.entry(tag) {
                    free.insert(WantedTag { at, digest: item.digest });
                }
            }
        }
        Ok(())
    }
}
