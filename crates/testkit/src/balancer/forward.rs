//! Connections of clients, and each of their requests on a connection of its own to a node.
//! Guards: only a connection that a node did not take is tried at the next one; a node that breaks off breaks the
//! client's connection, so that the client decides about trying again.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode, body::Bytes, body::Incoming, header::EXPECT, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

use super::{Forwarded, Shared};

/// How long a node may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a request waits for a node that is ready.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

type Body = BoxBody<Bytes, hyper::Error>;

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, mut ended: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            _ = ended.wait_for(|ended| *ended) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _best_effort = stream.set_nodelay(true);
            let service = service_fn(move |request| forward(Arc::clone(&shared), request));
            let serving = hyper::server::conn::http1::Builder::new();
            // A client or a node that breaks off ends the connection: there is nobody to tell.
            let _ended = serving.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn forward(shared: Arc<Shared>, mut request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    let Ok((node, stream)) = timeout(PATIENCE, connect(&shared)).await else {
        let nobody = Empty::new().map_err(|never| match never {}).boxed();
        return Ok(Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(nobody)?);
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("a node's connection")?;
    tokio::spawn(connection);
    shared.forwarded.lock().push(Forwarded {
        node,
        method: request.method().to_string(),
        target: request.uri().to_string(),
    });
    // Each side asks for bodies by itself.
    request.headers_mut().remove(EXPECT);
    let answer = sender.send_request(request).await.context("a node broke off")?;
    Ok(answer.map(|body| body.boxed()))
}

/// A connection to the next node that takes one.
async fn connect(shared: &Shared) -> (usize, TcpStream) {
    loop {
        let Some((node, address)) = shared.next() else {
            sleep(LOOK).await;
            continue;
        };
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _best_effort = stream.set_nodelay(true);
                return (node, stream);
            }
            // The next probe says whether it is back.
            Ok(Err(_)) | Err(_) => {
                shared.set_ready(node, false);
                sleep(LOOK).await;
            }
        }
    }
}
