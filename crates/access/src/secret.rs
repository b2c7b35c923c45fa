//! The secrets that are shown once: of robots and of personal tokens, as text `tp_<id>_<43 characters of base64url>`.
//!
//! The prefix is for scanners of leaked secrets. The random part has 256 bits, so one SHA-256 of it is all that is stored.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::{Error, Result};

const PREFIX: &str = "tp_";

/// A secret, with the id of the token that it is of.
#[derive(Clone)]
pub struct Secret {
    id: Uuid,
    random: [u8; 32],
}

impl Secret {
    /// A secret that nobody has, for the token `id`.
    ///
    /// # Errors
    /// [`Error::Keys`] when the system gives no random numbers.
    pub fn generate(id: Uuid) -> Result<Self> {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::Keys {
            what: "a secret".to_owned(),
            reason: "the system gave no random numbers for it".to_owned(),
        })?;
        Ok(Self { id, random })
    }

    /// None where a text is no secret of this kind: then it is a password, or nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, random) = text.strip_prefix(PREFIX)?.split_once('_')?;
        // One form for each id, so that a secret has one text.
        let id = Uuid::try_parse(id).ok().filter(|parsed| parsed.simple().to_string() == id)?;
        let mut bytes = [0; 32];
        let written = URL_SAFE_NO_PAD.decode_slice(random, &mut bytes).ok()?;
        (written == bytes.len()).then_some(Self { id, random: bytes })
    }

    pub fn id(&self) -> Uuid {
        self.id
    }

    /// What is stored of it.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.random).as_ref());
        hash
    }

    /// Whether this is the secret whose hash is stored; the time taken does not depend on how much of it is alike.
    pub fn is_of(&self, stored: &[u8]) -> bool {
        verify_slices_are_equal(&self.hash(), stored).is_ok()
    }

    /// The text, which is the secret itself: for showing it once.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id.simple(), URL_SAFE_NO_PAD.encode(self.random))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_back_and_known_by_its_hash_alone() {
        let id = Uuid::from_u128(7);
        let secret = Secret::generate(id).unwrap();
        let text = secret.reveal();
        assert_eq!(text.len(), 3 + 32 + 1 + 43);
        let parsed = Secret::parse(&text).unwrap();
        assert_eq!((parsed.id(), parsed.hash()), (id, secret.hash()));
        assert!(parsed.is_of(&secret.hash()));
        assert!(!Secret::generate(id).unwrap().is_of(&secret.hash()));
        assert!(!parsed.is_of(&secret.hash()[..31]) && !parsed.is_of(b""));
    }

    #[test]
    fn a_secret_has_one_text_and_what_is_none_is_a_password() {
        let text = Secret::generate(Uuid::from_u128(0xabc)).unwrap().reveal();
        let (start, random) = text.split_at(36);
        for other in [
            String::new(),
            "tp_".to_owned(),
            "hunter2".to_owned(),
            text[1..].to_owned(),
            text.to_uppercase(),
            format!("{text}="),
            format!("{start}{}", &random[..42]),
            format!("{start}{random}A"),
            format!("{}{random}", start.to_uppercase().replace("TP_", "tp_")),
            format!("tp_{}_{random}", Uuid::from_u128(0xabc)),
        ] {
            assert!(Secret::parse(&other).is_none(), "{other}");
        }
    }

    #[test]
    fn a13_debug_output_does_not_hold_the_secret() {
        let secret = Secret::generate(Uuid::from_u128(7)).unwrap();
        let random = secret.reveal()[36..].to_owned();
        let shown = format!("{secret:?}");
        assert!(!shown.contains(&random) && !shown.contains(&hex(&secret.random)), "{shown}");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
