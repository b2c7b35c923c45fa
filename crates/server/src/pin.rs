//! By which key a new site is to know this one; it travels in the join token.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls_platform_verifier::Verifier;
use twinport_geo::TlsPin;
use url::{Host, Url};

use crate::site::RunningSite;

impl RunningSite {
    /// The pin of this site's certificate, where this process ends TLS at `url` and the authorities that this machine
    /// trusts do not vouch for it there. A certificate that they vouch for is renewed with a new key every few weeks.
    pub(crate) async fn pin_at(&self, url: &str) -> twinport_geo::Result<Option<TlsPin>> {
        let Some(tls) = &self.tls else { return Ok(None) };
        let Some(host) = https_host(url) else { return Ok(None) };
        let chain = tls.chain();
        let now_us = u64::try_from(self.metadata.clock().now_us()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_micros(now_us));
        let pin = TlsPin::of_chain(&chain)?;
        // Reads the machine's certificates.
        let vouched = tokio::task::spawn_blocking(move || is_vouched_for(&chain, &host, now)).await;
        Ok((!vouched.unwrap_or(false)).then_some(pin))
    }
}

/// The host of an https URL; a URL that is none is refused where the token is made.
fn https_host(url: &str) -> Option<ServerName<'static>> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "https")?;
    match url.host()? {
        Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
        Host::Ipv4(address) => Some(ServerName::IpAddress(std::net::IpAddr::V4(address).into())),
        Host::Ipv6(address) => Some(ServerName::IpAddress(std::net::IpAddr::V6(address).into())),
    }
}

fn is_vouched_for(chain: &[CertificateDer<'_>], host: &ServerName<'_>, now: UnixTime) -> bool {
    let Some((own, issuers)) = chain.split_first() else { return false };
    let provider = Arc::new(aws_lc_rs::default_provider());
    // A machine without certificates trusts nobody.
    Verifier::new(provider)
        .is_ok_and(|verifier| verifier.verify_server_cert(own, issuers, host, &[], now).is_ok())
}
