//! Reading a JWKS document (RFC 7517): the keys that an issuer signs with.
//!
//! Keys for encryption, and those that cannot be used here, are passed over as the RFC asks. A shared secret is too:
//! whoever can read the document could sign with it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::keys::KeySet;
use super::verifying_key::VerifyingKey;
use crate::{Error, Result};

/// No issuer has so many at a time.
const MAX_KEYS: usize = 200;

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

pub(super) fn read(json: &[u8], keys: &mut KeySet) -> Result<()> {
    let invalid = |reason: &str| Error::Keys { what: "the JWKS".to_owned(), reason: reason.to_owned() };
    let document: Document = serde_json::from_slice(json)
        .map_err(|_| invalid("it is not a JSON object with a list `keys` (RFC 7517)"))?;
    if document.keys.len() > MAX_KEYS {
        return Err(invalid("it holds more than 200 keys"));
    }
    let before = keys.len();
    let mut first_reason = None;
    for (index, value) in document.keys.into_iter().enumerate() {
        match signing_key(value) {
            Ok(Some((key, id))) => {
                let ids: Vec<String> = id.into_iter().chain([key.thumbprint().to_owned()]).collect();
                keys.add_foreign(key, ids);
            }
            Ok(None) => {}
            Err(reason) => {
                first_reason
                    .get_or_insert_with(|| format!("key {} of it cannot be used: {reason}", index + 1));
            }
        }
    }
    if keys.len() == before {
        let none = "it holds no key that tokens can be signed with: RSA, P-256, P-384 or Ed25519";
        return Err(invalid(first_reason.as_deref().unwrap_or(none)));
    }
    Ok(())
}

/// A key and its id; None for one that signs no token.
fn signing_key(value: serde_json::Value) -> Result<Option<(VerifyingKey, Option<String>)>, &'static str> {
    let jwk: Jwk = serde_json::from_value(value).map_err(|_| "it is no JWK")?;
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Ok(None);
    }
    let key = match (jwk.kty.as_str(), jwk.crv.as_str()) {
        ("RSA", _) => VerifyingKey::rsa(&decoded(&jwk.n)?, &decoded(&jwk.e)?)?,
        ("EC", "P-256") => VerifyingKey::p256(&point(&jwk)?)?,
        ("EC", "P-384") => VerifyingKey::p384(&point(&jwk)?)?,
        ("OKP", "Ed25519") => VerifyingKey::ed25519(&decoded(&jwk.x)?)?,
        _ => return Ok(None),
    };
    match jwk.alg.as_deref() {
        None => Ok(Some((key, jwk.kid))),
        // An algorithm that is not for signatures, or not for this registry.
        Some(name) => Ok(name.parse().ok().map(|algorithm| (key.only(algorithm), jwk.kid))),
    }
}

fn point(jwk: &Jwk) -> Result<Vec<u8>, &'static str> {
    Ok([&[4][..], &decoded(&jwk.x)?, &decoded(&jwk.y)?].concat())
}

fn decoded(text: &str) -> Result<Vec<u8>, &'static str> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| "a number in it is not base64url")
}
