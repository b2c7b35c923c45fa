//! What travels between commands and a running site, as JSON. Times are µs since the Unix epoch (UTC), sizes bytes.

mod access;
mod retention;

pub use self::access::{
    AccessToken, Account, AccountDetail, AccountKind, AccountName, Accounts, AddAccountRequest,
    AddTokenRequest, AddedAccount, Binding, ChangeAccountRequest, ChangedRole, EndedAccount, GivenRole,
    NewToken, PasswordRequest, PasswordSet, Roles, Rule, RuleList, Secret, Tokens,
};
pub use self::retention::{
    LastRun, PlannedTag, RestoreRequest, RestoredTag, RetentionPlan, RulePreview, RunRequest, Trash,
    TrashedTag,
};
use serde::{Deserialize, Serialize};
use twinport_geo::SitesStatus;
pub use twinport_geo::protocol::ItemCounts;
use twinport_oci::Digest;
pub use twinport_upkeep::{Finding, FindingKind};
pub use twinport_upkeep::{ScrubProgress, ScrubReport};

/// This site as it knows itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnSite {
    pub name: Option<String>,
    /// `primary` or `secondary`.
    pub role: String,
    /// Where clients and other sites reach it.
    pub url: String,
    pub pid: u32,
    pub data_dir: String,
    pub incarnation: String,
    pub federation: String,
    /// `sqlite` or `postgresql`.
    pub database: String,
    pub version: String,
    pub primary_name: Option<String>,
    pub primary_url: Option<String>,
    /// Why writes are stopped, where they are.
    pub halted: Option<String>,
}

/// `POST /api/v1/sites`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddSiteRequest {
    pub name: String,
    /// What this site is called, where it has no name yet.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub own_name: Option<String>,
    /// Where the new site reaches this one; this site's own idea of it when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<u64>,
    /// The token leaves out the key of this site's certificate: something else ends TLS in front of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_pin: bool,
}

/// A join token and what it is good for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddedSite {
    pub token: String,
    pub site: String,
    pub primary_name: String,
    pub primary_url: String,
    /// `sha256:…`, where the new site is to know this one by a key.
    #[serde(default)]
    pub tls_pin: Option<String>,
    pub expires_at_us: i64,
}

/// `POST /api/v1/sites/join`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinSiteRequest {
    pub token: String,
}

/// What became of a join.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinedSite {
    pub site: String,
    pub primary_name: String,
    pub primary_url: String,
    /// Whether replication runs already; without it, it starts with the next start.
    pub following: bool,
}

/// What was removed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemovedSite {
    pub site: String,
    pub incarnation: String,
}

/// `GET /api/v1/geo/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GeoStatus {
    pub this: OwnSite,
    pub sites: SitesStatus,
    /// This site's own replication, where it is a secondary.
    pub replication: Option<ReplicationStatus>,
}

/// Where this secondary stands. What is not known is absent, never zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationStatus {
    /// `starting`, `connected`, `waiting` (tries again by itself), `stopped` (an operator has to act) or `disabled`.
    pub state: String,
    /// Why it is not connected, or has stopped, and what to do.
    pub problem: Option<String>,
    /// Whether reads here are at most 5 s behind the primary.
    pub fresh: bool,
    /// The primary's last known head.
    pub head_seq: Option<i64>,
    /// "Last event ID from primary".
    pub ingested_seq: Option<i64>,
    /// "Last event ID processed".
    pub applied_seq: Option<i64>,
    /// Events known and not applied.
    pub lag_events: Option<u64>,
    /// Bytes of blobs asked for and not here yet.
    pub lag_bytes: Option<u64>,
    /// How old the newest state is that this site has in full (µs).
    pub lag_us: Option<i64>,
    /// The same for what is ingested.
    pub ingest_lag_us: Option<i64>,
    /// How long ago the primary was heard of (µs).
    pub heard_ago_us: Option<i64>,
    /// How far this site's clock is ahead of the primary's (µs).
    pub clock_ahead_us: Option<i64>,
    pub backfill_finished: Option<bool>,
    pub repositories: ItemCounts,
    /// Tags and manifests.
    pub items: ItemCounts,
}

/// The tracking record of a tag or a manifest on a secondary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackingRecord {
    /// `pending`, `started`, `synced` or `failed`.
    pub state: String,
    /// `pending`, `succeeded` or `failed`.
    pub verification: String,
    pub digest: Option<Digest>,
    pub position_seq: i64,
    pub synced_at_us: Option<i64>,
    pub verified_at_us: Option<i64>,
    pub last_error: Option<String>,
}

/// How one check of `doctor` went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// One check of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// `config`, `storage`, `database`, `peers` or `clocks`.
    pub area: String,
    pub verdict: Verdict,
    /// What was found, and what to do where it is not well.
    pub message: String,
}

/// `GET /api/v1/doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examination {
    pub checks: Vec<Check>,
}

/// `GET /api/v1/database`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseStatus {
    /// `sqlite` or `postgresql`.
    pub backend: String,
    pub schema: i64,
    /// The newest schema that this binary knows.
    pub newest_schema: i64,
    /// The embedded database's file and its size, write-ahead log included.
    pub file: Option<String>,
    pub bytes: Option<u64>,
    pub log_head_seq: i64,
    pub epoch: i64,
    /// The nodes of this site that were heard of in the last hour.
    #[serde(default)]
    pub nodes: Vec<NodeStatus>,
}

/// A node of a site, and what it does for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Of this run of it.
    pub id: String,
    pub name: String,
    pub version: String,
    /// µs since the epoch, UTC.
    pub started_at_us: i64,
    pub silent_us: i64,
    /// Heard of within ten seconds.
    pub live: bool,
    /// The node that was asked.
    pub this: bool,
    pub jobs: Vec<JobStatus>,
}

/// A job that a node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    pub job: String,
    /// Rises whenever the job changes hands; the log's is its head's number.
    pub token: i64,
    /// How much longer its lease holds without being renewed (µs).
    pub left_us: i64,
}

/// `POST /api/v1/database/accept-loss`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedLoss {
    /// Why writes were stopped.
    pub reason: Option<String>,
    /// The event after which the site goes on.
    pub log_head_seq: i64,
}

/// A page of repository names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repositories {
    pub repositories: Vec<String>,
    /// What to ask for after, where there is more.
    pub next: Option<String>,
}

/// A page of tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    pub tags: Vec<TagEntry>,
    pub next: Option<String>,
}

/// One tag and what it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagEntry {
    pub name: String,
    pub digest: Option<String>,
    pub media_type: Option<String>,
}

/// `POST /api/v1/repositories/rename`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameRequest {
    pub from: String,
    pub to: String,
}

/// One line of a scrub's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScrubLine {
    Progress(ScrubProgress),
    Report(ScrubReport),
    /// The scrub could not go on.
    Failed(String),
}

/// Why a command was not done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    pub errors: Vec<FailureEntry>,
}

/// One reason.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailureEntry {
    pub code: String,
    pub message: String,
}

/// Whether a site takes writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    pub on: bool,
    /// Why it does not, as clients are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
