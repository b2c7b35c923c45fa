//! A proxy in front of the nodes of one site: every request goes to the next ready node, whatever connection it came on.
//! Guards: nothing is sticky, and a request that may have reached a node is never sent to another.

mod forward;
mod probe;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::sync::watch;

/// How the balancer learns which nodes may get requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probing {
    /// `/readyz` decides, asked every 50 ms.
    Readiness,
    /// Every node counts as ready, also while it does not listen.
    None,
}

/// A request as it was sent on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Which node it went to, from 0.
    pub node: usize,
    pub method: String,
    /// With its query.
    pub target: String,
}

#[derive(Debug)]
struct Node {
    address: SocketAddr,
    ready: bool,
}

/// What the thread and its owner share.
#[derive(Debug)]
struct Shared {
    nodes: Mutex<Vec<Node>>,
    next: AtomicUsize,
    forwarded: Mutex<Vec<Forwarded>>,
}

/// A balancer on a loopback port; it ends with its owner.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    ended: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Balancer {
    /// Listens on a free loopback port for the nodes at `addresses`, which need not run yet.
    ///
    /// # Errors
    /// When there is no port or no thread.
    pub fn start(addresses: &[SocketAddr], probing: Probing) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a port for the balancer")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let ready = probing == Probing::None;
        let nodes = addresses.iter().map(|address| Node { address: *address, ready }).collect();
        let shared = Arc::new(Shared {
            nodes: Mutex::new(nodes),
            next: AtomicUsize::new(0),
            forwarded: Mutex::default(),
        });
        let (ended, watched) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let thread = std::thread::Builder::new().name("balancer".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                runtime.block_on(async {
                    if probing == Probing::Readiness {
                        probe::start(&shared);
                    }
                    forward::accept(listener, shared, watched).await;
                });
            }
        })?;
        Ok(Self { address, shared, ended, thread: Some(thread) })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far, in the order in which they were sent on.
    #[must_use]
    pub fn forwarded(&self) -> Vec<Forwarded> {
        self.shared.forwarded.lock().clone()
    }

    /// How many requests each node got.
    #[must_use]
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.shared.nodes.lock().len()];
        for request in self.shared.forwarded.lock().iter() {
            counts[request.node] += 1;
        }
        counts
    }

    /// Which nodes are taken for ready.
    #[must_use]
    pub fn ready(&self) -> Vec<bool> {
        self.shared.nodes.lock().iter().map(|node| node.ready).collect()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.ended.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The next ready node.
    fn next(&self) -> Option<(usize, SocketAddr)> {
        let nodes = self.nodes.lock();
        let begin = self.next.fetch_add(1, Ordering::Relaxed);
        let order = (0..nodes.len()).map(|step| (begin + step) % nodes.len());
        order.filter(|index| nodes[*index].ready).map(|index| (index, nodes[index].address)).next()
    }

    fn set_ready(&self, index: usize, ready: bool) {
        self.nodes.lock()[index].ready = ready;
    }
}
