//! What repositories hold, in bytes and in number, and what the quotas' patterns hold together.
//! Guards: the counts follow the log with a cursor of their own, in bounded steps that commit together with it, so that a
//! step is counted once whatever happens in between; no push waits for them.
//!
//! A repository counts every blob that it links and every manifest that it has; a blob that two repositories link counts in
//! both. Nothing is counted while no rule sets a quota.

mod count;
mod recount;
mod sums;

use twinport_access::{Quota, RuleName};

use self::sums::Sums;
use crate::{Error, Metadata, RepositoryUuid, Result, Role, db::Tx};

/// What the repositories of a quota hold together, as it was counted last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaUsage {
    pub rule: RuleName,
    pub bytes: u64,
    pub repositories: u64,
    /// Every repository is in the sums; until then they say too little.
    pub complete: bool,
}

pub(crate) const QUOTA: &str =
    "SELECT pattern, bytes, repositories, after_path FROM quota_usage WHERE rule = $1";
const CURSOR: &str = "SELECT seq FROM usage_cursor WHERE id = 1 {for update}";

impl Metadata {
    /// What a quota's repositories hold together; incomplete until [`Metadata::count_usage`] has come to the end once.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn quota_usage(&self, quota: &Quota) -> Result<QuotaUsage> {
        let row = self.db.query_opt(QUOTA, vec![quota.name.as_str().into()]).await?;
        let nothing = QuotaUsage { rule: quota.name.clone(), bytes: 0, repositories: 0, complete: false };
        match row {
            // A rule of this name that was about other repositories.
            Some(row) if row.text(0)? != quota.repositories.as_str() => Ok(nothing),
            Some(row) => Ok(QuotaUsage {
                bytes: row.size(1)?,
                repositories: row.size(2)?,
                complete: row.opt_text(3)?.is_none(),
                ..nothing
            }),
            None => Ok(nothing),
        }
    }

    /// Counts on, one bounded step: along the log on the primary, repository by repository on a secondary. `after` is where
    /// the last step on a secondary ended. Without quotas what was summed is forgotten, and nothing is counted.
    ///
    /// # Errors
    /// Those of the database; the next step goes on where the last one ended.
    pub async fn count_usage(&self, quotas: &[Quota], after: Option<RepositoryUuid>) -> Result<Counted> {
        let quotas: std::sync::Arc<[Quota]> = quotas.into();
        if quotas.is_empty() {
            self.db.write(move |tx| Box::pin(forget_sums(tx))).await?;
            return Ok(Counted { more: false, after: None });
        }
        if self.site().await?.role == Role::Secondary {
            return recount::step(&self.db, quotas, after).await;
        }
        let more = self
            .db
            .write(move |tx| {
                let quotas = std::sync::Arc::clone(&quotas);
                Box::pin(async move { count::step(tx, &quotas).await })
            })
            .await?;
        Ok(Counted { more, after: None })
    }
}

/// Where a step of counting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Another step has something to do at once.
    pub more: bool,
    /// On a secondary: the repository after which the next step goes on.
    pub after: Option<RepositoryUuid>,
}

async fn forget_sums(tx: &mut Tx) -> Result<()> {
    lock_cursor(tx).await?;
    tx.execute("DELETE FROM quota_usage", vec![]).await.map(drop)
}

/// The cursor; whoever holds it counts alone.
async fn lock_cursor(tx: &mut Tx) -> Result<i64> {
    let row = tx.query_opt(CURSOR, vec![]).await?;
    row.ok_or_else(|| Error::Corrupt("the counting of usage has no cursor".to_owned()))?.int(0)
}

/// What one repository holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Usage {
    path: String,
    bytes: i64,
}

const STORE: &str = "INSERT INTO repository_usage (repository, path, bytes, counted_seq) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (repository) DO UPDATE SET path = excluded.path, bytes = excluded.bytes, \
     counted_seq = excluded.counted_seq";
const FORGET: &str = "DELETE FROM repository_usage WHERE repository = $1";

/// Sums a part of the repositories that a new quota has not been through yet; whether any are left.
async fn fill_sums(tx: &mut Tx, sums: &mut Sums) -> Result<bool> {
    const NEXT: &str = "SELECT path, bytes FROM repository_usage WHERE path > $1 ORDER BY path LIMIT $2";
    let Some(after) = sums.unfinished() else { return Ok(false) };
    let rows = tx.query(NEXT, vec![after.into(), REPOSITORIES_PER_STEP.into()]).await?;
    for row in &rows {
        sums.fill(&row.text(0)?, row.int(1)?)?;
    }
    if (rows.len() as i64) < REPOSITORIES_PER_STEP {
        sums.finish();
    }
    Ok(sums.unfinished().is_some())
}

/// Repositories that one step looks at.
const REPOSITORIES_PER_STEP: i64 = 500;
