//! Tells the service manager how far this process is (sd_notify(3)), where one listens.
//! Invariant: a manager that does not listen changes nothing here.

use std::{
    ffi::OsStr,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use rustix::time::{ClockId, clock_gettime};

/// The other end, if there is one.
#[derive(Debug)]
pub(super) struct ServiceManager(Option<(UnixDatagram, SocketAddr)>);

impl ServiceManager {
    /// `address` is what the manager put into `NOTIFY_SOCKET`: a path, or `@` and an abstract name.
    pub(super) fn at(address: Option<&OsStr>) -> Self {
        let Some(address) = address.filter(|address| !address.is_empty()) else { return Self(None) };
        let connected = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(address),
        }
        .and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            // A manager that does not read must not hold a site up.
            socket.set_nonblocking(true)?;
            Ok((socket, address))
        });
        match connected {
            Ok(connected) => Self(Some(connected)),
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET cannot be used: the service manager is told nothing");
                Self(None)
            }
        }
    }

    /// The site serves, or has read again what it was told to.
    pub(super) fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving\n");
    }

    /// Something is read again; [`Self::ready`] ends that.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now_us = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}\n"));
    }

    /// The end has begun.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=requests under way may end\n");
    }

    fn tell(&self, words: &str) {
        let Self(Some((socket, address))) = self else { return };
        if let Err(error) = socket.send_to_addr(words.as_bytes(), address) {
            tracing::debug!(%error, "the service manager does not listen");
        }
    }
}
