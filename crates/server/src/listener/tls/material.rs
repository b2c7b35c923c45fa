//! From PEM files to what TLS is spoken with.
//! Invariant: a key that is not the certificate's never gets past here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::{ClientAuth, TlsConfig, TlsVersion};

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Why TLS cannot be spoken with the files that are there.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}, the file of {setting}: {reason}", path = .path.display())]
    Read { path: PathBuf, setting: &'static str, reason: std::io::Error },
    #[error(
        "{path} ({setting}) holds no certificate: it must be PEM, and begin with the site's own certificate",
        path = .path.display()
    )]
    NoCertificate { path: PathBuf, setting: &'static str },
    #[error(
        "{path} (http.tls.key) holds no private key: it must be PEM (PKCS #8, PKCS #1 or SEC 1), without a password",
        path = .0.display()
    )]
    NoKey(PathBuf),
    #[error(
        "{key} (http.tls.key) does not go with {certificate} (http.tls.certificate): {reason}",
        key = .key.display(), certificate = .certificate.display()
    )]
    Pair { certificate: PathBuf, key: PathBuf, reason: String },
    #[error("the certificate in {path} (http.tls.certificate) cannot be used: {reason}", path = .path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("the certificate in {path} (http.tls.certificate) has expired: renew it", path = .0.display())]
    Expired(PathBuf),
    #[error("the certificates of http.tls.clientcas cannot be used: {0}")]
    ClientCas(String),
    #[error("TLS cannot be set up with http.tls.minimumtls and http.tls.ciphersuites as they are: {0}")]
    Setup(String),
}

/// What the files hold.
pub(super) struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_cas: Vec<Vec<u8>>,
}

impl Files {
    pub(super) fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        let client_cas = config.client_cas.iter().map(|file| read(file, "http.tls.clientcas"));
        Ok(Self {
            certificate: read(&config.certificate, "http.tls.certificate")?,
            key: read(&config.key, "http.tls.key")?,
            client_cas: client_cas.collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for file in [&self.certificate, &self.key].into_iter().chain(&self.client_cas) {
            hash.update((file.len() as u64).to_be_bytes());
            hash.update(file);
        }
        hash.finalize().into()
    }
}

fn read(path: &Path, setting: &'static str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|reason| TlsError::Read { path: path.to_owned(), setting, reason })
}

/// What new connections get.
pub(super) struct Material {
    pub(super) server: Arc<ServerConfig>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) expires_at_us: i64,
}

pub(super) fn build(config: &TlsConfig, files: &Files) -> Result<Material, TlsError> {
    let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
    let chain = certificates(&files.certificate, &config.certificate, "http.tls.certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|_| TlsError::NoKey(config.key.clone()))?;
    let expires_at_us = expiry(&chain, &config.certificate)?;

    let provider = Arc::new(CryptoProvider {
        cipher_suites: suites(&config.cipher_suites),
        ..aws_lc_rs::default_provider()
    });
    let versions: &[_] = match config.minimum {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(versions).map_err(setup)?;
    let builder = match verifier(config, files, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(chain.clone(), key).map_err(|error| TlsError::Pair {
        certificate: config.certificate.clone(),
        key: config.key.clone(),
        reason: error.to_string(),
    })?;
    let protocols: &[_] = if config.http2 { &[HTTP2, HTTP1] } else { &[HTTP1] };
    server.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    // A session is kept by its client, under a key of this material alone.
    server.ticketer = aws_lc_rs::Ticketer::new().map_err(setup)?;
    Ok(Material { server: Arc::new(server), chain, expires_at_us })
}

fn certificates(
    pem: &[u8],
    path: &Path,
    setting: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let none = || TlsError::NoCertificate { path: path.to_owned(), setting };
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|_| none())?;
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

fn expiry(chain: &[CertificateDer<'static>], path: &Path) -> Result<i64, TlsError> {
    let unusable = |reason: String| TlsError::Certificate { path: path.to_owned(), reason };
    let own = chain.first().ok_or_else(|| unusable("there is none".to_owned()))?;
    let (_, parsed) = X509Certificate::from_der(own).map_err(|error| unusable(error.to_string()))?;
    Ok(parsed.validity().not_after.timestamp().saturating_mul(1_000_000))
}

fn verifier(
    config: &TlsConfig,
    files: &Files,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    if config.client_cas.is_empty() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    for (pem, path) in files.client_cas.iter().zip(&config.client_cas) {
        for certificate in certificates(pem, path, "http.tls.clientcas")? {
            roots
                .add(certificate)
                .map_err(|error| TlsError::ClientCas(format!("{}: {error}", path.display())))?;
        }
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if config.client_auth == ClientAuth::IfGiven {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|error| TlsError::ClientCas(error.to_string()))?;
    Ok(Some(verifier))
}

/// The suites of TLS 1.3, and of 1.2 those that were named, or all.
fn suites(names: &[String]) -> Vec<SupportedCipherSuite> {
    let all = aws_lc_rs::default_provider().cipher_suites.into_iter();
    all.filter(|suite| {
        suite.tls13().is_some() || names.is_empty() || names.iter().any(|name| *name == name_of(suite))
    })
    .collect()
}

/// Whether a suite of this IANA name is spoken.
pub(crate) fn is_cipher_suite(name: &str) -> bool {
    aws_lc_rs::default_provider().cipher_suites.iter().any(|suite| name_of(suite) == name)
}

/// The IANA name, which for TLS 1.3 differs from the library's.
fn name_of(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_go_by_their_iana_names() {
        for good in [
            "TLS_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        ] {
            assert!(is_cipher_suite(good), "{good}");
        }
        assert!(!is_cipher_suite("TLS_RSA_WITH_AES_128_CBC_SHA"));
        let named = suites(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".to_owned()]);
        assert_eq!(named.iter().filter(|suite| suite.tls13().is_none()).count(), 1);
        assert!(named.iter().any(|suite| suite.tls13().is_some()));
    }
}
