//! Who a request is from, once it was verified.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::account::{AccountKind, AccountName};

/// A verified caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Identity {
    /// Showed nothing.
    Anonymous,
    /// A built-in account, or a user of an htpasswd file.
    Account {
        name: AccountName,
        #[serde(rename = "as")]
        kind: AccountKind,
    },
    /// The holder of a client certificate, by its name.
    Certificate { name: String },
    /// A job of a platform that vouches for it: GitHub Actions, GitLab CI, Kubernetes.
    Workload {
        /// The issuer's name in the configuration.
        issuer: AccountName,
        /// The `sub` claim.
        subject: String,
        /// Claims that are single texts, numbers or booleans, as texts.
        claims: BTreeMap<String, String>,
    },
    /// The bearer of a foreign token service's token, which says itself what it is good for.
    Foreign { issuer: String, subject: String },
}

impl fmt::Display for Identity {
    /// As actors are written into events and audit lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Account { name, kind: AccountKind::User } => write!(f, "user {name}"),
            Self::Account { name, kind: AccountKind::Robot } => write!(f, "robot {name}"),
            Self::Certificate { name } => write!(f, "certificate {name}"),
            Self::Workload { issuer, subject, .. } => write!(f, "workload {subject} of {issuer}"),
            Self::Foreign { issuer, subject } => write!(f, "{subject} of {issuer}"),
        }
    }
}
