//! The body of a request as it arrives.
//! Invariant: a client that sends next to nothing is let go, and one whose body was not read to its end is heard out.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

/// What has to arrive in each body timeout.
const PACE: usize = 1024;

/// The body did not go on in time.
#[derive(Debug, thiserror::Error)]
#[error("the client stopped sending")]
pub struct Stalled;

/// A request's body under a time limit.
#[derive(Debug)]
pub struct IncomingBody {
    inner: Incoming,
    /// Set when this body is dropped before its end, so that the connection is not reset under the answer.
    unread: Arc<AtomicBool>,
    ended: bool,
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    armed: bool,
    arrived: usize,
}

impl IncomingBody {
    pub(super) fn new(inner: Incoming, patience: Duration, unread: Arc<AtomicBool>) -> Self {
        let ended = inner.is_end_stream();
        Self { inner, unread, ended, patience, timer: None, armed: false, arrived: 0 }
    }

    /// Ready once the patience is over; the clock runs from the last KiB.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = Instant::now() + self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if !self.armed {
            self.armed = true;
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => {
                ready!(self.poll_patience(cx));
                Poll::Ready(Some(Err(Stalled.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.arrived += frame.data_ref().map_or(0, Bytes::len);
                if self.arrived >= PACE {
                    self.arrived = 0;
                    self.armed = false;
                }
                self.ended = self.inner.is_end_stream();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for IncomingBody {
    fn drop(&mut self) {
        if !self.ended {
            self.unread.store(true, Ordering::Relaxed);
        }
    }
}
