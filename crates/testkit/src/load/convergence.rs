//! After a round of load: the primary keeps its word, and the secondary comes to say the same.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::Load;
use crate::Scope;

impl Load {
    /// Holds the primary to what it acknowledged, waits at most `bound` until the secondary says the same, and pulls
    /// what was touched from both. How long the secondary took.
    ///
    /// # Errors
    /// What was lost or came back, or where the sites still differ.
    pub async fn converge(&self, bound: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let secondary = self.secondary.as_deref().context("a secondary")?;
        self.ledger.settle(&self.http, &self.primary).await?;
        while let Err(difference) = self.ledger.compare(&self.http, secondary, Scope::Touched).await {
            ensure!(began.elapsed() < bound, "no convergence within {} s: {difference:#}", bound.as_secs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let converged = began.elapsed();
        self.hold(Scope::Touched).await?;
        self.ledger.forget_touched();
        Ok(converged)
    }

    /// Pulls from both sites what they must have. How many references, both sites together.
    ///
    /// # Errors
    /// What is not there, not whole, or should not be there.
    pub async fn hold(&self, scope: Scope) -> anyhow::Result<usize> {
        let mut pulled = 0;
        for url in std::iter::once(&self.primary).chain(&self.secondary) {
            self.ledger.compare(&self.http, url, scope).await?;
            pulled += self.ledger.pull_all(&self.http, url, scope).await?;
        }
        Ok(pulled)
    }
}
