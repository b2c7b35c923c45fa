//! Refresh tokens of this site's token service: kept as hashes, by this site alone.
//! Guards: a refresh token that is shown a second time after it was replaced ends its whole family (RFC 9700, 4.14.2).

use twinport_access::AccountName;
use uuid::Uuid;

use crate::{
    Error, Metadata, Result,
    db::{Row, Tx},
};

/// A refresh token. The token itself is nowhere: it is known by its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    /// Those that followed from one sign-in.
    pub family: Uuid,
    pub account: AccountName,
    /// The service that it was given for.
    pub service: String,
    /// What it may ask for at most, as the token service wrote it down.
    pub scope: String,
    pub issued_at_us: i64,
    pub expires_at_us: i64,
}

/// What became of a refresh token that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// It is good; where it was to be replaced, only its successor is from here on.
    Good(RefreshToken),
    /// Never given, revoked, of another service, or expired.
    Unknown,
    /// It was replaced before: its family is revoked.
    Reused(AccountName),
}

const FIND: &str = "SELECT family, account, service, scope, issued_at_us, expires_at_us, rotated_at_us \
     FROM refresh_tokens WHERE hash = $1";
const FIND_LOCKED: &str = "SELECT family, account, service, scope, issued_at_us, expires_at_us, rotated_at_us \
     FROM refresh_tokens WHERE hash = $1 {for update}";
const KEEP: &str = "INSERT INTO refresh_tokens \
     (hash, family, account, service, scope, issued_at_us, expires_at_us) VALUES ($1, $2, $3, $4, $5, $6, $7)";

impl Metadata {
    /// Keeps a fresh refresh token by its SHA-256.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn create_refresh_token(&self, hash: [u8; 32], token: RefreshToken) -> Result<()> {
        self.db
            .write(move |tx| {
                let token = token.clone();
                Box::pin(async move { keep(tx, hash, &token).await })
            })
            .await
    }

    /// Looks a refresh token up without replacing it: for clients that keep the one of their sign-in, as Docker's does.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn refresh_token(&self, hash: [u8; 32], service: &str) -> Result<Refreshed> {
        let Some(row) = self.db.query_opt(FIND, vec![hash.into()]).await? else {
            return Ok(Refreshed::Unknown);
        };
        let token = token(&row)?;
        let good = row.opt_int(6)?.is_none()
            && token.service == service
            && token.expires_at_us > self.clock().now_us();
        Ok(if good { Refreshed::Good(token) } else { Refreshed::Unknown })
    }

    /// Takes a refresh token and puts `successor`, the SHA-256 of another, in its place, good until `expires_at_us`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rotate_refresh_token(
        &self,
        hash: [u8; 32],
        service: &str,
        successor: [u8; 32],
        expires_at_us: i64,
    ) -> Result<Refreshed> {
        let service = service.to_owned();
        self.db
            .write(move |tx| {
                let service = service.clone();
                Box::pin(async move { rotate(tx, hash, &service, successor, expires_at_us).await })
            })
            .await
    }

    /// Ends every refresh token of an account at this site.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn revoke_refresh_tokens(&self, account: &AccountName) -> Result<()> {
        let account = account.clone();
        self.db
            .write(move |tx| {
                let account = account.clone();
                Box::pin(async move { revoke(tx, account.as_str()).await })
            })
            .await
    }

    /// Forgets refresh tokens that have expired; how many.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn purge_refresh_tokens(&self) -> Result<u64> {
        const PURGE: &str = "DELETE FROM refresh_tokens WHERE expires_at_us <= $1";
        self.db
            .write(|tx| {
                Box::pin(async move {
                    let now = tx.now_us();
                    tx.execute(PURGE, vec![now.into()]).await
                })
            })
            .await
    }
}

/// Ends every refresh token of an account, with whatever else the transaction does to it.
pub(crate) async fn revoke(tx: &mut Tx, account: &str) -> Result<()> {
    tx.send("DELETE FROM refresh_tokens WHERE account = $1", vec![account.into()]).await
}

async fn keep(tx: &mut Tx, hash: [u8; 32], token: &RefreshToken) -> Result<()> {
    let params = vec![
        hash.into(),
        token.family.into(),
        token.account.as_str().into(),
        (&token.service).into(),
        (&token.scope).into(),
        token.issued_at_us.into(),
        token.expires_at_us.into(),
    ];
    tx.execute(KEEP, params).await.map(drop)
}

async fn rotate(
    tx: &mut Tx,
    hash: [u8; 32],
    service: &str,
    successor: [u8; 32],
    expires_at_us: i64,
) -> Result<Refreshed> {
    const ROTATED: &str = "UPDATE refresh_tokens SET rotated_at_us = $2 WHERE hash = $1";
    const END_FAMILY: &str = "DELETE FROM refresh_tokens WHERE family = $1";
    let now = tx.now_us();
    let Some(row) = tx.query_opt(FIND_LOCKED, vec![hash.into()]).await? else {
        return Ok(Refreshed::Unknown);
    };
    let shown = token(&row)?;
    if shown.service != service || shown.expires_at_us <= now {
        return Ok(Refreshed::Unknown);
    }
    if row.opt_int(6)?.is_some() {
        tx.execute(END_FAMILY, vec![shown.family.into()]).await?;
        return Ok(Refreshed::Reused(shown.account));
    }
    tx.execute(ROTATED, vec![hash.into(), now.into()]).await?;
    let next = RefreshToken { issued_at_us: now, expires_at_us, ..shown };
    keep(tx, successor, &next).await?;
    Ok(Refreshed::Good(next))
}

fn token(row: &Row) -> Result<RefreshToken> {
    let account = row.text(1)?;
    let account = AccountName::parse(&account)
        .map_err(|error| Error::Corrupt(format!("the account of a refresh token: {error}")))?;
    Ok(RefreshToken {
        family: row.uuid(0)?,
        account,
        service: row.text(2)?,
        scope: row.text(3)?,
        issued_at_us: row.int(4)?,
        expires_at_us: row.int(5)?,
    })
}
