//! Accepts connections and serves HTTP/1.1 and HTTP/2 on them until told to stop.
//! Invariant: nobody holds a connection for nothing: headers, bodies, readers and their number are all bounded (A10).

mod activity;
mod connection;
mod loopback;
mod request_body;
mod stream;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

pub use self::request_body::{IncomingBody, Stalled};
use self::stream::Stream;
pub use self::tls::{ClientCertificate, Reloaded, Tls, TlsError};
pub(crate) use self::tls::{is_cipher_suite, watch as watch_certificate};

/// Connections that wait in the kernel to be accepted, at most.
const BACKLOG: u32 = 1024;

/// How long, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Connections at one time; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// A TLS handshake has to be done within this time.
    pub handshake_timeout: Duration,
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
            handshake_timeout: Duration::from_secs(10),
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
    /// As above, and what travels is encrypted.
    Tls(SocketAddr),
    /// A process on this machine that may open the socket file.
    Unix,
}

impl Peer {
    /// Whether the other end is on this machine.
    pub fn is_local(&self) -> bool {
        self.ip().is_none_or(|ip| ip.is_loopback())
    }

    /// The address of the other end; none on the unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) | Self::Tls(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

/// A bound address that is not served yet.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    limits: ListenerLimits,
    tls: Option<Arc<Tls>>,
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
        Ok(Self { socket: Socket::Tcp(listen(address)?), limits, tls: None })
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
        Ok(Self { socket: Socket::Unix(socket, path.to_owned()), limits, tls: None })
    }

    /// Binds a socket file that its owner's group may open too, for a proxy on this machine. A file that a dead process
    /// left is replaced; one on which somebody listens, and what is no socket, is not.
    ///
    /// # Errors
    /// The system's.
    pub fn bind_shared_unix(path: &Path, limits: ListenerLimits) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is no socket",
                ));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            Ok(_) => std::fs::remove_file(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self { socket: Socket::Unix(socket, path.to_owned()), limits, tls: None })
    }

    /// From now on TCP clients have to speak TLS.
    #[must_use]
    pub fn with_tls(self, tls: Arc<Tls>) -> Self {
        Self { tls: Some(tls), ..self }
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
        let Self { socket, limits, tls } = self;
        let places = Arc::new(Semaphore::new(limits.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
        let connections = TaskTracker::new();
        let broken_off = CancellationToken::new();
        let accepting = async {
            loop {
                let Some((accepted, place)) = socket.accept(&places).await else { break };
                let (service, limits, tls) = (service.clone(), limits.clone(), tls.clone());
                let (draining, broken_off) = (shutdown.clone(), broken_off.clone());
                connections.spawn(async move {
                    let _place = place;
                    let served = async {
                        let secured = accepted.secured(tls.as_deref(), &limits);
                        let secured = tokio::select! {
                            secured = secured => secured,
                            // Nothing was asked yet.
                            () = draining.cancelled() => return,
                        };
                        let Some((stream, client)) = secured else { return };
                        connection::serve(stream, client, service, limits, draining).await;
                    };
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

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // Every interface is those of both families, whatever net.ipv6.bindv6only says.
        socket2::SockRef::from(&socket).set_only_v6(false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Socket {
    /// Waits for a place, then for a connection. None when the limit was closed, which nobody does.
    async fn accept(&self, places: &Arc<Semaphore>) -> Option<(Accepted, OwnedSemaphorePermit)> {
        loop {
            let place = places.clone().acquire_owned().await.ok()?;
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                    // A segment that waits for an acknowledgement costs 40 ms.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "could not set TCP_NODELAY");
                    }
                    loopback::send_unpaced(&stream, address.ip());
                    Accepted::Tcp(stream, address)
                }),
                Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
            };
            match accepted {
                Ok(accepted) => return Some((accepted, place)),
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

/// A connection of which nothing was read.
enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// Who is at the other end, as far as the connection tells.
struct Client {
    peer: Peer,
    certificate: Option<ClientCertificate>,
}

impl Accepted {
    /// The connection as it is served. `None` where TLS did not come about.
    async fn secured(self, tls: Option<&Tls>, limits: &ListenerLimits) -> Option<(Stream, Client)> {
        let plain = |peer| Client { peer, certificate: None };
        match (self, tls) {
            (Self::Unix(socket), _) => Some((Stream::from(socket), plain(Peer::Unix))),
            (Self::Tcp(socket, address), None) => Some((Stream::from(socket), plain(Peer::Tcp(address)))),
            (Self::Tcp(socket, address), Some(tls)) => {
                // A handshake's state is large; plain connections do not pay for it.
                let (stream, certificate) = Box::pin(tls.secure(socket, limits.handshake_timeout)).await?;
                Some((stream, Client { peer: Peer::Tls(address), certificate }))
            }
        }
    }
}

/// The client went away before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
