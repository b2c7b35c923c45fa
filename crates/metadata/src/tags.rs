//! Tags: a name in a repository that points at a manifest.
//! Invariant: a tag's event carries what the tag pointed at before, read under the lock that the change holds.

use twinport_access::TagGuard;
use twinport_oci::{Digest, RepositoryName, Tag};

use crate::{
    Actor, Error, Event, EventKind, Metadata, Result,
    db::{Change, Origin, Tx, Value},
    deletions::{BURY, Candidate, Deleted, queue_candidate, tombstone},
    manifests::tag_of,
    repositories::{Repository, lock_shared},
};

pub(crate) const LIST: &str = "SELECT name FROM tags \
     WHERE repository_id = (SELECT id FROM repositories WHERE path = $1) AND name > $2 ORDER BY name LIMIT $3";
pub(crate) const LOCK: &str = "SELECT digest FROM tags WHERE repository_id = $1 AND name = $2 {for update}";
pub(crate) const SET: &str = "INSERT INTO tags \
     (repository_id, name, digest, tagged_at_us, change, position_epoch, position_seq) \
     VALUES ($1, $2, $3, $4, $5, $6, $7) \
     ON CONFLICT (repository_id, name) DO UPDATE SET digest = excluded.digest, \
     tagged_at_us = excluded.tagged_at_us, change = excluded.change, \
     position_epoch = excluded.position_epoch, position_seq = excluded.position_seq";
pub(crate) const DELETE: &str = "DELETE FROM tags WHERE repository_id = $1 AND name = $2";

impl Metadata {
    /// Up to `limit` tags after `after`, in byte order. `None`: there is no such repository.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<Vec<Tag>>> {
        let path = repository.as_str();
        let rows =
            self.db.scan(LIST, vec![path.into(), after.unwrap_or_default().into(), limit.into()]).await?;
        if rows.is_empty() && self.repository(repository).await?.is_none() {
            return Ok(None);
        }
        rows.iter().map(|row| tag_of(&row.text(0)?)).collect::<Result<Vec<_>>>().map(Some)
    }

    /// Deletes one tag; the manifest stays, and so do other tags on it. `false`: there is no such tag.
    ///
    /// # Errors
    /// [`Error::TagHeld`]; [`Error::NotPrimary`], [`Error::Halted`]; those of the database.
    pub async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        guard: &TagGuard,
        actor: &Actor,
    ) -> Result<bool> {
        let asked = (repository.clone(), tag.clone(), guard.clone(), actor.clone());
        self.db
            .write(move |tx| {
                let (name, tag, guard, actor) = asked.clone();
                Box::pin(async move { delete(tx, &name, &tag, &guard, &actor).await })
            })
            .await
    }
}

async fn delete(
    tx: &mut Tx,
    name: &RepositoryName,
    tag: &Tag,
    guard: &TagGuard,
    actor: &Actor,
) -> Result<bool> {
    let origin = tx.guard_origin().await?;
    let Some(repository) = lock_shared(tx, name).await? else { return Ok(false) };
    let row = tx.query_opt(LOCK, vec![repository.id.into(), tag.as_str().into()]).await?;
    let Some(row) = row else { return Ok(false) };
    guard.may_delete(tag)?;
    let digest = row.digest(0)?;
    remove(tx, &origin, &repository, &[(tag.clone(), digest)], actor).await?;
    queue_candidate(tx, Candidate::Manifest, repository.uuid, &digest).await?;
    Ok(true)
}

/// Excludes other pushes of tags that may not exist yet; `tags` is sorted, so that no two wait for each other.
pub(crate) async fn lock_names(tx: &mut Tx, repository_id: i64, tags: &[Tag]) -> Result<()> {
    for tag in tags {
        tx.lock_name(&format!("tag:{repository_id}:{tag}")).await?;
    }
    Ok(())
}

/// Points a locked tag at what its event says.
pub(crate) async fn set(tx: &mut Tx, repository: &Repository, event: &Event, change: &Change) -> Result<()> {
    let (Some(tag), Some(digest)) = (&event.tag, &event.digest) else {
        return Err(Error::Bug("an event that sets a tag names a tag and a digest".to_owned()));
    };
    let mut params: Vec<Value> =
        vec![repository.id.into(), tag.as_str().into(), digest.into(), tx.now_us().into()];
    params.extend(change.columns());
    tx.send(SET, params).await?;
    if let Some(previous) = &event.previous {
        queue_candidate(tx, Candidate::Manifest, repository.uuid, previous).await?;
    }
    Ok(())
}

/// Deletes locked tags, each with what it points at.
pub(crate) async fn remove(
    tx: &mut Tx,
    origin: &Origin,
    repository: &Repository,
    tags: &[(Tag, Digest)],
    actor: &Actor,
) -> Result<()> {
    let mut tombstones = Vec::with_capacity(tags.len());
    for (tag, digest) in tags {
        let mut event = repository.event(origin, EventKind::TagDeleted, actor);
        event.tag = Some(tag.clone());
        event.previous = Some(*digest);
        let change = tx.append(&event).await?;
        let key = tag.as_str().as_bytes();
        tombstones.push(tombstone(repository.uuid, Deleted::Tag, key, Some(digest), tx.now_us(), &change));
    }
    let rows = tags.iter().map(|(tag, _)| vec![repository.id.into(), tag.as_str().into()]).collect();
    tx.send_each(DELETE, rows).await?;
    tx.send_each(BURY, tombstones).await
}
