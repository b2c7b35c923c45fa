//! Fetching an issuer's keys: its discovery document, its JWKS, or a file.
//! Guards (hazard A8): HTTPS only except on this machine, no redirect to another host or out of HTTPS, bounded bodies and waits,
//! and no credential is ever sent along.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};
use serde::Deserialize;
use twinport_access::jwt::KeySet;
use url::{Host, Url};

/// A set of a few keys is some KiB.
const MAX_BYTES: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_REDIRECTS: usize = 3;

/// Why an issuer's keys could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FetchError {
    #[error("`{0}` is not an address that keys are fetched from: use https://, or http:// on this machine")]
    Address(String),
    #[error("the certificate authorities for {0} are not PEM certificates")]
    Authorities(String),
    #[error("{url} does not answer: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{url} answers with status {status}")]
    Status { url: String, status: u16 },
    #[error("{url} answers with over 256 KiB, which is no set of keys")]
    TooLarge { url: String },
    #[error("{url} is no discovery document of {issuer}: {reason}")]
    Discovery { url: String, issuer: String, reason: String },
    #[error("{from}: {reason}")]
    Keys { from: String, reason: String },
    #[error("cannot read {path}: {reason}")]
    File { path: String, reason: String },
    #[error("the last known keys are over a day old")]
    Old,
}

/// A way to an issuer's keys.
pub(super) enum Fetcher {
    Discovery { client: Client, issuer: String, url: Url },
    Jwks { client: Client, url: Url },
    File(PathBuf),
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    /// By the discovery document of `issuer` (OpenID Connect Discovery 1.0 section 4).
    pub(super) fn discovery(issuer: &str, authorities: Option<&[u8]>) -> Result<Self, FetchError> {
        let text = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let url = allowed(&text)?;
        Ok(Self::Discovery { client: client(&url, authorities)?, issuer: issuer.to_owned(), url })
    }

    pub(super) fn jwks(url: Url, authorities: Option<&[u8]>) -> Result<Self, FetchError> {
        let url = allowed(url.as_str())?;
        Ok(Self::Jwks { client: client(&url, authorities)?, url })
    }

    pub(super) fn file(path: PathBuf) -> Self {
        Self::File(path)
    }

    pub(super) async fn fetch(&self) -> Result<KeySet, FetchError> {
        match self {
            Self::Discovery { client, issuer, url } => {
                let body = get(client, url).await?;
                let jwks = jwks_address(&body, url, issuer)?;
                keys(&get(client, &jwks).await?, jwks.as_str())
            }
            Self::Jwks { client, url } => keys(&get(client, url).await?, url.as_str()),
            Self::File(path) => {
                let shown = path.display().to_string();
                let unreadable = |reason: String| FetchError::File { path: shown.clone(), reason };
                let meta = tokio::fs::metadata(path).await.map_err(|error| unreadable(error.to_string()))?;
                if !meta.is_file() || meta.len() > MAX_BYTES as u64 {
                    return Err(unreadable("it is no file of at most 256 KiB".to_owned()));
                }
                let body = tokio::fs::read(path).await.map_err(|error| unreadable(error.to_string()))?;
                keys(&body, &shown)
            }
        }
    }
}

/// An issuer may keep its keys at another host, but not lead this site to plain HTTP on its own machine.
fn jwks_address(body: &[u8], url: &Url, issuer: &str) -> Result<Url, FetchError> {
    let invalid =
        |reason: String| FetchError::Discovery { url: url.to_string(), issuer: issuer.to_owned(), reason };
    let document: Document = serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?;
    if document.issuer != issuer {
        return Err(invalid("it names another issuer".to_owned()));
    }
    let jwks = allowed(&document.jwks_uri)?;
    if jwks.scheme() != "https" && !same_origin(&jwks, url) {
        return Err(invalid("its keys are not at an https:// address".to_owned()));
    }
    Ok(jwks)
}

fn keys(body: &[u8], from: &str) -> Result<KeySet, FetchError> {
    let invalid =
        |error: twinport_access::Error| FetchError::Keys { from: from.to_owned(), reason: error.to_string() };
    KeySet::default().with_jwks(body).map_err(invalid)
}

async fn get(client: &Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    let shown = url.to_string();
    let unreachable =
        |error: reqwest::Error| FetchError::Unreachable { url: shown.clone(), reason: cause(&error) };
    let mut response = client.get(url.clone()).send().await.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(FetchError::Status { url: shown, status: response.status().as_u16() });
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(FetchError::TooLarge { url: shown });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost reason: the outer ones repeat the address.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn client(url: &Url, authorities: Option<&[u8]>) -> Result<Client, FetchError> {
    let mut builder = Client::builder()
        .timeout(PATIENCE)
        .redirect(Policy::custom(|attempt| {
            let followed = attempt.previous();
            let stays = followed.first().is_some_and(|first| same_origin(first, attempt.url()));
            if stays && followed.len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
        }))
        .user_agent(concat!("twinport/", env!("CARGO_PKG_VERSION")));
    if is_loopback(url) {
        // A proxy of the environment would look for the issuer on its own machine.
        builder = builder.no_proxy();
    }
    if let Some(pem) = authorities {
        let bad = || FetchError::Authorities(url.to_string());
        let certificates = Certificate::from_pem_bundle(pem).map_err(|_| bad())?;
        if certificates.is_empty() {
            return Err(bad());
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| FetchError::Unreachable { url: url.to_string(), reason: cause(&error) })
}

fn allowed(text: &str) -> Result<Url, FetchError> {
    let refused = || FetchError::Address(text.chars().take(200).collect());
    let url = Url::parse(text).map_err(|_| refused())?;
    let sound = match url.scheme() {
        "https" => true,
        "http" => is_loopback(&url),
        _ => false,
    };
    let plain = url.username().is_empty() && url.password().is_none();
    if sound && plain { Ok(url) } else { Err(refused()) }
}

fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a8_keys_come_over_https_or_from_this_machine() {
        for text in [
            "https://token.actions.githubusercontent.com",
            "http://127.0.0.1:9/x",
            "http://localhost",
            "http://[::1]:8/",
        ] {
            assert!(allowed(text).is_ok(), "{text}");
        }
        for text in [
            "http://issuer.example",
            "http://169.254.169.254/latest",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "file:///etc/passwd",
            "ftp://127.0.0.1",
            "https://user:secret@issuer.example",
            "issuer.example",
            "",
        ] {
            assert!(allowed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a8_a_discovery_document_leads_no_remote_issuer_to_this_machine() {
        let at = |jwks: &str, url: &str| {
            let body = serde_json::json!({"issuer": "https://a.example", "jwks_uri": jwks}).to_string();
            jwks_address(body.as_bytes(), &Url::parse(url).unwrap(), "https://a.example")
        };
        let remote = "https://a.example/.well-known/openid-configuration";
        assert!(at("https://keys.example/jwks", remote).is_ok());
        assert!(at("http://127.0.0.1:9/jwks", remote).is_err());
        assert!(at("http://a.example/jwks", remote).is_err());
        assert!(at("file:///etc/passwd", remote).is_err());
        let local = "http://127.0.0.1:8/.well-known/openid-configuration";
        assert!(at("http://127.0.0.1:8/jwks", local).is_ok());
        assert!(at("http://127.0.0.1:9/jwks", local).is_err(), "nor another port of it");
        let other =
            serde_json::json!({"issuer": "https://b.example", "jwks_uri": "https://a.example"}).to_string();
        assert!(jwks_address(other.as_bytes(), &Url::parse(remote).unwrap(), "https://a.example").is_err());
    }
}
