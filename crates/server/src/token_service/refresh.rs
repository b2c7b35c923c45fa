//! Refresh tokens: what a client keeps instead of a password, to come back for another bearer token.
//! Invariant: the token itself is held by the client alone; the site keeps its hash. It ends with its account, its account's
//! password, and after a month of disuse.

use std::net::IpAddr;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use twinport_access::{AccountName, TokenLimit};
use twinport_metadata::{RefreshToken, Refreshed};
use uuid::Uuid;

use crate::error::Refusal;
use crate::policy::{Accounts, SignedIn};

/// How long a refresh token is good for without being used (µs).
const LIFETIME_US: i64 = 30 * 24 * 3_600 * 1_000_000;

/// What the sign-in that a refresh token stands for was limited to.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<TokenLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_us: Option<i64>,
}

/// The first refresh token of a sign-in.
pub(super) async fn begin(
    accounts: &Accounts,
    account: &AccountName,
    signed_in: &SignedIn,
) -> Result<String, Refusal> {
    let SignedIn { limit, token, until_us, .. } = signed_in.clone();
    let scope = serde_json::to_string(&Kept { limit, token, until_us })
        .map_err(|error| Refusal::internal("writing a refresh token", &error))?;
    let (secret, hash) = fresh();
    let issued_at_us = accounts.metadata().clock().now_us();
    let kept = RefreshToken {
        family: Uuid::new_v4(),
        account: account.clone(),
        service: accounts.service().to_owned(),
        scope,
        issued_at_us,
        expires_at_us: issued_at_us + LIFETIME_US,
    };
    accounts.metadata().create_refresh_token(hash, kept).await?;
    Ok(secret)
}

/// Who a refresh token stands for. The same one is good until it is revoked or unused for a month: Docker's client keeps the one
/// that it got when it signed in.
pub(super) async fn use_up(
    accounts: &Accounts,
    shown: &str,
    from: Option<IpAddr>,
) -> Result<(SignedIn, String), Refusal> {
    // By address alone: a name that all share would let anybody slow everybody down.
    let who = format!("refresh token from {from:?}");
    accounts.throttle().check(from, &who)?;
    let hash: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
    let Refreshed::Good(kept) = accounts.metadata().refresh_token(hash, accounts.service()).await? else {
        accounts.throttle().failed(from, &who, Instant::now());
        return Err(Refusal::bad_credentials());
    };
    let Kept { limit, token, until_us } = serde_json::from_str(&kept.scope)
        .map_err(|error| Refusal::internal("reading a refresh token", &error))?;
    let now_us = accounts.metadata().clock().now_us();
    let Some(identity) = accounts.enabled(&kept.account).await? else {
        return Err(Refusal::bad_credentials());
    };
    let gone = match token {
        Some(id) => accounts.metadata().access_token(id).await?.is_none(),
        None => false,
    };
    if gone || until_us.is_some_and(|until| until <= now_us) {
        return Err(Refusal::bad_credentials());
    }
    Ok((SignedIn { identity, limit, token, until_us }, shown.to_owned()))
}

fn fresh() -> (String, [u8; 32]) {
    let random: [u8; 32] = rand::random();
    let secret = format!("tpr_{}", URL_SAFE_NO_PAD.encode(random));
    let hash = Sha256::digest(secret.as_bytes()).into();
    (secret, hash)
}
