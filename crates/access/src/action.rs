//! What a request wants to do with a repository, and sets of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, shown};

/// One thing that may be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Pull,
    /// Pushing without moving a tag that is there.
    Create,
    Push,
    Delete,
    /// Rules and roles of the repository, and its place in the catalog.
    Admin,
}

impl Action {
    pub const ALL: [Self; 5] = [Self::Pull, Self::Create, Self::Push, Self::Delete, Self::Admin];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Create => "create",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl FromStr for Action {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or_else(|| Error::Action(shown(text)))
    }
}

/// A set of actions; as text `pull,push`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Actions(u8);

impl Actions {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(0b1_1111);

    #[must_use]
    pub const fn with(self, action: Action) -> Self {
        Self(self.0 | action.bit())
    }

    #[must_use]
    pub const fn without(self, action: Action) -> Self {
        Self(self.0 & !action.bit())
    }

    pub const fn contains(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |action| self.contains(*action))
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        actions.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, action) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(action.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl FromStr for Actions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.split(',').filter(|word| !word.is_empty()).map(str::parse).collect()
    }
}

impl TryFrom<String> for Actions {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Actions> for String {
    fn from(actions: Actions) -> Self {
        actions.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_reads_as_it_is_written() {
        let set: Actions = "push,pull".parse().unwrap();
        assert_eq!(set.to_string(), "pull,push");
        assert!(set.contains(Action::Push) && !set.contains(Action::Delete));
        assert_eq!(Actions::ALL.iter().count(), Action::ALL.len());
        assert!("pull,fly".parse::<Actions>().is_err());
        assert_eq!("".parse::<Actions>().unwrap(), Actions::NONE);
    }
}
