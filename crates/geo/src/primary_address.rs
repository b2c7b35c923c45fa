//! Where a secondary reaches its primary, and by which key it knows it there.
//! Invariant: a site that holds a pin talks to nobody else, whoever vouches for them (hazard A8).

use std::{fmt, str::FromStr, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use serde::{Deserialize, Serialize, de};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::{Error, Result, registration::check_primary_url};

/// What stands between URL and pin where a database keeps both as one text. No URL of a site has a fragment, and none
/// is ever sent.
const STORED: &str = "#tls-pin=";
const ALGORITHM: &str = "sha256:";

/// The SHA-256 of a public key (SubjectPublicKeyInfo, DER): of a site's own certificate, or of the authority that
/// signs them. Written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TlsPin([u8; 32]);

impl TlsPin {
    /// The pin for a chain as it is shown: of its last certificate, so that what an authority in the chain signs later
    /// is known too.
    ///
    /// # Errors
    /// [`Error::Stopped`] for a chain without a certificate that can be read.
    pub fn of_chain(chain: &[CertificateDer<'_>]) -> Result<Self> {
        let unreadable = || Error::Stopped("the certificate of this site cannot be read".to_owned());
        Self::of(chain.last().ok_or_else(unreadable)?).map_err(|_| unreadable())
    }

    fn of(certificate: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        Ok(Self(Sha256::digest(&key).into()))
    }
}

impl fmt::Display for TlsPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for TlsPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TlsPin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = text.strip_prefix(ALGORITHM).and_then(|digits| hex::decode(digits).ok());
        let pin = bytes.and_then(|bytes| bytes.try_into().ok());
        pin.map(Self)
            .ok_or_else(|| Error::Token(format!("{text:?} is no pin: {ALGORITHM} and 64 hexadecimal digits")))
    }
}

impl Serialize for TlsPin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TlsPin {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A primary's URL, and the pin where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryAddress {
    pub url: Url,
    pub pin: Option<TlsPin>,
}

impl PrimaryAddress {
    /// # Errors
    /// [`Error::Stopped`] for a URL that no site may be reached at.
    pub fn checked(url: &str, pin: Option<TlsPin>) -> Result<Self> {
        let url = check_primary_url(url)?;
        if pin.is_some() && url.scheme() != "https" {
            return Err(Error::Stopped(format!("{url} has a pin and no TLS: use https")));
        }
        Ok(Self { url, pin })
    }

    /// Both as the one text that a database keeps.
    #[must_use]
    pub fn stored(url: &str, pin: Option<TlsPin>) -> String {
        pin.map_or_else(|| url.to_owned(), |pin| format!("{url}{STORED}{pin}"))
    }

    /// Reads what [`Self::stored`] wrote.
    ///
    /// # Errors
    /// As [`Self::checked`], and for a pin that is none.
    pub fn from_stored(text: &str) -> Result<Self> {
        match text.split_once(STORED) {
            Some((url, pin)) => Self::checked(url, Some(pin.parse()?)),
            None => Self::checked(text, None),
        }
    }

    /// The URL in what a database keeps, for people.
    #[must_use]
    pub fn shown(stored: &str) -> &str {
        stored.split_once(STORED).map_or(stored, |(url, _)| url)
    }
}

/// TLS to a server that is known by its pin alone.
pub(crate) fn pinned(pin: TlsPin) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Stopped(format!("TLS cannot be set up: {error}")))?;
    let verifier = Arc::new(PinVerifier { pin, provider });
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Another key than the pinned one.
#[derive(Debug, thiserror::Error)]
#[error(
    "the certificate shown there is neither the one that the join token pinned ({0}) nor signed by it: if the primary's \
     key was renewed, put the old one back; if a proxy ends TLS in front of it, make a token with `--no-pin`; otherwise \
     somebody else answers there"
)]
struct AnotherKey(TlsPin);

#[derive(Debug)]
struct PinVerifier {
    pin: TlsPin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The key itself is known: no name and no date says more.
        if TlsPin::of(end_entity)? == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        // A pinned authority must have signed what is shown, for this name and this day; that it is shown proves nothing.
        let authority = intermediates.iter().find(|shown| TlsPin::of(shown).is_ok_and(|pin| pin == self.pin));
        let Some(authority) = authority else {
            return Err(rustls::Error::Other(OtherError(Arc::new(AnotherKey(self.pin)))));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::Other(OtherError(Arc::new(error))))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;
    use twinport_testkit::{Authority, KeyedCertificate};

    use super::*;

    fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).map(|certificate| certificate.unwrap()).collect()
    }

    fn accepts(pin: TlsPin, shown: &str, name: &str) -> Result<(), String> {
        let verifier = PinVerifier { pin, provider: Arc::new(aws_lc_rs::default_provider()) };
        let shown = chain(shown);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        // 2026, between the dates of every certificate here.
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_780_000_000));
        let verified = verifier.verify_server_cert(&shown[0], &shown[1..], &name, &[], now);
        verified.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a8_a_pinned_key_is_known_whatever_its_certificate_says_and_no_other_is() {
        let (own, other) =
            (KeyedCertificate::self_signed().unwrap(), KeyedCertificate::self_signed().unwrap());
        let pin = TlsPin::of_chain(&chain(&own.certificate)).unwrap();
        accepts(pin, &own.certificate, "paris.example.com").unwrap();
        let refused = accepts(pin, &other.certificate, "localhost").unwrap_err();
        assert!(refused.contains("the join token pinned"), "{refused}");
        // To show the pinned certificate beside another proves nothing.
        let both = format!("{}{}", other.certificate, own.certificate);
        assert!(accepts(pin, &both, "localhost").is_err());
    }

    #[test]
    fn a8_a_pinned_authority_vouches_for_what_it_signed_and_for_nothing_else() {
        let (ours, other) = (Authority::new("ours").unwrap(), Authority::new("other").unwrap());
        let first = ours.server().unwrap();
        let pin = TlsPin::of_chain(&chain(&first.certificate)).unwrap();
        accepts(pin, &first.certificate, "localhost").unwrap();
        // Renewed with another key.
        accepts(pin, &ours.server().unwrap().certificate, "127.0.0.1").unwrap();
        assert!(accepts(pin, &first.certificate, "paris.example.com").is_err(), "a name that was not signed");
        let forged = other.server().unwrap().certificate;
        assert!(accepts(pin, &forged, "localhost").is_err());
        assert!(
            accepts(pin, &format!("{forged}{}", ours.pem()), "localhost").is_err(),
            "shown, and not the signer"
        );
    }

    #[test]
    fn url_and_pin_are_kept_as_one_text_and_read_back() {
        let pin: TlsPin = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let stored = PrimaryAddress::stored("https://paris.example.com:5000/registry", Some(pin));
        let address = PrimaryAddress::from_stored(&stored).unwrap();
        assert_eq!(address.pin, Some(pin));
        assert_eq!(address.url.as_str(), "https://paris.example.com:5000/registry");
        assert_eq!(PrimaryAddress::shown(&stored), "https://paris.example.com:5000/registry");
        assert_eq!(PrimaryAddress::from_stored("http://127.0.0.1:1").unwrap().pin, None);
        for bad in [
            "https://paris#tls-pin=",
            "https://paris#tls-pin=sha256:ab",
            "http://127.0.0.1:1#tls-pin=sha256:abababababababababababababababababababababababababababababababab",
            "https://paris#other",
        ] {
            assert!(PrimaryAddress::from_stored(bad).is_err(), "{bad}");
        }
    }
}
