//! The body of a request: how much of it there is, how it ends, and what to do with one that nobody reads.
//! Invariant: nothing is buffered beyond a stated limit, and a body that broke never looks like one that ended.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{Stream, StreamExt};
use http::header::EXPECT;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use tokio::time::timeout;
use twinport_oci::ErrorCode;

use crate::error::Refusal;
use crate::listener::Stalled;

/// A refused body up to this many bytes is read to its end, so that the connection stays usable.
const DRAINED: u64 = 256 << 10;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Why a body was not had whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body stalled: send it again, or go on from where the upload stands")]
    Stalled,
    #[error("the body broke off")]
    Broken,
    #[error("the body is larger than the limit of {0} bytes")]
    TooLarge(u64),
    #[error("the upload was cancelled")]
    Cancelled,
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        let (status, code) = match error {
            BodyError::Stalled => (StatusCode::REQUEST_TIMEOUT, ErrorCode::BlobUploadInvalid),
            BodyError::Broken => (StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid),
            BodyError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid),
            BodyError::Cancelled => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
        };
        Refusal::new(status, code, error.to_string())
    }
}

/// A body that is not read yet, or a part of it.
pub(crate) struct RequestBody {
    inner: Body,
    ended: Arc<AtomicBool>,
    expects_continue: bool,
    /// Handed on: whoever has it decides how it ends.
    taken: bool,
}

impl RequestBody {
    /// The body of a request that has none.
    pub(crate) fn none() -> Self {
        Self::new(Body::empty(), &HeaderMap::new())
    }

    pub(crate) fn new(inner: Body, headers: &HeaderMap) -> Self {
        let ended = Arc::new(AtomicBool::new(inner.is_end_stream()));
        Self { inner, ended, expects_continue: headers.contains_key(EXPECT), taken: false }
    }

    /// The length in bytes, where the client told it.
    pub(crate) fn declared(&self) -> Option<u64> {
        self.inner.size_hint().exact()
    }

    /// Whether the body is known to hold nothing (more).
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether the client waits for a word before it sends the body (RFC 9110, section 10.1.1), or sends so much
    /// that a refusal should come first.
    pub(crate) fn is_worth_asking_first(&self) -> bool {
        self.expects_continue || self.declared().is_none_or(|length| length > DRAINED)
    }

    /// Hands the body on; what stays here knows only whether it was read to the end.
    pub(crate) fn take(&mut self) -> Self {
        self.taken = true;
        let inner = std::mem::take(&mut self.inner);
        Self { inner, ended: self.ended.clone(), expects_continue: self.expects_continue, taken: false }
    }

    /// The whole body, if it has at most `limit` bytes; on failure, with what came before it.
    pub(crate) async fn collect(mut self, limit: u64) -> Result<Bytes, (BodyError, Bytes)> {
        if self.declared().is_some_and(|length| length > limit) {
            return Err((BodyError::TooLarge(limit), Bytes::new()));
        }
        let mut gathered: Option<Bytes> = None;
        let mut more = BytesMut::new();
        while let Some(piece) = self.next().await {
            let so_far = gathered.as_ref().map_or(0, Bytes::len) + more.len();
            match piece {
                Ok(piece) if (so_far + piece.len()) as u64 > limit => {
                    return Err((BodyError::TooLarge(limit), Bytes::new()));
                }
                // One piece, as a small body mostly is, is passed on without a copy.
                Ok(piece) if so_far == 0 => gathered = Some(piece),
                Ok(piece) => {
                    if let Some(first) = gathered.take() {
                        more.extend_from_slice(&first);
                    }
                    more.extend_from_slice(&piece);
                }
                Err(error) => return Err((error, gathered.unwrap_or_else(|| more.freeze()))),
            }
        }
        Ok(gathered.unwrap_or_else(|| more.freeze()))
    }

    /// After a refusal: reads a small body to its end. `false` where the connection cannot be used again, because
    /// unread bytes would be taken for the next request.
    pub(crate) async fn drain(mut self) -> bool {
        if self.is_ended() {
            return true;
        }
        if self.taken || self.is_worth_asking_first() {
            return false;
        }
        let reading = async {
            while let Some(piece) = self.next().await {
                if piece.is_err() {
                    return false;
                }
            }
            true
        };
        timeout(DRAIN_TIME, reading).await.unwrap_or(false)
    }
}

impl Stream for RequestBody {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
            return Poll::Ready(match frame {
                None => {
                    self.ended.store(true, Ordering::Relaxed);
                    None
                }
                Some(Err(error)) => Some(Err(reason(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if self.inner.is_end_stream() {
                            self.ended.store(true, Ordering::Relaxed);
                        }
                        Some(Ok(data))
                    }
                    // Trailers say nothing here.
                    Err(_) => continue,
                },
            });
        }
    }
}

fn reason(error: axum::Error) -> BodyError {
    if error.into_inner().downcast_ref::<Stalled>().is_some() {
        BodyError::Stalled
    } else {
        BodyError::Broken
    }
}
