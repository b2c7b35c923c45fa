//! A TCP proxy between two sites: counts what crosses it in both directions, stalls, and cuts.
//! Guards: it runs on a thread of its own, so that a test that blocks does not hold up the link it watches.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

const BUFFER: usize = 64 << 10;

/// Bytes of the sockets' streams, whatever they carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From whoever connected to the proxy.
    pub sent: u64,
    /// To whoever connected to the proxy.
    pub received: u64,
}

impl Traffic {
    /// Both directions together.
    #[must_use]
    pub fn total(self) -> u64 {
        self.sent + self.received
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    Stalled,
    Cut,
    Ended,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    connections: AtomicU64,
}

/// A link to one address; whoever wants to be watched connects to [`TcpProxy::address`] instead.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    counters: Arc<Counters>,
    mode: watch::Sender<Mode>,
    thread: Option<JoinHandle<()>>,
}

impl TcpProxy {
    /// Listens on a free loopback port and forwards to `upstream`.
    ///
    /// # Errors
    /// When there is no port or no thread.
    pub fn to(upstream: SocketAddr) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a port for the proxy")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let (mode, watched) = watch::channel(Mode::Open);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn({
            let counters = Arc::clone(&counters);
            move || runtime.block_on(accept(listener, upstream, counters, watched))
        })?;
        Ok(Self { address, counters, mode, thread: Some(thread) })
    }

    /// Where to connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has crossed so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic {
            sent: self.counters.sent.load(Ordering::SeqCst),
            received: self.counters.received.load(Ordering::SeqCst),
        }
    }

    /// How many connections were made so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.counters.connections.load(Ordering::SeqCst)
    }

    /// Keeps every connection open and moves nothing, until [`Self::resume`].
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stalled);
    }

    /// Ends every connection, and those to come, until [`Self::resume`].
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Moves bytes again.
    pub fn resume(&self) {
        self.mode.send_replace(Mode::Open);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Ended);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    counters: Arc<Counters>,
    mut mode: watch::Receiver<Mode>,
) {
    loop {
        let accepted = tokio::select! {
            _ = mode.wait_for(|mode| *mode == Mode::Ended) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        if *mode.borrow() == Mode::Cut {
            continue;
        }
        counters.connections.fetch_add(1, Ordering::SeqCst);
        let (counters, mode) = (Arc::clone(&counters), mode.clone());
        tokio::spawn(async move {
            let mut ends = mode.clone();
            tokio::select! {
                _ = ends.wait_for(|mode| matches!(mode, Mode::Cut | Mode::Ended)) => {}
                _ = forward(stream, upstream, &counters, mode) => {}
            }
        });
    }
}

async fn forward(
    mut near: TcpStream,
    upstream: SocketAddr,
    counters: &Counters,
    mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut far = TcpStream::connect(upstream).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    tokio::try_join!(
        pump(near_read, far_write, &counters.sent, mode.clone()),
        pump(far_read, near_write, &counters.received, mode),
    )?;
    Ok(())
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    counter: &AtomicU64,
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        // The other end of the channel goes only with the proxy.
        if mode.wait_for(|mode| *mode != Mode::Stalled).await.is_err() || read == 0 {
            return to.shutdown().await;
        }
        counter.fetch_add(read as u64, Ordering::SeqCst);
        to.write_all(&buffer[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read as _, Write as _},
        net::{TcpListener, TcpStream},
        time::Duration,
    };

    use super::*;

    /// Sends everything back, on every connection.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut reading = stream.try_clone().unwrap();
                    let mut writing = stream;
                    let _ = io::copy(&mut reading, &mut writing);
                });
            }
        });
        address
    }

    fn send(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(text)?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn both_directions_are_counted() {
        let proxy = TcpProxy::to(echo()).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(send(&mut stream, b"twelve bytes").unwrap(), b"twelve bytes");
        assert_eq!(proxy.traffic(), Traffic { sent: 12, received: 12 });
        assert_eq!((proxy.traffic().total(), proxy.connections()), (24, 1));
    }

    #[test]
    fn a_stalled_link_moves_nothing_and_loses_nothing() {
        let proxy = TcpProxy::to(echo()).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        send(&mut stream, b"a").unwrap();
        proxy.stall();
        stream.write_all(b"b").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let stalled = stream.read(&mut [0]).unwrap_err();
        assert!(matches!(stalled.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{stalled}");
        proxy.resume();
        stream.set_read_timeout(None).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"b");
    }

    #[test]
    fn a_cut_link_ends_its_connections_until_it_is_resumed() {
        let proxy = TcpProxy::to(echo()).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        send(&mut stream, b"a").unwrap();
        proxy.cut();
        assert!(!matches!(stream.read(&mut [0]), Ok(1..)), "nothing comes after a cut");
        let mut refused = TcpStream::connect(proxy.address()).unwrap();
        assert!(send(&mut refused, b"b").is_err());
        proxy.resume();
        let mut again = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(send(&mut again, b"c").unwrap(), b"c");
    }
}
