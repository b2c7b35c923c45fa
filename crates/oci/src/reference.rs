//! What a manifest path ends in: a tag or a digest.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::Error;
use crate::text::{quoted, textual};

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The longest tag in bytes.
    pub const MAX_LEN: usize = 128;

    /// Checks a tag against the specification's regular expression.
    pub fn parse(tag: &str) -> Result<Self, Error> {
        let invalid = |reason| Err(Error::Tag { tag: quoted(tag), reason });
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let Some((&first, rest)) = tag.as_bytes().split_first() else { return invalid("it is empty") };
        if tag.len() > Self::MAX_LEN {
            return invalid("it is longer than 128 bytes");
        }
        if !word(first) {
            return invalid("it must begin with a letter, a digit or `_`");
        }
        if !rest.iter().all(|&byte| word(byte) || byte == b'.' || byte == b'-') {
            return invalid("only letters, digits, `_`, `.` and `-` are allowed");
        }
        Ok(Tag(tag.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Tag::parse(text)
    }
}

impl AsRef<str> for Tag {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Tag {
    fn borrow(&self) -> &str {
        &self.0
    }
}

textual!(Tag, Error, "a tag");

/// A tag or a digest (OCI Distribution's `<reference>`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

impl Reference {
    pub fn tag(&self) -> Option<&Tag> {
        match self {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        }
    }

    pub fn digest(&self) -> Option<Digest> {
        match self {
            Reference::Tag(_) => None,
            Reference::Digest(digest) => Some(*digest),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    /// A colon, which no tag may hold, makes it a digest; a broken digest is not taken for a tag.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.contains(':') {
            Ok(Reference::Digest(text.parse()?))
        } else {
            Ok(Reference::Tag(text.parse()?))
        }
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Self {
        Reference::Tag(tag)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Reference::Digest(digest)
    }
}

textual!(Reference, Error, "a tag or a digest");

#[cfg(test)]
mod tests {
    use super::{Reference, Tag};
    use crate::digest::Digest;
    use crate::error::{DigestError, Error};
    use crate::error_code::ErrorCode;

    #[test]
    fn tags_of_the_specification_are_accepted() {
        for tag in ["latest", "v1.0", "_", "0", "A", "sha256-abc.sig", "1-2_3.4", "a..b", "a--"] {
            assert_eq!(Tag::parse(tag).unwrap().as_str(), tag);
        }
        assert!(Tag::parse(&"x".repeat(128)).is_ok());
    }

    #[test]
    fn a3_tags_that_could_be_paths_or_options_are_refused() {
        for tag in [
            "", ".", "..", ".a", "-a", "a/b", "../a", "a b", "a\0", "a\n", "%41", "a%2fb", "é", "a:b", "a@b",
            "a+b",
        ] {
            assert_eq!(Tag::parse(tag).expect_err(tag).code(), ErrorCode::TagInvalid);
        }
        assert!(Tag::parse(&"x".repeat(129)).is_err());
    }

    #[test]
    fn a_broken_digest_is_not_taken_for_a_tag() {
        let digest = Digest::sha256(b"x");
        assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest)));
        assert_eq!("v1".parse::<Reference>().unwrap().tag().map(Tag::as_str), Some("v1"));
        assert!(matches!("sha256:abc".parse::<Reference>(), Err(Error::Digest(DigestError::Malformed(_)))));
        assert!(matches!("sha1:abc".parse::<Reference>(), Err(Error::Digest(DigestError::Unsupported(_)))));
        assert!(matches!("a/b".parse::<Reference>(), Err(Error::Tag { .. })));
    }
}
