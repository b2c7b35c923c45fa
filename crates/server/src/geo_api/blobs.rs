//! `GET /geo/v1/blobs/{digest}`: a blob's bytes, whole or from where an earlier transfer stopped.
//! Guards: memory does not grow with the blob, and a blob of another length than recorded is never sent.

use axum::{
    body::Body,
    extract::{Path, State},
    response::Response,
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE},
};
use twinport_geo::RefusalCode;
use twinport_oci::{Digest, parse_ranges};

use super::{GeoApiState, answer::Refused, repositories::parse};

pub(super) async fn blob(
    State(state): State<GeoApiState>,
    headers: HeaderMap,
    Path(digest): Path<String>,
) -> Result<Response, Refused> {
    state.puller(&headers).await?;
    let digest = parse::<Digest>(&digest, "a digest")?;
    let unknown = || Refused::new(RefusalCode::BlobUnknown, format!("blob {digest} is not here"));
    let size = state.metadata.blob_is_known(&digest).await?.ok_or_else(unknown)?;
    let file = state.blobs.open_sized(&digest, size).await?;

    let ranges = headers.get(RANGE).and_then(|value| parse_ranges(value.to_str().ok()?));
    // Several ranges are answered with the whole blob, as RFC 9110 allows; no site asks for them.
    let range = match ranges.as_deref() {
        Some([one]) => match one.resolve(size) {
            Some(range) => Some(range),
            None => return Ok(beyond(size)),
        },
        _ => None,
    };
    let (status, content_range) = match &range {
        Some(range) => {
            (StatusCode::PARTIAL_CONTENT, Some(format!("bytes {}-{}/{size}", range.start, range.end - 1)))
        }
        None => (StatusCode::OK, None),
    };
    let range = range.unwrap_or(0..size);
    let length = range.end - range.start;
    let mut response = Response::new(Body::from_stream(file.stream(range)));
    *response.status_mut() = status;
    let answer = response.headers_mut();
    answer.insert(CONTENT_LENGTH, length.into());
    answer.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(value) = content_range.and_then(|text| HeaderValue::try_from(text).ok()) {
        answer.insert(CONTENT_RANGE, value);
    }
    Ok(response)
}

fn beyond(size: u64) -> Response {
    use axum::response::IntoResponse as _;
    let message = format!("the blob has {size} bytes, and none in that range");
    let mut response = Refused::new(RefusalCode::RangeInvalid, message).into_response();
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    response
}
