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

#[cfg(test)]
mod tests {
    use super::RepositoryName;
    use crate::error_code::ErrorCode;

    #[test]
    fn names_of_the_specification_are_accepted() {
        for name in [
            "a",
            "0",
            "library/debian",
            "a/b/c/d",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a---b",
            "a.b_c__d-e--f",
            "0.1/2_3",
            "uploads",
            "blobs/uploads",
            "manifests/tags/list",
            "1-2.3__4",
        ] {
            assert_eq!(RepositoryName::parse(name).unwrap().as_str(), name);
        }
        assert!(RepositoryName::parse(&"a".repeat(255)).is_ok());
        assert!(RepositoryName::parse(&format!("{}b", "a/".repeat(127))).is_ok());
    }

    #[test]
    fn a3_names_that_could_leave_their_place_are_refused() {
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/..",
            "a/./b",
            ".a",
            "a.",
            "a..b",
            "%2e%2e",
            "a/%2e%2e/b",
            "%252F",
            "a%2fb",
            "a\0b",
            "\0",
            "a\nb",
            "a\r\nb",
            "a b",
            " a",
            "a ",
            "A",
            "a/B",
            "aB",
            "-a",
            "a-",
            "_a",
            "a_",
            "a___b",
            "a._b",
            "a-_b",
            "a_.b",
            "a\\b",
            "a:b",
            "a@b",
            "a+b",
            "é",
            "a/é",
            "ａ",
            "sha256:abc",
            "~a",
            "a*",
        ] {
            let error = RepositoryName::parse(name).expect_err(name);
            assert_eq!(error.code(), ErrorCode::NameInvalid);
            assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
        }
        for length in [256, 10_000, 1_000_000] {
            let error = RepositoryName::parse(&"a".repeat(length)).expect_err("a long name");
            assert!(error.to_string().len() < 300, "a message repeats its input at length");
        }
    }
}
