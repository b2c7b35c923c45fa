//! Chains of certificates in a token's header (`x5c`, RFC 7515 section 4.1.6).
//! Invariant: the key of a chain counts only where the chain leads to an authority in the bundle, or its first certificate
//! has a key that is in the bundle itself.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::keys::{KeySet, TrustedKey};
use super::refusal::Refusal;
use super::verifying_key::{VerifyingKey, libtrust_id};

/// A leaf and its authorities; a longer chain is an attempt to keep this site busy.
const MAX_CERTIFICATES: usize = 6;

/// The key of the first certificate of `x5c`, once the chain is known to be vouched for at `now_us`.
pub(super) fn key(x5c: &[String], keys: &KeySet, now_us: i64) -> Result<TrustedKey, Refusal> {
    let refused = |reason: &str| Refusal::Chain(reason.to_owned());
    if x5c.len() > MAX_CERTIFICATES {
        return Err(refused("it has more than 6 certificates"));
    }
    let mut chain = Vec::with_capacity(x5c.len());
    for text in x5c {
        let der = STANDARD.decode(text).map_err(|_| refused("a certificate is not base64"))?;
        chain.push(CertificateDer::from(der));
    }
    let Some((leaf, authorities)) = chain.split_first() else { return Err(refused("it is empty")) };
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|_| refused("its first certificate is malformed"))?;
    let spki = parsed.public_key().raw;
    let key = VerifyingKey::from_spki(spki).map_err(refused)?;
    if let Some(known) = keys.of_id(&libtrust_id(spki)).next() {
        return Ok(known.clone());
    }
    let may_sign = |usage: &x509_parser::extensions::KeyUsage| usage.digital_signature();
    if parsed.key_usage().ok().flatten().is_some_and(|usage| !may_sign(usage.value)) {
        return Err(refused("its first certificate is not for signatures"));
    }
    let anchors: Vec<_> =
        keys.authorities().iter().filter_map(|der| anchor_from_trusted_cert(der).ok()).collect();
    let now = UnixTime::since_unix_epoch(Duration::from_micros(u64::try_from(now_us).unwrap_or(0)));
    let leaf = EndEntityCert::try_from(leaf).map_err(|error| Refusal::Chain(error.to_string()))?;
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, authorities, now, AnyPurpose, None, None)
        .map_err(|error| Refusal::Chain(error.to_string()))?;
    Ok(TrustedKey { key, issuer: None, own: None })
}

/// No extended purpose is defined for signing tokens, so token services are issued certificates with all sorts of them.
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        for purpose in purposes {
            purpose?;
        }
        Ok(())
    }
}
