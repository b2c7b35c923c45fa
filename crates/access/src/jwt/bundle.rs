//! Reading a `rootcertbundle`: the PEM file of certificates and public keys that a token service's tokens are checked with.

use rustls_pki_types::CertificateDer;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::keys::KeySet;
use super::verifying_key::{VerifyingKey, libtrust_id};
use crate::{Error, Result};

/// No bundle of a token service comes near it.
const MAX_ENTRIES: usize = 1_000;

pub(super) fn read(pem: &[u8], keys: &mut KeySet) -> Result<()> {
    let mut number = 0;
    for entry in Pem::iter_from_buffer(pem) {
        number += 1;
        let invalid = |reason: &str| Error::Keys {
            what: format!("entry {number} of the bundle"),
            reason: reason.to_owned(),
        };
        if number > MAX_ENTRIES {
            return Err(invalid("there are more than 1,000: keep those of the token service"));
        }
        let entry = entry.map_err(|_| invalid("it is not PEM: look for a cut line or a missing END"))?;
        match entry.label.as_str() {
            "CERTIFICATE" => certificate(&entry.contents, keys).map_err(invalid)?,
            "PUBLIC KEY" => {
                let key = VerifyingKey::from_spki(&entry.contents).map_err(invalid)?;
                add(key, &entry.contents, keys);
            }
            label if label.ends_with("PRIVATE KEY") => {
                return Err(invalid(
                    "it is a private key, which stays with the token service: give its certificate instead",
                ));
            }
            _ => {
                return Err(invalid(
                    "it is neither a CERTIFICATE nor a PUBLIC KEY (`openssl rsa -RSAPublicKey_in -pubout` converts)",
                ));
            }
        }
    }
    if number == 0 {
        let what = "the bundle".to_owned();
        return Err(Error::Keys { what, reason: "it holds no PEM certificate or public key".to_owned() });
    }
    Ok(())
}

fn certificate(der: &[u8], keys: &mut KeySet) -> Result<(), &'static str> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "it is no X.509 certificate")?;
    let spki = certificate.public_key().raw;
    let is_authority = certificate.is_ca();
    match VerifyingKey::from_spki(spki) {
        Ok(key) => add(key, spki, keys),
        // Such an authority signs no token itself, and may still have issued a certificate that does.
        Err(_) if is_authority => {}
        Err(reason) => return Err(reason),
    }
    // Whoever has a plain certificate in the bundle may sign tokens, and make nobody else's certificates.
    if is_authority {
        keys.add_authority(CertificateDer::from(der.to_vec()));
    }
    Ok(())
}

fn add(key: VerifyingKey, spki: &[u8], keys: &mut KeySet) {
    let ids = [libtrust_id(spki), key.thumbprint().to_owned()];
    keys.add_foreign(key, ids);
}
