//! What commands about accounts, tokens, roles and rules say and hear. Secrets are in two places: what is sent to set a
//! password, and what is answered the one time that a secret is shown.

use std::fmt;

use serde::{Deserialize, Serialize};
pub use twinport_access::{AccessToken, Account, AccountKind, AccountName, Binding, Rule};
use twinport_access::{Actions, RepositoryPattern, Role};

/// A password or a token, which no log line and no debug output shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// `POST /api/v1/accounts`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddAccountRequest {
    pub name: AccountName,
    pub kind: AccountKind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// A user's password; one is made where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// What the account may do from the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<GivenRole>,
    /// Of a robot's first token: how long it is good for; for ever where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
}

/// A role on the repositories of a pattern, as text `writer:team/**`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GivenRole {
    pub role: Role,
    pub repositories: RepositoryPattern,
}

impl fmt::Display for GivenRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.role, self.repositories)
    }
}

impl std::str::FromStr for GivenRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (role, repositories) = text.split_once(':').ok_or_else(|| {
            format!("`{text}` is no role on repositories: write ROLE:REPOSITORIES, as in writer:team/**")
        })?;
        Ok(Self {
            role: role.parse().map_err(|error: twinport_access::Error| error.to_string())?,
            repositories: repositories.parse().map_err(|error: twinport_access::Error| error.to_string())?,
        })
    }
}

impl TryFrom<String> for GivenRole {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<GivenRole> for String {
    fn from(role: GivenRole) -> Self {
        role.to_string()
    }
}

/// What was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddedAccount {
    pub account: Account,
    /// The password, where it was made here. It is not shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The first token of a robot. It is not shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<NewToken>,
}

/// A token the one time that its secret is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewToken {
    #[serde(flatten)]
    pub token: AccessToken,
    pub secret: Secret,
    /// Tokens of the account that ended with it.
    #[serde(default)]
    pub replaced: usize,
}

/// A page of accounts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accounts {
    pub accounts: Vec<Account>,
    /// What to ask for after, where there is more.
    pub next: Option<AccountName>,
}

/// One account with what it may do and what stands for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccountDetail {
    #[serde(flatten)]
    pub account: Account,
    pub roles: Vec<GivenRole>,
    pub tokens: Vec<AccessToken>,
}

/// `PATCH /api/v1/accounts/NAME`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeAccountRequest {
    pub disabled: bool,
}

/// What ended with an account, or its being enabled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndedAccount {
    pub name: AccountName,
    pub tokens: usize,
    pub roles: usize,
}

/// `PUT /api/v1/accounts/NAME/password`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordRequest {
    /// One is made where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

/// A password that was set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PasswordSet {
    pub name: AccountName,
    /// Where it was made here. It is not shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

/// `POST /api/v1/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddTokenRequest {
    pub account: AccountName,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// For ever where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
    /// What it may do at most; all that its account may where both are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repositories: Option<RepositoryPattern>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Actions>,
    /// End every other token of the account.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// Tokens, without their secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tokens {
    pub tokens: Vec<AccessToken>,
}

/// Roles that were given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Roles {
    pub roles: Vec<Binding>,
}

/// A role that was given or taken away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangedRole {
    #[serde(flatten)]
    pub role: Binding,
    /// False where it was so before.
    pub changed: bool,
    /// False where the role is of an account that is not here: of a user of an htpasswd file, or misspelt.
    pub account_known: bool,
}

/// Every rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RuleList {
    pub rules: Vec<Rule>,
}
