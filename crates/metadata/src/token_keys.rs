//! The keys with which this site's token service signs. The private halves stay in this database.
//! Guards: no private key is logged, shipped or shown; a key that was replaced signs nothing that others take for long.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use twinport_access::SigningKey;
use uuid::Uuid;

use crate::{
    Error, Metadata, Result,
    db::{Row, Tx},
};

/// A key of this site, with its private half.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// The public half, as other sites know it.
    pub public: SigningKey,
    /// PKCS#8 of an ES256 key. Never logged, never shipped.
    pub private: Bytes,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("public", &self.public).finish_non_exhaustive()
    }
}

const KEYS: &str = "SELECT private_key, created_at_us, retires_at_us, incarnation \
     FROM token_signing_keys, site WHERE site.id = 1 ORDER BY created_at_us DESC, kid";

impl Metadata {
    /// This site's keys, the newest first: that one signs. Empty until the first was made.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a key that cannot be used; those of the database.
    pub async fn token_keys(&self) -> Result<Vec<TokenKey>> {
        self.db.query(KEYS, vec![]).await?.iter().map(key).collect()
    }

    /// The key that signs; one is made where none is there yet, or where the one that is there is older than `lifetime_us`.
    /// A key that is replaced signs for `grace_us` more, by which time every node of this site has noticed.
    ///
    /// # Errors
    /// [`Error::Refused`] when the system has no randomness; those of the database.
    pub async fn current_token_key(&self, lifetime_us: i64, grace_us: i64) -> Result<TokenKey> {
        let due =
            move |key: &TokenKey, now_us: i64| now_us.saturating_sub(key.public.created_at_us) > lifetime_us;
        if let Some(key) = self.token_keys().await?.into_iter().next()
            && !due(&key, self.clock().now_us())
        {
            return Ok(key);
        }
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    lock(tx).await?;
                    let now = tx.now_us();
                    let newest = tx.query(KEYS, vec![]).await?.first().map(key).transpose()?;
                    match newest {
                        Some(key) if !due(&key, now) => Ok(key),
                        _ => replace(tx, grace_us).await,
                    }
                })
            })
            .await
    }

    /// Makes another key, which signs from here on; what the one before it signed stays good until it expires.
    ///
    /// # Errors
    /// As [`Self::current_token_key`].
    pub async fn rotate_token_key(&self, grace_us: i64) -> Result<TokenKey> {
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    lock(tx).await?;
                    replace(tx, grace_us).await
                })
            })
            .await
    }
}

/// Two nodes of a site make one key between them.
async fn lock(tx: &mut Tx) -> Result<()> {
    tx.lock_name("token signing key").await
}

async fn replace(tx: &mut Tx, grace_us: i64) -> Result<TokenKey> {
    // Other sites keep the public half until nothing that it signed can be valid.
    const FORGET: &str = "DELETE FROM token_signing_keys WHERE retires_at_us < $1";
    const RETIRE: &str = "UPDATE token_signing_keys SET retires_at_us = $1 WHERE retires_at_us IS NULL";
    const KEEP: &str = "INSERT INTO token_signing_keys (kid, private_key, created_at_us) VALUES ($1, $2, $3)";
    let failed =
        |_| Error::Refused("the system's random source does not answer, so no token key can be made".into());
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
    let private = Bytes::copy_from_slice(pair.to_pkcs8v1().map_err(failed)?.as_ref());
    let now = tx.now_us();
    tx.execute(FORGET, vec![now.into()]).await?;
    tx.execute(RETIRE, vec![now.saturating_add(grace_us).into()]).await?;
    let incarnation = tx.query_opt("SELECT incarnation FROM site WHERE id = 1", vec![]).await?;
    let incarnation = incarnation.ok_or_else(|| Error::Corrupt("the site has no identity row".to_owned()))?;
    let made = assemble(private, now, None, incarnation.uuid(0)?)?;
    let params = vec![(&made.public.kid).into(), (&made.private).into(), now.into()];
    tx.execute(KEEP, params).await?;
    Ok(made)
}

fn key(row: &Row) -> Result<TokenKey> {
    assemble(row.blob(0)?, row.int(1)?, row.opt_int(2)?, row.uuid(3)?)
}

fn assemble(private: Bytes, created_at_us: i64, retires_at_us: Option<i64>, site: Uuid) -> Result<TokenKey> {
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private)
        .map_err(|error| Error::Corrupt(format!("a token key of this site cannot be used: {error}")))?;
    let point = pair.public_key().as_ref();
    let public = SigningKey {
        kid: thumbprint(point),
        site,
        public_key: URL_SAFE_NO_PAD.encode(point),
        created_at_us,
        retires_at_us,
    };
    Ok(TokenKey { public, private })
}

/// The key's own hash (RFC 7638), so that no two keys share an id. `point` is uncompressed: a byte, x, y.
fn thumbprint(point: &[u8]) -> String {
    let (x, y) = point[1..].split_at(32);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let jwk = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(jwk))
}
