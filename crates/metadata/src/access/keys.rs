//! The public keys of every site's token service, so that each site takes the tokens of all others.
//! Guards: a site's keys are recorded as its own alone, and go with it when it is removed.

use twinport_access::SigningKey;

use super::{
    RecordKind, all,
    change::{Changing, Write},
};
use crate::{
    Actor, Error, Incarnation, Metadata, Result,
    db::{Origin, Tx},
};

/// More keys than these no site has: one in use, and those before it that tokens may still be signed with.
const MAX_KEYS: usize = 8;
/// A key is forgotten this long after it retired (µs): a day, in which whatever it signed has expired.
const FORGOTTEN_AFTER_US: i64 = 24 * 3_600 * 1_000_000;

impl Metadata {
    /// The keys of all sites, retired ones included until nothing that they signed can be valid.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>> {
        self.all_of(RecordKind::SigningKey).await
    }

    /// On the primary: records the keys that `site` says it signs with; whether that changed anything.
    ///
    /// # Errors
    /// [`Error::Refused`] for keys that are another site's, too many, or of a site that is not joined;
    /// [`Error::NotPrimary`], [`Error::Halted`].
    pub async fn publish_signing_keys(
        &self,
        site: Incarnation,
        keys: Vec<SigningKey>,
        actor: &Actor,
    ) -> Result<bool> {
        let known = self.signing_keys().await?;
        let now_us = self.clock().now_us();
        if changes(&known, site, &keys, now_us)?.is_empty() {
            return Ok(false);
        }
        self.change_access(actor, move |tx, changing| {
            let keys = keys.clone();
            Box::pin(async move {
                check_joined(tx, site).await?;
                let mut known = Vec::new();
                for record in all(tx, RecordKind::SigningKey).await? {
                    known.push(record.read()?);
                }
                let now_us = tx.now_us();
                Ok(changing.write(tx, changes(&known, site, &keys, now_us)?).await? > 0)
            })
        })
        .await
    }
}

/// What has to be written so that the keys of `site` are these.
fn changes(known: &[SigningKey], site: Incarnation, keys: &[SigningKey], now_us: i64) -> Result<Vec<Write>> {
    if keys.len() > MAX_KEYS {
        return Err(Error::Refused(format!(
            "a site has at most {MAX_KEYS} token keys, and this one names {}",
            keys.len()
        )));
    }
    let mut writes = Vec::new();
    for key in keys {
        let taken = known.iter().any(|other| other.kid == key.kid && other.site != site.0);
        if key.site != site.0 || taken {
            return Err(Error::Refused(format!("the token key {} is not one of site {site}", key.kid)));
        }
        if !known.contains(key) {
            writes.push(Write::put(RecordKind::SigningKey, &key.kid, key, None)?);
        }
    }
    let gone = known.iter().filter(|key| {
        key.site == site.0
            && !keys.iter().any(|kept| kept.kid == key.kid)
            && key.retires_at_us.is_some_and(|at| at.saturating_add(FORGOTTEN_AFTER_US) < now_us)
    });
    writes.extend(gone.map(|key| Write::delete(RecordKind::SigningKey, &key.kid)));
    Ok(writes)
}

async fn check_joined(tx: &mut Tx, site: Incarnation) -> Result<()> {
    const JOINED: &str = "SELECT incarnation FROM sites WHERE incarnation = $1 AND state = 'joined' \
         UNION ALL SELECT incarnation FROM site WHERE incarnation = $1";
    if tx.query_opt(JOINED, vec![site.into()]).await?.is_none() {
        return Err(Error::Refused(format!(
            "site {site} is not part of the federation: its keys are not taken"
        )));
    }
    Ok(())
}

/// Deletes the keys of a site that is being removed: what they sign is refused from then on.
pub(crate) async fn retire_keys_of(
    tx: &mut Tx,
    origin: &Origin,
    site: Incarnation,
    actor: &Actor,
) -> Result<()> {
    let changing = Changing::within(tx, origin.clone(), actor.clone()).await?;
    let mut writes = Vec::new();
    for record in all(tx, RecordKind::SigningKey).await? {
        let key: SigningKey = record.read()?;
        if key.site == site.0 {
            writes.push(Write::delete(RecordKind::SigningKey, &key.kid));
        }
    }
    changing.write(tx, writes).await.map(drop)
}
