//! An HTTP proxy before an S3 server that answers some requests 503, breaks some connections and delays others.
//! Guards: which requests suffer follows from a seed; what is let through is not altered.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The answer of an S3 server that is asked too much.
const SLOW_DOWN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code>\
                         <Message>Please reduce your request rate.</Message></Error>";
const BUFFER: usize = 64 << 10;
const DELAY: Duration = Duration::from_millis(20);

/// How many of a thousand requests meet what.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestFaults {
    /// 503 SlowDown instead of an answer.
    pub slow_down: u32,
    /// The connection is reset before the request reaches the server.
    pub reset: u32,
    /// The connection is reset in the middle of the answer.
    pub cut: u32,
    /// The request waits for 20 ms.
    pub delay: u32,
}

/// A proxy to one S3 server. Requests are told apart on one connection each, as it closes every one after its answer.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    struck: Arc<AtomicU64>,
    ended: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    SlowDown,
    Reset,
    Cut,
    Delay,
}

impl FaultProxy {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// When there is no port or no thread.
    pub fn to(upstream: SocketAddr, faults: RequestFaults, seed: u64) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a port for the proxy")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let struck = Arc::new(AtomicU64::new(0));
        let (ended, mut watched) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("faults".to_owned()).spawn({
            let (struck, dice) = (struck.clone(), Arc::new(Mutex::new(StdRng::seed_from_u64(seed))));
            move || {
                runtime.block_on(async move {
                    let Ok(listener) = TcpListener::from_std(listener) else { return };
                    loop {
                        let accepted = tokio::select! {
                            _ = watched.wait_for(|ended| *ended) => return,
                            accepted = listener.accept() => accepted,
                        };
                        let Ok((near, _)) = accepted else { continue };
                        let fault = draw(faults, &mut dice.lock());
                        let hurts = !matches!(fault, Fault::None | Fault::Delay);
                        struck.fetch_add(u64::from(hurts), Ordering::SeqCst);
                        tokio::spawn(forward(near, upstream, fault));
                    }
                });
            }
        })?;
        Ok(Self { address, struck, ended, thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that were answered 503 or broken.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.struck.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.ended.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn draw(faults: RequestFaults, dice: &mut StdRng) -> Fault {
    let mut left = dice.random_range(0..1000);
    for (share, fault) in [
        (faults.slow_down, Fault::SlowDown),
        (faults.reset, Fault::Reset),
        (faults.cut, Fault::Cut),
        (faults.delay, Fault::Delay),
    ] {
        if left < share {
            return fault;
        }
        left -= share;
    }
    Fault::None
}

/// One request of one connection. The server is told to close after it, so that the next request draws again.
async fn forward(mut near: TcpStream, upstream: SocketAddr, fault: Fault) -> std::io::Result<()> {
    let (head, rest) = read_head(&mut near).await?;
    let (names, mut body) = (head.to_ascii_lowercase(), rest);
    let length = names.split("content-length:").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    match fault {
        Fault::Reset => return reset(near),
        Fault::SlowDown => {
            drain(&mut near, length.saturating_sub(body.len())).await?;
            let answer = format!(
                "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                SLOW_DOWN.len()
            );
            near.write_all(answer.as_bytes()).await?;
            if !head.starts_with("HEAD") {
                near.write_all(SLOW_DOWN.as_bytes()).await?;
            }
            return near.shutdown().await;
        }
        Fault::Delay => tokio::time::sleep(DELAY).await,
        Fault::None | Fault::Cut => {}
    }
    let mut far = TcpStream::connect(upstream).await?;
    far.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes()).await?;
    let mut left = length.saturating_sub(body.len());
    far.write_all(&body).await?;
    body.resize(BUFFER, 0);
    while left > 0 {
        let read = near.read(&mut body[..left.min(BUFFER)]).await?;
        if read == 0 {
            return Ok(());
        }
        far.write_all(&body[..read]).await?;
        left -= read;
    }
    let mut answered = 0;
    loop {
        let read = far.read(&mut body).await?;
        if read == 0 {
            return near.shutdown().await;
        }
        if fault == Fault::Cut && answered > 0 {
            return reset(near);
        }
        // Of an answer that fits in one read the client gets no more than its half.
        let sent = if fault == Fault::Cut { read / 2 } else { read };
        near.write_all(&body[..sent]).await?;
        answered += sent;
        if sent < read {
            return reset(near);
        }
    }
}

async fn read_head(near: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; BUFFER]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        match near.read(&mut buffer).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

async fn drain(near: &mut TcpStream, mut left: usize) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while left > 0 {
        match near.read(&mut buffer[..left.min(BUFFER)]).await? {
            0 => return Ok(()),
            read => left -= read,
        }
    }
    Ok(())
}

/// Closes so that the other end reads ECONNRESET.
fn reset(near: TcpStream) -> std::io::Result<()> {
    #[expect(deprecated, reason = "a linger of zero never blocks")]
    near.set_linger(Some(Duration::ZERO))
}
