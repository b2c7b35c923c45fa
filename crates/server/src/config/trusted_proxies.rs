//! `http.trusted_proxies`: the addresses of proxies, read from the configuration and asked of each connection.

use std::{fmt, net::IpAddr};

/// `http.trusted_proxies`: who is believed about the host, scheme, port and prefix that a client used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies {
    networks: Vec<Network>,
    /// Whoever connects by the unix socket.
    unix: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl TrustedProxies {
    /// Adds `10.0.0.7`, `10.0.0.0/8`, `fd00::/8` or `unix`; `None` for anything else.
    pub fn add(&mut self, text: &str) -> Option<()> {
        if text == "unix" {
            self.unix = true;
            return Some(());
        }
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, bits)| (a, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
        self.networks.push(Network { address, bits });
        Some(())
    }

    /// Whether anybody is trusted at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether the other end of a connection is trusted; `None` is the unix socket.
    pub(crate) fn contains(&self, address: Option<IpAddr>) -> bool {
        let Some(address) = address else { return self.unix };
        // A socket of both families shows IPv4 clients as ::ffff:a.b.c.d.
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        let shift = |width: u8| u32::from(width - self.bits);
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The items of a YAML list.
impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks =
            self.networks.iter().map(|network| format!("\"{}/{}\"", network.address, network.bits));
        let all: Vec<String> = networks.chain(self.unix.then(|| "unix".to_owned())).collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(text: &str) -> TrustedProxies {
        let mut proxies = TrustedProxies::default();
        text.split(' ').for_each(|text| proxies.add(text).unwrap());
        proxies
    }

    #[test]
    fn an_address_is_trusted_by_itself_or_by_its_network() {
        let proxies = trusted("10.0.0.7 192.168.0.0/16 fd00::/8");
        for good in ["10.0.0.7", "192.168.255.1", "fdff::1", "::ffff:10.0.0.7"] {
            assert!(proxies.contains(Some(good.parse().unwrap())), "{good}");
        }
        for bad in ["10.0.0.8", "192.169.0.1", "fe80::1", "::1", "0.0.0.0"] {
            assert!(!proxies.contains(Some(bad.parse().unwrap())), "{bad}");
        }
        assert!(!proxies.contains(None));
        assert!(trusted("unix").contains(None));
        assert!(trusted("0.0.0.0/0").contains(Some("8.8.8.8".parse().unwrap())));
        assert!(trusted("::/0").contains(Some("2001:db8::1".parse().unwrap())));
    }

    #[test]
    fn what_is_no_network_is_not_taken_for_one() {
        for bad in ["", "proxy.example.com", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "::1/129", "10.0.0"] {
            assert_eq!(TrustedProxies::default().add(bad), None, "{bad}");
        }
    }
}
