//! One registry over HTTP: checks, manifests, and how its refusals read. Pushing and pulling are below.

mod pull;
mod push;

use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::{Response, StatusCode, header};
use serde::Deserialize;
use twinport_oci::RepositoryName;
use url::Url;

pub use self::{pull::PulledManifest, push::PushStep};
use crate::{Error, Result};

/// What `digest` needs escaped in a query: it holds hexadecimal and a colon, which a query may hold.
const QUERY: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'&').add(b'+').add(b'%');
/// A transfer that says nothing for this long is broken.
const IDLE: Duration = Duration::from_secs(60);
/// Attempts without one byte of progress before a transfer is given up.
const ATTEMPTS: u32 = 5;
/// How much of a refusal's body is read.
const MAX_REFUSAL: usize = 64 * 1024;

/// A registry without authentication. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    http: reqwest::Client,
    base: Url,
}

#[derive(Deserialize)]
struct Refusals {
    errors: Vec<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    #[serde(default)]
    message: String,
}

impl RegistryClient {
    /// A client of the registry at `base`, such as `http://127.0.0.1:5000`.
    pub fn new(base: Url) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(IDLE)
            .tcp_nodelay(true)
            .user_agent(concat!("twinport/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&base) {
            // A proxy of the environment would look for the registry on its own machine.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| unreachable("set up a client", base.as_str(), &error))?;
        Ok(Self { http, base })
    }

    /// The registry's address.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Asks `/v2/`: whether a registry answers here.
    pub async fn check(&self) -> Result<()> {
        let url = self.base.join("v2/").map_err(|error| self.bad_url(&error.to_string()))?;
        let response = send("reach the registry", self.http.get(url)).await?;
        accept("reach the registry", response, &[StatusCode::OK]).await.map(drop)
    }

    fn url(&self, repository: &RepositoryName, rest: &str) -> Result<Url> {
        self.base.join(&format!("v2/{repository}/{rest}")).map_err(|error| self.bad_url(&error.to_string()))
    }

    fn bad_url(&self, reason: &str) -> Error {
        Error::Protocol { url: self.base.to_string(), reason: reason.to_owned() }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Appends `key=value` to whatever query a Location came with.
fn with_query(location: &Url, key: &str, value: &str) -> Url {
    let mut url = location.clone();
    let pair = format!("{key}={}", utf8_percent_encode(value, QUERY));
    let query = url.query().filter(|query| !query.is_empty()).map(|query| format!("{query}&{pair}"));
    url.set_query(Some(query.as_deref().unwrap_or(&pair)));
    url
}

/// The Location of an answer, resolved against the request's own URL (RFC 9110, section 10.2.2).
fn location(response: &Response) -> Result<Url> {
    let broken = |reason: String| Error::Protocol { url: response.url().to_string(), reason };
    let value =
        response.headers().get(header::LOCATION).ok_or_else(|| broken("no Location header".to_owned()))?;
    let text = value.to_str().map_err(|_| broken("a Location that is not text".to_owned()))?;
    response.url().join(text).map_err(|error| broken(format!("the Location {text}: {error}")))
}

async fn send(doing: &'static str, request: reqwest::RequestBuilder) -> Result<Response> {
    request.send().await.map_err(|error| {
        let url = error.url().map_or_else(String::new, ToString::to_string);
        unreachable(doing, &url, &error)
    })
}

/// Lets an expected status through and turns any other into its refusal.
async fn accept(doing: &'static str, response: Response, expected: &[StatusCode]) -> Result<Response> {
    let status = response.status();
    if expected.contains(&status) {
        return Ok(response);
    }
    let url = response.url().to_string();
    let message = refusal(response).await.unwrap_or_else(|| {
        status.canonical_reason().map_or_else(|| "(no reason given)".to_owned(), str::to_owned)
    });
    Err(Error::Refused { doing, url, status: status.as_u16(), message })
}

/// The first error of an OCI error body.
async fn refusal(mut response: Response) -> Option<String> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_REFUSAL {
            return None;
        }
    }
    let refusals: Refusals = serde_json::from_slice(&body).ok()?;
    let first = refusals.errors.into_iter().next()?;
    Some(if first.message.is_empty() { first.code } else { format!("{}: {}", first.code, first.message) })
}

fn unreachable(doing: &'static str, url: &str, error: &dyn std::error::Error) -> Error {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        reason.push_str(": ");
        reason.push_str(&inner.to_string());
        source = inner.source();
    }
    Error::Unreachable { doing, url: url.to_owned(), reason }
}

/// How long to wait before attempt `attempt` (counted from 1).
fn pause(attempt: u32) -> Duration {
    Duration::from_millis(100) * 2u32.saturating_pow(attempt.min(6))
}
