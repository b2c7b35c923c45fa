//! Upload sessions, shaped for several nodes.
//! Invariant: a session is seen only through its repository, and moves only by compare-and-set on its version.

use bytes::Bytes;
use twinport_oci::{RepositoryName, UploadId};

use crate::{
    Actor, Error, Metadata, Result,
    db::{Row, Tx, Value},
};

/// An upload under way: how far it is, and what any node needs to go on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadSession {
    pub id: UploadId,
    pub repository: RepositoryName,
    /// Bytes that are stored and hashed.
    pub offset: u64,
    /// The serialised state of the hash over those bytes; none before the first.
    pub hash_state: Option<Bytes>,
    /// Counts the session's advances; who advances it names the version it saw.
    pub version: i64,
    /// µs since the epoch, UTC.
    pub started_at_us: i64,
    /// When it was last advanced; µs since the epoch, UTC.
    pub touched_at_us: i64,
}

pub(crate) const FIND: &str = "SELECT bytes, hash_state, version, started_at_us, touched_at_us FROM uploads \
     WHERE id = $1 AND path = $2";
pub(crate) const ADVANCE: &str = "UPDATE uploads SET bytes = $4, hash_state = $5, version = version + 1, \
     touched_at_us = $6 WHERE id = $1 AND path = $2 AND version = $3 RETURNING version";
pub(crate) const STALE: &str =
    "SELECT id FROM uploads WHERE touched_at_us < $1 ORDER BY touched_at_us LIMIT $2";
pub(crate) const EXISTS: &str = "SELECT 1 FROM uploads WHERE id = $1";
pub(crate) const DELETE: &str = "DELETE FROM uploads WHERE id = $1 AND path = $2";

impl UploadSession {
    fn from_row(row: &Row, id: UploadId, repository: &RepositoryName) -> Result<Self> {
        Ok(Self {
            id,
            repository: repository.clone(),
            offset: row.size(0)?,
            hash_state: row.opt_blob(1)?,
            version: row.int(2)?,
            started_at_us: row.int(3)?,
            touched_at_us: row.int(4)?,
        })
    }
}

impl Metadata {
    /// Begins a session. The repository is made when the blob is committed, not here.
    ///
    /// # Errors
    /// [`Error::NotPrimary`], [`Error::Halted`]; those of the database.
    pub async fn create_upload(&self, repository: &RepositoryName, _actor: &Actor) -> Result<UploadSession> {
        let now_us = self.clock().now_us();
        let session = UploadSession {
            id: UploadId::new(),
            repository: repository.clone(),
            offset: 0,
            hash_state: None,
            version: 0,
            started_at_us: now_us,
            touched_at_us: now_us,
        };
        let (id, path) = (session.id, repository.clone());
        self.db
            .write(move |tx| {
                let path = path.clone();
                Box::pin(async move {
                    tx.guard_origin().await?;
                    tx.execute(
                        "INSERT INTO uploads (id, path, bytes, version, started_at_us, touched_at_us) \
                         VALUES ($1, $2, 0, 0, $3, $3)",
                        vec![id.0.into(), path.as_str().into(), now_us.into()],
                    )
                    .await?;
                    Ok(())
                })
            })
            .await?;
        Ok(session)
    }

    /// The session, if it is this repository's.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn upload(&self, repository: &RepositoryName, id: &UploadId) -> Result<Option<UploadSession>> {
        let row = self.db.query_opt(FIND, vec![id.0.into(), repository.as_str().into()]).await?;
        row.map(|row| UploadSession::from_row(&row, *id, repository)).transpose()
    }

    /// Moves a session from the state in `session` to `offset` bytes, hashed to `hash_state`.
    ///
    /// # Errors
    /// [`Error::UploadConflict`] when another request moved it first, with the offset it is at now;
    /// [`Error::UploadUnknown`] when it has ended.
    pub async fn advance_upload(
        &self,
        session: &UploadSession,
        offset: u64,
        hash_state: impl Into<Bytes>,
    ) -> Result<UploadSession> {
        let now_us = self.clock().now_us();
        let mut advanced = UploadSession {
            offset,
            hash_state: Some(hash_state.into()),
            touched_at_us: now_us,
            ..session.clone()
        };
        let params: Vec<Value> = vec![
            session.id.0.into(),
            session.repository.as_str().into(),
            session.version.into(),
            offset.into(),
            advanced.hash_state.as_ref().into(),
            now_us.into(),
        ];
        let seen: Vec<Value> = params[..2].to_vec();
        advanced.version = self
            .db
            .write(move |tx| {
                let (params, seen) = (params.clone(), seen.clone());
                Box::pin(async move {
                    if let Some(row) = tx.query_opt(ADVANCE, params).await? {
                        return row.int(0);
                    }
                    match tx.query_opt(FIND, seen).await? {
                        Some(row) => Err(Error::UploadConflict { offset: row.size(0)? }),
                        None => Err(Error::UploadUnknown),
                    }
                })
            })
            .await?;
        Ok(advanced)
    }

    /// Ends a session without a blob. `false`: this repository has no such session.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn cancel_upload(&self, repository: &RepositoryName, id: &UploadId) -> Result<bool> {
        let (repository, id) = (repository.clone(), *id);
        self.db
            .write(move |tx| {
                let key = vec![id.0.into(), repository.as_str().into()];
                Box::pin(async move { Ok(tx.execute(DELETE, key).await? > 0) })
            })
            .await
    }

    /// Up to `limit` sessions that nobody advanced since `before_us` (µs since the epoch), longest ago first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn stale_uploads(&self, before_us: i64, limit: u32) -> Result<Vec<UploadId>> {
        let rows = self.db.scan(STALE, vec![before_us.into(), limit.into()]).await?;
        rows.iter().map(|row| row.uuid(0).map(UploadId)).collect()
    }

    /// Ends a session that nobody advanced since `before_us` (µs since the epoch). `false`: someone did, or it has
    /// ended.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn expire_upload(&self, id: &UploadId, before_us: i64) -> Result<bool> {
        let id = *id;
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    let expired = tx
                        .execute(
                            "DELETE FROM uploads WHERE id = $1 AND touched_at_us < $2",
                            vec![id.0.into(), before_us.into()],
                        )
                        .await?;
                    Ok(expired > 0)
                })
            })
            .await
    }

    /// Whether any repository has this session: for the recovery of spools, not for requests.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn upload_exists(&self, id: &UploadId) -> Result<bool> {
        Ok(self.db.query_opt(EXISTS, vec![id.0.into()]).await?.is_some())
    }
}

/// Ends a session in the transaction that commits its blob.
pub(crate) async fn end(tx: &mut Tx, repository: &RepositoryName, id: &UploadId) -> Result<()> {
    let ended = tx.execute(DELETE, vec![id.0.into(), repository.as_str().into()]).await?;
    if ended == 0 { Err(Error::UploadUnknown) } else { Ok(()) }
}
