//! Blob rows and blob links: which repository may read which digest.
//! Invariant: knowing a digest is no permission; a blob is readable only through a repository that links it.

use twinport_access::TagGuard;
use twinport_oci::{Digest, RepositoryName, UploadId};

use crate::{
    Actor, Error, EventKind, Metadata, Result,
    db::{Dialect, Origin, Tx, Value},
    deletions::{Candidate, Deleted, bury, queue_candidate},
    manifests::check_unheld,
    repositories::{Repository, Target, enter, lock_or_create, lock_shared},
    uploads,
};

/// A blob that a repository links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRow {
    /// Bytes.
    pub size: u64,
}

/// A published blob, about to become readable in a repository.
#[derive(Clone, Debug)]
pub struct CommitBlob {
    pub repository: RepositoryName,
    /// Verified: these bytes were hashed on their way in.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// The stored session that ends with this commit; one without a row needs no end.
    pub upload: Option<UploadId>,
    pub actor: Actor,
}

pub(crate) const LINKED: &str = "SELECT b.size FROM repositories r \
     JOIN blob_links l ON l.repository_id = r.id AND l.digest = $2 \
     JOIN blobs b ON b.digest = l.digest WHERE r.path = $1";
pub(crate) const LINKED_LOCKED: &str = "SELECT b.size FROM repositories r \
     JOIN blob_links l ON l.repository_id = r.id AND l.digest = $2 \
     JOIN blobs b ON b.digest = l.digest WHERE r.path = $1 {for key share}";
pub(crate) const KNOWN: &str = "SELECT size FROM blobs WHERE digest = $1";
const STORE: &str = "INSERT INTO blobs (digest, size, state, stored_at_us, verified_at_us) \
     VALUES ($1, $2, 'live', $3, $3) ON CONFLICT (digest) DO NOTHING {returning size}";
pub(crate) const LINK_LOCK_SHARED: &str =
    "SELECT digest FROM blob_links WHERE repository_id = $1 AND digest = $2 {for key share}";
pub(crate) const LINK_LOCK_EXCLUSIVE: &str =
    "SELECT 1 FROM blob_links WHERE repository_id = $1 AND digest = $2 {for update}";
pub(crate) const LINKS_LOCK_SHARED: &str = "SELECT digest FROM blob_links \
     WHERE repository_id = $1 AND digest {any $2} ORDER BY digest {for key share}";

impl Metadata {
    /// The link check: the blob, if this repository may read it. One index probe per table, one round trip.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<BlobRow>> {
        let row = self.db.query_opt(LINKED, vec![repository.as_str().into(), digest.into()]).await?;
        row.map(|row| Ok(BlobRow { size: row.size(0)? })).transpose()
    }

    /// The size in bytes of a blob that this site stores, whoever links it. No permission to read it: for
    /// recovery and for transfers that need not move it again.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn blob_is_known(&self, digest: &Digest) -> Result<Option<u64>> {
        let row = self.db.query_opt(KNOWN, vec![digest.into()]).await?;
        row.map(|row| row.size(0)).transpose()
    }

    /// Links a published blob, making the repository if there is none, and ends its upload session.
    /// A link that is there already appends no event.
    ///
    /// # Errors
    /// [`Error::UploadUnknown`] when the session was cancelled or has ended meanwhile, or belongs to another
    /// repository; [`Error::NotPrimary`], [`Error::Halted`].
    pub async fn commit_blob(&self, commit: CommitBlob) -> Result<()> {
        self.db
            .write(move |tx| {
                let commit = commit.clone();
                Box::pin(async move {
                    let (origin, target) = enter(tx, &commit.repository).await?;
                    if let Some(id) = &commit.upload {
                        uploads::end(tx, &commit.repository, id).await?;
                    }
                    let linked = store_blob_to_link(tx, &target, &commit.digest, commit.size).await?;
                    target.log_creation(tx, &origin, &commit.actor).await?;
                    if !linked {
                        link(tx, &origin, &target.repository, &commit.digest, commit.size, &commit.actor)
                            .await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Links a blob of one repository into another, making that if there is none. `false`, and nothing is made:
    /// `from` has no such blob.
    ///
    /// # Errors
    /// [`Error::NotPrimary`], [`Error::Halted`]; those of the database.
    pub async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
        actor: &Actor,
    ) -> Result<bool> {
        let (from, to, digest, actor) = (from.clone(), to.clone(), *digest, actor.clone());
        let mounted = self
            .db
            .write(move |tx| {
                let (from, to, actor) = (from.clone(), to.clone(), actor.clone());
                Box::pin(async move { mount(tx, &from, &to, &digest, &actor).await })
            })
            .await;
        match mounted {
            Ok(()) => Ok(true),
            // As an error, so that a repository made for the mount is rolled back.
            Err(Error::BlobsUnknown(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a blob away from a repository; its bytes stay until garbage collection finds it linked nowhere.
    /// `false`: it was not linked.
    ///
    /// # Errors
    /// [`Error::StillHeld`] where a tag may not be deleted that needs it; [`Error::NotPrimary`], [`Error::Halted`]; those
    /// of the database.
    pub async fn unlink_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        guard: &TagGuard,
        actor: &Actor,
    ) -> Result<bool> {
        let asked = (repository.clone(), *digest, guard.clone(), actor.clone());
        self.db
            .write(move |tx| {
                let (name, digest, guard, actor) = asked.clone();
                Box::pin(async move { unlink(tx, &name, &digest, &guard, &actor).await })
            })
            .await
    }
}

async fn mount(
    tx: &mut Tx,
    from: &RepositoryName,
    to: &RepositoryName,
    digest: &Digest,
    actor: &Actor,
) -> Result<()> {
    let origin = tx.guard_origin().await?;
    let source: [Value; 2] = [from.as_str().into(), digest.into()];
    let unknown = || Error::BlobsUnknown(vec![*digest]);
    // Looked at before the target's name is locked, locked after it: names come before rows.
    tx.query_opt(LINKED, source.to_vec()).await?.ok_or_else(unknown)?;
    let target = lock_or_create(tx, to).await?;
    let size = tx.query_opt(LINKED_LOCKED, source.to_vec()).await?.ok_or_else(unknown)?.size(0)?;
    revive(tx, digest).await?;
    let linked = !target.created && lock_link(tx, &target.repository, digest).await?;
    target.log_creation(tx, &origin, actor).await?;
    if !linked {
        link(tx, &origin, &target.repository, digest, size, actor).await?;
    }
    Ok(())
}

async fn unlink(
    tx: &mut Tx,
    name: &RepositoryName,
    digest: &Digest,
    guard: &TagGuard,
    actor: &Actor,
) -> Result<bool> {
    let origin = tx.guard_origin().await?;
    let Some(repository) = lock_shared(tx, name).await? else { return Ok(false) };
    let key = vec![repository.id.into(), digest.into()];
    if tx.query_opt(LINK_LOCK_EXCLUSIVE, key.clone()).await?.is_none() {
        return Ok(false);
    }
    check_unheld(tx, repository.id, digest, guard, "blob").await?;
    let size = tx.query_opt(KNOWN, vec![digest.into()]).await?.map(|row| row.size(0)).transpose()?;
    let mut event = repository.event(&origin, EventKind::BlobUnlinked, actor);
    event.digest = Some(*digest);
    event.size = size;
    let change = tx.append(&event).await?;
    tx.execute("DELETE FROM blob_links WHERE repository_id = $1 AND digest = $2", key).await?;
    bury(tx, repository.uuid, Deleted::BlobLink, digest, Some(digest), &change).await?;
    queue_candidate(tx, Candidate::Blob, repository.uuid, digest).await?;
    Ok(true)
}

/// Records that this site stores the blob, every byte of it hashed just now. A blob that was here before keeps its
/// record, since its old bytes were not read; it is no longer condemned.
pub(crate) async fn store_blob(tx: &mut Tx, digest: &Digest, size: u64) -> Result<()> {
    let stored = tx.execute(STORE, vec![digest.into(), size.into(), tx.now_us().into()]).await?;
    if stored == 0 { keep_known(tx, digest).await } else { Ok(()) }
}

/// [`store_blob`] and [`lock_link`] in one go.
async fn store_blob_to_link(tx: &mut Tx, target: &Target, digest: &Digest, size: u64) -> Result<bool> {
    if target.created {
        // Nobody else sees a repository that this transaction made: there is no link to look for.
        store_blob(tx, digest, size).await?;
        return Ok(false);
    }
    let repository = &target.repository;
    if tx.dialect() == Dialect::Sqlite {
        store_blob(tx, digest, size).await?;
        return lock_link(tx, repository, digest).await;
    }
    lock_link_name(tx, repository, digest).await?;
    let answers = tx
        .query_each(vec![
            (STORE, vec![digest.into(), size.into(), tx.now_us().into()]),
            (LINK_LOCK_SHARED, vec![repository.id.into(), digest.into()]),
        ])
        .await?;
    let [stored, linked] = answers.as_slice() else {
        return Err(Error::Bug("two reads have two answers".to_owned()));
    };
    if stored.is_empty() {
        keep_known(tx, digest).await?;
    }
    Ok(!linked.is_empty())
}

/// The blob's record stays until the transaction ends.
async fn keep_known(tx: &mut Tx, digest: &Digest) -> Result<()> {
    tx.query_opt("SELECT 1 FROM blobs WHERE digest = $1 {for key share}", vec![digest.into()]).await?;
    revive(tx, digest).await
}

async fn revive(tx: &mut Tx, digest: &Digest) -> Result<()> {
    tx.send(
        "UPDATE blobs SET state = 'live', condemned_at_us = NULL WHERE digest = $1 AND state = 'condemned'",
        vec![digest.into()],
    )
    .await
}

/// Excludes others that would make this link; whether it is there, and then it stays until the transaction ends.
async fn lock_link(tx: &mut Tx, repository: &Repository, digest: &Digest) -> Result<bool> {
    lock_link_name(tx, repository, digest).await?;
    Ok(tx.query_opt(LINK_LOCK_SHARED, vec![repository.id.into(), digest.into()]).await?.is_some())
}

async fn lock_link_name(tx: &mut Tx, repository: &Repository, digest: &Digest) -> Result<()> {
    tx.lock_name(&format!("link:{}:{digest}", repository.id)).await
}

async fn link(
    tx: &mut Tx,
    origin: &Origin,
    repository: &Repository,
    digest: &Digest,
    size: u64,
    actor: &Actor,
) -> Result<()> {
    let mut event = repository.event(origin, EventKind::BlobLinked, actor);
    event.digest = Some(*digest);
    event.size = Some(size);
    let change = tx.append(&event).await?;
    let mut params = vec![repository.id.into(), digest.into(), tx.now_us().into()];
    params.extend(change.columns());
    tx.send(
        "INSERT INTO blob_links (repository_id, digest, linked_at_us, change, position_epoch, position_seq) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        params,
    )
    .await?;
    Ok(())
}
