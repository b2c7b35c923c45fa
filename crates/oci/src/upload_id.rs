//! The name of an upload session.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::error::Error;
use crate::text::{quoted, textual};

/// A random (version 4) uuid. It is no secret: who may use a session is decided by its repository and owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(pub Uuid);

impl UploadId {
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        UploadId(Uuid::new_v4())
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for UploadId {
    type Err = Error;

    /// Only the hyphenated lower-case form that was given out.
    fn from_str(text: &str) -> Result<Self, Error> {
        let hyphenated = text.len() == uuid::fmt::Hyphenated::LENGTH;
        match Uuid::try_parse(text) {
            Ok(id) if hyphenated && !text.bytes().any(|byte| byte.is_ascii_uppercase()) => Ok(UploadId(id)),
            _ => Err(Error::UploadId(quoted(text))),
        }
    }
}

textual!(UploadId, Error, "a hyphenated uuid");

#[cfg(test)]
mod tests {
    use super::UploadId;

    #[test]
    fn an_upload_id_has_one_form_only() {
        let id = UploadId::new();
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert_ne!(UploadId::new(), id);
        let braced = format!("{{{text}}}");
        let urn = format!("urn:uuid:{text}");
        for refused in
            ["", "x", &text[1..], &text.replace('-', ""), &text.to_uppercase(), &braced, &urn, "../../etc"]
        {
            // An all-digit uuid reads the same in both cases.
            if refused != text {
                assert!(refused.parse::<UploadId>().is_err(), "{refused}");
            }
        }
    }
}
