//! Talks to the site that runs on a data directory, through the unix socket in it.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use reqwest::{Method, Response};
use serde::{Serialize, de::DeserializeOwned};
use twinport_server::{AdminSocket, Config, ConfigSource, admin::Failure};

use crate::arguments::SiteChoice;

/// Most commands are answered at once; a join asks another site first.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection to a running site.
pub(crate) struct AdminClient {
    http: reqwest::Client,
    data: PathBuf,
    /// Keeps the short path of a deep directory meaning it.
    _socket: AdminSocket,
}

impl AdminClient {
    /// The site that the arguments choose.
    pub(crate) fn choose(choice: &SiteChoice) -> anyhow::Result<Self> {
        Self::at(&data_directory(choice)?)
    }

    /// The site with this data directory.
    pub(crate) fn at(data: &Path) -> anyhow::Result<Self> {
        let socket = AdminSocket::of(data).with_context(|| absent(data))?;
        if let Err(error) = std::fs::metadata(socket.path()) {
            return Err(match error.kind() {
                io::ErrorKind::NotFound => anyhow!(absent(data)),
                io::ErrorKind::PermissionDenied => anyhow!(closed(data)),
                _ => anyhow!(error).context(absent(data)),
            });
        }
        let http = reqwest::Client::builder().unix_socket(socket.path()).build()?;
        Ok(Self { http, data: data.to_owned(), _socket: socket })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        read(self.send::<()>(Method::GET, path, None).await?).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        read(self.send(Method::POST, path, Some(body)).await?).await
    }

    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        read(self.send(Method::PUT, path, Some(body)).await?).await
    }

    pub(crate) async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        read(self.send(Method::PATCH, path, Some(body)).await?).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        read(self.send::<()>(Method::DELETE, path, None).await?).await
    }

    /// For answers without a body.
    pub(crate) async fn order<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> anyhow::Result<()> {
        self.send(method, path, body).await.map(drop)
    }

    /// For answers that come line by line, for as long as it takes.
    pub(crate) async fn stream(&self, path: &str) -> anyhow::Result<Response> {
        let request = self.http.post(url(path));
        self.checked(request.send().await).await
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> anyhow::Result<Response> {
        let mut request = self.http.request(method, url(path)).timeout(PATIENCE);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.checked(request.send().await).await
    }

    async fn checked(&self, sent: reqwest::Result<Response>) -> anyhow::Result<Response> {
        let response = sent.map_err(|error| self.unsent(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let reason =
            serde_json::from_str::<Failure>(&text).ok().and_then(|failure| failure.errors.into_iter().next());
        Err(match reason {
            Some(entry) => anyhow!(entry.message),
            None => anyhow!("the site answered {status}: {}", text.trim()),
        })
    }

    fn unsent(&self, error: &reqwest::Error) -> anyhow::Error {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                match io.kind() {
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                        return anyhow!(absent(&self.data));
                    }
                    io::ErrorKind::PermissionDenied => return anyhow!(closed(&self.data)),
                    _ => {}
                }
            }
            cause = inner.source();
        }
        if error.is_timeout() {
            return anyhow!(
                "the site in {} did not answer within {} s",
                self.data.display(),
                PATIENCE.as_secs()
            );
        }
        anyhow!("the site in {} broke the connection: is it shutting down?", self.data.display())
    }
}

/// The data directory of the site that the arguments choose.
pub(crate) fn data_directory(choice: &SiteChoice) -> anyhow::Result<PathBuf> {
    if let Some(data) = &choice.data {
        return Ok(data.clone());
    }
    Ok(load(choice, None, true)?.data)
}

/// The configuration that `serve` would run with.
pub(crate) fn load(choice: &SiteChoice, addr: Option<String>, lenient: bool) -> anyhow::Result<Config> {
    Ok(Config::load(&source(choice, addr, lenient))?)
}

/// Where the configuration of `serve` comes from.
pub(crate) fn source(choice: &SiteChoice, addr: Option<String>, lenient: bool) -> ConfigSource {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    ConfigSource { file: choice.config.clone(), data: choice.data.clone(), addr, lenient, environment }
}

fn absent(data: &Path) -> String {
    format!(
        "no site is running with the data directory {}: start it with `twinport serve --data {0}`, or choose another with \
         --data or --config",
        data.display()
    )
}

fn closed(data: &Path) -> String {
    format!(
        "the data directory {} belongs to another user: run the command as its owner, or as root",
        data.display()
    )
}

/// The host is not looked at: the socket decides where it goes.
fn url(path: &str) -> String {
    format!("http://localhost{path}")
}

async fn read<T: DeserializeOwned>(response: Response) -> anyhow::Result<T> {
    let bytes = response.bytes().await.context("the site's answer broke off")?;
    serde_json::from_slice(&bytes)
        .context("the site's answer cannot be read: is it of another version than this binary?")
}
