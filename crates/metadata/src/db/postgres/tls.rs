//! TLS to PostgreSQL: libpq's modes on rustls, client certificates, and channel binding.
//! Guards: `verify-ca` and `verify-full` never speak to a server whose certificate does not hold.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use rustls_platform_verifier::Verifier as PlatformVerifier;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use x509_parser::prelude::FromDer as _;

use super::options::{PostgresTls, SslMode};
use crate::{Error, Result};

/// What TLS connections are made with. Files are read anew for each: certificates may be renewed while the site runs.
pub(super) async fn connector(tls: &PostgresTls) -> Result<Connector> {
    let tls = tls.clone();
    let read = tokio::task::spawn_blocking(move || client_config(&tls));
    let config = read.await.map_err(|error| Error::Bug(format!("reading certificates: {error}")))??;
    Ok(Connector { config: Arc::new(config) })
}

fn client_config(tls: &PostgresTls) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = ServerCheck::of(tls, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Refused(format!("TLS to the database cannot be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let (certificate, key) = match (&tls.certificate, &tls.key) {
        (None, None) => return Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => {
            return Err(Error::Refused(
                "database.sslcert and database.sslkey belong together: set both, or neither".to_owned(),
            ));
        }
    };
    let chain = certificates("database.sslcert", certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
        unusable("database.sslkey", key, &format!("{error}; it must be a PEM key without a password"))
    })?;
    builder.with_client_auth_cert(chain, private).map_err(|error| {
        unusable("database.sslkey", key, &format!("it does not fit {}: {error}", certificate.display()))
    })
}

fn certificates(setting: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let found = read.map_err(|error| unusable(setting, file, &error.to_string()))?;
    if found.is_empty() {
        return Err(unusable(setting, file, "it holds no PEM certificate"));
    }
    Ok(found)
}

fn unusable(setting: &str, file: &Path, why: &str) -> Error {
    Error::Refused(format!("{setting}: {} cannot be used: {why}", file.display()))
}

/// How far a server's certificate is looked at.
#[derive(Debug)]
enum Check {
    /// Encryption alone: whoever answers is the server.
    Nothing,
    /// Signed by one of these, whatever name it has.
    Chain(Authorities),
    /// Signed by one of these, and for this name.
    ChainAndName(Authorities),
    /// By this machine's authorities, and for this name.
    Platform(PlatformVerifier),
}

#[derive(Debug)]
struct Authorities {
    roots: RootCertStore,
    /// A certificate that is listed itself needs no signature of another.
    listed: Vec<CertificateDer<'static>>,
}

#[derive(Debug)]
struct ServerCheck {
    check: Check,
    provider: Arc<CryptoProvider>,
}

impl ServerCheck {
    fn of(tls: &PostgresTls, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let check = match (&tls.root_certificates, tls.mode) {
            (Some(file), SslMode::VerifyFull) => Check::ChainAndName(Authorities::read(file)?),
            // As libpq does: whoever gives authorities wants them asked.
            (Some(file), _) => Check::Chain(Authorities::read(file)?),
            (None, SslMode::VerifyFull) => {
                let platform = PlatformVerifier::new(Arc::clone(provider)).map_err(|error| {
                    Error::Refused(format!(
                        "this machine's certificate authorities cannot be read ({error}): set database.sslrootcert"
                    ))
                })?;
                Check::Platform(platform)
            }
            (None, SslMode::VerifyCa) => {
                return Err(Error::Refused(
                    "database.sslmode verify-ca needs database.sslrootcert: any public authority would do without it"
                        .to_owned(),
                ));
            }
            (None, _) => Check::Nothing,
        };
        Ok(Self { check, provider: Arc::clone(provider) })
    }
}

impl Authorities {
    fn read(file: &Path) -> Result<Self> {
        let listed = certificates("database.sslrootcert", file)?;
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(listed.iter().cloned());
        if added == 0 {
            return Err(unusable("database.sslrootcert", file, "none of its certificates can be read"));
        }
        Ok(Self { roots, listed })
    }

    fn check(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        provider: &CryptoProvider,
    ) -> Result<(), rustls::Error> {
        let algorithms = provider.signature_verification_algorithms.all;
        let chain = verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(own)?,
            &self.roots,
            others,
            now,
            algorithms,
        );
        match chain {
            // Self-signed certificates mostly call themselves authorities, which no server's certificate should.
            Err(_) if self.listed.contains(own) => is_current(own, now),
            chain => chain,
        }
    }
}

fn is_current(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let bad = rustls::Error::InvalidCertificate;
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map_err(|_| bad(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if now < validity.not_before.timestamp() {
        return Err(bad(CertificateError::NotValidYet));
    }
    if now > validity.not_after.timestamp() {
        return Err(bad(CertificateError::Expired));
    }
    Ok(())
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.check {
            Check::Nothing => {}
            Check::Chain(authorities) => authorities.check(own, others, now, &self.provider)?,
            Check::ChainAndName(authorities) => {
                authorities.check(own, others, now, &self.provider)?;
                verify_server_name(&ParsedCertificate::try_from(own)?, name)?;
            }
            Check::Platform(platform) => return platform.verify_server_cert(own, others, name, ocsp, now),
        }
        Ok(ServerCertVerified::assertion())
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

/// Makes TLS connections for the PostgreSQL client.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    config: Arc<ClientConfig>,
}

/// A handshake that is due with one host.
pub(super) struct Handshake {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Connector {
    type Stream = Secured<S>;
    type TlsConnect = Handshake;
    type Error = rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Self::Error> {
        // A unix socket has no host, and never gets as far as a handshake.
        let host = if host.is_empty() { "localhost" } else { host };
        Ok(Handshake { config: Arc::clone(&self.config), name: ServerName::try_from(host.to_owned())? })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
    type Stream = Secured<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let connected = tokio_rustls::TlsConnector::from(self.config).connect(self.name, stream).await?;
            Ok(Secured(Box::new(connected)))
        })
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub(super) struct Secured<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Secured<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let own = session.peer_certificates().and_then(|chain| chain.first());
        own.and_then(end_point).map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// The hash of a certificate that its signature's own hash function makes (RFC 5929, section 4.1); none where the
/// signature has no hash function of its own.
fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    Some(match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // RSA and ECDSA with MD5, SHA-1 or SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.10045.4.1"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.3.2" => Sha256::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(certificate).to_vec(),
        _ => return None,
    })
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
