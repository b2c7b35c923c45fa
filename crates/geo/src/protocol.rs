//! What two sites say to each other: versions, paths, and the JSON of every `/geo/v1` call.
//!
//! **Architecture invariant:** a shape here changes only together with [`PROTOCOL`] and docs/reference/geo-protocol.md.

mod access;
mod encoding;
mod frame;
mod listing;
mod status;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use twinport_access::SigningKey;
use twinport_metadata::{Epoch, EpochRecord, Federation, Incarnation, LogHead, LogPosition, SiteRecord};

use crate::{Error, Refusal, RefusalCode, Result};

pub(crate) use self::encoding::{b64, hex32};
pub use self::{
    access::{AccessEntry, AccessPage, AccessQuery, MAX_NAMED_RECORDS},
    frame::{Frame, FrameDecoder, MAX_FRAME_BYTES},
    listing::{EntryKind, ListingEntry, ListingPage, RepositoryChecksum, RepositoryEntry, RepositoryPage},
    status::{Heartbeat, ItemCounts, Nonce, StatusReport},
};

/// The version of the calls themselves.
pub const PROTOCOL: u32 = 1;
/// The version of the comparison encoding ([`twinport_metadata::Metadata::repository_checksum`]).
pub const TREE: u32 = 1;
/// The version of event bodies.
pub use twinport_metadata::EVENT_SCHEMA;

/// Media type of the log stream.
pub const LOG_STREAM: &str = "application/vnd.twinport.log.v1";
/// How often the log stream carries a heartbeat when nothing asks for one sooner.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// Clocks of two sites may differ by this much (µs) before a join or a credential is refused.
pub const CLOCK_TOLERANCE_US: i64 = 60 * 1_000_000;
/// Entries of a listing page when the caller does not say.
pub const DEFAULT_PAGE: u32 = 1_000;
/// The most entries one listing page carries.
pub const MAX_PAGE: u32 = 10_000;

/// Paths of the calls, relative to a site's internal URL.
pub mod paths {
    use twinport_metadata::RepositoryUuid;
    use twinport_oci::Digest;

    pub const JOIN: &str = "/geo/v1/join";
    pub const LOG: &str = "/geo/v1/log";
    pub const STATUS: &str = "/geo/v1/status";
    pub const REPOSITORIES: &str = "/geo/v1/repositories";
    pub const ACCESS: &str = "/geo/v1/access";

    /// The rows of one repository.
    #[must_use]
    pub fn listing(repository: RepositoryUuid) -> String {
        format!("{REPOSITORIES}/{repository}/listing")
    }
    /// The checksum of one repository.
    #[must_use]
    pub fn checksum(repository: RepositoryUuid) -> String {
        format!("{REPOSITORIES}/{repository}/checksum")
    }
    /// A manifest's bytes.
    #[must_use]
    pub fn manifest(repository: RepositoryUuid, digest: &Digest) -> String {
        format!("{REPOSITORIES}/{repository}/manifests/{digest}")
    }
    /// A blob's bytes.
    #[must_use]
    pub fn blob(digest: &Digest) -> String {
        format!("/geo/v1/blobs/{digest}")
    }
}

/// The versions a site speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub protocol: u32,
    pub event_schema: u32,
    pub tree: u32,
}

impl Versions {
    /// What this binary speaks.
    pub const OURS: Self = Self { protocol: PROTOCOL, event_schema: EVENT_SCHEMA, tree: TREE };

    /// Whether a peer with these versions can be talked to: each at most one behind or ahead of ours.
    ///
    /// # Errors
    /// [`RefusalCode::Upgrade`], naming which of the two sites is to be upgraded.
    pub fn check(self) -> Result<()> {
        for (what, theirs, ours) in [
            ("protocol", self.protocol, PROTOCOL),
            ("event schema", self.event_schema, EVENT_SCHEMA),
            ("tree", self.tree, TREE),
        ] {
            if theirs.abs_diff(ours) > 1 {
                let behind = if theirs < ours { "the joining site" } else { "the primary site" };
                return Err(Refusal::new(
                    RefusalCode::Upgrade,
                    format!("the {what} versions {ours} (primary) and {theirs} (joining) are too far apart: upgrade {behind}"),
                )
                .into());
            }
        }
        Ok(())
    }
}

/// A site as others know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteInfo {
    pub name: String,
    pub incarnation: Incarnation,
    /// Raw Ed25519 public key, 32 bytes.
    #[serde(with = "b64")]
    pub public_key: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_url: Option<String>,
}

/// A head or a cursor: a position with the running hash there. Also the query of the log call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Epoch number.
    pub number: i64,
    /// Epoch owner.
    pub owner: Incarnation,
    pub seq: i64,
    #[serde(with = "hex32")]
    pub hash: [u8; 32],
}

impl From<LogHead> for Head {
    fn from(head: LogHead) -> Self {
        let LogPosition { epoch: Epoch { number, owner }, seq } = head.position;
        Self { number, owner, seq, hash: head.hash }
    }
}

impl From<Head> for LogHead {
    fn from(head: Head) -> Self {
        let epoch = Epoch { number: head.number, owner: head.owner };
        Self { position: LogPosition { epoch, seq: head.seq }, hash: head.hash }
    }
}

/// One line of the epoch history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochLine {
    pub number: i64,
    pub owner: Incarnation,
    pub began_seq: i64,
    #[serde(with = "hex32")]
    pub base_hash: [u8; 32],
}

impl From<EpochRecord> for EpochLine {
    fn from(record: EpochRecord) -> Self {
        let EpochRecord { epoch: Epoch { number, owner }, began_seq, base_hash } = record;
        Self { number, owner, began_seq, base_hash }
    }
}

impl From<EpochLine> for EpochRecord {
    fn from(line: EpochLine) -> Self {
        let epoch = Epoch { number: line.number, owner: line.owner };
        Self { epoch, began_seq: line.began_seq, base_hash: line.base_hash }
    }
}

/// `POST /geo/v1/join`: a new site presents its token and proves that it holds its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    pub token_id: uuid::Uuid,
    /// The token's secret, 32 bytes.
    #[serde(with = "b64")]
    pub secret: Vec<u8>,
    /// The name the token was made for.
    pub site: String,
    pub incarnation: Incarnation,
    /// Raw Ed25519 public key, 32 bytes.
    #[serde(with = "b64")]
    pub public_key: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_url: Option<String>,
    pub versions: Versions,
    /// The joining site's clock (µs since the epoch, UTC).
    pub clock_us: i64,
    /// The keys that its token service signs with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_keys: Vec<SigningKey>,
    /// Ed25519 signature over [`JoinRequest::proof_message`], 64 bytes.
    #[serde(with = "b64")]
    pub proof: Vec<u8>,
}

impl JoinRequest {
    /// What `proof` signs: "twinport-join-proof-v1\0" ‖ token id ‖ secret ‖ incarnation ‖ public key ‖ clock (i64 BE).
    #[must_use]
    pub fn proof_message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(23 + 16 + 32 + 16 + 32 + 8);
        message.extend_from_slice(b"twinport-join-proof-v1\0");
        message.extend_from_slice(self.token_id.as_bytes());
        message.extend_from_slice(&self.secret);
        message.extend_from_slice(self.incarnation.0.as_bytes());
        message.extend_from_slice(&self.public_key);
        message.extend_from_slice(&self.clock_us.to_be_bytes());
        message
    }
}

/// The answer to a join: what the new site must know to follow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinResponse {
    pub federation: Federation,
    pub primary: SiteInfo,
    pub versions: Versions,
    pub epochs: Vec<EpochLine>,
    /// The log's head with the join in it: the backfill lists from here, the stream goes on after it.
    pub head: Head,
    /// Every site that ever joined, the new one included and removed ones too: they are refused everywhere.
    pub sites: Vec<SiteRecord>,
    /// The primary's clock (µs since the epoch, UTC).
    pub clock_us: i64,
}

/// The body of every refusal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    pub errors: Vec<ErrorLine>,
}

/// One reason of a refusal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorLine {
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

impl ErrorBody {
    /// What a peer's refusal says, whatever its version.
    #[must_use]
    pub fn into_error(self, status: u16) -> Error {
        match self.errors.into_iter().next() {
            Some(line) => Refusal {
                code: RefusalCode::parse(&line.code, status),
                message: line.message,
                detail: line.detail,
            }
            .into(),
            None => Error::Protocol(format!("the peer refused with status {status} and no reason")),
        }
    }
}

impl From<&Refusal> for ErrorBody {
    fn from(refusal: &Refusal) -> Self {
        Self {
            errors: vec![ErrorLine {
                code: refusal.code.as_str().to_owned(),
                message: refusal.message.clone(),
                detail: refusal.detail.clone(),
            }],
        }
    }
}
