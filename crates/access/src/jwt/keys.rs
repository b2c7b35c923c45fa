//! The keys that a verifier trusts, found by the ids that tokens name them by.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;

use super::verifying_key::VerifyingKey;
use super::{bundle, jwks};
use crate::{Error, Result, SigningKey};

/// Trusted keys, and the authorities whose certificates may bring others along.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<TrustedKey>,
    /// Several keys may share an id: of them the one counts that the signature is of.
    by_id: HashMap<String, Vec<usize>>,
    authorities: Vec<CertificateDer<'static>>,
}

/// A key that tokens may be signed with.
#[derive(Clone)]
pub(super) struct TrustedKey {
    pub(super) key: VerifyingKey,
    /// The only issuer whose tokens the key signs.
    pub(super) issuer: Option<String>,
    /// Set for the built-in service's keys, whose tokens are short-lived.
    pub(super) own: Option<OwnKey>,
}

/// What is known of a key of the built-in token service.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnKey {
    pub(super) retires_at_us: Option<i64>,
}

impl KeySet {
    /// A `rootcertbundle`: certificates and public keys in PEM. Each key counts under its libtrust id and its
    /// thumbprint; certificates that are authorities vouch for chains in `x5c`.
    ///
    /// # Errors
    /// [`Error::Keys`] when an entry cannot be used, or there is none.
    pub fn with_bundle(mut self, pem: &[u8]) -> Result<Self> {
        bundle::read(pem, &mut self)?;
        Ok(self)
    }

    /// A JWKS document (RFC 7517). Each key counts under its `kid` and its thumbprint.
    ///
    /// # Errors
    /// [`Error::Keys`] when it is none, or holds no key that tokens can be signed with.
    pub fn with_jwks(mut self, json: &[u8]) -> Result<Self> {
        jwks::read(json, &mut self)?;
        Ok(self)
    }

    /// A key of the built-in token service, which signs for `issuer` alone.
    ///
    /// # Errors
    /// [`Error::Keys`] when it is no P-256 key.
    pub fn with_signing_key(mut self, key: &SigningKey, issuer: &str) -> Result<Self> {
        let invalid =
            |reason| Error::Keys { what: format!("signing key {}", key.kid), reason: String::from(reason) };
        let point = URL_SAFE_NO_PAD
            .decode(&key.public_key)
            .map_err(|_| invalid("its public key is not base64url"))?;
        let own = Some(OwnKey { retires_at_us: key.retires_at_us });
        let trusted = TrustedKey {
            key: VerifyingKey::p256(&point).map_err(invalid)?,
            issuer: Some(issuer.to_owned()),
            own,
        };
        self.add(trusted, [key.kid.clone()]);
        Ok(self)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key has this id.
    pub fn knows(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn add_foreign(&mut self, key: VerifyingKey, ids: impl IntoIterator<Item = String>) {
        self.add(TrustedKey { key, issuer: None, own: None }, ids);
    }

    pub(super) fn add_authority(&mut self, certificate: CertificateDer<'static>) {
        self.authorities.push(certificate);
    }

    pub(super) fn of_id(&self, id: &str) -> impl Iterator<Item = &TrustedKey> {
        self.by_id.get(id).into_iter().flatten().filter_map(|&index| self.keys.get(index))
    }

    pub(super) fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    fn add(&mut self, key: TrustedKey, ids: impl IntoIterator<Item = String>) {
        let index = self.keys.len();
        self.keys.push(key);
        for id in ids {
            let same = self.by_id.entry(id).or_default();
            if !same.contains(&index) {
                same.push(index);
            }
        }
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_id.keys()).finish()
    }
}
