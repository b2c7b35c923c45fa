//! The sites of the federation, joined and removed, except this one's own identity.
//!
//! **Architecture invariant:** a removed site is remembered for ever, by incarnation and by key; neither comes back.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Actor, Error, EventKind, Incarnation, Metadata, Result, access,
    db::{Change, Origin, Row, Tx},
};

/// Whether a site is part of the federation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteState {
    Joined,
    Removed,
}

impl SiteState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Removed => "removed",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "joined" => Ok(Self::Joined),
            "removed" => Ok(Self::Removed),
            other => Err(Error::Corrupt(format!("a site's state is {other}"))),
        }
    }
}

/// A site that joined. Also the `site` of a [`EventKind::SiteChanged`] event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteRecord {
    pub name: String,
    pub incarnation: Incarnation,
    /// Raw Ed25519 public key, 32 bytes; hexadecimal in JSON.
    #[serde(with = "hexadecimal")]
    pub public_key: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_url: Option<String>,
    /// The protocol version it joined with.
    pub protocol: u32,
    pub state: SiteState,
    /// µs since the epoch, UTC, by the primary's clock.
    pub joined_at_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at_us: Option<i64>,
}

/// A site that asks to be admitted with a join token.
#[derive(Clone, Debug)]
pub struct NewSite {
    /// The join token's id; the caller has compared the secret.
    pub token: Uuid,
    pub name: String,
    pub incarnation: Incarnation,
    pub public_key: Vec<u8>,
    pub external_url: Option<String>,
    pub internal_url: Option<String>,
    pub protocol: u32,
}

/// What became of a [`NewSite`]. Nothing is written unless it was admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    Admitted(SiteRecord),
    /// No such token, or it was made for another name.
    TokenUnknown,
    TokenUsed,
    TokenExpired,
    /// A joined site, or the primary itself, has the name.
    NameTaken,
    /// This incarnation or key is, or once was, a site: the record it has.
    Known(SiteRecord),
}

const COLUMNS: &str = "SELECT name, incarnation, public_key, external_url, internal_url, protocol, state, \
     joined_at_us, removed_at_us FROM sites ORDER BY name, joined_at_us, incarnation";
const BY_INCARNATION: &str = "SELECT name, incarnation, public_key, external_url, internal_url, protocol, state, \
     joined_at_us, removed_at_us FROM sites WHERE incarnation = $1";
const BY_INCARNATION_OR_KEY: &str = "SELECT name, incarnation, public_key, external_url, internal_url, protocol, \
     state, joined_at_us, removed_at_us FROM sites WHERE incarnation = $1 OR public_key = $2 LIMIT 1";
const JOINED_BY_NAME: &str = "SELECT name, incarnation, public_key, external_url, internal_url, protocol, state, \
     joined_at_us, removed_at_us FROM sites WHERE name = $1 AND state = 'joined' {for update}";

impl Metadata {
    /// Every site that ever joined, removed ones included, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sites(&self) -> Result<Vec<SiteRecord>> {
        self.db.query(COLUMNS, vec![]).await?.iter().map(record).collect()
    }

    /// The site with this incarnation, joined or removed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn site_record(&self, incarnation: Incarnation) -> Result<Option<SiteRecord>> {
        self.db.query_opt(BY_INCARNATION, vec![incarnation.into()]).await?.as_ref().map(record).transpose()
    }

    /// Admits a site: marks its token used, adds the site, appends the event, in one transaction.
    ///
    /// # Errors
    /// [`Error::NotPrimary`] or [`Error::Halted`] where this site may not write.
    pub async fn admit_site(&self, new: NewSite) -> Result<Admission> {
        self.db
            .write(move |tx| {
                let new = new.clone();
                Box::pin(async move { admit(tx, new).await })
            })
            .await
    }

    /// Removes the joined site called `name`, for ever; what it was, or `None` where no such site is joined.
    /// A halt that this site caused is lifted with it.
    ///
    /// # Errors
    /// [`Error::NotPrimary`], or [`Error::Halted`] where something else stopped writes.
    pub async fn remove_site(&self, name: &str, actor: &Actor) -> Result<Option<SiteRecord>> {
        let (name, actor) = (name.to_owned(), actor.clone());
        self.db
            .write_alone(move |tx| {
                let (name, actor) = (name.clone(), actor.clone());
                Box::pin(async move { remove(tx, &name, &actor).await })
            })
            .await
    }
}

async fn admit(tx: &mut Tx, new: NewSite) -> Result<Admission> {
    const TOKEN: &str =
        "SELECT site_name, expires_at_us, used_at_us FROM join_tokens WHERE id = $1 {for update}";
    let origin = tx.guard_origin().await?;
    // Two tokens for one name must not race to the same row that does not exist yet.
    tx.lock_name(&format!("site {}", new.name)).await?;
    let now = tx.now_us();
    let Some(token) = tx.query_opt(TOKEN, vec![new.token.into()]).await? else {
        return Ok(Admission::TokenUnknown);
    };
    if token.text(0)? != new.name {
        return Ok(Admission::TokenUnknown);
    }
    if token.opt_int(2)?.is_some() {
        return Ok(Admission::TokenUsed);
    }
    if token.int(1)? <= now {
        return Ok(Admission::TokenExpired);
    }
    let own = tx
        .query_opt(
            "SELECT id FROM site WHERE id = 1 AND (name = $1 OR incarnation = $2 OR public_key = $3)",
            vec![(&new.name).into(), new.incarnation.into(), new.public_key.clone().into()],
        )
        .await?;
    if own.is_some() || tx.query_opt(JOINED_BY_NAME, vec![(&new.name).into()]).await?.is_some() {
        return Ok(Admission::NameTaken);
    }
    let known = vec![new.incarnation.into(), new.public_key.clone().into()];
    if let Some(row) = tx.query_opt(BY_INCARNATION_OR_KEY, known).await? {
        return Ok(Admission::Known(record(&row)?));
    }
    let site = SiteRecord {
        name: new.name,
        incarnation: new.incarnation,
        public_key: new.public_key,
        external_url: new.external_url,
        internal_url: new.internal_url,
        protocol: new.protocol,
        state: SiteState::Joined,
        joined_at_us: now,
        removed_at_us: None,
    };
    tx.execute("UPDATE join_tokens SET used_at_us = $2 WHERE id = $1", vec![new.token.into(), now.into()])
        .await?;
    let change = append(tx, &origin, &site, None).await?;
    let [event, epoch, seq] = change.columns();
    tx.execute(
        "INSERT INTO sites (incarnation, name, public_key, external_url, internal_url, protocol, state, \
         joined_at_us, change, position_epoch, position_seq) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        vec![
            site.incarnation.into(),
            (&site.name).into(),
            site.public_key.clone().into(),
            site.external_url.clone().into(),
            site.internal_url.clone().into(),
            site.protocol.into(),
            site.state.as_str().into(),
            site.joined_at_us.into(),
            event,
            epoch,
            seq,
        ],
    )
    .await?;
    Ok(Admission::Admitted(site))
}

async fn remove(tx: &mut Tx, name: &str, actor: &Actor) -> Result<Option<SiteRecord>> {
    // Lifting a halt is a role change: whoever originates events waits, as for the halt itself.
    tx.lock_role().await?;
    let Some(row) = tx.query_opt(JOINED_BY_NAME, vec![name.into()]).await? else {
        return Ok(None);
    };
    let mut site = record(&row)?;
    lift_halt(tx, site.incarnation).await?;
    let origin = tx.guard_origin().await?;
    site.state = SiteState::Removed;
    site.removed_at_us = Some(tx.now_us());
    let change = append(tx, &origin, &site, Some(actor)).await?;
    let [event, epoch, seq] = change.columns();
    tx.execute(
        "UPDATE sites SET state = $2, removed_at_us = $3, change = $4, position_epoch = $5, position_seq = $6 \
         WHERE incarnation = $1",
        vec![
            site.incarnation.into(),
            site.state.as_str().into(),
            site.removed_at_us.into(),
            event,
            epoch,
            seq,
        ],
    )
    .await?;
    tx.execute("DELETE FROM site_reports WHERE incarnation = $1", vec![site.incarnation.into()]).await?;
    access::retire_keys_of(tx, &origin, site.incarnation, actor).await?;
    Ok(Some(site))
}

/// A halt names the incarnation of the site that caused it (`twinport_geo`'s handshake); with the site it goes.
async fn lift_halt(tx: &mut Tx, incarnation: Incarnation) -> Result<()> {
    let row = tx.query_opt("SELECT halted FROM site WHERE id = 1 {for update}", vec![]).await?;
    let reason = row.map(|row| row.opt_text(0)).transpose()?.flatten();
    if reason.is_some_and(|reason| reason.contains(&incarnation.to_string())) {
        tx.execute("UPDATE site SET halted = NULL WHERE id = 1", vec![]).await?;
    }
    Ok(())
}

async fn append(tx: &mut Tx, origin: &Origin, site: &SiteRecord, actor: Option<&Actor>) -> Result<Change> {
    let mut event = origin.event(EventKind::SiteChanged);
    event.site = Some(serde_json::to_value(site).map_err(|error| Error::Bug(error.to_string()))?);
    event.actor = actor.map(|actor| actor.name.clone());
    event.correlation = actor.and_then(|actor| actor.correlation.clone());
    tx.append(&event).await
}

fn record(row: &Row) -> Result<SiteRecord> {
    Ok(SiteRecord {
        name: row.text(0)?,
        incarnation: Incarnation(row.uuid(1)?),
        public_key: row.blob(2)?.to_vec(),
        external_url: row.opt_text(3)?,
        internal_url: row.opt_text(4)?,
        protocol: u32::try_from(row.int(5)?)
            .map_err(|_| Error::Corrupt("a site's protocol version".to_owned()))?,
        state: SiteState::parse(&row.text(6)?)?,
        joined_at_us: row.int(7)?,
        removed_at_us: row.opt_int(8)?,
    })
}

mod hexadecimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
