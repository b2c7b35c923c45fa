//! The façade that the house opens: one handle on a site's metadata, whatever database holds it.

use std::sync::Arc;

use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    Clock, Database, Epoch, EpochRecord, Error, Incarnation, LogHead, Result,
    db::{Db, Dialect},
    fresh_sessions::FreshSessions,
    migrations::{self, SchemaChange},
    sequencer::Sequencer,
    site::{self, LastAnswer},
    upload_ids::UploadIds,
};

/// What [`Metadata::open`] needs.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    pub database: Database,
    pub clock: Clock,
}

/// A site's metadata; cheap to clone, shared by everything in the process.
#[derive(Clone, Debug)]
pub struct Metadata {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) upload_ids: UploadIds,
    pub(crate) fresh_sessions: Arc<FreshSessions>,
    /// This run of this process, among the nodes of the site.
    pub(crate) node: Uuid,
    /// Numbers events on PostgreSQL; SQLite numbers them as it writes them.
    pub(crate) sequencer: Option<Arc<Sequencer>>,
    pub(crate) writable: Arc<LastAnswer>,
}

impl Metadata {
    /// Connects, migrates, gives a new site its identity, and starts what runs in the background.
    ///
    /// # Errors
    /// [`Error::Refused`] names what must not be used: a newer schema, a standby, a server without fsync.
    pub async fn open(options: OpenOptions) -> Result<Self> {
        let db = Db::connect(&options.database, &options.clock).await?;
        migrations::migrate(&db).await?;
        site::found(&db).await?;
        let node = Uuid::new_v4();
        let sequencer = match &db {
            Db::Sqlite(_) => None,
            Db::Postgres(postgres, _) => {
                Some(Arc::new(Sequencer::start(Arc::new(postgres.reserved()), node)))
            }
        };
        let upload_ids = UploadIds::new(&site::signing_key(&db).await?);
        let metadata = Self {
            db,
            clock: options.clock,
            upload_ids,
            fresh_sessions: Arc::default(),
            node,
            sequencer,
            writable: Arc::default(),
        };
        if let Db::Postgres(postgres, _) = &metadata.db {
            postgres.continuity().belongs_to(metadata.site().await?.incarnation);
        }
        let head = match metadata.sequence_now().await {
            Err(Error::Halted(_)) => metadata.log_head().await?,
            head => head?,
        };
        metadata.db.signals().head.send_replace(Some(head));
        Ok(metadata)
    }

    /// Brings a database's schema up to this binary's, or with `dry` only says what that would be: every change, and whether
    /// the database has it.
    ///
    /// # Errors
    /// [`Error::Refused`] for a schema that this binary cannot run with, or may not change.
    pub async fn migrate(database: &Database, clock: &Clock, dry: bool) -> Result<Vec<SchemaChange>> {
        let db = Db::connect(database, clock).await?;
        let migrated = async {
            if !dry {
                migrations::migrate(&db).await?;
            }
            migrations::changes(&db).await
        };
        let changes = migrated.await;
        db.close().await;
        changes
    }

    /// The same metadata, by connections that are kept from clients: for the log's stream, its heartbeats, and whoever asks
    /// whether the site is well.
    #[must_use]
    pub fn reserved(&self) -> Self {
        Self { db: self.db.reserved(), ..self.clone() }
    }

    /// `sqlite` or `postgresql`.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        match self.db.dialect() {
            Dialect::Sqlite => "sqlite",
            Dialect::Postgres => "postgresql",
        }
    }

    /// The clock that this site lives by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// What the database says instead.
    pub async fn ping(&self) -> Result<()> {
        self.db.query("SELECT 1", vec![]).await.map(drop)
    }

    /// The schema's number in the database, and the newest that this binary knows.
    ///
    /// # Errors
    /// What the database says.
    pub async fn schema(&self) -> Result<(i64, i64)> {
        Ok((migrations::applied(&self.db).await?, migrations::newest()))
    }

    /// The numbered head of the log as it is committed; on a secondary, what is ingested.
    ///
    /// # Errors
    /// What the database says.
    pub async fn log_head(&self) -> Result<LogHead> {
        let row = self
            .db
            .query_opt("SELECT epoch, owner, seq, hash FROM log_head WHERE id = 1", vec![])
            .await?
            .ok_or_else(|| Error::Corrupt("the log has no head row".to_owned()))?;
        crate::db::head_of(&row)
    }

    /// Moves whenever the head of the log does. Another node's events move it within 20 ms.
    #[must_use]
    pub fn watch_head(&self) -> watch::Receiver<Option<LogHead>> {
        self.db.signals().head.subscribe()
    }

    /// A head that was read, or numbered, after this call began: every write acknowledged before it is at or
    /// below it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn sequence_now(&self) -> Result<LogHead> {
        match &self.sequencer {
            None => self.log_head().await,
            Some(sequencer) => sequencer.pass().await,
        }
    }

    /// Returns once every transaction that originates events and had begun before has ended, at any node; also one whose
    /// node died while it was committing.
    ///
    /// # Errors
    /// What the database says.
    pub async fn await_writers(&self) -> Result<()> {
        self.db.write_alone(|tx| Box::pin(tx.lock_role())).await
    }

    /// Which epoch began where, oldest first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn epochs(&self) -> Result<Vec<EpochRecord>> {
        let rows = self
            .db
            .query(
                "SELECT number, owner, began_seq, base_hash FROM epochs ORDER BY began_seq, number",
                vec![],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(EpochRecord {
                    epoch: Epoch { number: row.int(0)?, owner: Incarnation(row.uuid(1)?) },
                    began_seq: row.int(2)?,
                    base_hash: row.hash(3)?,
                })
            })
            .collect()
    }

    /// Ends the background work after the writes already under way. Later calls fail with
    /// [`Error::Unavailable`].
    pub async fn close(&self) {
        if let Some(sequencer) = &self.sequencer {
            sequencer.stop();
        }
        self.db.close().await;
    }
}
