//! One connection: which HTTP it speaks, and its requests until it ends or the listener drains.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service as HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::activity::Activity;
use super::stream::Stream;
use super::{Client, IncomingBody, ListenerLimits};
use crate::admission::ConnectionShare;

/// What an HTTP/2 connection begins with and no HTTP/1 request does.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// More than the 32 KiB that requests may use, so that one over the limit is still answered in words.
const MAX_HEADERS: usize = 64 << 10;
/// What one HTTP/1 connection may hold of what it reads; the bytes of a body are handed on without a copy, so a piece of
/// it keeps all of this.
const READ_BUFFER: usize = 256 << 10;
const STREAMS: u32 = 128;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const PING: Duration = Duration::from_secs(20);
/// How long an HTTP/2 connection may take to end once it is not wanted any more.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves the requests of one connection. When `draining` fires, the one under way is the last.
pub(super) async fn serve<S>(
    mut stream: Stream,
    client: Client,
    service: S,
    limits: ListenerLimits,
    draining: CancellationToken,
) where
    S: Service<Request<IncomingBody>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    stream.set_write_timeout(limits.write_timeout);
    let telling = tokio::select! {
        telling = timeout(limits.header_timeout, stream.begins_with(HTTP2)) => telling,
        // Nothing was asked yet.
        () = draining.cancelled() => return,
    };
    let Ok(Ok(is_http2)) = telling else { return };
    let unread = stream.unread();
    let share = ConnectionShare::default();
    let service = service_fn(move |request: Request<Incoming>| {
        unread.store(false, Ordering::Relaxed);
        let mut request = request.map(|body| IncomingBody::new(body, limits.body_timeout, unread.clone()));
        request.extensions_mut().insert(client.peer);
        request.extensions_mut().insert(share.clone());
        if let Some(certificate) = &client.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        service.clone().call(request)
    });
    if is_http2 {
        let patience = limits.header_timeout.max(limits.write_timeout);
        // It keeps much more than HTTP/1.1, whose connections do not pay for it.
        Box::pin(serve_http2(stream, service, patience, draining)).await;
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_header_size(MAX_HEADERS)
            .max_buf_size(READ_BUFFER);
        let connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        until_drained(connection, draining, http1::Connection::graceful_shutdown).await;
    }
}

async fn serve_http2<S>(mut stream: Stream, service: S, patience: Duration, draining: CancellationToken)
where
    S: HttpService<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let activity = Activity::default();
    stream.tell(activity.clone());
    let handled = activity.clone();
    let service = service_fn(move |request| {
        let (handled, answer) = (handled.request_begins(), service.call(request));
        async move {
            let answer = answer.await;
            drop(handled);
            answer
        }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADERS as u32)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = until_drained(connection.as_mut(), draining, http2::Connection::graceful_shutdown);
    let ceased = tokio::select! {
        () = served => false,
        () = activity.ceases(patience) => true,
    };
    if ceased {
        // Whoever is there is told, and not waited for.
        connection.as_mut().graceful_shutdown();
        drop(timeout(FAREWELL, connection).await);
    }
}

async fn until_drained<C>(
    mut connection: Pin<&mut C>,
    draining: CancellationToken,
    end: impl FnOnce(Pin<&mut C>),
) where
    C: Future<Output = hyper::Result<()>>,
{
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = draining.cancelled() => {
            end(connection.as_mut());
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that went away, or broke the protocol: its own affair.
        tracing::debug!(%error, "a connection ended early");
    }
}
