//! TLS on a listener: which certificate is shown, who may connect, and the handshake under its time limit.
//! Invariant: files that cannot be used never replace what is in use, and a client that stalls its handshake is let go
//! (A10).

mod client_certificate;
mod material;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use twinport_metadata::Clock;

pub use self::client_certificate::ClientCertificate;
pub use self::material::TlsError;
pub(crate) use self::material::is_cipher_suite;
use self::material::{Files, Material};
pub(crate) use self::watch::watch;
use super::stream::Stream;
use crate::config::TlsConfig;
use crate::telemetry::TlsCounters;

/// What a client that speaks plain HTTP gets, in its own language.
const NOT_TLS: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n\
                       Content-Length: 95\r\n\r\n\
                       {\"errors\":[{\"code\":\"UNSUPPORTED\",\"message\":\"this address speaks TLS: use https\",\"detail\":{}}]}\n";

/// The TLS of one listener. Its certificate and its client CAs can be exchanged while it serves.
pub struct Tls {
    config: TlsConfig,
    clock: Clock,
    current: RwLock<Current>,
    counters: TlsCounters,
}

struct Current {
    /// What was read, so that a change is seen; of the files' contents, only their hash is kept.
    read: [u8; 32],
    material: Material,
}

/// What a reading of the files came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The files are what they were.
    Unchanged,
    /// New connections get what the files hold.
    Changed,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads certificate, key and client CAs. Blocks.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used, and why.
    pub fn load(config: TlsConfig, clock: Clock) -> Result<Arc<Self>, TlsError> {
        let files = Files::read(&config)?;
        let material = material::build(&config, &files)?;
        if material.expires_at_us <= clock.now_us() {
            tracing::error!(certificate = %config.certificate.display(), "the certificate has expired: clients will refuse it");
        }
        let current = RwLock::new(Current { read: files.hash(), material });
        Ok(Arc::new(Self { config, clock, current, counters: TlsCounters::default() }))
    }

    /// Reads the files again. Connections that are open keep what they began with; sessions cannot be resumed across
    /// a change, so that a client CA which was taken away counts at once. Blocks.
    ///
    /// # Errors
    /// [`TlsError`] as for [`Self::load`], or for a certificate that has expired; what was in use stays in use.
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let reloaded = Files::read(&self.config).and_then(|files| self.take(&files));
        match &reloaded {
            Ok(Reloaded::Unchanged) => {}
            Ok(Reloaded::Changed) => {
                self.counters.reloaded("ok");
                tracing::info!(certificate = %self.config.certificate.display(), "took a new certificate");
            }
            Err(error) => {
                self.counters.reloaded("failed");
                tracing::error!(%error, "kept the certificate in use: the new files cannot be used");
            }
        }
        reloaded
    }

    fn take(&self, files: &Files) -> Result<Reloaded, TlsError> {
        let read = files.hash();
        if read == self.current.read().read {
            return Ok(Reloaded::Unchanged);
        }
        let material = material::build(&self.config, files)?;
        if material.expires_at_us <= self.clock.now_us() {
            return Err(TlsError::Expired(self.config.certificate.clone()));
        }
        *self.current.write() = Current { read, material };
        Ok(Reloaded::Changed)
    }

    /// The certificates that are shown, the site's own first.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current.read().material.chain.clone()
    }

    /// When the certificate in use expires (µs since 1970).
    pub(crate) fn expires_at_us(&self) -> i64 {
        self.current.read().material.expires_at_us
    }

    pub(crate) fn counters(&self) -> &TlsCounters {
        &self.counters
    }

    fn server(&self) -> Arc<ServerConfig> {
        self.current.read().material.server.clone()
    }

    /// Shakes hands. `None` where that did not come to an end in time, or to a good one.
    pub(super) async fn secure(
        &self,
        socket: TcpStream,
        within: Duration,
    ) -> Option<(Stream, Option<ClientCertificate>)> {
        let shaken = timeout(within, self.shake_hands(socket)).await;
        let (result, secured) = match shaken {
            Ok(Some(secured)) => ("ok", Some(secured)),
            Ok(None) => ("failed", None),
            Err(_) => ("timeout", None),
        };
        self.counters.shaken(result);
        secured
    }

    async fn shake_hands(&self, mut socket: TcpStream) -> Option<(Stream, Option<ClientCertificate>)> {
        let mut first = [0];
        let begun = socket.peek(&mut first).await.ok()?;
        if begun > 0 && first[0].is_ascii_uppercase() {
            answer_in_clear(&mut socket).await;
            return None;
        }
        match TlsAcceptor::from(self.server()).accept(socket).await {
            Ok(stream) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let certificate = certificates.and_then(<[_]>::first).map(ClientCertificate::read);
                Some((Stream::from(stream), certificate))
            }
            Err(error) => {
                // A client that trusts others, or nobody: its own affair.
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    }
}

/// A method where TLS would begin: somebody typed http.
async fn answer_in_clear(socket: &mut TcpStream) {
    let mut request = [0; 4096];
    // Read, because a socket closed over unread bytes is reset; whether the answer arrives is the client's affair.
    if matches!(socket.read(&mut request).await, Ok(read) if read > 0)
        && socket.write_all(NOT_TLS.as_bytes()).await.is_ok()
    {
        drop(socket.shutdown().await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let (head, body) = NOT_TLS.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
