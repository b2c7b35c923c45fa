//! A platform that signs what its jobs sign in with, as GitHub Actions does: a key, and its public half in a JWKS file.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tempfile::TempDir;
use twinport_access::jwt::{Names, SigningPair};

pub(crate) const ISSUER: &str = "https://ci.example.com";
const LIFETIME_S: i64 = 300;

pub(crate) struct Platform {
    pair: SigningPair,
    directory: TempDir,
}

impl Platform {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let pair = SigningPair::from_pkcs8(&SigningPair::generate()?)?;
        let directory = tempfile::tempdir()?;
        let public = pair.public(uuid::Uuid::nil(), 0, None);
        // A byte that says uncompressed, then x and y.
        let point = URL_SAFE_NO_PAD.decode(&public.public_key)?;
        let (x, y) = point.get(1..).context("a point")?.split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": public.kid, "x": x, "y": y}]});
        std::fs::write(directory.path().join("jwks.json"), jwks.to_string())?;
        Ok(Self { pair, directory })
    }

    pub(crate) fn jwks_file(&self) -> String {
        self.directory.path().join("jwks.json").to_string_lossy().into_owned()
    }

    /// What a job of the repository acme/app is given, made so many seconds from now.
    pub(crate) fn token(&self, audience: &str, git_ref: &str, offset_s: i64) -> anyhow::Result<String> {
        let now_us = i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_micros())?;
        let names = Names { issuer: ISSUER, subject: "job", service: audience };
        let claims = [("repository", json!("acme/app")), ("ref", json!(git_ref))];
        let minted = self.pair.mint(names, &[], claims.into(), now_us + offset_s * 1_000_000, LIFETIME_S)?;
        Ok(minted.token)
    }
}
