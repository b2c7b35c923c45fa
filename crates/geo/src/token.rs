//! The join token: the one line that an operator carries from the primary to a new site.
//!
//! **Architecture invariant:** the primary's database never holds a token's secret, only its SHA-256.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use twinport_metadata::Federation;
use uuid::Uuid;

use crate::{Error, Result, TlsPin, protocol::b64};

const PREFIX: &str = "twinport-join-v1.";

/// What a join token carries. Display and `FromStr` are the line itself; Debug leaves the secret out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// The name that the new site will have.
    pub site: String,
    pub primary_name: String,
    /// Where the new site reaches the primary.
    pub primary_url: String,
    /// By which key the new site knows the primary, where no authority that everybody trusts vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_pin: Option<TlsPin>,
    pub federation: Federation,
    pub id: Uuid,
    /// 32 random bytes.
    #[serde(with = "b64")]
    pub secret: Vec<u8>,
    /// When it expires, by the primary's clock (µs since the epoch, UTC).
    pub expires_at_us: i64,
}

impl JoinToken {
    /// What the primary's database keeps of the secret.
    #[must_use]
    pub fn secret_hash(secret: &[u8]) -> [u8; 32] {
        Sha256::digest(secret).into()
    }

    /// 32 fresh random bytes.
    pub(crate) fn fresh_secret() -> Vec<u8> {
        rand::random::<[u8; 32]>().to_vec()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("site", &self.site).field("id", &self.id).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let line = line.trim();
        let encoded = line
            .strip_prefix(PREFIX)
            .ok_or_else(|| Error::Token(format!("it does not begin with {PREFIX}")))?;
        let json = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| Error::Token("it is cut short or altered".to_owned()))?;
        let token: Self = serde_json::from_slice(&json)
            .map_err(|_| Error::Token("it is cut short or altered".to_owned()))?;
        if token.secret.len() != 32 {
            return Err(Error::Token("its secret is not 32 bytes".to_owned()));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            site: "tokyo".to_owned(),
            primary_name: "paris".to_owned(),
            primary_url: "http://127.0.0.1:5000".to_owned(),
            tls_pin: None,
            federation: Federation::random(),
            id: Uuid::new_v4(),
            secret: JoinToken::fresh_secret(),
            expires_at_us: 42,
        }
    }

    #[test]
    fn a_token_survives_being_printed_and_pasted() {
        let token = token();
        assert_eq!(format!("  {token}\n").parse::<JoinToken>().unwrap(), token);
    }

    #[test]
    fn a_token_cut_short_says_so() {
        let line = token().to_string();
        let error = line[..line.len() - 9].parse::<JoinToken>().unwrap_err().to_string();
        assert!(error.contains("copy the whole line"), "{error}");
    }

    #[test]
    fn a13_a_token_printed_for_debugging_hides_its_secret() {
        let token = token();
        assert!(!format!("{token:?}").contains(&URL_SAFE_NO_PAD.encode(&token.secret)));
        assert!(!format!("{token:?}").contains("secret"));
    }
}
