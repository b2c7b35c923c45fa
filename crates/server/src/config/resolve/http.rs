//! The section `http`: where to listen, under which name, and how connections are secured.

use std::path::Path;
use std::time::Duration;

use super::super::{
    ClientAuth, DebugConfig, HttpConfig, ListenAddress, MainAddress, Namespaces, ResponseHeaders, TlsConfig,
    TlsVersion, TrustedProxies,
};
use super::{DEFAULT_ADDRESS, Reader};

impl Reader<'_> {
    pub(super) fn http(&mut self) -> HttpConfig {
        HttpConfig {
            addr: self.main_address(),
            host: self.url("http.host"),
            relative_urls: self.boolean("http.relativeurls").unwrap_or(false),
            prefix: self.prefix(),
            trusted_proxies: self.trusted_proxies(),
            headers: self.response_headers(),
            namespaces: self.namespaces(),
            drain_notice: self.duration("http.drainnotice").unwrap_or(Duration::from_millis(500)),
            drain_timeout: self.duration("http.draintimeout").unwrap_or(Duration::from_secs(30)),
            tls: self.tls(),
            debug: self.debug(),
        }
    }

    fn main_address(&mut self) -> MainAddress {
        let is_unix = self.parsed("http.net", "tcp or unix", |text| match text {
            "unix" => Some(true),
            "tcp" | "" => Some(false),
            _ => None,
        });
        if is_unix == Some(true) {
            let path =
                self.parsed("http.addr", "the absolute path of a socket file, as http.net is unix", |text| {
                    Path::new(text).is_absolute().then(|| Path::new(text).to_owned())
                });
            if path.is_none() && !self.is_set("http.addr") {
                let message = "http.addr is missing: with `net: unix` it is the path of a socket file";
                self.problem("http.net", message.to_owned());
            }
            if self.is_set("http.tls.certificate") {
                let message = "TLS is not spoken on a unix socket: remove http.tls, or `net: unix`";
                self.problem("http.tls.certificate", message.to_owned());
            }
            return MainAddress::Unix(path.unwrap_or_default());
        }
        let fallback = ListenAddress { host: "127.0.0.1".to_owned(), port: 5000 };
        let address = self.address("http.addr").or_else(|| ListenAddress::parse(DEFAULT_ADDRESS));
        MainAddress::Tcp(address.unwrap_or(fallback))
    }

    fn prefix(&mut self) -> String {
        let prefix = self.parsed("http.prefix", "a path such as /registry/", |text| {
            let path = text.trim_end_matches('/');
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
            let sound = |segment: &str| !["", ".", ".."].contains(&segment) && segment.chars().all(plain);
            let is_path =
                path.is_empty() || path.strip_prefix('/').is_some_and(|path| path.split('/').all(sound));
            is_path.then(|| path.to_owned())
        });
        prefix.unwrap_or_default()
    }

    fn trusted_proxies(&mut self) -> TrustedProxies {
        let mut trusted = TrustedProxies::default();
        for text in self.list("http.trusted_proxies") {
            if trusted.add(&text).is_none() {
                let message = format!("{text} is no address, network (10.0.0.0/8) or `unix`");
                self.problem("http.trusted_proxies", message);
            }
        }
        trusted
    }

    /// As in Distribution: a name, and a value or a list of values.
    fn response_headers(&mut self) -> ResponseHeaders {
        let mut headers = ResponseHeaders::default();
        for (name, values) in self.named("http.headers") {
            for value in values {
                if let Err(reason) = headers.add(&name, &value) {
                    self.problem("http.headers", format!("http.headers: {name}: {reason}"));
                }
            }
        }
        for warning in headers.warnings() {
            self.warning("http.headers", format!("http.headers: {warning}"));
        }
        headers
    }

    fn namespaces(&mut self) -> Namespaces {
        let mut namespaces = Namespaces::default();
        for (host, below) in self.named("http.namespaces") {
            let below = below.first().map_or("", String::as_str);
            if let Err(reason) = namespaces.add(&host, below) {
                self.problem("http.namespaces", format!("http.namespaces: {reason}"));
            }
        }
        namespaces
    }

    fn debug(&mut self) -> Option<DebugConfig> {
        let addr = self.address("http.debug.addr")?;
        let enabled = self.boolean("http.debug.prometheus.enabled").unwrap_or(false);
        let path = self.text("http.debug.prometheus.path").unwrap_or_else(|| "/metrics".to_owned());
        if enabled && (!path.starts_with('/') || path.contains(['{', '}', '*', '?', '#'])) {
            self.problem(
                "http.debug.prometheus.path",
                format!("`{path}` must be a plain path that begins with /"),
            );
        }
        Some(DebugConfig { addr, prometheus_path: enabled.then_some(path) })
    }

    fn tls(&mut self) -> Option<TlsConfig> {
        let mut file = |path| self.text(path).filter(|text| !text.is_empty());
        let (certificate, key) = (file("http.tls.certificate"), file("http.tls.key"));
        let client_cas = self.list("http.tls.clientcas").into_iter().map(Into::into).collect();
        let client_auth = self.parsed(
            "http.tls.clientauth",
            "require-and-verify-client-cert or verify-client-cert-if-given",
            ClientAuth::parse,
        );
        let minimum = self.parsed("http.tls.minimumtls", "tls1.2 or tls1.3", TlsVersion::parse);
        if let Some(old @ ("tls1.0" | "tls1.1")) = self.text("http.tls.minimumtls").as_deref() {
            let message = format!("{old} is not spoken any more: http.tls.minimumtls is taken for tls1.2");
            self.warning("http.tls.minimumtls", message);
        }
        let cipher_suites = self.list("http.tls.ciphersuites");
        for name in &cipher_suites {
            if !crate::listener::is_cipher_suite(name) {
                let message =
                    format!("{name} is not spoken here: remove it, or the whole list for all good suites");
                self.problem("http.tls.ciphersuites", message);
            }
        }
        let (Some(certificate), Some(key)) = (&certificate, &key) else {
            let other = ["certificate", "key", "clientcas", "clientauth", "minimumtls", "ciphersuites"]
                .map(|key| format!("http.tls.{key}"))
                .into_iter()
                .find(|path| self.is_set(path));
            if let Some(path) = other {
                let message = "http.tls needs both certificate and key, each the path of a PEM file";
                self.problem(&path, message.to_owned());
            }
            return None;
        };
        Some(TlsConfig {
            certificate: certificate.into(),
            key: key.into(),
            client_cas,
            client_auth: client_auth.unwrap_or_default(),
            minimum: minimum.unwrap_or_default(),
            cipher_suites,
            http2: !self.boolean("http.http2.disabled").unwrap_or(false),
        })
    }
}
