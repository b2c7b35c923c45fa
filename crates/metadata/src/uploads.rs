//! Upload sessions, shaped for several nodes.
//! Invariant: a session is seen only through its repository, and moves only by compare-and-set on its version.
//!
//! A session has a row once it has bytes worth keeping; until then its id alone stands for it. A row that ended stays
//! until it expires, so that its id is not taken for a session that has not begun.

use bytes::Bytes;
use twinport_oci::{RepositoryName, UploadId};

use crate::{
    Error, Metadata, Result,
    db::{Dialect, Row, Tx, Value},
    upload_ids::LIFETIME_US,
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
    /// Counts the session's advances; who advances it names the version it saw. 0: it has no row yet.
    pub version: i64,
    /// µs since the epoch, UTC.
    pub started_at_us: i64,
    /// When it was last advanced; µs since the epoch, UTC.
    pub touched_at_us: i64,
}

/// Rows of ended sessions stay twice as long as their ids could count: clocks of nodes differ.
const FORGET_AFTER_US: i64 = 2 * LIFETIME_US;

pub(crate) const FIND: &str = "SELECT bytes, hash_state, version, started_at_us, touched_at_us, ended_at_us \
     FROM uploads WHERE id = $1 AND path = $2";
pub(crate) const ADVANCE: &str = "UPDATE uploads SET bytes = $4, hash_state = $5, version = version + 1, \
     touched_at_us = $6 WHERE id = $1 AND path = $2 AND version = $3 AND ended_at_us IS NULL RETURNING version";
const BEGIN: &str = "INSERT INTO uploads (id, path, bytes, hash_state, version, started_at_us, touched_at_us) \
     VALUES ($1, $2, $3, $4, 1, $5, $6) ON CONFLICT (id) DO NOTHING RETURNING version";
pub(crate) const STALE: &str = "SELECT id FROM uploads WHERE touched_at_us < $1 AND ended_at_us IS NULL \
     ORDER BY touched_at_us LIMIT $2";
const EXPIRE: &str = "UPDATE uploads SET ended_at_us = $3, hash_state = NULL \
     WHERE id = $1 AND touched_at_us < $2 AND ended_at_us IS NULL";
pub(crate) const FORGET: &str = "DELETE FROM uploads WHERE id IN \
     (SELECT id FROM uploads WHERE ended_at_us < $1 ORDER BY ended_at_us LIMIT $2)";
pub(crate) const EXISTS: &str = "SELECT 1 FROM uploads WHERE id = $1 AND ended_at_us IS NULL";
pub(crate) const END: &str = "UPDATE uploads SET ended_at_us = $3, hash_state = NULL \
     WHERE id = $1 AND path = $2 AND ended_at_us IS NULL";
const END_UNSTORED: &str = "INSERT INTO uploads (id, path, bytes, version, started_at_us, touched_at_us, ended_at_us) \
     VALUES ($1, $2, 0, 1, $3, $3, $3) ON CONFLICT (id) DO NOTHING";

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

    /// Whether it has a row, which the commit of its blob then ends.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.version > 0
    }
}

impl Metadata {
    /// Begins a session that has nothing yet, so nothing is written. The repository is made when the blob is
    /// committed, not here.
    #[must_use]
    pub fn begin_upload(&self, repository: &RepositoryName) -> UploadSession {
        let now_us = self.clock().now_us();
        let id = self.upload_ids.issue(repository, now_us);
        if self.db.dialect() == Dialect::Sqlite {
            self.fresh_sessions.begin(id);
        }
        unstored(id, repository, now_us)
    }

    /// The session, if it is this repository's and has not ended.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn upload(&self, repository: &RepositoryName, id: &UploadId) -> Result<Option<UploadSession>> {
        if self.fresh_sessions.contain(id) {
            return Ok(self.issued(repository, id));
        }
        match self.db.query_opt(FIND, vec![id.0.into(), repository.as_str().into()]).await? {
            Some(row) if row.opt_int(5)?.is_some() => Ok(None),
            Some(row) => UploadSession::from_row(&row, *id, repository).map(Some),
            None => Ok(self.issued(repository, id)),
        }
    }

    /// The session without a row that the id stands for.
    fn issued(&self, repository: &RepositoryName, id: &UploadId) -> Option<UploadSession> {
        let issued_at_us = self.upload_ids.issued_at_us(repository, id, self.clock().now_us())?;
        Some(unstored(*id, repository, issued_at_us))
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
        self.fresh_sessions.forget(&session.id);
        let now_us = self.clock().now_us();
        let mut advanced = UploadSession {
            offset,
            hash_state: Some(hash_state.into()),
            touched_at_us: now_us,
            ..session.clone()
        };
        let key: Vec<Value> = vec![session.id.0.into(), session.repository.as_str().into()];
        let (bytes, state) = (offset.into(), advanced.hash_state.as_ref().into());
        let (text, rest): (&'static str, Vec<Value>) = if session.is_stored() {
            (ADVANCE, vec![session.version.into(), bytes, state, now_us.into()])
        } else {
            (BEGIN, vec![bytes, state, session.started_at_us.into(), now_us.into()])
        };
        advanced.version = self
            .db
            .write(move |tx| {
                let (key, params) = (key.clone(), [key.clone(), rest.clone()].concat());
                Box::pin(async move {
                    if let Some(row) = tx.query_opt(text, params).await? {
                        return row.int(0);
                    }
                    match tx.query_opt(FIND, key).await? {
                        Some(row) if row.opt_int(5)?.is_none() => {
                            Err(Error::UploadConflict { offset: row.size(0)? })
                        }
                        _ => Err(Error::UploadUnknown),
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
        self.fresh_sessions.forget(id);
        let now_us = self.clock().now_us();
        let key: Vec<Value> = vec![id.0.into(), repository.as_str().into(), now_us.into()];
        let unstored = self.issued(repository, id).is_some();
        self.db
            .write(move |tx| {
                let key = key.clone();
                Box::pin(async move {
                    if unstored && tx.execute(END_UNSTORED, key.clone()).await? > 0 {
                        return Ok(true);
                    }
                    Ok(tx.execute(END, key).await? > 0)
                })
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
        let params: Vec<Value> = vec![id.0.into(), before_us.into(), self.clock().now_us().into()];
        self.db
            .write(move |tx| {
                let params = params.clone();
                Box::pin(async move { Ok(tx.execute(EXPIRE, params).await? > 0) })
            })
            .await
    }

    /// Forgets up to `limit` sessions that ended so long ago that their ids count for nothing any more; how many.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_ended_uploads(&self, limit: u32) -> Result<u64> {
        let before_us = self.clock().now_us().saturating_sub(FORGET_AFTER_US);
        self.db.write(move |tx| Box::pin(tx.execute(FORGET, vec![before_us.into(), limit.into()]))).await
    }

    /// Whether any repository has this session: for the recovery of spools, not for requests.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn upload_exists(&self, id: &UploadId) -> Result<bool> {
        Ok(self.db.query_opt(EXISTS, vec![id.0.into()]).await?.is_some())
    }
}

fn unstored(id: UploadId, repository: &RepositoryName, started_at_us: i64) -> UploadSession {
    UploadSession {
        id,
        repository: repository.clone(),
        offset: 0,
        hash_state: None,
        version: 0,
        started_at_us,
        touched_at_us: started_at_us,
    }
}

/// Ends a stored session in the transaction that commits its blob.
pub(crate) async fn end(tx: &mut Tx, repository: &RepositoryName, id: &UploadId) -> Result<()> {
    let now_us = tx.now_us();
    let ended = tx.execute(END, vec![id.0.into(), repository.as_str().into(), now_us.into()]).await?;
    if ended == 0 { Err(Error::UploadUnknown) } else { Ok(()) }
}
