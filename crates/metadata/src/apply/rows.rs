//! The rows that an apply writes: links, manifests, tags, and the tombstones of what went.
//! Invariant: a row never goes back behind its own position or its tombstone's, whatever is applied twice or late.

use twinport_oci::Digest;

use super::{LinkRow, ManifestRow, Removal, Removed, TagRow};
use crate::{
    Error, LogPosition, RepositoryUuid, Result,
    db::{Tx, Value},
    deletions::{Candidate, Deleted, queue_candidate},
    manifests::insert_references,
};

const BLOBS: &str = "SELECT digest, state FROM blobs WHERE digest {any $1} ORDER BY digest {for key share}";
const REVIVE: &str =
    "UPDATE blobs SET state = 'live', condemned_at_us = NULL WHERE digest {any $1} AND state = 'condemned'";
const LINK: &str = "INSERT INTO blob_links (repository_id, digest, linked_at_us, position_epoch, position_seq) \
     SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT 1 FROM tombstones \
       WHERE repository = $6 AND kind = 'blob_link' AND key = $2 AND position_seq >= $5) \
     ON CONFLICT (repository_id, digest) DO UPDATE SET linked_at_us = excluded.linked_at_us, change = NULL, \
     position_epoch = excluded.position_epoch, position_seq = excluded.position_seq \
     WHERE blob_links.position_seq IS NULL OR blob_links.position_seq < excluded.position_seq";
const PUSH: &str = "INSERT INTO manifests (repository_id, digest, media_type, artifact_type, subject, annotations, \
     size, body, pushed_at_us, position_epoch, position_seq) \
     SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 WHERE NOT EXISTS (SELECT 1 FROM tombstones \
       WHERE repository = $12 AND kind = 'manifest' AND key = $2 AND position_seq >= $11) \
     ON CONFLICT (repository_id, digest) DO UPDATE SET media_type = excluded.media_type, \
     artifact_type = excluded.artifact_type, subject = excluded.subject, annotations = excluded.annotations, \
     size = excluded.size, body = excluded.body, pushed_at_us = excluded.pushed_at_us, change = NULL, \
     position_epoch = excluded.position_epoch, position_seq = excluded.position_seq \
     WHERE manifests.position_seq IS NULL OR manifests.position_seq < excluded.position_seq";
const QUEUE_UNTAGGED: &str = "INSERT INTO gc_candidates (kind, repository, digest, queued_at_us) \
     SELECT 'manifest', $1, digest, $2 FROM tags WHERE repository_id = $3 AND name = $4 AND digest <> $5";
const TAG: &str = "INSERT INTO tags (repository_id, name, digest, tagged_at_us, position_epoch, position_seq) \
     SELECT $1, $2, $3, $4, $5, $6 WHERE NOT EXISTS (SELECT 1 FROM tombstones \
       WHERE repository = $7 AND kind = 'tag' AND key = $8 AND position_seq >= $6) \
     ON CONFLICT (repository_id, name) DO UPDATE SET digest = excluded.digest, \
     tagged_at_us = excluded.tagged_at_us, change = NULL, \
     position_epoch = excluded.position_epoch, position_seq = excluded.position_seq \
     WHERE tags.position_seq IS NULL OR tags.position_seq < excluded.position_seq";
const UNTAG: &str = "DELETE FROM tags WHERE repository_id = $1 AND name = $2 \
     AND (position_seq IS NULL OR position_seq < $3) RETURNING digest";
const UNPUSH: &str = "DELETE FROM manifests WHERE repository_id = $1 AND digest = $2 \
     AND (position_seq IS NULL OR position_seq < $3)";
const UNTAG_ALL: &str = "DELETE FROM tags WHERE repository_id = $1 AND digest = $2 \
     AND (position_seq IS NULL OR position_seq < $3)";
const QUEUE_CHILDREN: &str = "INSERT INTO gc_candidates (kind, repository, digest, queued_at_us) \
     SELECT CASE kind WHEN 'blob' THEN 'link' ELSE 'manifest' END, $3, child, $4 FROM manifest_references \
     WHERE repository_id = $1 AND manifest = $2";
const FORGET_REFERENCES: &str = "DELETE FROM manifest_references WHERE repository_id = $1 AND manifest = $2";
const UNLINK: &str = "DELETE FROM blob_links WHERE repository_id = $1 AND digest = $2 \
     AND (position_seq IS NULL OR position_seq < $3)";
pub(crate) const BURY: &str = "INSERT INTO tombstones \
     (repository, kind, key, digest, deleted_at_us, position_epoch, position_seq) VALUES ($1, $2, $3, $4, $5, $6, $7) \
     ON CONFLICT (repository, kind, key) DO UPDATE SET digest = excluded.digest, \
     deleted_at_us = excluded.deleted_at_us, change = NULL, \
     position_epoch = excluded.position_epoch, position_seq = excluded.position_seq \
     WHERE tombstones.position_seq IS NULL OR tombstones.position_seq < excluded.position_seq";

/// Links blobs that have a row; one that has lost it must be fetched again before anything is linked.
pub(super) async fn link(tx: &mut Tx, id: i64, uuid: RepositoryUuid, links: &[LinkRow]) -> Result<()> {
    if links.is_empty() {
        return Ok(());
    }
    let keys: Vec<Vec<u8>> = links.iter().map(|link| link.digest.to_key()).collect();
    let rows = tx.query(BLOBS, vec![Value::Blobs(keys.clone())]).await?;
    let held = rows.iter().map(|row| row.digest(0)).collect::<Result<Vec<_>>>()?;
    let lost: Vec<Digest> =
        links.iter().map(|link| link.digest).filter(|digest| !held.contains(digest)).collect();
    if !lost.is_empty() {
        return Err(Error::BlobsUnknown(lost));
    }
    let condemned = rows.iter().map(|row| Ok(row.text(1)? == "condemned")).collect::<Result<Vec<_>>>()?;
    if condemned.contains(&true) {
        tx.send(REVIVE, vec![Value::Blobs(keys)]).await?;
    }
    let sets = links
        .iter()
        .map(|link| {
            let LogPosition { epoch, seq } = link.position;
            vec![
                id.into(),
                link.digest.into(),
                link.at_us.into(),
                epoch.number.into(),
                seq.into(),
                uuid.into(),
            ]
        })
        .collect();
    tx.send_each(LINK, sets).await
}

/// Stores manifests with what they point at.
pub(super) async fn push(
    tx: &mut Tx,
    id: i64,
    uuid: RepositoryUuid,
    manifests: &[ManifestRow],
) -> Result<()> {
    let sets = manifests
        .iter()
        .map(|manifest| {
            let LogPosition { epoch, seq } = manifest.position;
            vec![
                id.into(),
                manifest.digest.into(),
                manifest.media_type.as_str().into(),
                manifest.artifact_type.as_deref().into(),
                manifest.subject.into(),
                manifest.annotations.as_str().into(),
                (manifest.body.len() as u64).into(),
                (&manifest.body).into(),
                manifest.at_us.into(),
                epoch.number.into(),
                seq.into(),
                uuid.into(),
            ]
        })
        .collect();
    tx.send_each(PUSH, sets).await?;
    for manifest in manifests {
        insert_references(tx, id, &manifest.digest, &manifest.blobs, &manifest.children).await?;
    }
    Ok(())
}

/// Points tags at manifests that are here.
pub(super) async fn tag(tx: &mut Tx, id: i64, uuid: RepositoryUuid, tags: &[TagRow]) -> Result<()> {
    let now = tx.now_us();
    let untagged = tags
        .iter()
        .map(|tag| vec![uuid.into(), now.into(), id.into(), tag.tag.as_str().into(), tag.digest.into()])
        .collect();
    tx.send_each(QUEUE_UNTAGGED, untagged).await?;
    let sets = tags
        .iter()
        .map(|tag| {
            let LogPosition { epoch, seq } = tag.position;
            vec![
                id.into(),
                tag.tag.as_str().into(),
                tag.digest.into(),
                tag.at_us.into(),
                epoch.number.into(),
                seq.into(),
                uuid.into(),
                tag.tag.as_str().as_bytes().into(),
            ]
        })
        .collect();
    tx.send_each(TAG, sets).await
}

/// Takes away what its event took away, that and no more (hazard R4), and leaves a tombstone.
pub(super) async fn remove(tx: &mut Tx, id: i64, uuid: RepositoryUuid, removal: &Removal) -> Result<()> {
    let position = removal.position;
    match &removal.what {
        Removed::Tag(tag) => {
            let row = tx.query_opt(UNTAG, vec![id.into(), tag.as_str().into(), position.seq.into()]).await?;
            let digest = row.map(|row| row.digest(0)).transpose()?;
            if let Some(digest) = &digest {
                queue_candidate(tx, Candidate::Manifest, uuid, digest).await?;
            }
            let key = tag.as_str().as_bytes();
            bury(tx, uuid, Deleted::Tag, key, digest.as_ref(), removal.at_us, position).await
        }
        Removed::Manifest(digest) => {
            let key: Vec<Value> = vec![id.into(), digest.into()];
            let bound = [key.clone(), vec![position.seq.into()]].concat();
            if tx.execute(UNPUSH, bound.clone()).await? > 0 {
                // Tags that the primary has moved on already, to a manifest that this site could not get yet.
                tx.send(UNTAG_ALL, bound).await?;
                let queue = [key.clone(), vec![uuid.into(), tx.now_us().into()]].concat();
                tx.send(QUEUE_CHILDREN, queue).await?;
                tx.send(FORGET_REFERENCES, key).await?;
            }
            bury(tx, uuid, Deleted::Manifest, digest, Some(digest), removal.at_us, position).await
        }
        Removed::BlobLink(digest) => {
            tx.send(UNLINK, vec![id.into(), digest.into(), position.seq.into()]).await?;
            queue_candidate(tx, Candidate::Blob, uuid, digest).await?;
            bury(tx, uuid, Deleted::BlobLink, digest, Some(digest), removal.at_us, position).await
        }
    }
}

async fn bury(
    tx: &mut Tx,
    uuid: RepositoryUuid,
    kind: Deleted,
    key: impl Into<Value>,
    digest: Option<&Digest>,
    at_us: i64,
    position: LogPosition,
) -> Result<()> {
    tx.send(BURY, replicated_tombstone(uuid, kind, key, digest, at_us, position)).await?;
    Ok(())
}

/// The parameters of [`BURY`].
pub(crate) fn replicated_tombstone(
    uuid: RepositoryUuid,
    kind: Deleted,
    key: impl Into<Value>,
    digest: Option<&Digest>,
    at_us: i64,
    position: LogPosition,
) -> Vec<Value> {
    vec![
        uuid.into(),
        kind.as_str().into(),
        key.into(),
        digest.into(),
        at_us.into(),
        position.epoch.number.into(),
        position.seq.into(),
    ]
}
