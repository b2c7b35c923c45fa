//! Comparing a repository with the primary, and what is on record about one tag or manifest.
//! Invariant: a verdict is written only if nothing was told of the repository since it was compared (hazard R18).

use twinport_oci::{Digest, RepositoryName};

use crate::{
    Metadata, RepositoryUuid, Result,
    db::{Db, Value},
};

/// A repository that is quiet and has not been compared since it last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueCheck {
    pub repository: RepositoryUuid,
    pub path: String,
    pub dirty_seq: i64,
    /// How often in a row the comparison failed.
    pub attempts: i64,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// Equal through this position.
    Equal { through_seq: i64 },
    /// Different at a position that both sites have in full: list the repository again, not before then (µs).
    Different { next_attempt_us: i64 },
    /// One of the two was in motion: later.
    NotComparable,
}

/// What is on record about a tag, a manifest, or a link that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedItem {
    /// `pending`, `started`, `synced` or `failed`.
    pub state: String,
    /// `pending`, `succeeded` or `failed`.
    pub verification: String,
    pub digest: Option<Digest>,
    /// The event that made it so, or is to.
    pub position_seq: i64,
    pub synced_at_us: Option<i64>,
    pub verified_at_us: Option<i64>,
    pub last_error: Option<String>,
}

impl Metadata {
    /// At most `limit` repositories that have not changed since `quiet_since_us` and are to be compared.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn due_checks(&self, quiet_since_us: i64, limit: u32) -> Result<Vec<DueCheck>> {
        const DUE: &str = "SELECT repository, path, dirty_seq, attempts FROM tracked_repositories \
             WHERE verification = 'pending' AND state = 'synced' AND (checked_at_us <= $1 OR checked_at_us > $2) \
             ORDER BY checked_at_us LIMIT $3";
        // A time in the future was written before the clock was set back.
        let future = self.clock().now_us();
        let rows = self.db.query(DUE, vec![quiet_since_us.into(), future.into(), limit.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(DueCheck {
                    repository: RepositoryUuid(row.uuid(0)?),
                    path: row.text(1)?,
                    dirty_seq: row.int(2)?,
                    attempts: row.int(3)?,
                })
            })
            .collect()
    }

    /// Records a comparison, unless the repository changed since; whether it was recorded.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record_check(&self, check: &DueCheck, outcome: CheckOutcome) -> Result<bool> {
        const EQUAL: &str = "UPDATE tracked_repositories SET verification = 'succeeded', verified_seq = $3, \
             checked_at_us = $4, attempts = 0 WHERE repository = $1 AND dirty_seq = $2 AND state = 'synced'";
        const DIFFERENT: &str = "UPDATE tracked_repositories SET verification = 'failed', needs_listing = 1, \
             state = 'failed', attempts = attempts + 1, next_attempt_us = $3, checked_at_us = $4, \
             last_error = 'checksum mismatch: the repository differs from the primary''s' \
             WHERE repository = $1 AND dirty_seq = $2 AND state = 'synced'";
        const LATER: &str = "UPDATE tracked_repositories SET checked_at_us = $3 \
             WHERE repository = $1 AND dirty_seq = $2 AND state = 'synced'";
        let key: [Value; 2] = [check.repository.into(), check.dirty_seq.into()];
        self.db
            .write(move |tx| {
                let now = tx.now_us().into();
                let [repository, dirty] = key.clone();
                Box::pin(async move {
                    let changed = match outcome {
                        CheckOutcome::Equal { through_seq } => {
                            tx.execute(EQUAL, vec![repository, dirty, through_seq.into(), now]).await?
                        }
                        CheckOutcome::Different { next_attempt_us } => {
                            tx.execute(DIFFERENT, vec![repository, dirty, next_attempt_us.into(), now])
                                .await?
                        }
                        CheckOutcome::NotComparable => {
                            tx.execute(LATER, vec![repository, dirty, now]).await?
                        }
                    };
                    Ok(changed == 1)
                })
            })
            .await
    }
}

pub(super) async fn tracked_item(
    db: &Db,
    repository: &RepositoryName,
    kind: &str,
    key: &str,
) -> Result<Option<TrackedItem>> {
    const ITEM: &str = "SELECT t.state, t.verification, t.digest, t.position_seq, t.synced_at_us, t.verified_at_us, \
         t.last_error FROM repositories r JOIN tracked_items t ON t.repository = r.uuid AND t.kind = $2 AND t.key = $3 \
         WHERE r.path = $1";
    let row = db.query_opt(ITEM, vec![repository.as_str().into(), kind.into(), key.into()]).await?;
    row.map(|row| {
        Ok(TrackedItem {
            state: row.text(0)?,
            verification: row.text(1)?,
            digest: row.opt_digest(2)?,
            position_seq: row.int(3)?,
            synced_at_us: row.opt_int(4)?,
            verified_at_us: row.opt_int(5)?,
            last_error: row.opt_text(6)?,
        })
    })
    .transpose()
}
