//! Deleting a manifest: its own tags go first, its siblings' stay (hazard R4).
//! Invariant: no tag is left that points at a deleted manifest; what a held tag names, or needs, stays (hazard A7).

use twinport_access::{TagGuard, TagRefusal};
use twinport_oci::{Digest, RepositoryName, Tag};

use super::tag_of;
use crate::{
    Actor, Error, EventKind, Result,
    db::{Db, Origin, Row, Tx, Value},
    deletions::{Candidate, Deleted, bury},
    repositories::{Repository, lock_shared},
    tags,
};

/// Tags that one transaction deletes.
const TAGS_PER_STEP: usize = 500;

pub(crate) const LOCK_EXCLUSIVE: &str =
    "SELECT media_type, size, subject FROM manifests WHERE repository_id = $1 AND digest = $2 {for update}";
pub(crate) const TAGS_LOCK: &str = "SELECT name FROM tags WHERE repository_id = $1 AND digest = $2 \
     ORDER BY name LIMIT $3 {for update}";
pub(crate) const TAGS_LEFT: &str = "SELECT 1 FROM tags WHERE repository_id = $1 AND digest = $2 LIMIT $3";
/// The tags of a manifest or blob, and of every manifest above it.
pub(crate) const TAGS_ABOVE: &str = "WITH RECURSIVE above (digest) AS ( \
     SELECT digest FROM manifests WHERE repository_id = $1 AND digest = $2 \
     UNION SELECT manifest FROM manifest_references WHERE repository_id = $1 AND child = $2 \
     UNION SELECT r.manifest FROM above a JOIN manifest_references r ON r.repository_id = $1 AND r.child = a.digest) \
     SELECT t.name FROM above a JOIN tags t ON t.repository_id = $1 AND t.digest = a.digest";
pub(crate) const QUEUE_CHILDREN: &str = "INSERT INTO gc_candidates (kind, repository, digest, queued_at_us) \
     SELECT CASE kind WHEN 'blob' THEN $5 ELSE $6 END, $3, child, $4 FROM manifest_references \
     WHERE repository_id = $1 AND manifest = $2";

pub(super) async fn delete_manifest(
    db: &Db,
    repository: &RepositoryName,
    digest: &Digest,
    guard: &TagGuard,
    actor: &Actor,
) -> Result<bool> {
    let deletion =
        Deletion { name: repository.clone(), digest: *digest, guard: guard.clone(), actor: actor.clone() };
    let mut began = false;
    loop {
        let deletion = deletion.clone();
        let step = db
            .write(move |tx| {
                let deletion = deletion.clone();
                Box::pin(async move { delete_step(tx, &deletion, !began).await })
            })
            .await?;
        match step {
            Step::TagsLeft => began = true,
            Step::Gone => return Ok(true),
            Step::Unknown => return Ok(began),
        }
    }
}

#[derive(Clone)]
struct Deletion {
    name: RepositoryName,
    digest: Digest,
    guard: TagGuard,
    actor: Actor,
}

enum Step {
    Unknown,
    TagsLeft,
    Gone,
}

async fn delete_step(tx: &mut Tx, deletion: &Deletion, first: bool) -> Result<Step> {
    let Deletion { name, digest, guard, actor } = deletion;
    let origin = tx.guard_origin().await?;
    let Some(repository) = lock_shared(tx, name).await? else { return Ok(Step::Unknown) };
    let key: Vec<Value> = vec![repository.id.into(), digest.into()];
    // While this row is locked, no push can point another tag at it.
    let Some(manifest) = tx.query_opt(LOCK_EXCLUSIVE, key.clone()).await? else { return Ok(Step::Unknown) };
    if first {
        check_unheld(tx, repository.id, digest, guard, "manifest").await?;
    }
    let tags = lock_tags(tx, &key, TAGS_PER_STEP as u64).await?;
    for tag in &tags {
        // Those that were set since the first step.
        guard.may_delete(tag).map_err(|refusal| still_held("manifest", digest, refusal))?;
    }
    let mut bound = key.clone();
    bound.push(Value::from(TAGS_PER_STEP as u64 + 1));
    let tags_left = tx.query(TAGS_LEFT, bound).await?.len() > tags.len();

    let removed = tags.iter().map(|tag| (tag.clone(), *digest)).collect::<Vec<_>>();
    tags::remove(tx, &origin, &repository, &removed, actor).await?;
    if tags_left {
        return Ok(Step::TagsLeft);
    }
    erase(tx, &origin, &repository, digest, &manifest, actor).await?;
    Ok(Step::Gone)
}

/// Deletes a manifest that no tag names any more; `manifest` is its locked row.
pub(crate) async fn erase(
    tx: &mut Tx,
    origin: &Origin,
    repository: &Repository,
    digest: &Digest,
    manifest: &Row,
    actor: &Actor,
) -> Result<()> {
    let key: Vec<Value> = vec![repository.id.into(), digest.into()];
    let mut event = repository.event(origin, EventKind::ManifestDeleted, actor);
    event.digest = Some(*digest);
    event.media_type = manifest.opt_text(0)?;
    event.size = Some(manifest.size(1)?);
    event.subject = manifest.opt_digest(2)?;
    let change = tx.append(&event).await?;
    let mut queue = key.clone();
    queue.extend([
        repository.uuid.into(),
        tx.now_us().into(),
        Candidate::Link.as_str().into(),
        Candidate::Manifest.as_str().into(),
    ]);
    tx.send(QUEUE_CHILDREN, queue).await?;
    tx.send("DELETE FROM manifest_references WHERE repository_id = $1 AND manifest = $2", key.clone())
        .await?;
    tx.send("DELETE FROM manifests WHERE repository_id = $1 AND digest = $2", key).await?;
    bury(tx, repository.uuid, Deleted::Manifest, digest, Some(digest), &change).await
}

/// Refuses to delete a manifest or blob while a tag above it is kept from deletion.
pub(crate) async fn check_unheld(
    tx: &mut Tx,
    repository_id: i64,
    digest: &Digest,
    guard: &TagGuard,
    what: &str,
) -> Result<()> {
    if !guard.keeps_from_deletion() {
        return Ok(());
    }
    for row in tx.query(TAGS_ABOVE, vec![repository_id.into(), digest.into()]).await? {
        let tag = tag_of(&row.text(0)?)?;
        guard.may_delete(&tag).map_err(|refusal| still_held(what, digest, refusal))?;
    }
    Ok(())
}

fn still_held(what: &str, digest: &Digest, refusal: TagRefusal) -> Error {
    Error::StillHeld { what: format!("the {what} {digest}"), refusal }
}

async fn lock_tags(tx: &mut Tx, key: &[Value], limit: u64) -> Result<Vec<Tag>> {
    let mut params = key.to_vec();
    params.push(limit.into());
    tx.query(TAGS_LOCK, params).await?.iter().map(|row| tag_of(&row.text(0)?)).collect()
}
