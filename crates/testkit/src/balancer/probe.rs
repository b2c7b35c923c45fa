//! Asks every node whether it is ready, all the time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::Shared;

const EVERY: Duration = Duration::from_millis(50);
/// A node that takes longer is not ready.
const ANSWER: Duration = Duration::from_secs(1);
const REQUEST: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

pub(super) fn start(shared: &Arc<Shared>) {
    let addresses: Vec<SocketAddr> = shared.nodes.lock().iter().map(|node| node.address).collect();
    for (index, address) in addresses.into_iter().enumerate() {
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            loop {
                let ready = matches!(timeout(ANSWER, is_ready(address)).await, Ok(Ok(true)));
                shared.set_ready(index, ready);
                sleep(EVERY).await;
            }
        });
    }
}

async fn is_ready(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
