//! The state that a log describes: events applied one after the other, each only where it can be.

use std::collections::BTreeMap;

use twinport_metadata::{Event, EventKind, ListedRow, ListingCursor, LoggedEvent, Metadata, RepositoryUuid};
use twinport_oci::Digest;

/// What a registry holds, by identity.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct State(pub(crate) BTreeMap<RepositoryUuid, RepositoryState>);

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RepositoryState {
    pub(crate) path: String,
    /// Sizes.
    pub(crate) blobs: BTreeMap<Digest, u64>,
    pub(crate) manifests: BTreeMap<Digest, ManifestState>,
    pub(crate) tags: BTreeMap<String, Digest>,
    /// The seq of the event that last changed each row, by what the row is; none while in motion.
    pub(crate) positions: BTreeMap<String, Option<i64>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ManifestState {
    pub(crate) media_type: String,
    pub(crate) size: u64,
    pub(crate) subject: Option<Digest>,
}

/// Which blobs each manifest needs.
pub(crate) type Closures = BTreeMap<Digest, Vec<Digest>>;

/// Replays a log from its very beginning.
///
/// # Panics
/// When it is not dense, when its hashes do not chain, or when an event does not fit the state before it.
pub(crate) async fn replay(metadata: &Metadata, log: &[LoggedEvent], closures: &Closures) -> State {
    let mut hash = metadata.epochs().await.unwrap().first().unwrap().base_hash;
    let mut state = State::default();
    for (logged, seq) in log.iter().zip(1..) {
        assert_eq!(logged.position.seq, seq, "the log is dense");
        assert!(logged.continues(&hash), "event {seq} continues the hash");
        hash = logged.hash;
        let event = logged.event().unwrap();
        state.apply(&event, closures);
        if let Some(repository) = event.repository.and_then(|uuid| state.0.get_mut(&uuid)) {
            repository.place(&event, seq);
        }
    }
    state
}

impl State {
    fn apply(&mut self, event: &Event, closures: &Closures) {
        let uuid = event.repository.expect("a registry event names its repository");
        let path = event.path.as_ref().expect("a registry event names its path").to_string();
        if event.kind == EventKind::RepositoryCreated {
            self.assert_free(&path, event);
            let created = RepositoryState { path, ..RepositoryState::default() };
            assert!(self.0.insert(uuid, created).is_none(), "{event:?} comes once");
            return;
        }
        if event.kind == EventKind::RepositoryRenamed {
            self.assert_free(&path, event);
            let repository = self.0.get_mut(&uuid).expect("a renamed repository exists");
            assert_eq!(
                Some(repository.path.as_str()),
                event.previous_path.as_ref().map(|path| path.as_str())
            );
            repository.path = path;
            return;
        }
        let repository = self.0.get_mut(&uuid).unwrap_or_else(|| panic!("{event:?} is in a repository"));
        assert_eq!(repository.path, path, "{event:?} carries the path of its time");
        if event.kind == EventKind::RepositoryDeleted {
            self.0.remove(&uuid);
        } else {
            repository.apply(event, closures);
        }
    }

    fn assert_free(&self, path: &str, event: &Event) {
        assert!(self.0.values().all(|repository| repository.path != path), "{event:?} takes a free path");
    }
}

impl RepositoryState {
    fn place(&mut self, event: &Event, seq: i64) {
        let (digest, tag) = (event.digest, event.tag.as_ref());
        match &event.kind {
            EventKind::BlobUnlinked => self.positions.remove(&blob_row(digest.unwrap())),
            EventKind::ManifestDeleted => self.positions.remove(&manifest_row(digest.unwrap())),
            EventKind::TagDeleted => self.positions.remove(&tag_row(tag.unwrap().as_str())),
            EventKind::BlobLinked => self.positions.insert(blob_row(digest.unwrap()), Some(seq)),
            EventKind::ManifestPushed => self.positions.insert(manifest_row(digest.unwrap()), Some(seq)),
            EventKind::TagSet => self.positions.insert(tag_row(tag.unwrap().as_str()), Some(seq)),
            _ => self.positions.insert(REPOSITORY_ROW.to_owned(), Some(seq)),
        };
    }

    fn apply(&mut self, event: &Event, closures: &Closures) {
        let digest = event.digest;
        match &event.kind {
            EventKind::BlobLinked => {
                let known = self.blobs.insert(digest.unwrap(), event.size.unwrap());
                assert_eq!(known, None, "{event:?} links what was not linked");
            }
            EventKind::BlobUnlinked => {
                self.blobs
                    .remove(&digest.unwrap())
                    .unwrap_or_else(|| panic!("{event:?} unlinks what was linked"));
            }
            EventKind::ManifestPushed => {
                let digest = digest.unwrap();
                for blob in closures.get(&digest).into_iter().flatten() {
                    assert!(self.blobs.contains_key(blob), "{event:?} comes after its blobs");
                }
                let pushed = ManifestState {
                    media_type: event.media_type.clone().unwrap(),
                    size: event.size.unwrap(),
                    subject: event.subject,
                };
                assert_eq!(
                    self.manifests.insert(digest, pushed),
                    None,
                    "{event:?} pushes what was not there"
                );
            }
            EventKind::ManifestDeleted => {
                let digest = digest.unwrap();
                assert!(self.manifests.remove(&digest).is_some(), "{event:?} deletes what was there");
                assert!(
                    self.tags.values().all(|named| *named != digest),
                    "{event:?} comes after its tags' deletion"
                );
            }
            EventKind::TagSet => {
                let digest = digest.unwrap();
                assert!(self.manifests.contains_key(&digest), "{event:?} comes after its manifest");
                let previous = self.tags.insert(event.tag.as_ref().unwrap().to_string(), digest);
                assert_eq!(previous, event.previous, "{event:?} knows what it replaces");
                assert_ne!(previous, Some(digest), "{event:?} changes something");
            }
            EventKind::TagDeleted => {
                let previous = self.tags.remove(event.tag.as_ref().unwrap().as_str());
                assert!(previous.is_some(), "{event:?} deletes what was there");
                assert_eq!(previous, event.previous, "{event:?} knows what it deletes");
            }
            other => panic!("{other:?} is no event of a repository's content"),
        }
    }
}

const REPOSITORY_ROW: &str = "repository";

fn blob_row(digest: Digest) -> String {
    format!("blob {digest}")
}

fn manifest_row(digest: Digest) -> String {
    format!("manifest {digest}")
}

fn tag_row(tag: &str) -> String {
    format!("tag {tag}")
}

/// What the database holds once every row has its position.
///
/// # Panics
/// When a row gets none within ten seconds.
pub(crate) async fn stored(metadata: &Metadata) -> State {
    for _ in 0..200 {
        let state = read(metadata).await;
        if state.0.values().all(|repository| repository.positions.values().all(Option::is_some)) {
            return state;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("some rows never get their positions: {:#?}", read(metadata).await);
}

/// What the database holds, read through the listings that other sites read.
async fn read(metadata: &Metadata) -> State {
    let mut state = State::default();
    let repositories = metadata.repository_rows("", 1000).await.unwrap();
    assert!(repositories.complete);
    for listed in repositories.rows {
        let mut repository = RepositoryState { path: listed.path, ..RepositoryState::default() };
        repository.positions.insert(REPOSITORY_ROW.to_owned(), listed.position_seq);
        let page =
            metadata.repository_listing(listed.uuid, ListingCursor::start(), 100_000).await.unwrap().unwrap();
        assert!(page.next.is_none());
        for row in page.rows {
            match row {
                ListedRow::BlobLink { digest, size, position_seq } => {
                    repository.positions.insert(blob_row(digest), position_seq);
                    repository.blobs.insert(digest, size.unwrap());
                }
                ListedRow::Manifest { digest, size, media_type, subject, position_seq } => {
                    repository.positions.insert(manifest_row(digest), position_seq);
                    repository.manifests.insert(digest, ManifestState { media_type, size, subject });
                }
                ListedRow::Tag { name, digest, position_seq } => {
                    repository.positions.insert(tag_row(&name), position_seq);
                    repository.tags.insert(name, digest);
                }
            }
        }
        state.0.insert(listed.uuid, repository);
    }
    state
}
