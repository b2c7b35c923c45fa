//! Whom a role is given to.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::account::{AccountKind, AccountName};
use crate::error::{Error, Result, shown};
use crate::identity::Identity;
use crate::pattern::Glob;

/// The longest name of a certificate in bytes.
const MAX_CERTIFICATE: usize = 255;
/// The most claims that one subject asks for.
const MAX_CLAIMS: usize = 16;

/// A set of identities; as text `anyone`, `signed-in`, `user:alice`, `robot:ci`, `certificate:build.example.com` or
/// `workload:github,repository=acme/app,ref=refs/heads/main`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// Whoever asks, with or without credentials.
    Anyone,
    /// Whoever showed valid credentials of this registry.
    SignedIn,
    User(AccountName),
    Robot(AccountName),
    Certificate(String),
    Workload {
        issuer: AccountName,
        /// Every claim must be there and match.
        claims: BTreeMap<String, Glob>,
    },
}

impl Subject {
    pub fn covers(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Anyone, _) => true,
            (Self::SignedIn, Identity::Anonymous | Identity::Foreign { .. }) => false,
            (Self::SignedIn, _) => true,
            (Self::User(wanted), Identity::Account { name, kind: AccountKind::User })
            | (Self::Robot(wanted), Identity::Account { name, kind: AccountKind::Robot }) => wanted == name,
            (Self::Certificate(wanted), Identity::Certificate { name }) => wanted == name,
            (Self::Workload { issuer, claims }, Identity::Workload { issuer: of, claims: shown, .. }) => {
                issuer == of
                    && claims
                        .iter()
                        .all(|(claim, glob)| shown.get(claim).is_some_and(|text| glob.matches(text)))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::SignedIn => f.write_str("signed-in"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Robot(name) => write!(f, "robot:{name}"),
            Self::Certificate(name) => write!(f, "certificate:{name}"),
            Self::Workload { issuer, claims } => {
                write!(f, "workload:{issuer}")?;
                claims.iter().try_for_each(|(claim, glob)| write!(f, ",{claim}={glob}"))
            }
        }
    }
}

impl FromStr for Subject {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::Subject(shown(text));
        let Some((kind, rest)) = text.split_once(':') else {
            return match text {
                "anyone" => Ok(Self::Anyone),
                "signed-in" => Ok(Self::SignedIn),
                _ => Err(unknown()),
            };
        };
        match kind {
            "user" => Ok(Self::User(rest.parse()?)),
            "robot" => Ok(Self::Robot(rest.parse()?)),
            "certificate" => {
                // Bindings are written as words between spaces.
                let sound = !rest.is_empty()
                    && rest.len() <= MAX_CERTIFICATE
                    && !rest.contains(|c: char| c.is_whitespace() || c.is_control());
                sound.then(|| Self::Certificate(rest.to_owned())).ok_or_else(unknown)
            }
            "workload" => {
                let mut parts = rest.split(',');
                let issuer = parts.next().unwrap_or_default().parse()?;
                let mut claims = BTreeMap::new();
                for part in parts {
                    let (claim, glob) = part.split_once('=').ok_or_else(unknown)?;
                    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
                    if claim.is_empty() || claim.len() > 64 || !claim.bytes().all(word) {
                        return Err(unknown());
                    }
                    claims.insert(claim.to_owned(), glob.parse()?);
                }
                if claims.len() > MAX_CLAIMS {
                    return Err(unknown());
                }
                Ok(Self::Workload { issuer, claims })
            }
            _ => Err(unknown()),
        }
    }
}

impl TryFrom<String> for Subject {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_reads_as_it_is_written() {
        for text in [
            "anyone",
            "signed-in",
            "user:alice",
            "robot:ci",
            "certificate:build.example.com",
            "workload:github",
            "workload:github,ref=refs/heads/**,repository=acme/*",
        ] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        for text in ["", "everyone", "user:", "user:A", "robot:a b", "certificate:", "certificate:a b"] {
            assert!(text.parse::<Subject>().is_err(), "{text:?}");
        }
        for text in ["workload:", "workload:github,", "workload:github,=x", "workload:github,ref="] {
            assert!(text.parse::<Subject>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_subject_covers_whom_it_names_and_nobody_else() {
        let covers = |text: &str, identity: &Identity| text.parse::<Subject>().unwrap().covers(identity);
        let account = |name: &str, kind| Identity::Account { name: name.parse().unwrap(), kind };
        let (alice, robot) = (account("alice", AccountKind::User), account("alice", AccountKind::Robot));
        assert!(covers("user:alice", &alice) && !covers("user:alice", &robot));
        assert!(!covers("robot:alice", &alice) && covers("robot:alice", &robot));
        assert!(covers("anyone", &Identity::Anonymous) && !covers("signed-in", &Identity::Anonymous));
        assert!(covers("signed-in", &alice));
        let foreign = Identity::Foreign { issuer: "gitlab".to_owned(), subject: "alice".to_owned() };
        assert!(!covers("signed-in", &foreign) && !covers("user:alice", &foreign));
        let job = |claims: &[(&str, &str)]| Identity::Workload {
            issuer: "github".parse().unwrap(),
            subject: "repo:acme/app".to_owned(),
            claims: claims.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let main = job(&[("repository", "acme/app"), ("ref", "refs/heads/main")]);
        assert!(covers("workload:github", &main));
        assert!(covers("workload:github,repository=acme/*,ref=refs/heads/main", &main));
        assert!(!covers("workload:github,repository=acme/*,ref=refs/heads/dev", &main));
        assert!(!covers("workload:github,environment=*", &main), "a claim that is not there matches nothing");
        assert!(!covers("workload:gitlab", &main));
    }
}
