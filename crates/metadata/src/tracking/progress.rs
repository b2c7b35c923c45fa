//! How far a secondary has come: its backfill, its counts, and the last event that is wholly dealt with.
//! Invariant: nothing is counted as processed while anything before it is not (hazards R5, R29).

use twinport_oci::RepositoryName;

use super::verification::tracked_item;
use crate::{
    Error, ListedRepository, Metadata, Result, TrackedItem,
    db::{Row, Tx, Value},
};

/// The listing of what was on the primary before this site joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// The primary's head at the join: what is newer comes by the log.
    pub head_seq: i64,
    /// Repositories up to this path are tracked.
    pub after_path: String,
    pub finished_at_us: Option<i64>,
}

/// Things by Geo's states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackingCounts {
    pub pending: u64,
    pub started: u64,
    pub synced: u64,
    pub failed: u64,
    pub verification_pending: u64,
    pub verification_succeeded: u64,
    pub verification_failed: u64,
}

/// Where a secondary stands as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackingSummary {
    pub repositories: TrackingCounts,
    /// Tags, manifests, and links that could not be made.
    pub items: TrackingCounts,
}

impl Metadata {
    /// The backfill of this secondary; `None` on a site that never joined.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn backfill(&self) -> Result<Option<Backfill>> {
        let row = self
            .db
            .query_opt("SELECT head_seq, after_path, finished_at_us FROM backfill WHERE id = 1", vec![])
            .await?;
        row.map(|row| {
            Ok(Backfill { head_seq: row.int(0)?, after_path: row.text(1)?, finished_at_us: row.opt_int(2)? })
        })
        .transpose()
    }

    /// Tracks the repositories of one page of the primary's listing, and moves the backfill to `after_path`.
    ///
    /// Repositories of a later position are left to the log. So is one that was deleted while its page travelled.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a path that another repository holds, which the log rules out.
    pub async fn backfill_page(
        &self,
        repositories: Vec<ListedRepository>,
        after_path: &str,
        finished: bool,
    ) -> Result<()> {
        let after_path = after_path.to_owned();
        self.db
            .write(move |tx| {
                let (repositories, after_path) = (repositories.clone(), after_path.clone());
                Box::pin(async move { track_page(tx, &repositories, &after_path, finished).await })
            })
            .await
    }

    /// "Last event ID processed": the position before the first event that is not ingested, not applied, or
    /// failed. `None` while listings are outstanding, for then no position is complete.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn processed_seq(&self) -> Result<Option<i64>> {
        const LISTING: &str = "SELECT (SELECT seq FROM log_head WHERE id = 1), \
             (SELECT COUNT(*) FROM backfill WHERE finished_at_us IS NULL) \
             + (SELECT COUNT(*) FROM access_pending WHERE kind = '*'), \
             COALESCE((SELECT MAX(needs_listing) FROM tracked_repositories WHERE state <> 'synced'), 0)";
        const FIRST: &str = "SELECT (SELECT MIN(applied_seq) FROM tracked_repositories \
             WHERE state <> 'synced' AND dirty_seq > applied_seq), \
             (SELECT MIN(position_seq) - 1 FROM tracked_items WHERE state <> 'synced'), \
             (SELECT MIN(position_seq) - 1 FROM access_pending)";
        // One snapshot: the cursor must not be younger than what it is compared with.
        self.db
            .snapshot(|tx| {
                Box::pin(async move {
                    let row = one(tx.query_opt(LISTING, vec![]).await?)?;
                    if row.int(1)? > 0 || row.int(2)? > 0 {
                        return Ok(None);
                    }
                    let cursor = row.int(0)?;
                    let row = one(tx.query_opt(FIRST, vec![]).await?)?;
                    let first = [row.opt_int(0)?, row.opt_int(1)?, row.opt_int(2)?];
                    Ok(Some(first.into_iter().flatten().fold(cursor, i64::min)))
                })
            })
            .await
    }

    /// Repositories and items by state. Reads every tracking record: not for a hot path.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tracking_summary(&self) -> Result<TrackingSummary> {
        const REPOSITORIES: &str =
            "SELECT state, verification, COUNT(*) FROM tracked_repositories GROUP BY state, verification";
        const ITEMS: &str =
            "SELECT state, verification, COUNT(*) FROM tracked_items GROUP BY state, verification";
        let repositories = counts(&self.db.scan(REPOSITORIES, vec![]).await?)?;
        let items = counts(&self.db.scan(ITEMS, vec![]).await?)?;
        Ok(TrackingSummary { repositories, items })
    }

    /// The tracking record of a `tag`, a `manifest`, or a `blob_link` that could not be made.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tracked_item(
        &self,
        repository: &RepositoryName,
        kind: &str,
        key: &str,
    ) -> Result<Option<TrackedItem>> {
        tracked_item(&self.db, repository, kind, key).await
    }
}

fn one(row: Option<Row>) -> Result<Row> {
    row.ok_or_else(|| Error::Bug("a select without rows".to_owned()))
}

fn counts(rows: &[Row]) -> Result<TrackingCounts> {
    let mut counts = TrackingCounts::default();
    for row in rows {
        let n = row.size(2)?;
        match row.text(0)?.as_str() {
            "pending" => counts.pending += n,
            "started" => counts.started += n,
            "synced" => counts.synced += n,
            _ => counts.failed += n,
        }
        match row.text(1)?.as_str() {
            "succeeded" => counts.verification_succeeded += n,
            "failed" => counts.verification_failed += n,
            _ => counts.verification_pending += n,
        }
    }
    Ok(counts)
}

async fn track_page(
    tx: &mut Tx,
    repositories: &[ListedRepository],
    after_path: &str,
    finished: bool,
) -> Result<()> {
    const KNOWN: &str = "SELECT repository FROM tracked_repositories WHERE repository {any $1} {for update}";
    const GONE: &str = "SELECT repository FROM tombstones WHERE repository {any $1} AND kind = 'repository'";
    const INSERT: &str = "INSERT INTO repositories (uuid, path, created_at_us, position_epoch, position_seq) \
         VALUES ($1, $2, $3, $4, $5)";
    const TRACK: &str = "INSERT INTO tracked_repositories (repository, path, state, dirty_seq, applied_seq, \
         needs_listing, attempts, next_attempt_us, lease_until_us, verification, checked_at_us) \
         VALUES ($1, $2, 'pending', $3, $3, 1, 0, 0, 0, 'pending', $4)";
    const ADVANCE: &str = "UPDATE backfill SET after_path = $1, finished_at_us = $2 WHERE id = 1";
    // Excludes ingest, so that what is known here cannot change before this commits.
    let head = tx.query_opt("SELECT epoch FROM log_head WHERE id = 1 {for update}", vec![]).await?;
    let epoch = one(head)?.int(0)?;
    let head_seq = one(tx.query_opt("SELECT head_seq FROM backfill WHERE id = 1", vec![]).await?)?.int(0)?;
    let listed: Vec<_> =
        repositories.iter().filter(|r| r.position_seq.is_some_and(|seq| seq <= head_seq)).collect();
    let keys = Value::Blobs(listed.iter().map(|r| r.uuid.0.as_bytes().to_vec()).collect());
    let mut skip = std::collections::BTreeSet::new();
    if !listed.is_empty() {
        // One that the log spoke of first is tracked as needing a listing already.
        let known = tx.query(KNOWN, vec![keys.clone()]).await?;
        let gone = tx.query(GONE, vec![keys]).await?;
        for row in known.iter().chain(&gone) {
            skip.insert(row.uuid(0)?);
        }
    }
    let now = tx.now_us();
    let fresh = || listed.iter().filter(|r| !skip.contains(&r.uuid.0));
    let rows = fresh()
        .map(|r| vec![r.uuid.into(), (&r.path).into(), now.into(), epoch.into(), r.position_seq.into()])
        .collect();
    tx.send_each(INSERT, rows).await?;
    let tracked =
        fresh().map(|r| vec![r.uuid.into(), (&r.path).into(), head_seq.into(), now.into()]).collect();
    tx.send_each(TRACK, tracked).await?;
    tx.execute(ADVANCE, vec![after_path.into(), finished.then_some(now).into()]).await?;
    Ok(())
}
