//! A token as it came: three parts, a header that is read strictly, and the check of its signature.
//! Invariant: the claims come out only through [`SignedToken::claims`], after the signature was found good.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::claims::Claims;
use super::keys::{KeySet, TrustedKey};
use super::refusal::{Part, Refusal};
use super::verifying_key::SigningAlgorithm;
use super::{chain, json};
use crate::error::shown;

/// The longest token in bytes. GitLab's name every repository of a job and come near it.
pub(super) const MAX_TOKEN_BYTES: usize = 32 << 10;
/// Header fields that carry a key or point to one.
const KEY_FIELDS: [&str; 3] = ["jwk", "jku", "x5u"];

/// A token whose form was checked, and nothing else.
#[derive(Debug)]
pub struct SignedToken<'a> {
    /// Header and claims as they were signed.
    message: &'a str,
    claims: &'a str,
    signature: &'a str,
    algorithm: SigningAlgorithm,
    key_id: Option<String>,
    x5c: Option<Vec<String>>,
}

impl<'a> SignedToken<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// A [`Refusal`] of its form, its header or its algorithm.
    pub fn parse(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::TooLong);
        }
        let parts = token.split('.').collect::<Vec<_>>();
        let [header, claims, signature] = parts[..] else { return Err(Refusal::Parts) };
        let message = &token[..header.len() + 1 + claims.len()];
        let header = json::object(&decoded(header, Part::Header)?, Part::Header)?;
        if let Some(field) = KEY_FIELDS.into_iter().find(|field| header.contains_key(*field)) {
            return Err(Refusal::EmbeddedKey(field));
        }
        if header.contains_key("crit") {
            return Err(Refusal::Critical);
        }
        if let Some(kind) = text(&header, "typ")?
            && !["jwt", "at+jwt"].contains(&kind.to_ascii_lowercase().as_str())
        {
            return Err(Refusal::Type(shown(kind)));
        }
        let algorithm = algorithm(text(&header, "alg")?.ok_or(Refusal::HeaderField("alg"))?)?;
        let key_id = text(&header, "kid")?.map(str::to_owned);
        let x5c = match header.get("x5c") {
            None => None,
            Some(Value::Array(certificates)) => {
                let texts = certificates.iter().map(|value| value.as_str().map(str::to_owned));
                Some(texts.collect::<Option<Vec<_>>>().ok_or(Refusal::HeaderField("x5c"))?)
            }
            Some(_) => return Err(Refusal::HeaderField("x5c")),
        };
        if signature.is_empty() {
            return Err(Refusal::Unsigned);
        }
        decoded(signature, Part::Signature)?;
        Ok(Self { message, claims, signature, algorithm, key_id, x5c })
    }

    /// The key that the token names; nothing is verified.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The issuer that the token names; nothing is verified. For finding out whose keys to check it with.
    ///
    /// # Errors
    /// A [`Refusal`] of the claims' form.
    pub fn unverified_issuer(&self) -> Result<String, Refusal> {
        let claims = json::object(&decoded(self.claims, Part::Claims)?, Part::Claims)?;
        match claims.get("iss") {
            Some(Value::String(issuer)) => Ok(issuer.clone()),
            Some(_) => Err(Refusal::Claim("iss")),
            None => Err(Refusal::Missing("iss")),
        }
    }

    /// The claims, once a key of `keys` is found to have signed them with one of the `allowed` algorithms (with any that
    /// is the key's where none are given).
    ///
    /// # Errors
    /// A [`Refusal`] of the key, the signature or the claims' form.
    pub fn claims(
        &self,
        keys: &KeySet,
        allowed: Option<&[SigningAlgorithm]>,
        now_us: i64,
    ) -> Result<Claims, Refusal> {
        if allowed.is_some_and(|allowed| !allowed.contains(&self.algorithm)) {
            return Err(Refusal::AlgorithmNotAllowed(self.algorithm.as_str()));
        }
        let key = match &self.x5c {
            Some(x5c) => {
                let key = chain::key(x5c, keys, now_us)?;
                self.signer([&key].into_iter())?.clone()
            }
            None => {
                let id = self.key_id.as_deref().ok_or(Refusal::NoKey)?;
                if !keys.knows(id) {
                    return Err(Refusal::UnknownKey(shown(id)));
                }
                self.signer(keys.of_id(id))?.clone()
            }
        };
        let claims = Claims::read(&decoded(self.claims, Part::Claims)?)?;
        if key.issuer.as_ref().is_some_and(|owner| *owner != claims.issuer) {
            return Err(Refusal::IssuerOfKey(shown(&claims.issuer)));
        }
        if let Some(own) = key.own {
            claims.check_own(own.retires_at_us)?;
        }
        Ok(claims)
    }

    fn signer<'k>(&self, keys: impl Iterator<Item = &'k TrustedKey>) -> Result<&'k TrustedKey, Refusal> {
        let mut refusal = Refusal::AlgorithmOfKey(self.algorithm.as_str());
        for trusted in keys.filter(|trusted| trusted.key.takes(self.algorithm)) {
            if trusted.key.signed(self.algorithm, self.message, self.signature) {
                return Ok(trusted);
            }
            refusal = Refusal::Signature;
        }
        Err(refusal)
    }
}

fn algorithm(name: &str) -> Result<SigningAlgorithm, Refusal> {
    if name.eq_ignore_ascii_case("none") {
        return Err(Refusal::Unsigned);
    }
    if name.starts_with("HS") {
        return Err(Refusal::Symmetric(shown(name)));
    }
    name.parse().map_err(|_| Refusal::UnknownAlgorithm(shown(name)))
}

fn text<'h>(header: &'h Map<String, Value>, field: &'static str) -> Result<Option<&'h str>, Refusal> {
    match header.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::HeaderField(field)),
    }
}

fn decoded(text: &str, part: Part) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal::Encoding(part))
}
