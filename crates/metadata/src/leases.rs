//! Work that one node of a site does at a time: who has it, by the database's clock, and the token that fences who had it.
//!
//! **Architecture invariant:** a write under a lease commits only while the lease is still its holder's; a takeover waits
//! for such a write or comes before it.

mod lead;

use std::{fmt, sync::Arc};

use uuid::Uuid;

use crate::{
    Error, Metadata, Result,
    db::{Dialect, Row, Tx, Value},
};

/// How long a lease holds without a sign of life of its holder (µs). Renewed every third of it.
pub(crate) const LEASE_US: i64 = 6_000_000;

/// What one node does for its site. The numbering of the log is not among them: its lease rides on the head's own row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Job {
    /// Following the primary: ingest, backfill, verification, reports.
    Replication,
    /// Ending abandoned upload sessions.
    Uploads,
    /// Rules of retention, and the trash.
    Retention,
    /// Counting for quotas.
    Usage,
    /// Telling keys to other sites, forgetting refresh tokens.
    Tokens,
    /// Hashing every blob anew.
    Scrub,
}

impl Job {
    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replication => "replication",
            Self::Uploads => "uploads",
            Self::Retention => "retention",
            Self::Usage => "usage",
            Self::Tokens => "tokens",
            Self::Scrub => "scrub",
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A lease that this node has, or had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLease {
    pub job: Job,
    pub holder: Uuid,
    /// Rises whenever the job changes hands.
    pub token: i64,
}

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// [`Job::as_str`], `log` for the numbering, or a job that only a newer node knows.
    pub job: String,
    pub holder: Uuid,
    pub token: i64,
    /// Since when its holder has it (µs since the epoch, by the database's clock).
    pub since_us: i64,
    /// How much longer it holds (µs); not positive once it has lapsed.
    pub left_us: i64,
}

/// What its holder last noted with a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseNote {
    pub holder: Uuid,
    pub text: String,
    /// How long ago, by the database's clock (µs).
    pub age_us: i64,
}

/// What every write of a fenced handle asks first.
#[derive(Debug)]
pub(crate) struct Fence(JobLease);

impl Fence {
    /// Locks the lease against a takeover until the transaction ends; renewals go on.
    pub(crate) async fn check(&self, tx: &mut Tx) -> Result<()> {
        const HELD: &str =
            "SELECT 1 FROM leases WHERE job = $1 AND holder = $2 AND token = $3 {for key share}";
        let Self(lease) = self;
        let params: Vec<Value> = vec![lease.job.as_str().into(), lease.holder.into(), lease.token.into()];
        match tx.query_opt(HELD, params).await? {
            Some(_) => Ok(()),
            None => Err(Error::LeaseLost(lease.job.as_str())),
        }
    }
}

impl Metadata {
    /// Takes a lease that nobody has, or keeps the one that this node has. `None`: another node has it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn take_lease(&self, job: Job) -> Result<Option<JobLease>> {
        if self.is_alone() {
            return Ok(Some(JobLease { job, holder: self.node, token: 0 }));
        }
        const STANDS: &str = "SELECT holder, token, until_us - {now $2} FROM leases WHERE job = $1";
        let key = vec![job.as_str().into(), self.lease_clock()];
        // Neither this nor a renewal waits behind clients: a busy node would lose what it is doing.
        let db = self.db.reserved();
        if let Some(row) = db.query_opt(STANDS, key).await? {
            let holder = row.opt_blob(0)?.map(|_| row.uuid(0)).transpose()?;
            let holds = row.int(2)? > 0 && row.int(2)? <= 4 * LEASE_US;
            match holder {
                Some(holder) if holds && holder == self.node => {
                    let lease = JobLease { job, holder, token: row.int(1)? };
                    return Ok(self.renew_lease(&lease, None).await?.then_some(lease));
                }
                Some(_) if holds => return Ok(None),
                _ => {}
            }
        }
        let holder = self.node;
        db.write(move |tx| Box::pin(take(tx, job, holder))).await
    }

    /// Says that the work goes on, and notes something for other nodes to read; false where the lease went to another.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn renew_lease(&self, lease: &JobLease, note: Option<&str>) -> Result<bool> {
        const RENEW: &str = "UPDATE leases SET until_us = {now $4} + $5, note = COALESCE($6, note), \
             noted_at_us = CASE WHEN $6 IS NULL THEN noted_at_us ELSE {now $4} END \
             WHERE job = $1 AND holder = $2 AND token = $3";
        if self.is_alone() {
            return Ok(true);
        }
        let (lease, note) = (*lease, note.map(str::to_owned));
        self.db
            .reserved()
            .write(move |tx| {
                let params: Vec<Value> = vec![
                    lease.job.as_str().into(),
                    lease.holder.into(),
                    lease.token.into(),
                    tx.lease_clock(),
                    LEASE_US.into(),
                    note.as_deref().into(),
                ];
                Box::pin(async move {
                    tx.commit_lazily().await?;
                    Ok(tx.execute(RENEW, params).await? == 1)
                })
            })
            .await
    }

    /// Gives a lease back, so that another node need not wait until it lapses.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn give_lease(&self, lease: &JobLease) -> Result<()> {
        const GIVE: &str = "UPDATE leases SET until_us = 0 WHERE job = $1 AND holder = $2 AND token = $3";
        if self.is_alone() {
            return Ok(());
        }
        let lease = *lease;
        self.db
            .reserved()
            .write(move |tx| {
                let params: Vec<Value> =
                    vec![lease.job.as_str().into(), lease.holder.into(), lease.token.into()];
                Box::pin(async move { tx.execute(GIVE, params).await.map(drop) })
            })
            .await
    }

    /// A handle whose every write fails with [`Error::LeaseLost`] once the lease is another's.
    #[must_use]
    pub fn under(&self, lease: &JobLease) -> Self {
        Self { db: self.db.fenced(Arc::new(Fence(*lease))), ..self.clone() }
    }

    /// Who does what, the numbering of the log included.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn leases(&self) -> Result<Vec<LeaseRecord>> {
        const LEASES: &str = "SELECT job, holder, token, since_us, until_us - {now $1} FROM leases \
             WHERE holder IS NOT NULL ORDER BY job";
        const NUMBERING: &str = "SELECT 'log', lease_holder, seq, lease_until_us, lease_until_us - {now $1} \
             FROM log_head WHERE id = 1 AND lease_holder IS NOT NULL";
        let read = |row: &Row| {
            Ok(LeaseRecord {
                job: row.text(0)?,
                holder: row.uuid(1)?,
                token: row.int(2)?,
                since_us: row.int(3)?,
                left_us: row.int(4)?,
            })
        };
        let mut rows = self.db.query(NUMBERING, vec![self.lease_clock()]).await?;
        rows.extend(self.db.query(LEASES, vec![self.lease_clock()]).await?);
        rows.iter().map(read).collect()
    }

    /// What the holder of a lease noted last.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn lease_note(&self, job: Job) -> Result<Option<LeaseNote>> {
        const NOTE: &str = "SELECT holder, note, {now $2} - noted_at_us FROM leases \
             WHERE job = $1 AND holder IS NOT NULL AND noted_at_us IS NOT NULL";
        let params = vec![job.as_str().into(), self.lease_clock()];
        let row = self.db.query_opt(NOTE, params).await?;
        row.map(|row| Ok(LeaseNote { holder: row.uuid(0)?, text: row.text(1)?, age_us: row.int(2)?.max(0) }))
            .transpose()
    }

    /// SQLite has one process, which does everything and need not say so.
    pub(crate) fn is_alone(&self) -> bool {
        self.db.dialect() == Dialect::Sqlite
    }

    /// The time that leases are held by, as a parameter of `{now …}`.
    pub(crate) fn lease_clock(&self) -> Value {
        self.db.dialect().lease_clock(self.clock())
    }
}

/// Looks again under the row's lock, which waits for writes that the last holder has under way.
async fn take(tx: &mut Tx, job: Job, holder: Uuid) -> Result<Option<JobLease>> {
    const ROW: &str = "INSERT INTO leases (job, token, since_us, until_us) VALUES ($1, 0, 0, 0) ON CONFLICT (job) DO NOTHING";
    const LAPSED: &str = "SELECT token FROM leases WHERE job = $1 AND (holder IS NULL OR until_us <= {now $2} \
         OR until_us > {now $2} + $3) {for update}";
    const TAKE: &str = "UPDATE leases SET holder = $2, token = $3, since_us = {now $4}, until_us = {now $4} + $5, \
         note = NULL, noted_at_us = NULL WHERE job = $1";
    let name: Value = job.as_str().into();
    tx.send(ROW, vec![name.clone()]).await?;
    let beyond = 4 * LEASE_US;
    let Some(row) = tx.query_opt(LAPSED, vec![name.clone(), tx.lease_clock(), beyond.into()]).await? else {
        return Ok(None);
    };
    let token = row.int(0)? + 1;
    let params = vec![name, holder.into(), token.into(), tx.lease_clock(), LEASE_US.into()];
    tx.execute(TAKE, params).await?;
    Ok(Some(JobLease { job, holder, token }))
}
