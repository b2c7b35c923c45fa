//! Patterns over repository names, tags and the claims of tokens.
//! Invariant: a pattern is parsed once, and matching takes time linear in pattern times text, whatever either holds.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use twinport_oci::{RepositoryName, Tag};

use crate::error::{Error, Result, shown};

/// The longest pattern in bytes.
const MAX_LEN: usize = 255;

/// A text in which `*` stands for anything within one part between slashes, `**` for any number of parts, and `?` for one
/// character.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob(Arc<str>);

impl Glob {
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason| Err(Error::Pattern { pattern: shown(text), reason });
        if text.is_empty() {
            return invalid("it is empty");
        }
        if text.len() > MAX_LEN {
            return invalid("it is longer than 255 bytes");
        }
        // What the matcher would take for classes, alternatives and escapes is nothing that a name can hold.
        if text.bytes().any(|byte| byte.is_ascii_control() || br"[]{}\!, ".contains(&byte)) {
            return invalid(
                "only `*`, `**` and `?` are special; spaces, commas, brackets and `!` cannot occur",
            );
        }
        if text.split('/').any(|part| part.contains("**") && part != "**") {
            return invalid("`**` must stand alone between slashes, as in `team/**`");
        }
        Ok(Self(text.into()))
    }

    pub fn matches(&self, text: &str) -> bool {
        fast_glob::glob_match(self.0.as_bytes(), text.as_bytes())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which repositories a role or a rule is about: `team/app`, `team/*`, `team/**`, `**`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryPattern(Glob);

impl RepositoryPattern {
    pub fn parse(text: &str) -> Result<Self> {
        let glob = Glob::parse(text)?;
        let sound =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/*?".contains(&byte);
        if !text.bytes().all(sound) || text.split('/').any(str::is_empty) {
            let reason = "repository names are lower-case letters, digits, `.`, `_` and `-` in parts between single slashes";
            return Err(Error::Pattern { pattern: shown(text), reason });
        }
        Ok(Self(glob))
    }

    /// Every repository.
    pub fn everything() -> Self {
        Self(Glob("**".into()))
    }

    pub fn matches(&self, repository: &RepositoryName) -> bool {
        self.0.matches(repository.as_str())
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Which tags a rule is about: `v*`, `release-?`, `latest`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TagPattern(Glob);

impl TagPattern {
    pub fn parse(text: &str) -> Result<Self> {
        let glob = Glob::parse(text)?;
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*?".contains(&byte);
        if !text.bytes().all(sound) {
            let reason = "tags are letters, digits, `.`, `_` and `-`";
            return Err(Error::Pattern { pattern: shown(text), reason });
        }
        Ok(Self(glob))
    }

    pub fn matches(&self, tag: &Tag) -> bool {
        self.0.matches(tag.as_str())
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

macro_rules! textual {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                Self::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.as_str().to_owned()
            }
        }
    )*};
}
textual!(Glob, RepositoryPattern, TagPattern);

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        RepositoryPattern::parse(pattern).unwrap().matches(&name.parse().unwrap())
    }

    #[test]
    fn a_star_stays_within_a_part_and_two_cross_slashes() {
        assert!(matches("team/app", "team/app"));
        assert!(!matches("team/app", "team/app2"));
        assert!(matches("team/*", "team/app"));
        assert!(!matches("team/*", "team/app/x"));
        assert!(!matches("team/*", "team"));
        assert!(matches("team/**", "team/app/x"));
        assert!(matches("team/**", "team/app"));
        assert!(!matches("team/**", "teams/app"));
        assert!(matches("**", "a/b/c"));
        assert!(matches("**", "a"));
        assert!(matches("*", "a"));
        assert!(!matches("*", "a/b"));
        assert!(matches("**/cache", "a/b/cache"));
        assert!(matches("team-*/app", "team-a/app"));
    }

    #[test]
    fn what_no_name_can_hold_is_refused_with_its_reason() {
        for pattern in ["", "a b", "A", "a//b", "/a", "a/", "a**", "[a]", "{a,b}", "!a", "a\\b", "a\n"] {
            assert!(RepositoryPattern::parse(pattern).is_err(), "{pattern:?}");
        }
        for pattern in ["", "a/b", "v[0-9]", "!v1", "a b"] {
            assert!(TagPattern::parse(pattern).is_err(), "{pattern:?}");
        }
        assert!(TagPattern::parse("v*").unwrap().matches(&"v1.0".parse().unwrap()));
        assert!(!TagPattern::parse("v*").unwrap().matches(&"latest".parse().unwrap()));
        assert!(TagPattern::parse("Release-?").unwrap().matches(&"Release-1".parse().unwrap()));
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = TagPattern::parse(&"*a".repeat(60)).unwrap();
        let tag = format!("{}b", "a".repeat(127)).parse().unwrap();
        assert!(!pattern.matches(&tag));
    }
}
