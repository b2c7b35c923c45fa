//! Where layers that are not here may be fetched from: the hosts of a rule's allow list, compared on parsed URLs.
//! Invariant: what a client would be sent to is what was compared. A text that two parsers could read differently is refused
//! (hazard A8).

use url::{Host, Url};

use crate::error::{Error, Result, shown};

/// One entry of an allow list: `[scheme://]host[:port]`, https unless it says http. `*.example.com` is every host below
/// `example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AllowedHost {
    scheme: Scheme,
    host: String,
    /// Of the host: anything that ends in it.
    below: bool,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn of(text: &str) -> Option<Self> {
        match text {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl AllowedHost {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::Host {
            host: shown(text),
            reason: "write `host`, `host:port`, `http://host` or `*.example.com`",
        };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Scheme::of(scheme).ok_or_else(invalid)?, rest),
            None => (Scheme::Https, text),
        };
        let (below, authority) = match rest.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if authority.is_empty() || authority.contains(['/', '?', '#', '@', '*', '\\', '%']) {
            return Err(invalid());
        }
        // Read by the same parser as the URLs that are compared with it.
        let url = Url::parse(&format!("https://{authority}/")).map_err(|_| invalid())?;
        let host = match url.host() {
            Some(Host::Domain(name)) => name.trim_end_matches('.').to_owned(),
            Some(Host::Ipv4(_) | Host::Ipv6(_)) if !below => url.host_str().unwrap_or_default().to_owned(),
            _ => return Err(invalid()),
        };
        let said =
            authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let port = match said {
            Some((_, port)) => port.parse().map_err(|_| invalid())?,
            None => scheme.port(),
        };
        Ok(Self { scheme, host, below, port })
    }

    fn allows(&self, url: &Url) -> bool {
        let Some(host) = url.host_str().map(|host| host.trim_end_matches('.')) else { return false };
        let same = match self.below {
            true => host.strip_suffix(&self.host).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            false => host == self.host,
        };
        same && Scheme::of(url.scheme()) == Some(self.scheme)
            && url.port_or_known_default() == Some(self.port)
    }
}

/// Whether a layer's URL leads to one of these hosts and to no other, however it is read.
pub(crate) fn allowed(hosts: &[AllowedHost], url: &str) -> bool {
    // A backslash, a control character or a blank is where parsers of URLs part ways.
    if url.bytes().any(|byte| byte.is_ascii_control() || byte == b' ' || byte == b'\\') {
        return false;
    }
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') {
        return false;
    }
    Url::parse(url).is_ok_and(|parsed| hosts.iter().any(|host| host.allows(&parsed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(hosts: &[&str], url: &str) -> bool {
        let hosts: Vec<_> = hosts.iter().map(|host| AllowedHost::parse(host).unwrap()).collect();
        allowed(&hosts, url)
    }

    #[test]
    fn a8_only_the_hosts_of_the_list_and_https_unless_it_says_http() {
        let hosts = ["mcr.example.com", "http://old.example.com", "files.example.com:8443"];
        for url in [
            "https://mcr.example.com/v2/x/blobs/sha256:1",
            "https://MCR.example.com:443/x",
            "https://mcr.example.com./x",
            "http://old.example.com/x",
            "https://files.example.com:8443/x",
        ] {
            assert!(allow(&hosts, url), "{url}");
        }
        for url in [
            "http://mcr.example.com/x",
            "https://old.example.com/x",
            "https://mcr.example.com:8443/x",
            "https://files.example.com/x",
            "https://mcr.example.com.evil.example/x",
            "https://evil.example/mcr.example.com",
            "https://evil.example?mcr.example.com",
            "https://evil.example#mcr.example.com",
            "https://mcr.example.com@evil.example/x",
            "https://user:secret@mcr.example.com/x",
            "https://@mcr.example.com/x",
            "https://mcr.example.com\\@evil.example/x",
            "https://evil.example\\mcr.example.com/x",
            "https:\t//mcr.example.com/x",
            "https://mcr.example.com/\nx",
            "file:///etc/passwd",
            "ftp://mcr.example.com/x",
            "//mcr.example.com/x",
            "https:/mcr.example.com/x",
            "https:///mcr.example.com/x",
            "https:mcr.example.com/x",
            "mcr.example.com/x",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/x",
            "",
        ] {
            assert!(!allow(&hosts, url), "{url}");
        }
        assert!(!allow(&[], "https://mcr.example.com/x"));
    }

    #[test]
    fn a_star_stands_for_hosts_below_and_not_for_the_domain_nor_its_neighbours() {
        let hosts = ["*.example.com"];
        assert!(allow(&hosts, "https://a.example.com/x") && allow(&hosts, "https://a.b.example.com/x"));
        for url in ["https://example.com/x", "https://badexample.com/x", "https://.example.com/x"] {
            assert!(!allow(&hosts, url), "{url}");
        }
    }

    #[test]
    fn an_address_in_another_spelling_is_the_same_address() {
        assert!(allow(&["127.0.0.1"], "https://0x7f.1/x"));
        assert!(!allow(&["mcr.example.com"], "https://0x7f.1/x"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for host in
            ["", "https://", "ftp://x", "x/y", "x?y", "u@x", "*.*", "a*", "*.127.0.0.1", "x:y", "x:99999"]
        {
            assert!(AllowedHost::parse(host).is_err(), "{host}");
        }
    }
}
