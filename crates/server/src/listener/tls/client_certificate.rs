//! Who a client's certificate says it is.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// No name is kept that is longer, in bytes.
const MAX_NAME: usize = 256;

/// A certificate that a client showed and that one of the client CAs signed; in the extensions of each request of its
/// connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    name: Arc<str>,
}

impl ClientCertificate {
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Self {
        let parsed = X509Certificate::from_der(certificate).ok().and_then(|(_, parsed)| name(&parsed));
        let name = parsed.unwrap_or_else(|| {
            let hash: [u8; 32] = Sha256::digest(certificate).into();
            format!("sha256:{}", hash.map(|byte| format!("{byte:02x}")).concat())
        });
        Self { name: name.into() }
    }

    /// The first URI of its alternative names (as SPIFFE has it), else its common name, else its first DNS name or mail
    /// address, else its SHA-256.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
}

fn name(certificate: &X509Certificate<'_>) -> Option<String> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.map(|found| found.value.general_names.as_slice()).unwrap_or_default();
    let uri = alternatives.iter().find_map(|name| match name {
        GeneralName::URI(uri) => sound(uri),
        _ => None,
    });
    let common = || certificate.subject().iter_common_name().find_map(|name| sound(name.as_str().ok()?));
    let other = || {
        alternatives.iter().find_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => sound(name),
            _ => None,
        })
    };
    uri.or_else(common).or_else(other)
}

/// A name that can be written to a log and to an event as it is.
fn sound(text: &str) -> Option<String> {
    let sound = !text.trim().is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control);
    sound.then(|| text.to_owned())
}
