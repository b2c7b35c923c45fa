//! A connection's bytes, under the time limits that hyper has no word for.
//! Invariant: a client that takes nothing is let go; one that is still sending when it was answered gets the answer,
//! because a socket closed over unread bytes is reset and takes the answer with it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use super::activity::Activity;

/// After the answer, a client that goes on sending has this long in all, and may pause this long.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_PAUSE: Duration = Duration::from_secs(2);

/// One connection.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    /// Read already, to tell the protocol.
    prefix: Bytes,
    unread: Arc<AtomicBool>,
    write_timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    armed: bool,
    closing: Closing,
    /// Told of what is written, where somebody wants to know.
    activity: Option<Activity>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Its buffers are large; plain connections do not pay for them.
    Tls(Box<TlsStream<TcpStream>>),
}

#[derive(Debug, Clone, Copy)]
enum Closing {
    Open,
    /// Our side is shut; the peer's bytes are read and dropped until then.
    Lingering(Instant),
    Closed,
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::new(Socket::Tcp(socket))
    }
}

impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Self {
        Self::new(Socket::Unix(socket))
    }
}

impl From<TlsStream<TcpStream>> for Stream {
    fn from(socket: TlsStream<TcpStream>) -> Self {
        Self::new(Socket::Tls(Box::new(socket)))
    }
}

impl Stream {
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            prefix: Bytes::new(),
            unread: Arc::default(),
            write_timeout: Duration::from_secs(60),
            timer: None,
            armed: false,
            closing: Closing::Open,
            activity: None,
        }
    }

    pub(super) fn set_write_timeout(&mut self, timeout: Duration) {
        self.write_timeout = timeout;
    }

    pub(super) fn tell(&mut self, activity: Activity) {
        self.activity = Some(activity);
    }

    /// The flag that says that a request's body was left unread.
    pub(super) fn unread(&self) -> Arc<AtomicBool> {
        self.unread.clone()
    }

    /// Reads on until the first bytes are there or differ from `word`; they are read again by what follows.
    pub(super) async fn begins_with(&mut self, word: &[u8]) -> io::Result<bool> {
        let mut seen = BytesMut::with_capacity(1024);
        while seen.len() < word.len() && word.starts_with(&seen) {
            if self.socket_mut().read_buf(&mut seen).await? == 0 {
                break;
            }
        }
        self.prefix = seen.freeze();
        Ok(self.prefix.starts_with(word))
    }

    fn socket_mut(&mut self) -> Pin<&mut dyn Duplex> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket),
            Socket::Unix(socket) => Pin::new(socket),
            Socket::Tls(socket) => Pin::new(socket.as_mut()),
        }
    }

    fn poll_timer(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if !self.armed {
            self.armed = true;
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }

    fn counted(&self, written: &Poll<io::Result<usize>>) {
        if let (Some(activity), Poll::Ready(Ok(bytes))) = (&self.activity, written) {
            activity.wrote(*bytes);
        }
    }

    /// Passes on what writing said; a peer that takes nothing for too long is an error.
    fn watched<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.armed = false;
            return written;
        }
        ready!(self.poll_timer(Instant::now() + self.write_timeout, cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading")))
    }

    fn poll_linger(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 16 << 10];
        while Instant::now() < until {
            let mut buffer = ReadBuf::new(&mut scratch);
            match self.socket_mut().poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.armed = false,
                Poll::Ready(_) => break,
                Poll::Pending => {
                    let pause = until.min(Instant::now() + LINGER_PAUSE);
                    ready!(self.poll_timer(pause, cx));
                    break;
                }
            }
        }
        Poll::Ready(())
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.has_remaining() {
            let length = self.prefix.remaining().min(buffer.remaining());
            buffer.put_slice(&self.prefix.split_to(length));
            return Poll::Ready(Ok(()));
        }
        self.socket_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.socket_mut().poll_write(cx, bytes);
        self.counted(&written);
        self.watched(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket_mut().poll_write_vectored(cx, slices);
        self.counted(&written);
        self.watched(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Tcp(socket) => socket.is_write_vectored(),
            Socket::Unix(socket) => socket.is_write_vectored(),
            Socket::Tls(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS holds records back that its socket did not take.
        let flushed = self.socket_mut().poll_flush(cx);
        self.watched(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.closing {
                Closing::Open => {
                    let shut = self.socket_mut().poll_shutdown(cx);
                    ready!(self.watched(shut, cx))?;
                    self.armed = false;
                    let unread = self.unread.load(Ordering::Relaxed);
                    self.closing =
                        if unread { Closing::Lingering(Instant::now() + LINGER) } else { Closing::Closed };
                }
                Closing::Lingering(until) => {
                    ready!(self.poll_linger(until, cx));
                    self.closing = Closing::Closed;
                }
                Closing::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}
