//! The roles: fixed sets of actions, so that everybody means the same by a word.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::action::{Action, Actions};
use crate::error::{Error, Result, shown};

/// What a subject is to the repositories of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Pulls.
    Reader,
    /// Pulls, and pushes what is new: a tag that is there stays where it is.
    Creator,
    /// Pulls and pushes.
    Writer,
    /// Deletes too.
    Maintainer,
    /// Everything, and the rules.
    Admin,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Reader, Self::Creator, Self::Writer, Self::Maintainer, Self::Admin];

    pub const fn actions(self) -> Actions {
        match self {
            Self::Reader => Actions::NONE.with(Action::Pull),
            Self::Creator => Self::Reader.actions().with(Action::Create),
            Self::Writer => Self::Creator.actions().with(Action::Push),
            Self::Maintainer => Self::Writer.actions().with(Action::Delete),
            Self::Admin => Actions::ALL,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Creator => "creator",
            Self::Writer => "writer",
            Self::Maintainer => "maintainer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| Error::Role(shown(text)))
    }
}
