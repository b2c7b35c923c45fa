//! What retention takes, and how it comes back: tags go first, into a trash that remembers what each named; manifests go
//! when their time in it is over, and only those that nothing names by then.
//! Guards: a tag that was moved, or is held, since it was chosen stays; what an index, a subject or a tag needs stays.

mod trash;

use std::sync::Arc;

use twinport_access::{RuleName, TagGuard};
use twinport_oci::{Digest, RepositoryName, Tag};

pub(crate) use self::trash::keep_from_trash;
pub use self::trash::{Emptied, Restored, TrashRow};
use crate::{
    Actor, Metadata, Result,
    db::{Tx, Value},
    deletions::{Candidate, queue_candidate},
    manifests::tag_of,
    repositories::lock_shared,
    tags,
};

/// A tag, and since when it names what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgedTag {
    pub tag: Tag,
    pub digest: Digest,
    /// µs since the epoch, UTC.
    pub tagged_at_us: i64,
}

/// How the latest run of a rule ended; counts are of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRun {
    pub rule: String,
    /// µs since the epoch, UTC.
    pub ran_at_us: i64,
    /// Those that the rule is about.
    pub considered: u64,
    /// Those that it would take.
    pub planned: u64,
    pub taken: u64,
    /// `done`, or why it took nothing.
    pub outcome: String,
}

pub(crate) const AGED: &str = "SELECT t.name, t.digest, t.tagged_at_us FROM tags t \
     WHERE t.repository_id = (SELECT id FROM repositories WHERE path = $1) AND t.name > $2 ORDER BY t.name LIMIT $3";
pub(crate) const LOCK_AGED: &str =
    "SELECT digest, tagged_at_us FROM tags WHERE repository_id = $1 AND name = $2 {for update}";
const TRASH: &str = "INSERT INTO retention_trash (repository, digest, tag, rule, taken_at_us, due_at_us) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (repository, digest, tag) DO UPDATE SET rule = excluded.rule, \
     taken_at_us = excluded.taken_at_us, due_at_us = excluded.due_at_us";

impl Metadata {
    /// Up to `limit` tags after `after`, in byte order, with their ages.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn aged_tags(
        &self,
        repository: &RepositoryName,
        after: Option<&Tag>,
        limit: u32,
    ) -> Result<Vec<AgedTag>> {
        let after = after.map(Tag::as_str).unwrap_or_default();
        let rows = self.db.scan(AGED, vec![repository.as_str().into(), after.into(), limit.into()]).await?;
        rows.iter()
            .map(|row| {
                Ok(AgedTag { tag: tag_of(&row.text(0)?)?, digest: row.digest(1)?, tagged_at_us: row.int(2)? })
            })
            .collect()
    }

    /// Deletes tags for a rule, each if it is still as it was chosen and nothing holds it, and keeps in the trash what they
    /// named until `due_at_us` (µs since the epoch); how many went.
    ///
    /// # Errors
    /// [`crate::Error::NotPrimary`], [`crate::Error::Halted`]; those of the database.
    pub async fn take_tags(
        &self,
        repository: &RepositoryName,
        rule: &RuleName,
        mut chosen: Vec<AgedTag>,
        due_at_us: i64,
        guard: &TagGuard,
        actor: &Actor,
    ) -> Result<u64> {
        // As every transaction locks tags.
        chosen.sort_unstable_by(|one, other| one.tag.cmp(&other.tag));
        let taking = Arc::new(Taking {
            repository: repository.clone(),
            rule: rule.clone(),
            chosen,
            due_at_us,
            guard: guard.clone(),
            actor: actor.clone(),
        });
        self.db
            .write(move |tx| {
                let taking = Arc::clone(&taking);
                Box::pin(async move { take(tx, &taking).await })
            })
            .await
    }

    /// Records how a run of a rule ended.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn record_retention_run(&self, run: RetentionRun) -> Result<()> {
        const RECORD: &str = "INSERT INTO retention_runs (rule, ran_at_us, considered, planned, taken, outcome) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (rule) DO UPDATE SET ran_at_us = excluded.ran_at_us, \
             considered = excluded.considered, planned = excluded.planned, taken = excluded.taken, \
             outcome = excluded.outcome";
        let row: Vec<Value> = vec![
            run.rule.into(),
            run.ran_at_us.into(),
            run.considered.into(),
            run.planned.into(),
            run.taken.into(),
            run.outcome.into(),
        ];
        self.db
            .write(move |tx| {
                let row = row.clone();
                Box::pin(async move { tx.send(RECORD, row).await })
            })
            .await
    }

    /// How the latest run of each rule ended.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn retention_runs(&self) -> Result<Vec<RetentionRun>> {
        const RUNS: &str =
            "SELECT rule, ran_at_us, considered, planned, taken, outcome FROM retention_runs ORDER BY rule";
        let rows = self.db.scan(RUNS, vec![]).await?;
        rows.iter()
            .map(|row| {
                Ok(RetentionRun {
                    rule: row.text(0)?,
                    ran_at_us: row.int(1)?,
                    considered: row.size(2)?,
                    planned: row.size(3)?,
                    taken: row.size(4)?,
                    outcome: row.text(5)?,
                })
            })
            .collect()
    }
}

struct Taking {
    repository: RepositoryName,
    rule: RuleName,
    chosen: Vec<AgedTag>,
    due_at_us: i64,
    guard: TagGuard,
    actor: Actor,
}

async fn take(tx: &mut Tx, taking: &Taking) -> Result<u64> {
    let origin = tx.guard_origin().await?;
    let Some(repository) = lock_shared(tx, &taking.repository).await? else { return Ok(0) };
    let mut taken = Vec::new();
    for aged in &taking.chosen {
        let row = tx.query_opt(LOCK_AGED, vec![repository.id.into(), aged.tag.as_str().into()]).await?;
        let Some(row) = row else { continue };
        let same = row.digest(0)? == aged.digest && row.int(1)? == aged.tagged_at_us;
        if same && taking.guard.may_delete(&aged.tag).is_ok() {
            taken.push((aged.tag.clone(), aged.digest));
        }
    }
    tags::remove(tx, &origin, &repository, &taken, &taking.actor).await?;
    let now_us = tx.now_us();
    let mut trash = Vec::with_capacity(taken.len());
    for (tag, digest) in &taken {
        queue_candidate(tx, Candidate::Manifest, repository.uuid, digest).await?;
        trash.push(vec![
            repository.uuid.into(),
            digest.into(),
            tag.as_str().into(),
            taking.rule.as_str().into(),
            now_us.into(),
            taking.due_at_us.into(),
        ]);
    }
    tx.send_each(TRASH, trash).await?;
    Ok(taken.len() as u64)
}
