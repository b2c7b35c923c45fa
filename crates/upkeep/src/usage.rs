//! Counts what quotas are about, along the log, for as long as the site lives.

use twinport_access::Rules;
use twinport_metadata::{Metadata, RepositoryUuid};

use crate::Result;

/// Counting that goes on where it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct UsageCounter {
    /// On a secondary: the repository that was counted last.
    after: Option<RepositoryUuid>,
    /// There is no quota, and what was summed before is forgotten.
    idle: bool,
}

impl UsageCounter {
    /// One bounded step; whether another has something to do at once.
    ///
    /// # Errors
    /// What the database says; the next step goes on where the last one ended.
    pub async fn step(&mut self, metadata: &Metadata, rules: &Rules) -> Result<bool> {
        let idle = rules.quotas().is_empty();
        if idle && self.idle {
            return Ok(false);
        }
        let counted = metadata.count_usage(rules.quotas(), self.after).await?;
        self.after = counted.after;
        self.idle = idle;
        Ok(counted.more)
    }
}
