//! What a site has, page by page, and the checksum over one repository.

use serde::{Deserialize, Serialize};
use twinport_metadata::{ListedRow, RepositoryUuid};
use twinport_oci::Digest;

/// `GET /geo/v1/repositories?after=PATH&limit=N`, ordered by path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryPage {
    pub repositories: Vec<RepositoryEntry>,
    /// True only on the page that ends the listing; an absent field is no page at all.
    pub complete: bool,
}

/// A repository of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryEntry {
    pub uuid: RepositoryUuid,
    pub path: String,
    /// The position of the row; none while in motion (its event comes later).
    pub position_seq: Option<i64>,
}

/// `GET /geo/v1/repositories/{uuid}/listing?after=CURSOR&limit=N`: blob links, then manifests, then tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingPage {
    pub entries: Vec<ListingEntry>,
    /// Where the next page starts; opaque. None exactly when `complete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// True only on the page that ends the listing; an absent field is no page at all.
    pub complete: bool,
}

/// What a row of a listing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    BlobLink,
    Manifest,
    Tag,
}

/// One row of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingEntry {
    pub kind: EntryKind,
    /// The blob, the manifest, or what the tag points at.
    pub digest: Digest,
    /// Bytes, for blob links and manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// For manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// For manifests that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// The tag's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The position of the row; none while in motion (its event comes later).
    pub position_seq: Option<i64>,
}

/// `GET /geo/v1/repositories/{uuid}/checksum`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryChecksum {
    /// SHA-256, 64 hexadecimal digits.
    pub checksum: String,
    /// The highest position of any row or tombstone of the repository that it covers.
    pub through_seq: i64,
    /// Whether a row without a position was among them; the checksum is no ground for a verdict then.
    pub in_motion: bool,
    /// Manifests covered.
    pub manifests: u64,
    /// Tags covered.
    pub tags: u64,
}

impl From<ListedRow> for ListingEntry {
    fn from(row: ListedRow) -> Self {
        let entry = |kind, digest, position_seq| Self {
            kind,
            digest,
            size: None,
            media_type: None,
            subject: None,
            name: None,
            position_seq,
        };
        match row {
            ListedRow::BlobLink { digest, size, position_seq } => {
                Self { size, ..entry(EntryKind::BlobLink, digest, position_seq) }
            }
            ListedRow::Manifest { digest, size, media_type, subject, position_seq } => Self {
                size: Some(size),
                media_type: Some(media_type),
                subject,
                ..entry(EntryKind::Manifest, digest, position_seq)
            },
            ListedRow::Tag { name, digest, position_seq } => {
                Self { name: Some(name), ..entry(EntryKind::Tag, digest, position_seq) }
            }
        }
    }
}

impl From<twinport_metadata::RepositoryChecksum> for RepositoryChecksum {
    fn from(sum: twinport_metadata::RepositoryChecksum) -> Self {
        Self {
            checksum: hex::encode(sum.checksum),
            through_seq: sum.through_seq,
            in_motion: sum.in_motion,
            manifests: sum.manifests,
            tags: sum.tags,
        }
    }
}
