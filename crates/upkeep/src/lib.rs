//! Long jobs on one site, without HTTP: recovery after a crash, expiry of upload sessions, scrub.
//!
//! **Architecture invariant:** everything here is resumable, bounded in memory, and deletes nothing that
//! metadata knows.

mod error;
mod expire;
mod recover;
mod scrub;

pub use self::{
    error::{Error, Result},
    expire::expire_uploads,
    recover::{RecoveryReport, recover},
    scrub::{Finding, FindingKind, ScrubProgress, ScrubReport, scrub},
};
