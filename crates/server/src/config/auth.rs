//! The settings of `auth` and `accounts`: by what clients are known.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use twinport_access::AccountName;
use url::Url;

/// By what clients are known. One way at a time, so that nobody can choose the weakest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthConfig {
    /// Anyone may do anything.
    Open {
        /// `auth: none` was written: listening beyond loopback is meant.
        stated: bool,
    },
    Htpasswd(HtpasswdConfig),
    Token(TokenAuthConfig),
    Accounts(AccountsConfig),
}

/// `auth.htpasswd`: every user of the file may do everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HtpasswdConfig {
    pub realm: String,
    /// Lines of `name:hash`, bcrypt only; read again when it changes.
    pub file: PathBuf,
}

/// `auth.token`: a token service elsewhere says who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAuthConfig {
    /// Where clients get their tokens.
    pub realm: Url,
    /// What tokens must name as their audience.
    pub service: String,
    /// What tokens must name as their issuer.
    pub issuer: String,
    /// PEM: certificates or public keys that tokens are signed with, or that vouch for such.
    pub root_cert_bundle: Option<PathBuf>,
    /// A JSON Web Key Set.
    pub jwks: Option<PathBuf>,
    /// As in JWTs: `RS256`; empty: all that a key's kind allows.
    pub signing_algorithms: Vec<String>,
    /// The realm is this path on the host that the client asked.
    pub auto_redirect: Option<String>,
}

/// `accounts`: the built-in accounts, and the token service at `/token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountsConfig {
    /// What tokens name as their audience, and clients send along.
    pub service: String,
    pub token_lifetime: Duration,
    /// Platforms whose jobs may sign in with what the platform signed for them.
    pub issuers: Vec<IssuerConfig>,
    pub limits: AccountLimits,
}

/// One of `accounts.issuers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// What subjects of roles call it.
    pub name: AccountName,
    /// The `iss` claim, to the letter.
    pub issuer: String,
    /// The `aud` claim.
    pub audience: String,
    pub keys: KeySource,
}

/// Where an issuer's public keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// As `/.well-known/openid-configuration` below the issuer says.
    Discovered,
    Url(Url),
    /// A JSON Web Key Set.
    File(PathBuf),
}

/// `accounts.limits`; none: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// Of one address without credentials.
    pub requests_per_second: Option<NonZeroU32>,
    pub requests_per_second_per_account: Option<NonZeroU32>,
    pub connections_per_account: Option<NonZeroU32>,
}
