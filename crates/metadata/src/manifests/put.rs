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
    blobs::{LINK_LOCK_SHARED, LINKS_LOCK_SHARED},
    db::{Change, Db, Dialect, Origin, Tx, Value},
    repositories::{Repository, Target, enter},
    retention::keep_from_trash,
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
    let (origin, target) = enter(tx, &put.repository).await?;
    let repository = &target.repository;
    let Held { known, previous } = lock(tx, &target, put).await?;
    check_tags(put, &previous)?;

    target.log_creation(tx, &origin, &put.actor).await?;
    let mut events = Vec::with_capacity(1 + put.tags.len());
    if !known {
        events.push(manifest_event(&origin, EventKind::ManifestPushed, repository, put));
    }
    let moved = put.tags.iter().filter(|tag| previous.get(*tag) != Some(&put.digest));
    events.extend(moved.map(|tag| tag_event(&origin, repository, put, tag, previous.get(tag).copied())));
    let again = known.then_some(&put.digest);
    keep_from_trash(tx, repository.uuid, again.into_iter().chain(&put.manifests)).await?;
    let changes = tx.append_each(&events).await?;
    for (event, change) in events.iter().zip(&changes) {
        match event.kind {
            EventKind::TagSet => tags::set(tx, repository, event, change).await?,
            _ => insert(tx, repository, put, change).await?,
        }
    }
    Ok(PutOutcome { created: !known })
}

/// A tag that names this manifest already is neither set nor moved, whatever holds it.
fn check_tags(put: &PutManifest, previous: &BTreeMap<Tag, Digest>) -> Result<()> {
    for tag in &put.tags {
        match previous.get(tag) {
            None => put.guard.may_set(tag)?,
            Some(digest) if *digest != put.digest => put.guard.may_move(tag)?,
            Some(_) => {}
        }
    }
    Ok(())
}

/// What was there when the locks of a push were had.
struct Held {
    /// The manifest itself.
    known: bool,
    previous: BTreeMap<Tag, Digest>,
}

/// Takes every lock of a push: what it names stays until the transaction ends, and other pushes that would make the same
/// manifest or move the same tags wait. Tags on a manifest that is there already wait for no other tag. Locks on names
/// are taken by pushes alone, tags' first; of rows, manifests come before tags, as a deletion takes them. All blobs that
/// are missing are named.
async fn lock(tx: &mut Tx, target: &Target, put: &PutManifest) -> Result<Held> {
    let id = target.repository.id;
    let manifest = || (LOCK_SHARED, vec![id.into(), put.digest.into()]);
    let mut reads = link_reads(tx.dialect(), id, &put.blobs);
    let links = reads.len();
    // Nobody else sees a repository that this transaction made: there is nothing in it to lock.
    if !target.created {
        tags::lock_names(tx, id, &put.tags).await?;
        reads.push(manifest());
        reads.extend(put.tags.iter().map(|tag| (tags::LOCK, vec![id.into(), tag.as_str().into()])));
    }
    let mut answers = tx.query_each(reads).await?.into_iter();
    let linked =
        answers.by_ref().take(links).flatten().map(|row| row.digest(0)).collect::<Result<BTreeSet<_>>>()?;
    let missing: Vec<Digest> = put.blobs.iter().filter(|digest| !linked.contains(digest)).copied().collect();
    if !missing.is_empty() {
        return Err(Error::BlobsUnknown(missing));
    }
    let mut known = answers.next().is_some_and(|rows| !rows.is_empty());
    // SQLite has one writer: nobody can have made it since.
    if !known && !target.created && tx.dialect() == Dialect::Postgres {
        tx.lock_name(&format!("manifest:{id}:{}", put.digest)).await?;
        // Whoever held the name before may have made it.
        known = tx.query_each(vec![manifest()]).await?.iter().any(|rows| !rows.is_empty());
    }
    let mut previous = BTreeMap::new();
    for (tag, rows) in put.tags.iter().zip(answers) {
        if let Some(row) = rows.first() {
            previous.insert(tag.clone(), row.digest(0)?);
        }
    }
    Ok(Held { known, previous })
}

/// Reads that lock the links of blobs and tell which there are. SQLite would make a table of a set, for each push: there, one
/// look for each costs less.
fn link_reads(dialect: Dialect, repository_id: i64, blobs: &[Digest]) -> Vec<(&'static str, Vec<Value>)> {
    match dialect {
        Dialect::Sqlite => {
            blobs.iter().map(|digest| (LINK_LOCK_SHARED, vec![repository_id.into(), digest.into()])).collect()
        }
        Dialect::Postgres => {
            let keys = blobs.iter().map(Digest::to_key).collect();
            vec![(LINKS_LOCK_SHARED, vec![repository_id.into(), Value::Blobs(keys)])]
        }
    }
}

async fn insert(tx: &mut Tx, repository: &Repository, put: &PutManifest, change: &Change) -> Result<()> {
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
    tx.send(INSERT, params).await?;
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
    tx.send_each(INSERT_REFERENCE, sets).await
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
