//! What a secondary has been told, has done, and has still to do, repository by repository.
//! Invariant: work is taken by lease, and a lease that nobody renews is taken over.

mod closure;
mod progress;
mod verification;

use uuid::Uuid;

pub use self::{
    closure::{HeldManifest, LinkedBlob},
    progress::{Backfill, TrackingCounts, TrackingSummary},
    verification::{CheckOutcome, DueCheck, TrackedItem},
};
use crate::{
    ItemKind, Lease, LoggedEvent, Metadata, RepositoryUuid, Result, Unsettled,
    db::{Row, Value},
};

/// A retry is never planned further ahead than this (µs); one that seems to be was planned by a clock set back.
const FARTHEST_RETRY_US: i64 = 2 * 3_600_000_000;

/// A repository as the secondary tracks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedRepository {
    pub repository: RepositoryUuid,
    pub path: String,
    /// The last ingested event that changed its content.
    pub dirty_seq: i64,
    /// Every event up to here is dealt with.
    pub applied_seq: i64,
    /// The primary's listing has to be gone through first.
    pub needs_listing: bool,
    /// How often in a row its listing failed.
    pub attempts: i64,
    pub lease_holder: Option<Uuid>,
    pub verification_failed: bool,
    /// Something of it is pending or failed.
    pub unsettled: bool,
}

const COLUMNS: &str = "SELECT repository, path, dirty_seq, applied_seq, needs_listing, attempts, lease_holder, \
     verification, EXISTS (SELECT 1 FROM tracked_items WHERE repository = $1 AND state <> 'synced') \
     FROM tracked_repositories WHERE repository = $1";

fn tracked(row: &Row) -> Result<TrackedRepository> {
    Ok(TrackedRepository {
        repository: RepositoryUuid(row.uuid(0)?),
        path: row.text(1)?,
        dirty_seq: row.int(2)?,
        applied_seq: row.int(3)?,
        needs_listing: row.int(4)? != 0,
        attempts: row.int(5)?,
        lease_holder: row.opt_blob(6)?.map(|_| row.uuid(6)).transpose()?,
        verification_failed: row.text(7)? == "failed",
        unsettled: row.int(8)? != 0,
    })
}

impl Metadata {
    /// How a repository is tracked; `None` where it is not, or no longer.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tracked_repository(&self, repository: RepositoryUuid) -> Result<Option<TrackedRepository>> {
        self.db.query_opt(COLUMNS, vec![repository.into()]).await?.as_ref().map(tracked).transpose()
    }

    /// Leases up to `limit` repositories that are due and that nobody works on: those without a listing to go
    /// through first, then the longest due.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn lease_due(&self, lease: Lease, limit: u32) -> Result<Vec<RepositoryUuid>> {
        const LEASE: &str = "UPDATE tracked_repositories SET state = 'started', lease_holder = $1, lease_until_us = {now $5} + $2 \
             WHERE repository IN (SELECT repository FROM tracked_repositories WHERE state <> 'synced' \
               AND (next_attempt_us <= $3 OR next_attempt_us > $4) \
               AND (lease_holder IS NULL OR lease_until_us <= {now $5} OR lease_until_us > {now $5} + 4 * $2) \
               ORDER BY needs_listing, next_attempt_us LIMIT $6 {for update skip locked}) \
             RETURNING repository";
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    let now = tx.now_us();
                    let params: Vec<Value> = vec![
                        lease.holder.into(),
                        lease.duration_us.into(),
                        now.into(),
                        (now + FARTHEST_RETRY_US).into(),
                        tx.lease_clock(),
                        limit.into(),
                    ];
                    let rows = tx.query(LEASE, params).await?;
                    rows.iter().map(|row| Ok(RepositoryUuid(row.uuid(0)?))).collect()
                })
            })
            .await
    }

    /// Whether there is anything that [`Self::lease_due`] could take. A read: it costs no commit. Ordered, though one
    /// row will do: PostgreSQL would hope to meet one early in the whole table, and where none is due there is none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn anything_due(&self, lease: Lease) -> Result<bool> {
        const DUE: &str = "SELECT 1 FROM tracked_repositories WHERE state <> 'synced' \
             AND (next_attempt_us <= $1 OR next_attempt_us > $2) \
             AND (lease_holder IS NULL OR lease_until_us <= {now $3} OR lease_until_us > {now $3} + 4 * $4) \
             ORDER BY needs_listing, next_attempt_us LIMIT 1";
        let now = self.clock().now_us();
        let params =
            vec![now.into(), (now + FARTHEST_RETRY_US).into(), self.lease_clock(), lease.duration_us.into()];
        Ok(self.db.query_opt(DUE, params).await?.is_some())
    }

    /// Takes or keeps the lease of one repository; false where another node has it, or it is gone.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn lease_repository(&self, repository: RepositoryUuid, lease: Lease) -> Result<bool> {
        const LEASE: &str = "UPDATE tracked_repositories SET lease_holder = $2, lease_until_us = {now $4} + $3 \
             WHERE repository = $1 AND (lease_holder IS NULL OR lease_holder = $2 OR lease_until_us <= {now $4} \
             OR lease_until_us > {now $4} + 4 * $3)";
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    let params: Vec<Value> = vec![
                        repository.into(),
                        lease.holder.into(),
                        lease.duration_us.into(),
                        tx.lease_clock(),
                    ];
                    Ok(tx.execute(LEASE, params).await? == 1)
                })
            })
            .await
    }

    /// Says that the work on these repositories goes on.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn renew_leases(&self, repositories: Vec<RepositoryUuid>, lease: Lease) -> Result<()> {
        const RENEW: &str = "UPDATE tracked_repositories SET lease_until_us = {now $4} + $3 WHERE repository = $1 AND lease_holder = $2";
        self.db
            .write(move |tx| {
                let clock = tx.lease_clock();
                let sets = repositories
                    .iter()
                    .map(|uuid| {
                        vec![(*uuid).into(), lease.holder.into(), lease.duration_us.into(), clock.clone()]
                    })
                    .collect();
                Box::pin(async move { tx.send_each(RENEW, sets).await })
            })
            .await
    }

    /// Ends every lease, whoever holds it: for a database that only one process can have open (SQLite), where
    /// all holders are runs that have ended.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn end_all_leases(&self) -> Result<()> {
        self.db
            .write(|tx| {
                Box::pin(async move {
                    tx.execute(
                        // Synced ones too: a worker that only looked holds a lease that the next event would wait for.
                        "UPDATE tracked_repositories SET lease_holder = NULL, lease_until_us = 0 \
                         WHERE lease_holder IS NOT NULL",
                        vec![],
                    )
                    .await
                    .map(drop)
                })
            })
            .await
    }

    /// Gives a repository up until `next_attempt_us`, for a reason that concerns all of it; `failed` is false where
    /// that is only a matter of waiting.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn postpone(
        &self,
        repository: RepositoryUuid,
        lease: Lease,
        next_attempt_us: i64,
        reason: &str,
        failed: bool,
    ) -> Result<()> {
        const POSTPONE: &str = "UPDATE tracked_repositories SET state = CASE WHEN state = 'synced' THEN state \
             WHEN $5 = 1 THEN 'failed' ELSE 'pending' END, attempts = attempts + 1, next_attempt_us = $3, last_error = $4, \
             lease_holder = NULL, lease_until_us = 0 WHERE repository = $1 AND lease_holder = $2";
        let params: Vec<Value> = vec![
            repository.into(),
            lease.holder.into(),
            next_attempt_us.into(),
            reason.into(),
            failed.into(),
        ];
        self.db
            .write(move |tx| {
                let params = params.clone();
                Box::pin(async move { tx.execute(POSTPONE, params).await.map(drop) })
            })
            .await
    }

    /// Makes what is still to be done of one repository due at once.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn hasten(&self, repository: RepositoryUuid) -> Result<()> {
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    // Items before their repository, as apply takes them.
                    tx.execute(
                        "UPDATE tracked_items SET next_attempt_us = 0 WHERE repository = $1 AND state <> 'synced'",
                        vec![repository.into()],
                    )
                    .await?;
                    tx.execute(
                        "UPDATE tracked_repositories SET next_attempt_us = 0 WHERE repository = $1",
                        vec![repository.into()],
                    )
                    .await
                    .map(drop)
                })
            })
            .await
    }

    /// Makes everything that failed due at once: the primary is back (hazard R14).
    ///
    /// # Errors
    /// Those of the database.
    pub async fn retry_now(&self) -> Result<()> {
        self.db
            .write(|tx| {
                Box::pin(async move {
                    // Items before their repositories, as apply takes them.
                    tx.execute(
                        "UPDATE tracked_items SET next_attempt_us = 0 WHERE state <> 'synced' AND next_attempt_us > 0",
                        vec![],
                    )
                    .await?;
                    tx.execute(
                        "UPDATE tracked_repositories SET next_attempt_us = 0, attempts = 0 \
                         WHERE state <> 'synced' AND next_attempt_us > 0",
                        vec![],
                    )
                    .await
                    .map(drop)
                })
            })
            .await
    }

    /// At most `limit` events of a repository after `after` and up to `through`, in order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn repository_events(
        &self,
        repository: RepositoryUuid,
        after: i64,
        through: i64,
        limit: u32,
    ) -> Result<Vec<LoggedEvent>> {
        const EVENTS: &str = "SELECT epoch, owner, seq, hash, body FROM events \
             WHERE repository = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4";
        let params = vec![repository.into(), after.into(), through.into(), limit.into()];
        self.db.query(EVENTS, params).await?.iter().map(crate::log::event).collect()
    }

    /// At most `limit` items of a repository that are still to be done: those that others depend on first, of
    /// each kind the longest due first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn unsettled_items(&self, repository: RepositoryUuid, limit: u32) -> Result<Vec<Unsettled>> {
        const ITEMS: &str = "SELECT kind, key, digest, position_seq, attempts, next_attempt_us, last_error, state \
             FROM tracked_items WHERE repository = $1 AND state <> 'synced' \
             ORDER BY kind, next_attempt_us LIMIT $2";
        let rows = self.db.query(ITEMS, vec![repository.into(), limit.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Unsettled {
                    kind: ItemKind::parse(&row.text(0)?)?,
                    key: row.text(1)?,
                    digest: row.digest(2)?,
                    position_seq: row.int(3)?,
                    attempts: row.int(4)?,
                    next_attempt_us: row.int(5)?,
                    error: row.opt_text(6)?.unwrap_or_default(),
                    failed: row.text(7)? == "failed",
                })
            })
            .collect()
    }
}
