//! One manifest push: links checked, then every lock, then the events, then the rows.
//! Invariant: a tag is never visible before its manifest, nor a manifest before the blobs it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use twinport_oci::{Digest, Tag};

use super::{PutManifest, PutOutcome};
use crate::{
    Error, Event, EventKind, Result,
    blobs::LINKS_LOCK_SHARED,
    db::{Db, Origin, Tx, Value},
    repositories::{Repository, lock_or_create},
    tags,
};

pub(crate) const LOCK_SHARED: &str =
    "SELECT 1 FROM manifests WHERE repository_id = $1 AND digest = $2 {for key share}";
const INSERT: &str = "INSERT INTO manifests (repository_id, digest, media_type, artifact_type, subject, annotations, \
     size, body, pushed_at_us, change, position_epoch, position_seq) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
const INSERT_REFERENCE: &str = "INSERT INTO manifest_references (repository_id, manifest, child, kind) \
     VALUES ($1, $2, $3, $4) ON CONFLICT (repository_id, manifest, child) DO NOTHING";

pub(super) async fn put_manifest(db: &Db, mut put: PutManifest) -> Result<PutOutcome> {
    // Sorted, so that pushes that share rows lock them in one order.
    for digests in [&mut put.blobs, &mut put.manifests] {
        digests.sort_unstable();
        digests.dedup();
    }
    put.tags.sort_unstable();
    put.tags.dedup();
    let put = Arc::new(put);
    db.write(move |tx| {
        let put = Arc::clone(&put);
        Box::pin(async move { push(tx, &put).await })
    })
    .await
}

async fn push(tx: &mut Tx, put: &PutManifest) -> Result<PutOutcome> {
    let origin = tx.guard_origin().await?;
    let target = lock_or_create(tx, &put.repository).await?;
    let repository = &target.repository;
    lock_links(tx, repository, &put.blobs).await?;
    // Nobody else sees a repository that this transaction made: there is nothing in it to lock.
    let known = !target.created && lock_manifest(tx, repository, &put.digest).await?;
    let previous =
        if target.created { BTreeMap::new() } else { tags::lock(tx, repository, &put.tags).await? };

    target.log_creation(tx, &origin, &put.actor).await?;
    if !known {
        insert(tx, &origin, repository, put).await?;
    }
    for tag in &put.tags {
        let previous = previous.get(tag).copied();
        if previous != Some(put.digest) {
            tags::set(tx, repository, tag_event(&origin, repository, put, tag, previous)).await?;
        }
    }
    Ok(PutOutcome { created: !known })
}

/// Makes the blobs' links stay until the transaction ends; all that are missing are named at once.
async fn lock_links(tx: &mut Tx, repository: &Repository, blobs: &[Digest]) -> Result<()> {
    if blobs.is_empty() {
        return Ok(());
    }
    let keys = blobs.iter().map(Digest::to_key).collect();
    let rows = tx.query(LINKS_LOCK_SHARED, vec![repository.id.into(), Value::Blobs(keys)]).await?;
    let linked = rows.iter().map(|row| row.digest(0)).collect::<Result<BTreeSet<_>>>()?;
    let missing: Vec<Digest> = blobs.iter().filter(|digest| !linked.contains(digest)).copied().collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::BlobsUnknown(missing)) }
}

/// Excludes other pushes of this manifest, and its deletion; whether it is there.
async fn lock_manifest(tx: &mut Tx, repository: &Repository, digest: &Digest) -> Result<bool> {
    tx.lock_name(&format!("manifest:{}:{digest}", repository.id)).await?;
    Ok(tx.query_opt(LOCK_SHARED, vec![repository.id.into(), digest.into()]).await?.is_some())
}

async fn insert(tx: &mut Tx, origin: &Origin, repository: &Repository, put: &PutManifest) -> Result<()> {
    let change = tx.append(&manifest_event(origin, EventKind::ManifestPushed, repository, put)).await?;
    let mut params: Vec<Value> = vec![
        repository.id.into(),
        put.digest.into(),
        put.media_type.as_str().into(),
        put.artifact_type.as_deref().into(),
        put.subject.into(),
        put.annotations.as_str().into(),
        (put.body.len() as u64).into(),
        (&put.body).into(),
        tx.now_us().into(),
    ];
    params.extend(change.columns());
    tx.execute(INSERT, params).await?;
    insert_references(tx, repository.id, &put.digest, &put.blobs, &put.manifests).await
}

/// Records what a manifest points at: derived from its bytes, the same at every site.
pub(crate) async fn insert_references(
    tx: &mut Tx,
    repository_id: i64,
    manifest: &Digest,
    blobs: &[Digest],
    manifests: &[Digest],
) -> Result<()> {
    let blobs = blobs.iter().map(|child| (child, "blob"));
    let manifests = manifests.iter().map(|child| (child, "manifest"));
    let sets = blobs
        .chain(manifests)
        .map(|(child, kind)| vec![repository_id.into(), manifest.into(), child.into(), kind.into()])
        .collect();
    tx.execute_many(INSERT_REFERENCE, sets).await
}

fn manifest_event(origin: &Origin, kind: EventKind, repository: &Repository, put: &PutManifest) -> Event {
    Event {
        digest: Some(put.digest),
        media_type: Some(put.media_type.clone()),
        size: Some(put.body.len() as u64),
        subject: put.subject,
        ..repository.event(origin, kind, &put.actor)
    }
}

fn tag_event(
    origin: &Origin,
    repository: &Repository,
    put: &PutManifest,
    tag: &Tag,
    previous: Option<Digest>,
) -> Event {
    Event { tag: Some(tag.clone()), previous, ..manifest_event(origin, EventKind::TagSet, repository, put) }
}
