//! Certificates for tests, made on the spot: self-signed, of an authority, expired.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// What a server on loopback is called.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub struct KeyedCertificate {
    /// The own certificate, and after it what the maker put there.
    pub certificate: String,
    pub key: String,
}

impl KeyedCertificate {
    /// For a server on loopback, signed by itself.
    ///
    /// # Errors
    /// The maker's.
    pub fn self_signed() -> anyhow::Result<Self> {
        Self::alone(server()?)
    }

    /// The same, and expired years ago.
    ///
    /// # Errors
    /// The maker's.
    pub fn expired() -> anyhow::Result<Self> {
        let mut params = server()?;
        params.not_after = date_time_ymd(2020, 1, 1);
        Self::alone(params)
    }

    fn alone(params: CertificateParams) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, key: key.serialize_pem() })
    }

    /// Writes `tls.crt` and `tls.key` into a directory; their paths.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
        let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
        std::fs::write(&certificate, &self.certificate).context("tls.crt")?;
        std::fs::write(&key, &self.key).context("tls.key")?;
        Ok((certificate, key))
    }
}

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    ///
    /// # Errors
    /// The maker's.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// For a server on loopback; the authority's certificate follows.
    ///
    /// # Errors
    /// The maker's.
    pub fn server(&self) -> anyhow::Result<KeyedCertificate> {
        let mut signed = self.sign(server()?)?;
        signed.certificate.push_str(&self.pem);
        Ok(signed)
    }

    /// For a server of this name alone.
    ///
    /// # Errors
    /// The maker's.
    pub fn server_named(&self, name: &str) -> anyhow::Result<KeyedCertificate> {
        self.sign(CertificateParams::new(vec![name.to_owned()])?)
    }

    /// For a client of this name.
    ///
    /// # Errors
    /// The maker's.
    pub fn client(&self, name: &str) -> anyhow::Result<KeyedCertificate> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> anyhow::Result<KeyedCertificate> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(KeyedCertificate { certificate, key: key.serialize_pem() })
    }
}

fn server() -> anyhow::Result<CertificateParams> {
    Ok(CertificateParams::new(LOOPBACK.map(str::to_owned).to_vec())?)
}
