//! Minting the built-in token service's own tokens: ES256, short-lived, in the form that Docker's protocol has.

use std::collections::HashMap;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::access::Written;
use super::verifying_key::VerifyingKey;
use crate::scope::Scope;
use crate::{Error, Result, SigningKey};

/// The longest that a token of the built-in service is good for, in seconds. No verifier takes one that claims more.
pub const MAX_LIFETIME_S: i64 = 3_600;

const US_PER_S: i64 = 1_000_000;

/// A key pair of the built-in token service.
pub struct SigningPair {
    kid: String,
    public_key: String,
    jwt: EncodingKey,
}

/// By whom a token is, about whom, and for which service.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    pub issuer: &'a str,
    pub subject: &'a str,
    pub service: &'a str,
}

/// A token, and when it ends.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    pub token: String,
    pub id: Uuid,
    /// Seconds since the epoch.
    pub issued_at_s: i64,
    pub expires_at_s: i64,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: i64,
    nbf: i64,
    iat: i64,
    jti: Uuid,
    access: Vec<Written<'a>>,
    #[serde(flatten)]
    private: HashMap<&'a str, Value>,
}

impl SigningPair {
    /// A pair that nobody has, as PKCS#8: what [`SigningPair::from_pkcs8`] reads, and a secret.
    ///
    /// # Errors
    /// [`Error::Keys`] when the system gives no random numbers.
    pub fn generate() -> Result<Vec<u8>> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| unusable("the system gave no random numbers for it"))?;
        Ok(document.as_ref().to_vec())
    }

    /// # Errors
    /// [`Error::Keys`] when the bytes are no P-256 key pair in PKCS#8.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|_| unusable("it is no P-256 key pair in PKCS#8"))?;
        let point = pair.public_key().as_ref();
        let kid = VerifyingKey::p256(point).map_err(unusable)?.thumbprint().to_owned();
        Ok(Self { kid, public_key: URL_SAFE_NO_PAD.encode(point), jwt: EncodingKey::from_ec_der(pkcs8) })
    }

    /// The id that tokens name the key by: its thumbprint (RFC 7638).
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The half that other sites may have.
    pub fn public(&self, site: Uuid, created_at_us: i64, retires_at_us: Option<i64>) -> SigningKey {
        SigningKey {
            kid: self.kid.clone(),
            site,
            public_key: self.public_key.clone(),
            created_at_us,
            retires_at_us,
        }
    }

    /// A token that is good for `access` and has these private claims besides, from `now_us` for `lifetime_s`, of at most [`MAX_LIFETIME_S`].
    ///
    /// # Errors
    /// [`Error::Keys`] when signing fails.
    pub fn mint(
        &self,
        names: Names<'_>,
        access: &[Scope],
        private: Vec<(&str, Value)>,
        now_us: i64,
        lifetime_s: i64,
    ) -> Result<Minted> {
        let now_s = now_us.div_euclid(US_PER_S);
        let id = Uuid::new_v4();
        let expires_at_s = now_s + lifetime_s.clamp(1, MAX_LIFETIME_S);
        let claims = Claims {
            iss: names.issuer,
            sub: names.subject,
            aud: names.service,
            exp: expires_at_s,
            nbf: now_s,
            iat: now_s,
            jti: id,
            access: access.iter().map(Written::from).collect(),
            private: private.into_iter().collect(),
        };
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &self.jwt)
            .map_err(|error| unusable(&error.to_string()))?;
        Ok(Minted { token, id, issued_at_s: now_s, expires_at_s })
    }
}

impl std::fmt::Debug for SigningPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningPair").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Without the token, which is a secret.
impl std::fmt::Debug for Minted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Minted").field("id", &self.id).field("expires_at_s", &self.expires_at_s).finish()
    }
}

fn unusable(reason: &str) -> Error {
    Error::Keys { what: "the signing key".to_owned(), reason: reason.to_owned() }
}
