//! Connections from this machine itself: of a proxy that stands before the registry, of a build beside it.
//! Invariant: nothing here fails a connection.

use std::net::IpAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// Ways to control congestion that send as soon as the reader has room. Every kernel has the second.
const UNPACED: [&[u8]; 2] = [b"cubic", b"reno"];

/// Keeps the kernel from pacing what is sent to this machine. Where the system's way is one that does (BBR), a sender on
/// loopback waits for timers instead of for its reader, and there is no path between the two to be congested.
pub(super) fn send_unpaced(stream: &TcpStream, peer: IpAddr) {
    if !peer.to_canonical().is_loopback() {
        return;
    }
    let socket = SockRef::from(stream);
    if UNPACED.iter().all(|way| socket.set_tcp_congestion(way).is_err()) {
        tracing::debug!("a connection on loopback keeps the system's congestion control");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn way_after(peer: &str) -> (Vec<u8>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (_client, accepted) = tokio::join!(client, listener.accept());
        let stream = accepted.unwrap().0;
        let way = || {
            let way = SockRef::from(&stream).tcp_congestion().unwrap();
            way.into_iter().take_while(|byte| *byte != 0).collect()
        };
        // One that every kernel has, and that is not the first choice.
        SockRef::from(&stream).set_tcp_congestion(b"reno").unwrap();
        let before = way();
        send_unpaced(&stream, peer.parse().unwrap());
        (before, way())
    }

    #[tokio::test]
    async fn only_connections_from_this_machine_are_sent_unpaced() {
        let allowed = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_allowed_congestion_control").unwrap();
        let first = if allowed.split_whitespace().any(|way| way == "cubic") { "cubic" } else { "reno" };
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(way_after(peer).await.1, first.as_bytes(), "{peer}");
        }
        for peer in ["192.0.2.1", "2001:db8::1"] {
            let (before, after) = way_after(peer).await;
            assert_eq!(before, after, "{peer}");
        }
    }
}
