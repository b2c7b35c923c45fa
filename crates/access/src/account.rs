//! The built-in accounts and the tokens that stand for them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::action::Actions;
use crate::error::{Error, Result, shown};
use crate::pattern::RepositoryPattern;

/// What an account, a robot or an issuer is called: `[a-z0-9][a-z0-9._-]{0,63}`. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountName(Arc<str>);

impl AccountName {
    /// The longest name in bytes.
    pub const MAX_LEN: usize = 64;

    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason| Err(Error::Name { name: shown(text), reason });
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let Some((&first, rest)) = text.as_bytes().split_first() else { return invalid("it is empty") };
        if text.len() > Self::MAX_LEN {
            return invalid("it is longer than 64 bytes");
        }
        if !word(first) || !rest.iter().all(|&byte| word(byte) || b"._-".contains(&byte)) {
            return invalid(
                "use lower-case letters, digits, `.`, `_` and `-`, beginning with a letter or a digit",
            );
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AccountName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl TryFrom<String> for AccountName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<AccountName> for String {
    fn from(name: AccountName) -> Self {
        name.as_str().to_owned()
    }
}

/// What an account is for. Users and robots share one space of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountKind {
    /// A person, with a password.
    User,
    /// A program, with tokens alone.
    Robot,
}

/// An account. Its password is not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub name: AccountName,
    pub kind: AccountKind,
    #[serde(default)]
    pub disabled: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// µs since the epoch, UTC.
    pub created_at_us: i64,
}

/// A secret that stands for an account; the secret is not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    pub id: Uuid,
    pub account: AccountName,
    /// For people: what it was made for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    pub created_at_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_us: Option<i64>,
    /// None where it may do all that its account may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<TokenLimit>,
}

/// What a token may do at most, whatever its account may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLimit {
    pub repositories: RepositoryPattern,
    pub actions: Actions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_urls_logs_and_basic_credentials() {
        for name in ["a", "alice", "ci.build-7_x", "7up"] {
            assert_eq!(AccountName::parse(name).unwrap().as_str(), name);
        }
        for name in ["", "Alice", "a b", "a:b", ".a", "-a", "é", "a\n", "a/b", &"x".repeat(65)] {
            assert!(AccountName::parse(name).is_err(), "{name:?}");
        }
    }
}
