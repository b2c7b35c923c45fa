//! The primary over HTTP: one keep-alive client, short-lived credentials, limits on everything that is held.
//! Invariant: no deadline on the log or on a blob, only on silence, and that is the engine's (hazard R12).

use std::{
    error::Error as _,
    fmt::Write as _,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use twinport_metadata::{Clock, Federation, Incarnation, LogHead, Metadata, RecordName, RepositoryUuid};
use twinport_oci::{Digest, MAX_MANIFEST_BYTES};

use super::{BlobBody, LogStream, ManifestBody, Upstream};
use crate::{
    Error, PrimaryAddress, Result, SiteKey, TlsPin,
    primary_address::pinned,
    protocol::{
        AccessPage, AccessQuery, ErrorBody, FrameDecoder, Head, ListingPage, RepositoryChecksum,
        RepositoryPage, StatusReport, paths,
    },
};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a small answer may take as a whole.
const SMALL_ANSWER: Duration = Duration::from_secs(60);
/// The largest JSON answer that is read, in bytes: a full page of long names.
const MAX_JSON_BYTES: usize = 32 << 20;
const MAX_ERROR_BYTES: usize = 64 << 10;
/// A credential is used this long, of the five minutes that it is good for.
const CREDENTIAL_REUSE: Duration = Duration::from_secs(60);

/// Who this site is to its primary.
pub struct SiteIdentity {
    pub key: SiteKey,
    pub incarnation: Incarnation,
    pub federation: Federation,
    /// The primary's internal URL, and by which key it is known there.
    pub primary: PrimaryAddress,
    pub clock: Clock,
}

impl SiteIdentity {
    /// The identity of the secondary whose metadata this is.
    ///
    /// # Errors
    /// [`Error::Stopped`] where it is no secondary, or its primary's URL may not be used.
    pub async fn of(metadata: &Metadata) -> Result<Self> {
        let site = metadata.site().await?;
        let url = site.primary_url.ok_or_else(|| {
            Error::Stopped("this site follows no primary: join it with a token first".to_owned())
        })?;
        Ok(Self {
            key: SiteKey::from_bytes(&site.signing_key)?,
            incarnation: site.incarnation,
            federation: site.federation,
            primary: PrimaryAddress::from_stored(&url)?,
            clock: metadata.clock().clone(),
        })
    }
}

/// The primary over HTTP.
pub struct HttpUpstream {
    client: Client,
    identity: SiteIdentity,
    base: String,
    credential: Mutex<Option<(Instant, String)>>,
}

impl HttpUpstream {
    /// A client for the primary of `identity`; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the TLS library cannot be set up.
    pub fn new(identity: SiteIdentity) -> Result<Self> {
        let base = identity.primary.url.as_str().trim_end_matches('/').to_owned();
        let client = client(identity.primary.pin)?;
        Ok(Self { client, identity, base, credential: Mutex::new(None) })
    }

    fn credential(&self) -> Result<String> {
        let mut held = self.credential.lock();
        if let Some((made, credential)) = &*held
            && made.elapsed() < CREDENTIAL_REUSE
        {
            return Ok(credential.clone());
        }
        let SiteIdentity { key, incarnation, federation, clock, .. } = &self.identity;
        let credential = key.credential(*incarnation, *federation, clock.now_us())?;
        *held = Some((Instant::now(), credential.clone()));
        Ok(credential)
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder> {
        let url = format!("{}{path}", self.base);
        Ok(self.client.request(method, url).bearer_auth(self.credential()?))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| unreachable(&self.base, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        // A clock that jumped makes a held credential useless: the next call makes another.
        if response.status() == StatusCode::UNAUTHORIZED {
            *self.credential.lock() = None;
        }
        Err(refusal(&self.base, response).await)
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.answer(self.request(Method::GET, path)?, path).await
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder, path: &str) -> Result<T> {
        let response = self.send(request.timeout(SMALL_ANSWER)).await?;
        let body = bounded(&self.base, response, MAX_JSON_BYTES).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::Protocol(format!("the answer to {path} cannot be read: {error}")))
    }
}

/// A client for calls between sites. Redirects are not followed: a credential goes to the primary alone (hazard A8).
pub(crate) fn client(pin: Option<TlsPin>) -> Result<Client> {
    let builder = match pin {
        Some(pin) => Client::builder().tls_backend_preconfigured(pinned(pin)?),
        None => Client::builder(),
    };
    builder
        .user_agent(concat!("twinport/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .pool_max_idle_per_host(64)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| Error::Stopped(format!("the HTTP client cannot be set up: {error}")))
}

impl Upstream for HttpUpstream {
    async fn log(&self, from: LogHead) -> Result<LogStream> {
        let Head { number, owner, seq, hash } = from.into();
        let hash = hex::encode(hash);
        let path = format!("{}?number={number}&owner={owner}&seq={seq}&hash={hash}", paths::LOG);
        let response = self.send(self.request(Method::GET, &path)?).await?;
        let base = self.base.clone();
        let chunks = response.bytes_stream().map_err(move |error| unreachable(&base, &error));
        let frames =
            stream::try_unfold((chunks.boxed(), FrameDecoder::new()), async |(mut chunks, mut decoder)| {
                loop {
                    if let Some(frame) = decoder.next_frame()? {
                        return Ok(Some((frame, (chunks, decoder))));
                    }
                    match chunks.try_next().await? {
                        Some(chunk) => decoder.push(&chunk),
                        None => return Ok(None),
                    }
                }
            });
        Ok(frames.boxed())
    }

    async fn report(&self, report: &StatusReport) -> Result<()> {
        let request = self.request(Method::POST, paths::STATUS)?.timeout(SMALL_ANSWER).json(report);
        self.send(request).await.map(drop)
    }

    async fn repositories(&self, after: &str, limit: u32) -> Result<RepositoryPage> {
        self.json(&format!("{}?after={}&limit={limit}", paths::REPOSITORIES, escaped(after))).await
    }

    async fn listing(
        &self,
        repository: RepositoryUuid,
        after: Option<&str>,
        limit: u32,
    ) -> Result<ListingPage> {
        let mut path = format!("{}?limit={limit}", paths::listing(repository));
        if let Some(after) = after {
            path.push_str("&after=");
            path.push_str(&escaped(after));
        }
        self.json(&path).await
    }

    async fn checksum(&self, repository: RepositoryUuid) -> Result<RepositoryChecksum> {
        self.json(&paths::checksum(repository)).await
    }

    async fn access(&self, after: Option<&str>, limit: u32) -> Result<AccessPage> {
        let mut path = format!("{}?limit={limit}", paths::ACCESS);
        if let Some(after) = after {
            path.push_str("&after=");
            path.push_str(&escaped(after));
        }
        self.json(&path).await
    }

    async fn access_records(&self, records: &[RecordName]) -> Result<AccessPage> {
        let query = AccessQuery { records: records.to_vec() };
        self.answer(self.request(Method::POST, paths::ACCESS)?.json(&query), paths::ACCESS).await
    }

    async fn manifest(&self, repository: RepositoryUuid, digest: &Digest) -> Result<ManifestBody> {
        let request = self.request(Method::GET, &paths::manifest(repository, digest))?.timeout(SMALL_ANSWER);
        let response = self.send(request).await?;
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = bounded(&self.base, response, MAX_MANIFEST_BYTES).await?;
        Ok(ManifestBody { media_type, bytes })
    }

    async fn blob(&self, digest: &Digest, offset: u64) -> Result<BlobBody> {
        let mut request = self.request(Method::GET, &paths::blob(digest))?;
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        let response = self.send(request).await?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let start = if partial { offset } else { 0 };
        if partial && !begins_at(&response, offset) {
            return Err(Error::Protocol(format!(
                "the primary answered another range of {digest} than was asked for"
            )));
        }
        let size = response.content_length().map(|rest| start + rest);
        let base = self.base.clone();
        let stream = response.bytes_stream().map_err(move |error| unreachable(&base, &error)).boxed();
        Ok(BlobBody { offset: start, size, stream })
    }
}

fn begins_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

async fn bounded(base: &str, response: Response, limit: usize) -> Result<Bytes> {
    let mut chunks = response.bytes_stream();
    let mut body = BytesMut::new();
    while let Some(chunk) = chunks.try_next().await.map_err(|error| unreachable(base, &error))? {
        if body.len() + chunk.len() > limit {
            return Err(Error::Protocol(format!("the peer's answer is over {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// What a peer's refusal says; a refusal without a body of ours came from something in between.
pub(crate) async fn refusal(base: &str, response: Response) -> Error {
    let status = response.status();
    let body = match bounded(base, response, MAX_ERROR_BYTES).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => body.into_error(status.as_u16()),
        Err(_) => Error::Unreachable { url: base.to_owned(), reason: format!("it answered {status}") },
    }
}

pub(crate) fn unreachable(base: &str, error: &reqwest::Error) -> Error {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Writing to a string cannot fail.
        let _ = write!(reason, ": {inner}");
        cause = inner.source();
    }
    Error::Unreachable { url: base.to_owned(), reason }
}

fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
