//! A site with accounts, and a client of it that shows what it is told to.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use twinport_oci::Digest;
use twinport_testkit::{SiteDatabase, SiteProcess};

use super::platform::{ISSUER, Platform};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
/// How long another site may take to hear of a change, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The `Authorization` of a name and a secret.
pub(crate) fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")))
}

/// The parameter that asks for scopes.
pub(crate) fn scope(text: &str) -> String {
    let encoded: String = reqwest::Url::parse_with_params("http://x/", [("scope", text)])
        .map(|url| url.query().unwrap_or_default().to_owned())
        .unwrap_or_default();
    encoded
}

/// What a token says, unverified.
pub(crate) fn claims(token: &str) -> anyhow::Result<Value> {
    let part = token.split('.').nth(1).context("a token has three parts")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}

/// A running site whose clients are known by accounts.
pub(crate) struct AccountSite {
    name: &'static str,
    process: SiteProcess,
    client: Client,
    directory: TempDir,
}

impl AccountSite {
    pub(crate) async fn start(name: &'static str) -> anyhow::Result<Self> {
        let environment =
            [("REGISTRY_ACCOUNTS_ENABLED", "true"), ("REGISTRY_STORAGE_DELETE_ENABLED", "true")];
        Self::started(name, tempfile::tempdir()?, &environment)
    }

    /// A site where the jobs of a platform, called ci, sign in.
    pub(crate) async fn start_with_issuer(name: &'static str, platform: &Platform) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("config.yml");
        let issuer = format!("issuer: {ISSUER}, audience: registry, jwks_file: {}", platform.jwks_file());
        std::fs::write(
            &file,
            format!("version: 0.1\naccounts: {{enabled: true, issuers: {{ci: {{{issuer}}}}}}}\n"),
        )?;
        let file = file.to_str().context("UTF-8")?.to_owned();
        Self::started(name, directory, &[("REGISTRY_CONFIGURATION_PATH", &file)])
    }

    fn started(name: &'static str, directory: TempDir, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let process = SiteProcess::start_with(
            Path::new(BINARY),
            &directory.path().join(name),
            SiteDatabase::Embedded,
            environment,
        )?;
        Ok(Self { name, process, client: Client::new(), directory })
    }

    pub(crate) fn url(&self) -> String {
        self.process.url()
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Runs an operator's command, which has to succeed.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = self.process.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "twinport {}: {said}", arguments.join(" "));
        Ok(())
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        self.process.json(arguments)
    }

    fn password_file(&self, password: &str) -> anyhow::Result<String> {
        let file = self.directory.path().join("password");
        std::fs::write(&file, format!("{password}\n"))?;
        Ok(file.to_str().context("UTF-8")?.to_owned())
    }

    /// Makes a user with roles such as `writer:team/**`.
    pub(crate) fn user(&self, name: &str, password: &str, roles: &[&str]) -> anyhow::Result<()> {
        let file = self.password_file(password)?;
        let mut arguments = vec!["user", "add", name, "--password-file", &file];
        for role in roles {
            arguments.extend(["--role", role]);
        }
        self.run(&arguments)
    }

    pub(crate) fn set_password(&self, name: &str, password: &str) -> anyhow::Result<()> {
        let file = self.password_file(password)?;
        self.run(&["user", "reset-password", name, "--password-file", &file])
    }

    /// Makes `secondary` a secondary of this site.
    pub(crate) fn join(&self, secondary: &Self) -> anyhow::Result<()> {
        self.process.join(self.name, &secondary.process, secondary.name)
    }

    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
    ) -> anyhow::Result<Response> {
        let mut request = self.client.request(method, format!("{}{path}", self.url()));
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        Ok(request.send().await?)
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        content_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Response> {
        let mut request = self.client.request(method, format!("{}{path}", self.url()));
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        Ok(request.header("content-type", content_type).body(body).send().await?)
    }

    /// The answer of the token service to a query, which has to be good.
    pub(crate) async fn token(&self, query: &str, authorization: Option<&str>) -> anyhow::Result<Value> {
        let path = format!("/token?service=twinport&{query}");
        let answer = self.request(Method::GET, &path, authorization).await?;
        let status = answer.status();
        let body = answer.text().await?;
        ensure!(status == StatusCode::OK, "{status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }

    pub(crate) async fn form(&self, body: &str) -> anyhow::Result<Response> {
        let kind = "application/x-www-form-urlencoded";
        self.send(Method::POST, "/token", None, kind, body.as_bytes().to_vec()).await
    }

    /// Pushes a small image; its digest.
    pub(crate) async fn push(&self, name: &str, tag: &str, authorization: &str) -> anyhow::Result<Digest> {
        let config = Digest::sha256(b"{}");
        let upload = format!("/v2/{name}/blobs/uploads/?digest={config}");
        let octets = "application/octet-stream";
        let answer = self.send(Method::POST, &upload, Some(authorization), octets, b"{}".to_vec()).await?;
        ensure!(answer.status() == StatusCode::CREATED, "blob: {}", answer.text().await?);
        let manifest = manifest(tag);
        let answer = self.put_manifest(name, tag, authorization, &manifest).await?;
        ensure!(answer.status() == StatusCode::CREATED, "manifest: {}", answer.text().await?);
        Ok(Digest::sha256(&manifest))
    }

    pub(crate) async fn put_manifest(
        &self,
        name: &str,
        reference: &str,
        authorization: &str,
        manifest: &[u8],
    ) -> anyhow::Result<Response> {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let path = format!("/v2/{name}/manifests/{reference}");
        self.send(Method::PUT, &path, Some(authorization), kind, manifest.to_vec()).await
    }

    /// Waits until something is so.
    pub(crate) async fn wait_for(&self, so: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !so().await? {
            ensure!(Instant::now() < deadline, "not within {PATIENCE:?}; the site says:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// An image without layers; each note is another image.
pub(crate) fn manifest(note: &str) -> Vec<u8> {
    let config = Digest::sha256(b"{}");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[],"annotations":{{"note":"{note}"}}}}"#
    )
    .into_bytes()
}
