//! One event of the log: what a committed change was, in bytes that are stored and shipped as they are.
//!
//! **Architecture invariant:** an event's body is encoded once, where it originates, and never again.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use twinport_oci::{Digest, RepositoryName, Tag};

use crate::{Error, Federation, LogPosition, RecordName, RepositoryUuid, Result};

/// The version of [`Event`] that this binary writes; it refuses to apply a higher one.
pub const EVENT_SCHEMA: u32 = 1;

/// A committed change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The schema of this body, [`EVENT_SCHEMA`].
    pub v: u32,
    pub kind: EventKind,
    /// When it was committed, by the origin's clock (µs since the epoch, UTC). For people: nothing is ordered by it.
    pub at_us: i64,
    /// The name of the site where the change was made.
    pub origin: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryUuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RepositoryName>,
    /// The path before a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_path: Option<RepositoryName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Bytes of the manifest or blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// What the tag pointed at before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// The site that joined or was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<serde_json::Value>,
    /// The access record that changed. What it holds now is fetched, so that no secret is ever in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordName>,
}

/// What kind of change an event is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    RepositoryCreated,
    RepositoryRenamed,
    RepositoryDeleted,
    BlobLinked,
    BlobUnlinked,
    ManifestPushed,
    ManifestDeleted,
    TagSet,
    TagDeleted,
    SiteChanged,
    AccessChanged,
    /// A kind that a newer site writes: ingest stops at it, it is never skipped.
    #[serde(untagged)]
    Unknown(String),
}

impl Event {
    /// An event of `kind`, made at `origin` at `at_us`; the other fields are set by the caller.
    #[must_use]
    pub fn new(kind: EventKind, origin: impl Into<String>, at_us: i64) -> Self {
        Self {
            v: EVENT_SCHEMA,
            kind,
            at_us,
            origin: origin.into(),
            repository: None,
            path: None,
            previous_path: None,
            digest: None,
            media_type: None,
            size: None,
            subject: None,
            tag: None,
            previous: None,
            actor: None,
            correlation: None,
            site: None,
            record: None,
        }
    }

    /// The bytes that the log stores.
    ///
    /// # Errors
    /// [`Error::Bug`] when the event cannot be written as JSON, which no event can cause.
    pub fn encode(&self) -> Result<Bytes> {
        serde_json::to_vec(self).map(Bytes::from).map_err(|error| Error::Bug(error.to_string()))
    }
}

/// An event with its place in history, its body as the origin wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEvent {
    pub position: LogPosition,
    /// The running hash over the log up to and with this event.
    pub hash: [u8; 32],
    pub body: Bytes,
}

impl LoggedEvent {
    /// The body, read.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the bytes are no event.
    pub fn event(&self) -> Result<Event> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::Corrupt(format!("event {} cannot be read: {error}", self.position.seq)))
    }

    /// Whether `hash` follows from `previous`, the running hash before this event.
    #[must_use]
    pub fn continues(&self, previous: &[u8; 32]) -> bool {
        chain(previous, &self.position, &self.body) == self.hash
    }
}

/// h₀: the running hash of an empty log of `federation`.
#[must_use]
pub(crate) fn genesis(federation: Federation) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"twinport-federation-1\0")
        .chain_update(federation.0.as_bytes())
        .finalize()
        .into()
}

/// hₙ = SHA-256(domain ‖ hₙ₋₁ ‖ epoch number ‖ owner ‖ seq ‖ length ‖ body), numbers as 64-bit big-endian.
#[must_use]
pub fn chain(previous: &[u8; 32], position: &LogPosition, body: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"twinport-log-1\0")
        .chain_update(previous)
        .chain_update(position.epoch.number.to_be_bytes())
        .chain_update(position.epoch.owner.0.as_bytes())
        .chain_update(position.seq.to_be_bytes())
        .chain_update((body.len() as u64).to_be_bytes())
        .chain_update(body)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Incarnation};

    #[test]
    fn a_kind_that_is_not_known_survives_reading_and_writing() {
        let body = br#"{"v":1,"kind":"moon_landed","at_us":1,"origin":"paris"}"#;
        let event: Event = serde_json::from_slice(body).unwrap();
        assert_eq!(event.kind, EventKind::Unknown("moon_landed".to_owned()));
        assert_eq!(event.encode().unwrap().as_ref(), body);
    }

    #[test]
    fn a_known_kind_is_written_in_snake_case() {
        let event = Event::new(EventKind::ManifestPushed, "paris", 7);
        assert_eq!(
            event.encode().unwrap().as_ref(),
            br#"{"v":1,"kind":"manifest_pushed","at_us":7,"origin":"paris"}"#
        );
    }

    #[test]
    fn the_hash_covers_every_part_of_a_position() {
        let owner = Incarnation::random();
        let at = |number, owner, seq| LogPosition { epoch: Epoch { number, owner }, seq };
        let base = chain(&[0; 32], &at(1, owner, 1), b"x");
        for other in [
            chain(&[1; 32], &at(1, owner, 1), b"x"),
            chain(&[0; 32], &at(2, owner, 1), b"x"),
            chain(&[0; 32], &at(1, Incarnation::random(), 1), b"x"),
            chain(&[0; 32], &at(1, owner, 2), b"x"),
            chain(&[0; 32], &at(1, owner, 1), b"y"),
        ] {
            assert_ne!(base, other);
        }
    }
}
