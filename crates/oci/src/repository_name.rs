//! Repository names, by the grammar of OCI Distribution's `<name>`.
//! Invariant: a name never holds `..`, `%`, NUL, an empty component or an upper-case letter, so it is safe in paths.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Error;
use crate::text::{quoted, textual};

/// A repository name of at most 255 bytes. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// The longest name in bytes: what Distribution and its clients hold to.
    pub const MAX_LEN: usize = 255;

    /// Checks a name against the specification's regular expression.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let invalid = |reason| Err(Error::RepositoryName { name: quoted(name), reason });
        if name.is_empty() {
            return invalid("it is empty");
        }
        if name.len() > Self::MAX_LEN {
            return invalid("it is longer than 255 bytes");
        }
        if !name.split('/').all(is_component) {
            return invalid(
                "each part between slashes must be lower-case letters and digits, joined by `.`, `_`, `__` or dashes",
            );
        }
        Ok(RepositoryName(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut rest = component.as_bytes();
    loop {
        let end_of_word = rest.iter().position(|byte| !word(byte)).unwrap_or(rest.len());
        if end_of_word == 0 {
            return false;
        }
        rest = &rest[end_of_word..];
        if rest.is_empty() {
            return true;
        }
        let end_of_separator = rest.iter().position(word).unwrap_or(rest.len());
        let (separator, after) = rest.split_at(end_of_separator);
        let joins = matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-');
        if !joins {
            return false;
        }
        rest = after;
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepositoryName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        RepositoryName::parse(text)
    }
}

impl AsRef<str> for RepositoryName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for RepositoryName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

textual!(RepositoryName, Error, "a repository name");
