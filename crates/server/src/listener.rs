//! Accepts connections and serves HTTP/1.1 and HTTP/2 on them until told to stop.
//! Invariant: nobody holds a connection for nothing: headers, bodies, readers and their number are all bounded (A10).

mod connection;
mod request_body;
mod stream;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

pub use self::request_body::{IncomingBody, Stalled};
use self::stream::Stream;

/// How long, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Connections at one time; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// A request's header section has to be here within this time, and an idle connection is closed after it.
    pub header_timeout: Duration,
    /// In this time at least 1 KiB of a request's body has to arrive.
    pub body_timeout: Duration,
    /// In this time a client has to take some of what it is sent.
    pub write_timeout: Duration,
    /// Requests under way have this long to end once the listener stops.
    pub grace: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(30),
        }
    }
}

/// Who is at the other end; in the extensions of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// A process on this machine that may open the socket file.
    Unix,
}

impl Peer {
    /// Whether the other end is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix => true,
        }
    }
}

/// A bound address that is not served yet.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    limits: ListenerLimits,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Binds a TCP address; port 0 lets the system choose one.
    ///
    /// # Errors
    /// The system's: in use, not permitted, no such address.
    pub async fn bind(address: SocketAddr, limits: ListenerLimits) -> io::Result<Self> {
        Ok(Self { socket: Socket::Tcp(TcpListener::bind(address).await?), limits })
    }

    /// Binds a socket file that only its owner may open, replacing one that a dead process left. The caller holds
    /// the lock that keeps a living one away.
    ///
    /// # Errors
    /// The system's.
    pub fn bind_unix(path: &Path, limits: ListenerLimits) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { socket: Socket::Unix(socket, path.to_owned()), limits })
    }

    /// Where TCP clients reach it, with the port that the system chose.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// Serves until `shutdown`, then takes no further connection and lets requests under way end within the grace
    /// time. `false` when some did not and were broken off.
    pub async fn serve<S>(self, service: S, shutdown: CancellationToken) -> bool
    where
        S: Service<Request<IncomingBody>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let Self { socket, limits } = self;
        let places = Arc::new(Semaphore::new(limits.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
        let connections = TaskTracker::new();
        let broken_off = CancellationToken::new();
        let accepting = async {
            loop {
                let Some((stream, peer, place)) = socket.accept(&places).await else { break };
                let (service, limits) = (service.clone(), limits.clone());
                let (draining, broken_off) = (shutdown.clone(), broken_off.clone());
                connections.spawn(async move {
                    let _place = place;
                    let served = connection::serve(stream, peer, service, limits, draining);
                    tokio::select! {
                        () = served => {}
                        () = broken_off.cancelled() => {}
                    }
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            () = shutdown.cancelled() => {}
        }
        socket.close();
        connections.close();
        let in_time = timeout(limits.grace, connections.wait()).await.is_ok();
        broken_off.cancel();
        connections.wait().await;
        in_time
    }
}

impl Socket {
    /// Waits for a place, then for a connection. None when the limit was closed, which nobody does.
    async fn accept(&self, places: &Arc<Semaphore>) -> Option<(Stream, Peer, OwnedSemaphorePermit)> {
        loop {
            let place = places.clone().acquire_owned().await.ok()?;
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                    // A segment that waits for an acknowledgement costs 40 ms.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "could not set TCP_NODELAY");
                    }
                    (Stream::from(stream), Peer::Tcp(address))
                }),
                Self::Unix(listener, _) => {
                    listener.accept().await.map(|(stream, _)| (Stream::from(stream), Peer::Unix))
                }
            };
            match accepted {
                Ok((stream, peer)) => return Some((stream, peer, place)),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Out of file descriptors, most likely: others have to end first.
                    tracing::warn!(%error, "could not accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn close(self) {
        if let Self::Unix(_, path) = &self
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, path = %path.display(), "could not remove the socket file");
        }
    }
}

/// The client went away before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
