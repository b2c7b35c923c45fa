//! The settings of `http.tls`.

use std::path::PathBuf;

/// `http.tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM: the site's own certificate first, then those of its issuers.
    pub certificate: PathBuf,
    /// PEM, without a password.
    pub key: PathBuf,
    /// PEM: whose certificates clients may show. Empty: none is asked for.
    pub client_cas: Vec<PathBuf>,
    pub client_auth: ClientAuth,
    pub minimum: TlsVersion,
    /// The suites of TLS 1.2, by their IANA names; empty: all good ones. Those of TLS 1.3 are always on.
    pub cipher_suites: Vec<String>,
    /// Whether HTTP/2 is offered: `http.http2.disabled` says not.
    pub http2: bool,
}

impl TlsConfig {
    /// This certificate and key, and of the rest what a site does that says nothing.
    #[must_use]
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self {
            certificate,
            key,
            client_cas: Vec::new(),
            client_auth: ClientAuth::default(),
            minimum: TlsVersion::default(),
            cipher_suites: Vec::new(),
            http2: true,
        }
    }
}

/// `http.tls.clientauth`; only looked at where there are client CAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// Without a certificate nobody gets past the handshake.
    #[default]
    Required,
    /// A client may show one, and then it has to be good.
    IfGiven,
}

impl ClientAuth {
    /// Reads Go's names, as Distribution does.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "require-and-verify-client-cert" => Some(Self::Required),
            "verify-client-cert-if-given" => Some(Self::IfGiven),
            _ => None,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "require-and-verify-client-cert",
            Self::IfGiven => "verify-client-cert-if-given",
        }
    }
}

/// `http.tls.minimumtls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

impl TlsVersion {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            // Nobody is served below 1.2, whatever a file of another age allows.
            "tls1.0" | "tls1.1" | "tls1.2" => Some(Self::Tls12),
            "tls1.3" => Some(Self::Tls13),
            _ => None,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "tls1.2",
            Self::Tls13 => "tls1.3",
        }
    }
}
