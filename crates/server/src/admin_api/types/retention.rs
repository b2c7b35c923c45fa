//! What commands about the work of rules say and hear: what a rule would do, a run of it, the trash.

use serde::{Deserialize, Serialize};
pub use twinport_upkeep::{PlannedTag, RetentionPlan};

/// `GET /api/v1/rules/{name}/preview`: what a rule would do, or what it counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RulePreview {
    Retention {
        plan: RetentionPlan,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_run: Option<LastRun>,
    },
    Quota {
        rule: String,
        bytes: u64,
        repositories: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        most_bytes: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        most_repositories: Option<u64>,
        /// Every repository is counted; until then nothing is refused.
        complete: bool,
    },
}

/// How the latest run of a rule ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastRun {
    /// µs since the epoch, UTC.
    pub ran_at_us: i64,
    pub considered: u64,
    pub planned: u64,
    pub taken: u64,
    pub outcome: String,
}

/// `POST /api/v1/rules/{name}/run`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Takes a large share too.
    pub confirm: bool,
}

/// `GET /api/v1/trash`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trash {
    pub tags: Vec<TrashedTag>,
    /// Where the next page goes on; none at the end.
    pub next: Option<String>,
}

/// A tag that can be brought back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrashedTag {
    pub tag: String,
    pub digest: String,
    pub rule: String,
    /// µs since the epoch, UTC.
    pub taken_at_us: i64,
    /// When it is deleted for good (µs since the epoch, UTC).
    pub due_at_us: i64,
}

/// `POST /api/v1/trash/restore`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    pub repository: String,
    pub tag: String,
}

/// What a tag names again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoredTag {
    pub digest: String,
}
