//! Repositories: a global uuid, a path that may change.
//! Invariant: names are locked before rows and rows before event ids, so conflicting changes are numbered in the
//! order they took effect, and no two transactions wait for each other.

pub(crate) mod removal;

use twinport_oci::RepositoryName;
use uuid::Uuid;

use crate::{
    Actor, Error, Event, EventKind, Metadata, RepositoryUuid, Result,
    db::{Dialect, Origin, Row, Tx, Value},
};

pub(crate) use self::removal::{Leftover, Outcome as Removal, remove};

/// A repository, as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// The row's key on this site; never replicated, never used twice.
    pub id: i64,
    /// The repository's identity at every site, across renames.
    pub uuid: RepositoryUuid,
    pub name: RepositoryName,
}

pub(crate) const FIND: &str = "SELECT id, uuid FROM repositories WHERE path = $1";
pub(crate) const LOCK_SHARED: &str = "SELECT id, uuid FROM repositories WHERE path = $1 {for key share}";
pub(crate) const LOCK_EXCLUSIVE: &str = "SELECT id, uuid FROM repositories WHERE path = $1 {for update}";
pub(crate) const LIST: &str = "SELECT path FROM repositories WHERE path > $1 ORDER BY path LIMIT $2";

impl Repository {
    fn from_row(row: &Row, name: &RepositoryName) -> Result<Self> {
        Ok(Self { id: row.int(0)?, uuid: RepositoryUuid(row.uuid(1)?), name: name.clone() })
    }

    /// An event about this repository, by `actor`.
    pub(crate) fn event(&self, origin: &Origin, kind: EventKind, actor: &Actor) -> Event {
        Event {
            repository: Some(self.uuid),
            path: Some(self.name.clone()),
            actor: Some(actor.name.clone()),
            correlation: actor.correlation.clone(),
            ..origin.event(kind)
        }
    }
}

impl Metadata {
    /// The repository at this path.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn repository(&self, name: &RepositoryName) -> Result<Option<Repository>> {
        let row = self.db.query_opt(FIND, vec![name.as_str().into()]).await?;
        row.map(|row| Repository::from_row(&row, name)).transpose()
    }

    /// Up to `limit` repository names after `after`, in byte order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn repositories(&self, after: Option<&str>, limit: u32) -> Result<Vec<RepositoryName>> {
        let rows = self.db.scan(LIST, vec![after.unwrap_or_default().into(), limit.into()]).await?;
        rows.iter()
            .map(|row| {
                let path = row.text(0)?;
                RepositoryName::parse(&path)
                    .map_err(|error| Error::Corrupt(format!("a repository's path: {error}")))
            })
            .collect()
    }

    /// Gives a repository another path; its uuid and everything in it stay. `false`: there is none at `from`.
    ///
    /// # Errors
    /// [`Error::RepositoryExists`] when `to` is taken; [`Error::NotPrimary`], [`Error::Halted`].
    pub async fn rename_repository(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        actor: &Actor,
    ) -> Result<bool> {
        let (from, to, actor) = (from.clone(), to.clone(), actor.clone());
        self.db
            .write(move |tx| {
                let (from, to, actor) = (from.clone(), to.clone(), actor.clone());
                Box::pin(async move { rename(tx, &from, &to, &actor).await })
            })
            .await
    }
}

async fn rename(tx: &mut Tx, from: &RepositoryName, to: &RepositoryName, actor: &Actor) -> Result<bool> {
    // Alone among all that change repositories. A push that waited for a row which gets another path meanwhile keeps its
    // lock on that row, and goes on to wait for the path's name: beside a second rename that would be a deadlock.
    tx.lock_role().await?;
    let origin = tx.guard_origin().await?;
    let Some(repository) = lock_exclusive(tx, from).await? else { return Ok(false) };
    if tx.query_opt(FIND, vec![to.as_str().into()]).await?.is_some() {
        return Err(Error::RepositoryExists(to.to_string()));
    }
    let renamed = Repository { name: to.clone(), ..repository };
    let mut event = renamed.event(&origin, EventKind::RepositoryRenamed, actor);
    event.previous_path = Some(from.clone());
    let change = tx.append(&event).await?;
    let mut params = vec![renamed.id.into(), to.as_str().into()];
    params.extend(change.columns());
    tx.execute(
        "UPDATE repositories SET path = $2, change = $3, position_epoch = $4, position_seq = $5 WHERE id = $1",
        params,
    )
    .await?;
    Ok(true)
}

/// Makes the repository stay, under this path, until the transaction ends; pushes share this lock.
pub(crate) async fn lock_shared(tx: &mut Tx, name: &RepositoryName) -> Result<Option<Repository>> {
    let row = tx.query_opt(LOCK_SHARED, vec![name.as_str().into()]).await?;
    row.map(|row| Repository::from_row(&row, name)).transpose()
}

/// Waits for every push into the repository to end, and keeps others out until the transaction ends.
pub(crate) async fn lock_exclusive(tx: &mut Tx, name: &RepositoryName) -> Result<Option<Repository>> {
    let row = tx.query_opt(LOCK_EXCLUSIVE, vec![name.as_str().into()]).await?;
    row.map(|row| Repository::from_row(&row, name)).transpose()
}

/// A repository that a push goes into, locked; perhaps made by this very transaction.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) repository: Repository,
    pub(crate) created: bool,
}

/// Begins a push: the right to originate events, and the repository as [`lock_or_create`] gives it.
pub(crate) async fn enter(tx: &mut Tx, name: &RepositoryName) -> Result<(Origin, Target)> {
    let (origin, found) = tx.guard_origin_and(vec![(LOCK_SHARED, vec![name.as_str().into()])]).await?;
    let target = match found.iter().flatten().next() {
        Some(row) => Target { repository: Repository::from_row(row, name)?, created: false },
        None => lock_path_and_create(tx, name).await?,
    };
    Ok((origin, target))
}

/// Locks the repository at `name`, or makes it. Before any other row lock of the transaction; when all of those
/// are held, the caller calls [`Target::log_creation`].
pub(crate) async fn lock_or_create(tx: &mut Tx, name: &RepositoryName) -> Result<Target> {
    match lock_shared(tx, name).await? {
        Some(repository) => Ok(Target { repository, created: false }),
        None => lock_path_and_create(tx, name).await,
    }
}

/// Makes the repository at `name`, where there was none a moment ago.
async fn lock_path_and_create(tx: &mut Tx, name: &RepositoryName) -> Result<Target> {
    // SQLite has one writer: nobody can have made it since.
    if tx.dialect() == Dialect::Postgres {
        lock_path(tx, name).await?;
        // Whoever held the name before may have made it.
        if let Some(repository) = lock_shared(tx, name).await? {
            return Ok(Target { repository, created: false });
        }
    }
    // By time, so that what is kept by repository is written where the newest ones are, and not all over an index.
    let uuid = RepositoryUuid(Uuid::now_v7());
    let id = tx
        .insert(
            "INSERT INTO repositories (uuid, path, created_at_us) VALUES ($1, $2, $3) {returning id}",
            vec![uuid.into(), name.as_str().into(), tx.now_us().into()],
        )
        .await?;
    let repository = Repository { id, uuid, name: name.clone() };
    Ok(Target { repository, created: true })
}

impl Target {
    /// Appends the creation's event if this transaction made the repository.
    pub(crate) async fn log_creation(&self, tx: &mut Tx, origin: &Origin, actor: &Actor) -> Result<()> {
        if !self.created {
            return Ok(());
        }
        let change = tx.append(&self.repository.event(origin, EventKind::RepositoryCreated, actor)).await?;
        let mut params: Vec<Value> = vec![self.repository.id.into()];
        params.extend(change.columns());
        tx.send(
            "UPDATE repositories SET change = $2, position_epoch = $3, position_seq = $4 WHERE id = $1",
            params,
        )
        .await?;
        Ok(())
    }
}

async fn lock_path(tx: &mut Tx, name: &RepositoryName) -> Result<()> {
    tx.lock_name(&format!("repository:{name}")).await
}
