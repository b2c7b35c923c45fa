//! Where in history something is: epochs, positions, heads, and the ids that never change.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_newtype {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh random id.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_newtype! {
    /// A repository's identity in the whole federation; its path may change, this never does.
    RepositoryUuid
}
uuid_newtype! {
    /// One life of a site's data: minted at first start and by every restore or replace.
    Incarnation
}
uuid_newtype! {
    /// The set of sites that share one history.
    Federation
}

/// A stretch of history with one owner; equal numbers with different owners are a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch {
    pub number: i64,
    pub owner: Incarnation,
}

/// A point in the log. `seq` is dense and never restarts, not even in a new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    pub epoch: Epoch,
    pub seq: i64,
}

/// The last numbered event and the running hash over everything up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHead {
    pub position: LogPosition,
    pub hash: [u8; 32],
}

/// Which epoch began where, on top of which history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochRecord {
    pub epoch: Epoch,
    /// The first `seq` of the epoch.
    pub began_seq: i64,
    /// The running hash just before it.
    pub base_hash: [u8; 32],
}

/// Who asked for a change, and the request it came with; both go into the event.
#[derive(Clone, Debug)]
pub struct Actor {
    pub name: String,
    /// The request's correlation id, where there is one.
    pub correlation: Option<String>,
}

impl Actor {
    /// The caller nobody identified: everyone, under the open policy.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: "anonymous".to_owned(), correlation: None }
    }

    /// The same actor, with the id of the request it acts through.
    #[must_use]
    pub fn with_correlation(mut self, id: impl Into<String>) -> Self {
        self.correlation = Some(id.into());
        self
    }
}
