//! Long jobs on one site, without HTTP: recovery after a crash, expiry of upload sessions, scrub, retention.
//!
//! **Architecture invariant:** everything here is resumable, bounded in memory, and deletes nothing that
//! metadata knows.

mod error;
mod expire;
mod recover;
mod retention;
mod scrub;
mod usage;

pub use self::{
    error::{Error, Result},
    expire::expire_uploads,
    recover::{RecoveryReport, recover},
    retention::{PlannedTag, RetentionLimits, RetentionPlan, empty_trash, plan_retention, run_retention},
    scrub::{Finding, FindingKind, ScrubProgress, ScrubReport, scrub},
    usage::UsageCounter,
};
