//! This site's own identity: its name, incarnation, keys and role. Role and epoch live here, not in a file.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    BOOTSTRAP_ACTOR, Epoch, EpochRecord, Error, Event, EventKind, Federation, Incarnation, LogHead, Metadata,
    Result, access,
    db::{Db, Tx, Value},
    event::genesis,
};

/// How a halt begins that a database caused which lacks acknowledged writes.
pub(crate) const LOST_WRITES: &str = "the database lost writes";

/// What a site is in its federation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes writes, and owns the current epoch of the log.
    Primary,
    /// Follows a primary's log and refuses writes.
    Secondary,
}

impl Role {
    /// `primary` or `secondary`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A site as it knows itself.
#[derive(Clone)]
pub struct Site {
    /// Its location; a site that was never named has none.
    pub name: Option<String>,
    pub incarnation: Incarnation,
    pub federation: Federation,
    pub role: Role,
    /// The private key of this site, PKCS#8 of Ed25519. Never logged, never shipped.
    pub signing_key: Bytes,
    /// The public key, 32 bytes.
    pub public_key: Bytes,
    pub external_url: Option<String>,
    pub internal_url: Option<String>,
    /// On a secondary: whom it follows.
    pub primary_name: Option<String>,
    pub primary_url: Option<String>,
    pub primary_key: Option<Bytes>,
    pub primary_incarnation: Option<Incarnation>,
    /// The highest epoch that this site has durably seen.
    pub highest_epoch: Epoch,
    /// Why writes are stopped, where they are.
    pub halted: Option<String>,
    /// Why writes rest, in maintenance mode.
    pub maintenance: Option<String>,
}

impl Site {
    /// Whether writes are stopped because the database lacks what was acknowledged.
    #[must_use]
    pub fn lost_writes(&self) -> bool {
        self.halted.as_deref().is_some_and(|reason| reason.starts_with(LOST_WRITES))
    }
}

/// Whether this site takes writes, as last read, at which version of its row.
pub(crate) type LastAnswer = Mutex<Option<(u64, Result<()>)>>;

impl Site {
    /// Whether it takes writes.
    ///
    /// # Errors
    /// Why not: [`Error::Halted`], [`Error::Maintenance`], [`Error::NotPrimary`].
    pub fn check_writable(self) -> Result<()> {
        match (self.halted, self.maintenance, self.role) {
            (Some(reason), ..) => Err(Error::Halted(reason)),
            (None, Some(reason), _) => Err(Error::Maintenance(reason)),
            (None, None, Role::Primary) => Ok(()),
            (None, None, Role::Secondary) => {
                Err(Error::NotPrimary { primary_name: self.primary_name, primary_url: self.primary_url })
            }
        }
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("name", &self.name)
            .field("incarnation", &self.incarnation)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// What a site takes over from the primary that it joins.
#[derive(Clone, Debug)]
pub struct BecomeSecondary {
    pub name: String,
    pub federation: Federation,
    pub primary_name: String,
    pub primary_url: String,
    pub primary_key: Bytes,
    pub primary_incarnation: Incarnation,
    pub epochs: Vec<EpochRecord>,
    /// The primary's head at the join: the log is followed from here, what was before it is backfilled.
    pub head: LogHead,
}

/// Gives a database without an identity one: the primary of its own federation, in epoch 1.
pub(crate) async fn found(db: &Db) -> Result<()> {
    db.write_alone(|tx| Box::pin(found_in(tx))).await
}

/// The site's private key: what secrets of its own are derived from.
pub(crate) async fn signing_key(db: &Db) -> Result<Bytes> {
    let row = db.query_opt("SELECT signing_key FROM site WHERE id = 1", vec![]).await?;
    row.ok_or_else(|| Error::Corrupt("the site has no identity row".to_owned()))?.blob(0)
}

async fn found_in(tx: &mut Tx) -> Result<()> {
    tx.lock_role().await?;
    if tx.query_opt("SELECT id FROM site WHERE id = 1", vec![]).await?.is_some() {
        return Ok(());
    }
    let incarnation = Incarnation::random();
    let federation = Federation::random();
    let (signing_key, public_key) = new_key_pair()?;
    tx.execute(
        "INSERT INTO site (id, incarnation, role, federation, signing_key, public_key, highest_epoch, \
         highest_epoch_owner) VALUES (1, $1, 'primary', $2, $3, $4, 1, $1)",
        vec![incarnation.into(), federation.0.into(), signing_key.into(), public_key.into()],
    )
    .await?;
    let base = genesis(federation);
    tx.execute(
        "INSERT INTO epochs (number, owner, began_seq, base_hash) VALUES (1, $1, 1, $2)",
        vec![incarnation.into(), base.into()],
    )
    .await?;
    tx.execute(
        "INSERT INTO log_head (id, epoch, owner, seq, hash) VALUES (1, 1, $1, 0, $2)",
        vec![incarnation.into(), base.into()],
    )
    .await?;
    Ok(())
}

fn new_key_pair() -> Result<(Vec<u8>, Vec<u8>)> {
    let failed =
        |_| Error::Refused("the system's random source does not answer, so no site key can be made".into());
    let pair = Ed25519KeyPair::generate().map_err(failed)?;
    let pkcs8 = pair.to_pkcs8().map_err(failed)?;
    Ok((pkcs8.as_ref().to_vec(), pair.public_key().as_ref().to_vec()))
}

impl Metadata {
    /// This site as it stands.
    ///
    /// # Errors
    /// What the database says.
    pub async fn site(&self) -> Result<Site> {
        let row = self
            .db
            .query_opt(
                "SELECT name, incarnation, federation, role, signing_key, public_key, external_url, internal_url, \
                 primary_name, primary_url, primary_key, primary_incarnation, highest_epoch, highest_epoch_owner, \
                 halted, maintenance FROM site WHERE id = 1",
                vec![],
            )
            .await?
            .ok_or_else(|| Error::Corrupt("the site has no identity row".to_owned()))?;
        Ok(Site {
            name: row.opt_text(0)?,
            incarnation: Incarnation(row.uuid(1)?),
            federation: Federation(row.uuid(2)?),
            role: if row.text(3)? == "primary" { Role::Primary } else { Role::Secondary },
            signing_key: row.blob(4)?,
            public_key: row.blob(5)?,
            external_url: row.opt_text(6)?,
            internal_url: row.opt_text(7)?,
            primary_name: row.opt_text(8)?,
            primary_url: row.opt_text(9)?,
            primary_key: row.opt_blob(10)?,
            primary_incarnation: row.opt_blob(11)?.map(|_| row.uuid(11)).transpose()?.map(Incarnation),
            highest_epoch: Epoch { number: row.int(12)?, owner: Incarnation(row.uuid(13)?) },
            halted: row.opt_text(14)?,
            maintenance: row.opt_text(15)?,
        })
    }

    /// Whether this site takes writes now. Read anew for each call, but where this process alone can change it.
    ///
    /// # Errors
    /// Why not: [`Error::Halted`], [`Error::Maintenance`], [`Error::NotPrimary`]; those of the database.
    pub async fn check_writable(&self) -> Result<()> {
        // Before the row is read: a change in between makes the next call read again.
        let version = self.db.site_version();
        let last = self.writable.lock().clone();
        if let (Some(version), Some((read_at, answer))) = (version, last)
            && version == read_at
        {
            return answer;
        }
        let answer = self.site().await?.check_writable();
        if let Some(version) = version {
            *self.writable.lock() = Some((version, answer.clone()));
        }
        answer
    }

    /// Names a site that has no name yet; naming it the same again is fine.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is called something else already: other sites know it by that.
    pub async fn name_site(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.db
            .write_alone(move |tx| {
                let name = name.clone();
                Box::pin(async move {
                    tx.lock_role().await?;
                    let row = tx.query_opt("SELECT name FROM site WHERE id = 1", vec![]).await?;
                    match row.map(|row| row.opt_text(0)).transpose()?.flatten() {
                        Some(known) if known == name => Ok(()),
                        Some(known) => Err(Error::Refused(format!(
                            "this site is called {known}, and other sites may know it by that: it cannot become {name}"
                        ))),
                        None => {
                            tx.execute("UPDATE site SET name = $1 WHERE id = 1", vec![name.into()]).await.map(drop)
                        }
                    }
                })
            })
            .await
    }

    /// Records where clients (`external`) and other sites (`internal`) reach this site.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_urls(&self, external: Option<&str>, internal: Option<&str>) -> Result<()> {
        let params: Vec<Value> = vec![external.into(), internal.into()];
        self.db
            .write(move |tx| {
                let params = params.clone();
                Box::pin(async move {
                    tx.execute("UPDATE site SET external_url = $1, internal_url = $2 WHERE id = 1", params)
                        .await
                        .map(drop)
                })
            })
            .await
    }

    /// Whether a join would hide something: repositories, or history that the first start did not make by itself.
    ///
    /// # Errors
    /// What the database says.
    pub async fn holds_anything(&self) -> Result<bool> {
        self.db.snapshot(|tx| Box::pin(holds_anything(tx))).await
    }

    /// Turns an empty site into a secondary that follows `join.head`. The account and the key that its first start made go.
    ///
    /// # Errors
    /// [`Error::Refused`] when the site is a secondary already, or holds anything that a join would hide.
    pub async fn become_secondary(&self, join: BecomeSecondary) -> Result<()> {
        self.db
            .write_alone(move |tx| {
                let join = join.clone();
                Box::pin(async move { become_secondary_in(tx, &join).await })
            })
            .await
    }

    /// Stops writes on this site until the reason is dealt with; the first reason stays.
    ///
    /// # Errors
    /// What the database says.
    pub async fn halt(&self, reason: &str) -> Result<()> {
        tracing::error!(reason, "writes are stopped on this site");
        self.set_halted(Some(reason.to_owned())).await
    }

    /// Lets writes go on after [`Self::halt`].
    ///
    /// # Errors
    /// What the database says.
    pub async fn clear_halt(&self) -> Result<()> {
        self.set_halted(None).await
    }

    /// Lets writes go on although the database lacks acknowledged ones: they are given up.
    ///
    /// # Errors
    /// [`Error::Refused`] where nothing was lost, or writes are stopped for another reason.
    pub async fn accept_loss(&self) -> Result<()> {
        self.db
            .write_alone(|tx| {
                Box::pin(async move {
                    tx.lock_role().await?;
                    let row = tx.query_opt("SELECT halted FROM site WHERE id = 1", vec![]).await?;
                    match row.map(|row| row.opt_text(0)).transpose()?.flatten() {
                        Some(reason) if reason.starts_with(LOST_WRITES) => {
                            let accept = "UPDATE site SET halted = NULL, accepted_losses = accepted_losses + 1 WHERE id = 1";
                            tx.execute(accept, vec![]).await.map(drop)
                        }
                        Some(reason) => Err(Error::Refused(format!(
                            "writes are stopped, and not because the database lost any: {reason}"
                        ))),
                        None => Err(Error::Refused(
                            "the database has lost nothing that this site knows of: there is nothing to accept"
                                .to_owned(),
                        )),
                    }
                })
            })
            .await
    }

    /// Begins maintenance mode, or ends it with `None`: writes that were acknowledged before this returns are the last.
    ///
    /// # Errors
    /// What the database says.
    pub async fn set_maintenance(&self, reason: Option<&str>) -> Result<()> {
        let reason = reason.map(str::to_owned);
        self.db
            .write_alone(move |tx| {
                let reason = reason.clone();
                Box::pin(async move {
                    tx.lock_role().await?;
                    let sql = "UPDATE site SET maintenance = $1 WHERE id = 1";
                    tx.execute(sql, vec![reason.into()]).await.map(drop)
                })
            })
            .await
    }

    async fn set_halted(&self, reason: Option<String>) -> Result<()> {
        self.db
            .write_alone(move |tx| {
                let reason = reason.clone();
                Box::pin(async move {
                    tx.lock_role().await?;
                    let text = match reason {
                        Some(reason) => {
                            tx.execute(
                                "UPDATE site SET halted = $1 WHERE id = 1 AND halted IS NULL",
                                vec![reason.into()],
                            )
                            .await
                        }
                        None => tx.execute("UPDATE site SET halted = NULL WHERE id = 1", vec![]).await,
                    };
                    text.map(drop)
                })
            })
            .await
    }
}

async fn become_secondary_in(tx: &mut Tx, join: &BecomeSecondary) -> Result<()> {
    // The head before the events, as whoever numbers them takes them.
    const LOCK: &str =
        "SELECT s.role, s.name FROM site s, log_head h WHERE s.id = 1 AND h.id = 1 {for update of h}";
    tx.lock_role().await?;
    let row = tx
        .query_opt(LOCK, vec![])
        .await?
        .ok_or_else(|| Error::Corrupt("the site has no identity row".to_owned()))?;
    if row.text(0)? != "primary" {
        return Err(Error::Refused("this site has joined a federation already".to_owned()));
    }
    if holds_anything(tx).await? {
        return Err(Error::Refused(
            "this site holds repositories or history of its own, which a join would hide: \
             start it with an empty data directory and an empty database"
                .to_owned(),
        ));
    }
    if let Some(name) = row.opt_text(1)?
        && name != join.name
    {
        return Err(Error::Refused(format!(
            "the join token is for a site called {}, and this one is configured as {name}",
            join.name
        )));
    }
    let highest = join.epochs.iter().map(|record| record.epoch).max_by_key(|epoch| epoch.number);
    let highest = highest.unwrap_or(join.head.position.epoch);
    tx.execute(
        "UPDATE site SET role = 'secondary', name = $1, federation = $2, primary_name = $3, primary_url = $4, \
         primary_key = $5, primary_incarnation = $6, highest_epoch = $7, highest_epoch_owner = $8 WHERE id = 1",
        vec![
            join.name.as_str().into(),
            join.federation.0.into(),
            join.primary_name.as_str().into(),
            join.primary_url.as_str().into(),
            (&join.primary_key).into(),
            join.primary_incarnation.into(),
            highest.number.into(),
            highest.owner.into(),
        ],
    )
    .await?;
    tx.execute("DELETE FROM events", vec![]).await?;
    tx.execute("DELETE FROM epochs", vec![]).await?;
    let epochs = join.epochs.iter().map(|record| {
        vec![
            record.epoch.number.into(),
            record.epoch.owner.into(),
            record.began_seq.into(),
            record.base_hash.into(),
        ]
    });
    tx.send_each(
        "INSERT INTO epochs (number, owner, began_seq, base_hash) VALUES ($1, $2, $3, $4)",
        epochs.collect(),
    )
    .await?;
    tx.set_head(&join.head).await?;
    tx.execute(
        "INSERT INTO backfill (id, head_seq, after_path, finished_at_us) VALUES (1, $1, '', NULL)",
        vec![join.head.position.seq.into()],
    )
    .await?;
    access::backfill_from(tx, join.head.position.seq).await
}

/// More events than these no first start makes.
const FIRST_EVENTS: i64 = 16;

async fn holds_anything(tx: &mut Tx) -> Result<bool> {
    const REPOSITORY: &str = "SELECT id FROM repositories WHERE id > $1 ORDER BY id LIMIT 1";
    const EVENTS: &str = "SELECT body FROM events WHERE event_id > $1 ORDER BY event_id LIMIT $2";
    if tx.query_opt(REPOSITORY, vec![0_i64.into()]).await?.is_some() {
        return Ok(true);
    }
    let events = tx.query(EVENTS, vec![0_i64.into(), (FIRST_EVENTS + 1).into()]).await?;
    if events.len() as i64 > FIRST_EVENTS {
        return Ok(true);
    }
    for row in &events {
        let event: Event = serde_json::from_slice(&row.blob(0)?)
            .map_err(|error| Error::Corrupt(format!("an event cannot be read: {error}")))?;
        if event.kind != EventKind::AccessChanged || event.actor.as_deref() != Some(BOOTSTRAP_ACTOR) {
            return Ok(true);
        }
    }
    Ok(false)
}
