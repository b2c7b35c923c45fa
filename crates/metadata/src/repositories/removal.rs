//! Deleting a repository: invisible at once, its rows gone in bounded steps.
//! Invariant: every blob it linked becomes a candidate for garbage collection before its link is forgotten.

use twinport_access::TagGuard;
use twinport_oci::RepositoryName;

use super::lock_exclusive;
use crate::{
    Actor, Error, EventKind, Metadata, RepositoryUuid, Result,
    db::{Tx, Value},
    deletions::{Candidate, Deleted, bury},
    manifests::tag_of,
};

/// Rows of each table that one transaction deletes.
const ROWS_PER_STEP: i64 = 1000;

pub(crate) const TAGS: &str =
    "SELECT name FROM tags WHERE repository_id = $1 AND name > $2 ORDER BY name LIMIT $3";
pub(crate) const DELETE_TAGS: &str = "DELETE FROM tags WHERE repository_id = $1 AND name IN \
     (SELECT name FROM tags WHERE repository_id = $1 ORDER BY name LIMIT $2)";
pub(crate) const DELETE_REFERENCES: &str = "DELETE FROM manifest_references WHERE repository_id = $1 AND manifest IN \
     (SELECT digest FROM manifests WHERE repository_id = $1 ORDER BY digest LIMIT $2)";
pub(crate) const DELETE_MANIFESTS: &str = "DELETE FROM manifests WHERE repository_id = $1 AND digest IN \
     (SELECT digest FROM manifests WHERE repository_id = $1 ORDER BY digest LIMIT $2)";
pub(crate) const QUEUE_LINKS: &str = "INSERT INTO gc_candidates (kind, repository, digest, queued_at_us) \
     SELECT $5, $3, digest, $4 FROM blob_links WHERE repository_id = $1 ORDER BY digest LIMIT $2";
pub(crate) const DELETE_LINKS: &str = "DELETE FROM blob_links WHERE repository_id = $1 AND digest IN \
     (SELECT digest FROM blob_links WHERE repository_id = $1 ORDER BY digest LIMIT $2)";

impl Metadata {
    /// Deletes a repository with everything in it; `false`: there is none at this path. The blobs' bytes stay.
    ///
    /// # Errors
    /// [`Error::StillHeld`] where one of its tags may not be deleted; [`Error::NotPrimary`], [`Error::Halted`]; those of
    /// the database. After an error half way the repository is
    /// either untouched or gone for every reader, with rows left that garbage collection sweeps.
    pub async fn delete_repository(
        &self,
        name: &RepositoryName,
        guard: &TagGuard,
        actor: &Actor,
    ) -> Result<bool> {
        let asked = (name.clone(), guard.clone(), actor.clone());
        let outcome = self
            .db
            .write(move |tx| {
                let (name, guard, actor) = asked.clone();
                Box::pin(async move { delete(tx, &name, &guard, &actor).await })
            })
            .await?;
        match outcome {
            Outcome::Unknown => Ok(false),
            Outcome::Gone => Ok(true),
            Outcome::RowsLeft(leftover) => {
                self.sweep_deleted_repository(leftover).await?;
                Ok(true)
            }
        }
    }

    /// Deletes the rows of a deleted repository that one transaction could not hold. Safe to repeat.
    ///
    /// # Errors
    /// Those of the database; what is done stays done.
    pub(crate) async fn sweep_deleted_repository(&self, leftover: Leftover) -> Result<()> {
        loop {
            let finished = self
                .db
                .write(move |tx| {
                    Box::pin(async move {
                        let finished = delete_rows(tx, leftover.id, leftover.uuid).await?;
                        if finished {
                            tx.execute(
                                "DELETE FROM gc_candidates WHERE id = $1",
                                vec![leftover.candidate.into()],
                            )
                            .await?;
                        }
                        Ok(finished)
                    })
                })
                .await?;
            if finished {
                return Ok(());
            }
        }
    }
}

/// A deleted repository that still has rows, and the gc candidate that says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leftover {
    pub(crate) id: i64,
    pub(crate) uuid: RepositoryUuid,
    pub(crate) candidate: i64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Unknown,
    Gone,
    RowsLeft(Leftover),
}

async fn delete(tx: &mut Tx, name: &RepositoryName, guard: &TagGuard, actor: &Actor) -> Result<Outcome> {
    let origin = tx.guard_origin().await?;
    let Some(repository) = lock_exclusive(tx, name).await? else { return Ok(Outcome::Unknown) };
    check_tags(tx, repository.id, name, guard).await?;
    let outcome = remove(tx, repository.id, repository.uuid).await?;
    let change = tx.append(&repository.event(&origin, EventKind::RepositoryDeleted, actor)).await?;
    bury(tx, repository.uuid, Deleted::Repository, name.as_str().as_bytes(), None, &change).await?;
    Ok(outcome)
}

/// Refuses where a tag is kept from deletion (hazard A7). No push comes in between: the repository is locked.
async fn check_tags(tx: &mut Tx, id: i64, name: &RepositoryName, guard: &TagGuard) -> Result<()> {
    if !guard.keeps_from_deletion() {
        return Ok(());
    }
    let mut after = String::new();
    loop {
        let page = tx.query(TAGS, vec![id.into(), after.as_str().into(), ROWS_PER_STEP.into()]).await?;
        for row in &page {
            let tag = tag_of(&row.text(0)?)?;
            let held = |refusal| Error::StillHeld { what: format!("the repository {name}"), refusal };
            guard.may_delete(&tag).map_err(held)?;
        }
        match page.last() {
            Some(last) if page.len() as i64 == ROWS_PER_STEP => after = last.text(0)?,
            _ => return Ok(()),
        }
    }
}

/// Deletes the row, and as many of the rows under it as one transaction should.
pub(crate) async fn remove(tx: &mut Tx, id: i64, uuid: RepositoryUuid) -> Result<Outcome> {
    let finished = delete_rows(tx, id, uuid).await?;
    tx.execute("DELETE FROM repositories WHERE id = $1", vec![id.into()]).await?;
    if finished {
        return Ok(Outcome::Gone);
    }
    let row = tx
        .query_opt(
            "INSERT INTO gc_candidates (kind, repository, digest, queued_at_us) VALUES ($1, $2, $3, $4) RETURNING id",
            vec![
                Candidate::Repository.as_str().into(),
                uuid.into(),
                id.to_be_bytes().as_slice().into(),
                tx.now_us().into(),
            ],
        )
        .await?
        .ok_or_else(|| Error::Bug("an insert returned no id".to_owned()))?;
    Ok(Outcome::RowsLeft(Leftover { id, uuid, candidate: row.int(0)? }))
}

/// One bounded step; whether nothing is left.
async fn delete_rows(tx: &mut Tx, id: i64, uuid: RepositoryUuid) -> Result<bool> {
    let step = |id: i64| -> Vec<Value> { vec![id.into(), ROWS_PER_STEP.into()] };
    let full = |rows: u64| rows >= ROWS_PER_STEP.unsigned_abs();
    let tags = tx.execute(DELETE_TAGS, step(id)).await?;
    tx.execute(DELETE_REFERENCES, step(id)).await?;
    let manifests = tx.execute(DELETE_MANIFESTS, step(id)).await?;
    let mut queue = step(id);
    queue.extend([uuid.into(), tx.now_us().into(), Candidate::Blob.as_str().into()]);
    tx.execute(QUEUE_LINKS, queue).await?;
    let links = tx.execute(DELETE_LINKS, step(id)).await?;
    Ok(!full(tags) && !full(manifests) && !full(links))
}
