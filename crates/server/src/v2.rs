//! `/v2` as one tower service: reads the path, asks the policy, calls the handler, finishes the answer.
//! Invariant: every answer, refusals included, carries the API version and `nosniff`, and a HEAD has the headers of
//! its GET and no body.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, HeaderName, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, request};
use tower_service::Service;
use twinport_oci::ErrorCode;

use crate::answer::{self, Answer, OCI_NAMESPACE};
use crate::audit;
use crate::body::RequestBody;
use crate::cross_origin;
use crate::error::Refusal;
use crate::grant::Grant;
use crate::path::{self, Class, PathError, Route};
use crate::policy::Wanted;
use crate::query::Query;
use crate::registry::{Registry, blobs, catalog, manifests, referrers, tags, uploads};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const REGISTRY_2: HeaderValue = HeaderValue::from_static("registry/2.0");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// The header section of a request, in bytes.
const MAX_HEADERS: usize = 32 << 10;

/// What a request under `/v2` was about, for metrics and logs; in the extensions of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteClass {
    Base,
    Catalog,
    Tags,
    Manifest,
    Blob,
    Upload,
    Referrers,
    /// A path that names nothing.
    Unrouted,
}

impl RouteClass {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Tags => "tags",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Upload => "upload",
            Self::Referrers => "referrers",
            Self::Unrouted => "unrouted",
        }
    }

    fn of(route: &Route) -> Self {
        match route {
            Route::Base => Self::Base,
            Route::Catalog => Self::Catalog,
            Route::Tags(_) => Self::Tags,
            Route::Manifest(..) => Self::Manifest,
            Route::Blob(..) => Self::Blob,
            Route::Uploads(_) | Route::Upload(..) => Self::Upload,
            Route::Referrers(..) => Self::Referrers,
        }
    }
}

/// The registry API. It wants the requests whose path is `/v2` or begins with `/v2/`.
#[derive(Debug, Clone)]
pub struct V2Service {
    registry: Arc<Registry>,
}

/// The registry API as a service.
pub fn v2_service(registry: Arc<Registry>) -> V2Service {
    V2Service { registry }
}

impl<B> Service<Request<B>> for V2Service
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let registry = self.registry.clone();
        let (parts, body) = request.into_parts();
        // Most requests have no body, and need no box for it.
        let body = match body.is_end_stream() {
            true => RequestBody::none(),
            false => RequestBody::new(Body::new(body), &parts.headers),
        };
        Box::pin(async move { Ok(respond(&registry, parts, body).await) })
    }
}

async fn respond(registry: &Arc<Registry>, parts: request::Parts, mut body: RequestBody) -> Answer {
    let (class, result) = match check_headers(&parts.headers).and_then(|()| route(&parts)) {
        Ok(route) => (RouteClass::of(&route), answer_to(registry, &parts, route, &mut body).await),
        Err(refusal) => (RouteClass::Unrouted, Err(refusal)),
    };
    let mut answer = result.unwrap_or_else(Refusal::into_answer);
    if let Some(wanted) = answer.extensions_mut().remove::<Wanted>()
        && let Some(challenge) = registry.policy.challenge(&registry.settings.external, &parts, &wanted)
    {
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    if !body.drain().await && parts.version < Version::HTTP_2 {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let headers = answer.headers_mut();
    registry.settings.external.complete(&parts, headers);
    if !registry.settings.headers.is_empty() {
        cross_origin::complete(&registry.settings.headers, &parts, headers);
    }
    headers.insert(API_VERSION, REGISTRY_2);
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    registry.settings.headers.insert_into(headers);
    if parts.method == Method::HEAD {
        *answer.body_mut() = Body::empty();
    }
    answer.extensions_mut().insert(class);
    answer
}

/// What the path names. No manifest has a tag that cannot be one, so it is asked for in vain; only to push it is an error.
fn route(parts: &request::Parts) -> Result<Route, Refusal> {
    path::parse(parts.uri.path()).map_err(|error| match error {
        PathError::Value { error: error @ twinport_oci::Error::Tag { .. }, class: Class::Manifest }
            if parts.method != Method::PUT =>
        {
            Refusal::new(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown, error.to_string())
        }
        error => error.into(),
    })
}

fn check_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size <= MAX_HEADERS {
        return Ok(());
    }
    let message = format!("the headers are larger than the limit of {MAX_HEADERS} bytes");
    Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, ErrorCode::SizeInvalid, message))
}

/// Looks where a client means to pull from, and says so where that decided what it gets (OCI Distribution, "Registry
/// Proxying").
async fn answer_to(
    registry: &Arc<Registry>,
    parts: &request::Parts,
    route: Route,
    body: &mut RequestBody,
) -> Result<Answer, Refusal> {
    let query = Query::parse(parts.uri.query())?;
    let namespaces = &registry.settings.namespaces;
    let asked = query.get("ns").filter(|_| !namespaces.is_empty() && is_get(&parts.method));
    let scoped = asked.and_then(|host| Some((host, route.within(host, namespaces)?)));
    let Some((host, route)) = scoped else {
        if parts.method == Method::OPTIONS {
            return Ok(options(&route));
        }
        let grant = match registry.policy.grant(parts).await {
            Ok(grant) => grant,
            Err(refusal) => {
                audit::refused(parts, &route, None, &refusal);
                return Err(refusal);
            }
        };
        let watched = audit::Watched::begin(parts, &route, &query, &grant);
        let result = dispatch(registry, parts, &grant, &route, &query, body).await;
        watched.ended(&result);
        return result;
    };
    let grant = registry.policy.grant(parts).await?;
    let mut answer =
        dispatch(registry, parts, &grant, &route, &query, body).await.unwrap_or_else(Refusal::into_answer);
    answer.headers_mut().insert(OCI_NAMESPACE, answer::visible(Bytes::copy_from_slice(host.as_bytes())));
    Ok(answer)
}

fn is_get(method: &Method) -> bool {
    [Method::GET, Method::HEAD].contains(method)
}

/// Only what a pull asks for is done in the request's own future: what takes more room has a box, so that a pull carries less.
async fn dispatch(
    registry: &Arc<Registry>,
    parts: &request::Parts,
    grant: &Grant,
    route: &Route,
    query: &Query,
    body: &mut RequestBody,
) -> Result<Answer, Refusal> {
    let headers = &parts.headers;
    let get = is_get(&parts.method);
    match (route, &parts.method) {
        // Where clients learn how to sign in, whoever else may pull without.
        (Route::Base, _) if get && grant.is_anonymous() && !registry.policy.is_open() => {
            Err(Refusal::unauthorized("sign in", None, false))
        }
        (Route::Base, _) if get => Ok(answer::whole(Bytes::from_static(b"{}"), answer::JSON)),
        (Route::Catalog, _) if get => Box::pin(catalog::list(registry, grant, query)).await,
        (Route::Tags(name), _) if get => Box::pin(tags::list(registry, grant, name, query)).await,
        (Route::Referrers(name, subject), _) if get => {
            Box::pin(referrers::list(registry, grant, name, subject, query)).await
        }
        (Route::Manifest(name, reference), &Method::GET) => {
            manifests::get(registry, grant, name, reference, headers).await
        }
        (Route::Manifest(name, reference), &Method::HEAD) => {
            manifests::head(registry, grant, name, reference, headers).await
        }
        (Route::Manifest(name, reference), &Method::PUT) => {
            Box::pin(manifests::put(registry, grant, name, reference, headers, query, body)).await
        }
        (Route::Manifest(name, reference), &Method::DELETE) => {
            Box::pin(manifests::delete(registry, grant, name, reference)).await
        }
        (Route::Blob(name, digest), &Method::GET) => blobs::get(registry, grant, name, digest, headers).await,
        (Route::Blob(name, digest), &Method::HEAD) => {
            blobs::head(registry, grant, name, digest, headers).await
        }
        (Route::Blob(name, digest), &Method::DELETE) => {
            Box::pin(blobs::delete(registry, grant, name, digest)).await
        }
        (Route::Uploads(name), &Method::POST) => {
            Box::pin(uploads::begin(registry, grant, name, query, body)).await
        }
        (Route::Upload(name, id), _) if get => Box::pin(uploads::status(registry, grant, name, id)).await,
        (Route::Upload(name, id), &Method::PATCH) => {
            Box::pin(uploads::patch(registry, grant, name, id, headers, body)).await
        }
        (Route::Upload(name, id), &Method::PUT) => {
            Box::pin(uploads::finish(registry, grant, name, id, headers, query.get("digest"), body)).await
        }
        (Route::Upload(name, id), &Method::DELETE) => {
            Box::pin(uploads::cancel(registry, grant, name, id)).await
        }
        _ => Err(not_allowed(route)),
    }
}

/// What a path takes; a browser asks before it does what a page of another origin wants (RFC 9110, section 9.3.7).
fn options(route: &Route) -> Answer {
    let mut answer = answer::empty(StatusCode::NO_CONTENT);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed(route)));
    answer
}

fn allowed(route: &Route) -> &'static str {
    match route {
        Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => "GET, HEAD, OPTIONS",
        Route::Manifest(..) => "GET, HEAD, PUT, DELETE, OPTIONS",
        Route::Blob(..) => "GET, HEAD, DELETE, OPTIONS",
        Route::Uploads(_) => "POST, OPTIONS",
        Route::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE, OPTIONS",
    }
}

fn not_allowed(route: &Route) -> Refusal {
    let allowed = allowed(route);
    let message = format!("this path takes {allowed}");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, message)
        .with_header(ALLOW, HeaderValue::from_static(allowed))
}
