//! The trash: what it holds, bringing a tag back, and emptying it when the time of something is over.
//! Guards: a manifest goes only when no tag and no index names it, and its subject, if it has one, is gone too.

use std::sync::Arc;

use twinport_access::TagGuard;
use twinport_oci::{Digest, RepositoryName, Tag};

use crate::{
    Actor, Error, Event, EventKind, Metadata, RepositoryUuid, Result,
    db::{Row, Tx, Value},
    manifests::{check_unheld, delete, put, tag_of},
    repositories::{Repository, lock_shared},
    tags,
};

/// Something that retention took away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashRow {
    pub repository: RepositoryName,
    /// The identity of the repository at every site.
    pub uuid: RepositoryUuid,
    pub digest: Digest,
    /// None for a manifest that only a deleted one named.
    pub tag: Option<Tag>,
    pub rule: String,
    /// µs since the epoch, UTC.
    pub taken_at_us: i64,
    /// When it is deleted for good (µs since the epoch, UTC).
    pub due_at_us: i64,
}

/// What became of a row whose time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emptied {
    /// The manifest is deleted.
    Deleted,
    /// Something names it by now, or it is gone already: the trash has no more to do with it.
    Kept,
}

/// What became of a wish to have a tag back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It names this manifest again.
    To(Digest),
    /// A tag of this name is there; it names this manifest.
    Taken(Digest),
    /// The trash does not hold it.
    Unknown,
}

pub(crate) const DUE: &str = "SELECT r.path, t.repository, t.digest, t.tag, t.rule, t.taken_at_us, t.due_at_us \
     FROM retention_trash t LEFT JOIN repositories r ON r.uuid = t.repository \
     WHERE t.due_at_us <= $1 ORDER BY t.due_at_us LIMIT $2";
pub(crate) const OF_REPOSITORY: &str = "SELECT t.repository, t.digest, t.tag, t.rule, t.taken_at_us, t.due_at_us \
     FROM retention_trash t WHERE t.repository = (SELECT uuid FROM repositories WHERE path = $1) AND t.tag > $2 \
     ORDER BY t.tag LIMIT $3";
const FORGET: &str = "DELETE FROM retention_trash WHERE repository = $1 AND digest = $2";
pub(crate) const PARENT: &str =
    "SELECT 1 FROM manifest_references WHERE repository_id = $1 AND child = $2 LIMIT $3";
/// What goes with a manifest unless something else needs it: its children, and what refers to it.
pub(crate) const FOLLOWERS: &str = "INSERT INTO retention_trash (repository, digest, tag, rule, taken_at_us, due_at_us) \
     SELECT $3, f.digest, '', $4, $5, $5 FROM \
     (SELECT child AS digest FROM manifest_references WHERE repository_id = $1 AND manifest = $2 AND kind = 'manifest' \
     UNION SELECT digest FROM manifests WHERE repository_id = $1 AND subject = $2) f WHERE true \
     ON CONFLICT (repository, digest, tag) DO NOTHING";

impl Metadata {
    /// Up to `limit` tags of a repository that are in the trash, by name after `after`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn trash(
        &self,
        repository: &RepositoryName,
        after: Option<&Tag>,
        limit: u32,
    ) -> Result<Vec<TrashRow>> {
        let after = after.map(Tag::as_str).unwrap_or_default();
        let rows =
            self.db.scan(OF_REPOSITORY, vec![repository.as_str().into(), after.into(), limit.into()]).await?;
        rows.iter().map(|row| trash_row(row, 0, repository.clone())).collect()
    }

    /// Up to `limit` rows whose time is over (µs since the epoch). Those of repositories that are gone are forgotten.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn due_trash(&self, now_us: i64, limit: u32) -> Result<Vec<TrashRow>> {
        let rows = self.db.scan(DUE, vec![now_us.into(), limit.into()]).await?;
        let mut gone = Vec::new();
        let mut due = Vec::with_capacity(rows.len());
        for row in &rows {
            match row.opt_text(0)? {
                Some(path) => due.push(trash_row(row, 1, named(&path)?)?),
                None => gone.push(vec![row.blob(1)?.into(), row.blob(2)?.into()]),
            }
        }
        if !gone.is_empty() {
            self.db
                .write(move |tx| {
                    let gone = gone.clone();
                    Box::pin(async move { tx.send_each(FORGET, gone).await })
                })
                .await?;
        }
        Ok(due)
    }

    /// Deletes the manifest of a row whose time is over, if nothing needs it, and lets what it alone needed follow.
    ///
    /// # Errors
    /// [`Error::NotPrimary`], [`Error::Halted`]; those of the database.
    pub async fn empty_trash(&self, due: &TrashRow, guard: &TagGuard, actor: &Actor) -> Result<Emptied> {
        let asked = Arc::new((due.clone(), guard.clone(), actor.clone()));
        self.db
            .write(move |tx| {
                let asked = Arc::clone(&asked);
                Box::pin(async move {
                    let (due, guard, actor) = &*asked;
                    empty(tx, due, guard, actor).await
                })
            })
            .await
    }

    /// Sets a tag again to what it named when retention took it.
    ///
    /// # Errors
    /// [`Error::NotPrimary`], [`Error::Halted`]; those of the database.
    pub async fn restore_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        actor: &Actor,
    ) -> Result<Restored> {
        let asked = (repository.clone(), tag.clone(), actor.clone());
        self.db
            .write(move |tx| {
                let (name, tag, actor) = asked.clone();
                Box::pin(async move { restore(tx, &name, &tag, &actor).await })
            })
            .await
    }
}

fn trash_row(row: &Row, first: usize, repository: RepositoryName) -> Result<TrashRow> {
    let tag = row.text(first + 2)?;
    Ok(TrashRow {
        repository,
        uuid: RepositoryUuid(row.uuid(first)?),
        digest: row.digest(first + 1)?,
        tag: if tag.is_empty() { None } else { Some(tag_of(&tag)?) },
        rule: row.text(first + 3)?,
        taken_at_us: row.int(first + 4)?,
        due_at_us: row.int(first + 5)?,
    })
}

fn named(path: &str) -> Result<RepositoryName> {
    RepositoryName::parse(path).map_err(|error| Error::Corrupt(format!("a repository's path: {error}")))
}

async fn empty(tx: &mut Tx, due: &TrashRow, guard: &TagGuard, actor: &Actor) -> Result<Emptied> {
    const ENTRIES: &str = "SELECT due_at_us FROM retention_trash WHERE repository = $1 AND digest = $2 ORDER BY tag {for update}";
    const FORGET_DUE: &str =
        "DELETE FROM retention_trash WHERE repository = $1 AND digest = $2 AND due_at_us <= $3";
    let origin = tx.guard_origin().await?;
    let entry: Vec<Value> = vec![due.uuid.into(), due.digest.into()];
    let now_us = tx.now_us();
    let repository = lock_shared(tx, &due.repository).await?.filter(|found| found.uuid == due.uuid);
    // It was renamed or deleted since the row was read: the next look sees where it is.
    let Some(repository) = repository else { return Ok(Emptied::Kept) };
    let key: Vec<Value> = vec![repository.id.into(), due.digest.into()];
    // While this row is locked, no push can point a tag at it.
    let manifest = tx.query_opt(delete::LOCK_EXCLUSIVE, key.clone()).await?;
    let entries = tx.query(ENTRIES, entry.clone()).await?;
    tx.send(FORGET_DUE, [entry, vec![now_us.into()]].concat()).await?;
    // Another tag of the manifest may have been taken later, or somebody pushed it again: its time is not over.
    let later = entries.iter().map(|row| row.int(0)).collect::<Result<Vec<_>>>()?;
    let over = !later.is_empty() && later.iter().all(|due_at_us| *due_at_us <= now_us);
    let Some(manifest) = manifest.filter(|_| over) else { return Ok(Emptied::Kept) };
    if is_needed(tx, &repository, &due.digest, manifest.opt_digest(2)?, guard).await? {
        return Ok(Emptied::Kept);
    }
    let mut followers = key;
    followers.extend([repository.uuid.into(), due.rule.as_str().into(), now_us.into()]);
    tx.execute(FOLLOWERS, followers).await?;
    delete::erase(tx, &origin, &repository, &due.digest, &manifest, actor).await?;
    Ok(Emptied::Deleted)
}

/// Whether a tag or an index names the manifest, its subject is there, or something that is held needs it.
async fn is_needed(
    tx: &mut Tx,
    repository: &Repository,
    digest: &Digest,
    subject: Option<Digest>,
    guard: &TagGuard,
) -> Result<bool> {
    let one = |digest: Digest| -> Vec<Value> { vec![repository.id.into(), digest.into(), 1_i64.into()] };
    let mut reads = vec![(delete::TAGS_LEFT, one(*digest)), (PARENT, one(*digest))];
    if let Some(subject) = subject {
        reads.push((put::LOCK_SHARED, vec![repository.id.into(), subject.into()]));
    }
    if tx.query_each(reads).await?.iter().any(|rows| !rows.is_empty()) {
        return Ok(true);
    }
    match check_unheld(tx, repository.id, digest, guard, "manifest").await {
        Err(Error::StillHeld { .. }) => Ok(true),
        checked => checked.map(|()| false),
    }
}

async fn restore(tx: &mut Tx, name: &RepositoryName, tag: &Tag, actor: &Actor) -> Result<Restored> {
    const TAKEN: &str = "SELECT t.digest, t.taken_at_us FROM retention_trash t JOIN manifests m \
         ON m.repository_id = $3 AND m.digest = t.digest WHERE t.repository = $1 AND t.tag = $2";
    let origin = tx.guard_origin().await?;
    let Some(repository) = lock_shared(tx, name).await? else { return Ok(Restored::Unknown) };
    tags::lock_names(tx, repository.id, std::slice::from_ref(tag)).await?;
    let taken: Vec<Value> = vec![repository.uuid.into(), tag.as_str().into(), repository.id.into()];
    let mut latest = None;
    for row in tx.query(TAKEN, taken).await? {
        latest = latest.max(Some((row.int(1)?, row.digest(0)?)));
    }
    let Some((_, digest)) = latest else { return Ok(Restored::Unknown) };
    let key: Vec<Value> = vec![repository.id.into(), digest.into()];
    // Emptying the trash may have been faster.
    let Some(manifest) = tx.query_opt(LOCK_WITH_TYPE, key).await? else { return Ok(Restored::Unknown) };
    let named = tx.query_opt(tags::LOCK, vec![repository.id.into(), tag.as_str().into()]).await?;
    if let Some(row) = named {
        return Ok(Restored::Taken(row.digest(0)?));
    }
    let event = Event {
        digest: Some(digest),
        media_type: manifest.opt_text(0)?,
        size: Some(manifest.size(1)?),
        subject: manifest.opt_digest(2)?,
        tag: Some(tag.clone()),
        ..repository.event(&origin, EventKind::TagSet, actor)
    };
    let change = tx.append(&event).await?;
    tags::set(tx, &repository, &event, &change).await?;
    tx.send(FORGET, vec![repository.uuid.into(), digest.into()]).await?;
    Ok(Restored::To(digest))
}

const LOCK_WITH_TYPE: &str = "SELECT media_type, size, subject FROM manifests WHERE repository_id = $1 AND digest = $2 {for key share}";

/// Whoever pushes a manifest again, or an index of it, is about to use it (µs).
const ABOUT_TO_USE_US: i64 = 24 * 3_600_000_000;

/// Gives what is pushed again another day, whatever the trash says.
pub(crate) async fn keep_from_trash(
    tx: &mut Tx,
    repository: RepositoryUuid,
    digests: impl Iterator<Item = &Digest>,
) -> Result<()> {
    const EXTEND: &str =
        "UPDATE retention_trash SET due_at_us = $3 WHERE repository = $1 AND digest = $2 AND due_at_us < $3";
    let until_us = tx.now_us().saturating_add(ABOUT_TO_USE_US);
    let rows: Vec<Vec<Value>> =
        digests.map(|digest| vec![repository.into(), digest.into(), until_us.into()]).collect();
    if rows.is_empty() { Ok(()) } else { tx.send_each(EXTEND, rows).await }
}
