//! What this node has seen of the log, held against every life of a server that it meets (hazard R26).
//!
//! A server that was restored from an older backup, or a standby that had not received the last commits, answers as if
//! nothing had happened: it would number other events where acknowledged ones were. So whoever starts anew (another
//! start, timeline or system) is asked for the last event that this node knows and for the last ones it acknowledged.
//!
//! **Architecture invariant:** no write is made on a server that lacks what this node knows to be committed.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    path::{Path, PathBuf},
};

use deadpool_postgres::ClientWrapper;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{options::PostgresHost, server::ServerLife};
use crate::{
    Epoch, Error, Incarnation, LogHead, LogPosition, Result,
    db::tx::{Appended, ROLE_LOCK},
    site::LOST_WRITES,
};

/// Acknowledged events that are remembered besides the head: more than are ever without a number.
const ACKNOWLEDGED: usize = 1024;

/// What a node knows of its database.
#[derive(Debug)]
pub(crate) struct Continuity {
    known: Mutex<Known>,
    /// One comparison at a time.
    comparing: tokio::sync::Mutex<()>,
    /// Where it outlives the process.
    file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    /// The server's life that was compared last.
    life: Option<ServerLife>,
    site: Option<Incarnation>,
    /// The last numbered event.
    head: Option<LogHead>,
    /// Events of this node that were committed, the latest last.
    acknowledged: VecDeque<Appended>,
    /// How often somebody had accepted a loss, when that was looked at last.
    accepted_losses: i64,
    /// The server lacked something, and nobody has accepted that yet.
    contradicted: bool,
    /// The head went back, and this node's readers have not been told.
    unheard: bool,
    unsaved: bool,
}

/// What a look at the head finds beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Writes are stopped.
    pub(crate) halted: bool,
    /// How often somebody accepted that writes were lost.
    pub(crate) accepted_losses: i64,
}

/// What is kept between two runs of a node.
#[derive(Serialize, Deserialize)]
struct Kept {
    site: Uuid,
    epoch: i64,
    epoch_owner: Uuid,
    seq: i64,
    hash: String,
    accepted_losses: i64,
}

/// What tells two events of one id apart.
pub(crate) fn fingerprint(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

impl Continuity {
    /// With what an earlier run of this node kept in `file`.
    ///
    /// # Errors
    /// [`Error::Refused`] when the file is there and cannot be used.
    pub(super) async fn open(file: Option<PathBuf>) -> Result<Self> {
        let known = match file.clone() {
            Some(file) => tokio::task::spawn_blocking(move || read(&file))
                .await
                .map_err(|error| Error::Bug(format!("reading what was seen of the log: {error}")))??,
            None => Known::default(),
        };
        Ok(Self { known: Mutex::new(known), comparing: tokio::sync::Mutex::new(()), file })
    }

    /// The database is this site's.
    pub(crate) fn belongs_to(&self, site: Incarnation) {
        let mut known = self.known.lock();
        known.unsaved |= known.site != Some(site);
        known.site = Some(site);
    }

    /// These events were committed, and whoever made them will be told so.
    pub(super) fn acknowledge(&self, appended: &[Appended]) {
        let mut known = self.known.lock();
        known.acknowledged.extend(appended);
        let surplus = known.acknowledged.len().saturating_sub(ACKNOWLEDGED);
        known.acknowledged.drain(..surplus);
    }

    /// This node moved the head itself.
    pub(super) fn moved(&self, head: LogHead) {
        self.known.lock().move_to(head);
    }

    /// A head that was read. `true` where it counts even though it is lower than one that was known: the server lacks
    /// something.
    pub(crate) fn saw(&self, head: LogHead, standing: Standing) -> bool {
        let mut known = self.known.lock();
        if known.contradicted && (standing.halted || standing.accepted_losses <= known.accepted_losses) {
            // An answer that was under way before the server ended says nothing of the loss.
            return true;
        }
        if standing.accepted_losses > known.accepted_losses {
            known.accept(head, standing.accepted_losses);
        } else {
            known.move_to(head);
        }
        std::mem::take(&mut known.unheard)
    }

    /// Compares a server's life with what is known, unless it was compared already.
    pub(super) async fn hold_against(
        &self,
        client: &ClientWrapper,
        host: &PostgresHost,
        life: ServerLife,
    ) -> Result<()> {
        if self.known.lock().life.as_ref() == Some(&life) {
            return Ok(());
        }
        let _one = self.comparing.lock().await;
        let known = self.known.lock().clone();
        if known.life.as_ref() == Some(&life) {
            return Ok(());
        }
        if known.life.is_some() {
            tracing::info!(%host, ?life, "the database server started anew: its log is held against what was seen");
        }
        let found = found(client, host, &known).await?;
        let missing = match &found {
            Some(found) => missing(client, &known, found).await?,
            None => None,
        };
        let lost = match (missing, found) {
            (Some(what), Some(found)) if found.accepted_losses > known.accepted_losses => {
                tracing::info!(%host, what, "somebody accepted that this was lost");
                self.known.lock().accept(found.head, found.accepted_losses);
                false
            }
            (Some(what), Some(found)) if found.is_primary => {
                halt(client, host, &what).await?;
                true
            }
            (Some(what), Some(found)) => {
                // A secondary's log is the primary's: what is missing comes again.
                tracing::warn!(%host, what, "this secondary's database went back: it follows again from where that stands");
                self.known.lock().accept(found.head, found.accepted_losses);
                false
            }
            _ => false,
        };
        let mut known = self.known.lock();
        known.life = Some(life);
        known.contradicted = lost;
        Ok(())
    }

    /// Writes down what is known, where it has changed.
    pub(super) async fn save(&self) {
        let Some(file) = self.file.clone() else { return };
        let kept = {
            let mut known = self.known.lock();
            let (Some(site), Some(head), true) = (known.site, known.head, known.unsaved) else { return };
            known.unsaved = false;
            Kept {
                site: site.0,
                epoch: head.position.epoch.number,
                epoch_owner: head.position.epoch.owner.0,
                seq: head.position.seq,
                hash: hex::encode(head.hash),
                accepted_losses: known.accepted_losses,
            }
        };
        let written =
            tokio::task::spawn_blocking(move || write(&file, &kept).map_err(|error| (file, error))).await;
        if let Ok(Err((file, error))) = written {
            self.known.lock().unsaved = true;
            tracing::warn!(file = %file.display(), %error, "what was seen of the log cannot be written down");
        }
    }
}

impl Known {
    fn move_to(&mut self, head: LogHead) {
        match self.head {
            Some(before) if before.position.epoch == head.position.epoch => {
                if before.position.seq < head.position.seq {
                    self.head = Some(head);
                    self.unsaved = true;
                }
            }
            _ => self.forget_for(head),
        }
    }

    fn accept(&mut self, head: LogHead, accepted_losses: i64) {
        self.forget_for(head);
        self.accepted_losses = accepted_losses;
        self.contradicted = false;
        self.unheard = true;
    }

    fn forget_for(&mut self, head: LogHead) {
        self.head = Some(head);
        self.acknowledged.clear();
        self.unsaved = true;
    }
}

/// A site's database as it is found.
struct Found {
    head: LogHead,
    is_primary: bool,
    accepted_losses: i64,
}

/// The site that the database holds; none where it holds none and none is expected.
async fn found(client: &ClientWrapper, host: &PostgresHost, known: &Known) -> Result<Option<Found>> {
    const TABLES: &str = "SELECT to_regclass('site') IS NOT NULL AND to_regclass('log_head') IS NOT NULL \
         AND to_regclass('events') IS NOT NULL";
    // A site of an older schema does not count what was accepted.
    const SITE: &str = "SELECT s.incarnation, s.role, h.epoch, h.owner, h.seq, h.hash, \
         CAST(COALESCE(to_jsonb(s) ->> 'accepted_losses', '0') AS BIGINT) FROM site s, log_head h WHERE s.id = 1 AND h.id = 1";
    let there: bool = client.query_one(TABLES, &[]).await?.try_get(0)?;
    let row = if there { client.query_opt(SITE, &[]).await? } else { None };
    let Some(row) = row else {
        return match known.site {
            None => Ok(None),
            Some(site) => Err(Error::Refused(format!(
                "the database at {host} holds no site, and this node has used that of {site} before: is it the right \
                 database? restore it, or begin with an empty data directory too"
            ))),
        };
    };
    let site = Incarnation(uuid(row.try_get(0)?)?);
    if let Some(expected) = known.site
        && expected != site
    {
        return Err(Error::Refused(format!(
            "the database at {host} belongs to another site ({site}, and this is {expected}): correct database.host and \
             database.dbname"
        )));
    }
    let role: &str = row.try_get(1)?;
    let hash: &[u8] = row.try_get(5)?;
    let head = LogHead {
        position: LogPosition {
            epoch: Epoch { number: row.try_get(2)?, owner: Incarnation(uuid(row.try_get(3)?)?) },
            seq: row.try_get(4)?,
        },
        hash: hash.try_into().map_err(|_| Error::Corrupt("the head's hash has another length".to_owned()))?,
    };
    Ok(Some(Found { head, is_primary: role == "primary", accepted_losses: row.try_get(6)? }))
}

fn uuid(bytes: &[u8]) -> Result<Uuid> {
    Uuid::from_slice(bytes).map_err(|error| Error::Corrupt(format!("an id cannot be read: {error}")))
}

/// What the server lacks of all that is known.
async fn missing(client: &ClientWrapper, known: &Known, found: &Found) -> Result<Option<String>> {
    const AT: &str = "SELECT hash FROM events WHERE epoch = $1 AND owner = $2 AND seq = $3";
    const BY_ID: &str = "SELECT event_id, body FROM events WHERE event_id = ANY($1)";
    if let Some(head) = known.head
        && head != found.head
    {
        let position = head.position;
        let owner = position.epoch.owner.0.as_bytes().as_slice();
        let row = client.query_opt(AT, &[&position.epoch.number, &owner, &position.seq]).await?;
        let hash: Option<&[u8]> = row.as_ref().map(|row| row.try_get(0)).transpose()?;
        match hash {
            Some(hash) if hash == head.hash => {}
            Some(_) => return Ok(Some(format!("event {} is another one than before", position.seq))),
            // The base of a log has no event: nothing that came after it is missing.
            None if position.seq == 0 => {}
            None => {
                return Ok(Some(format!(
                    "event {} is missing, its log ends at event {}",
                    position.seq, found.head.position.seq
                )));
            }
        }
    }
    let ids: Vec<i64> = known.acknowledged.iter().map(|event| event.id).collect();
    let mut there = HashMap::new();
    for row in client.query(BY_ID, &[&ids]).await? {
        there.insert(row.try_get::<_, i64>(0)?, fingerprint(row.try_get(1)?));
    }
    let lost =
        known.acknowledged.iter().filter(|event| there.get(&event.id) != Some(&event.fingerprint)).count();
    Ok((lost > 0)
        .then(|| format!("{lost} of the last {} changes that this node acknowledged are missing", ids.len())))
}

/// Stops writes, durably, before anybody gets to make one.
async fn halt(client: &ClientWrapper, host: &PostgresHost, what: &str) -> Result<()> {
    let reason = format!(
        "{LOST_WRITES}: at {host}, {what}. PostgreSQL was restored from an older backup, or failed over to a standby that \
         had not received everything. Bring back the server that has it, or give up what is missing with `twinport db \
         accept-loss`"
    );
    client.batch_execute("BEGIN").await?;
    client.query("SELECT pg_advisory_xact_lock($1)", &[&ROLE_LOCK]).await?;
    client.execute("UPDATE site SET halted = $1 WHERE id = 1 AND halted IS NULL", &[&reason]).await?;
    client.batch_execute("COMMIT").await?;
    tracing::error!(reason, "writes are stopped on this site");
    Ok(())
}

fn read(file: &Path) -> Result<Known> {
    let unusable = |why: String| {
        Error::Refused(format!(
            "{}, where this node keeps what it has seen of the log, cannot be used ({why}): remove it if the database is \
             known to be whole",
            file.display()
        ))
    };
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Known::default()),
        Err(error) => return Err(unusable(error.to_string())),
    };
    let kept: Kept = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    let hash = hex::decode(&kept.hash).ok().and_then(|hash| hash.try_into().ok());
    let hash = hash.ok_or_else(|| unusable("its hash is none".to_owned()))?;
    let epoch = Epoch { number: kept.epoch, owner: Incarnation(kept.epoch_owner) };
    let head = LogHead { position: LogPosition { epoch, seq: kept.seq }, hash };
    Ok(Known {
        site: Some(Incarnation(kept.site)),
        head: Some(head),
        accepted_losses: kept.accepted_losses,
        ..Known::default()
    })
}

fn write(file: &Path, kept: &Kept) -> std::io::Result<()> {
    let name = file.with_extension("new");
    let mut new = std::fs::File::create(&name)?;
    new.write_all(&serde_json::to_vec(kept)?)?;
    // A power cut leaves the file before or this one, never one that stops the next start.
    new.sync_all()?;
    std::fs::rename(&name, file)
}
