//! The sections `auth` and `accounts`: one of them says by what clients are known.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::super::{
    AccountLimits, AccountsConfig, AuthConfig, HtpasswdConfig, IssuerConfig, KeySource, TokenAuthConfig,
    tree::Value,
};
use super::Reader;

/// The shortest and the longest life of a token: long enough for one push, short enough to be forgotten.
const TOKEN_LIFETIMES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

impl Reader<'_> {
    pub(super) fn auth(&mut self) -> AuthConfig {
        let alone = match self.tree.at("auth").map(|node| &node.value) {
            Some(Value::Scalar(text)) => Some(text.clone()),
            _ => None,
        };
        let none = alone.as_deref() == Some("none") || self.tree.at("auth.none").is_some();
        let [htpasswd, token] = ["htpasswd", "token"]
            .map(|name| alone.as_deref() == Some(name) || self.is_set(&format!("auth.{name}")));
        let accounts = self.boolean("accounts.enabled").unwrap_or(false);
        if !accounts && self.is_set("accounts") && self.tree.at("accounts.enabled").is_none() {
            let message =
                "accounts is set and accounts.enabled is not: say `enabled: true` to use it, or remove it";
            self.problem("accounts", message.to_owned());
        }
        if [none, htpasswd, token, accounts].into_iter().filter(|is_set| *is_set).count() > 1 {
            let message = "clients are known in one way: keep one of auth.htpasswd, auth.token, `auth: none` and accounts";
            self.problem("auth", message.to_owned());
        }
        if accounts {
            AuthConfig::Accounts(self.accounts())
        } else if htpasswd {
            AuthConfig::Htpasswd(HtpasswdConfig {
                realm: self.text("auth.htpasswd.realm").unwrap_or_else(|| "registry".to_owned()),
                file: self.required("auth.htpasswd.path", "the file of users and their hashes").into(),
            })
        } else if token {
            self.token().unwrap_or(AuthConfig::Open { stated: false })
        } else {
            AuthConfig::Open { stated: none }
        }
    }

    fn required(&mut self, path: &str, what: &str) -> String {
        let text = self.text(path).filter(|text| !text.is_empty());
        if text.is_none() {
            let section = path.rsplit_once('.').map_or(path, |(section, _)| section);
            self.problem(section, format!("{path} is missing: {what}"));
        }
        text.unwrap_or_default()
    }

    fn token(&mut self) -> Option<AuthConfig> {
        let realm = self.url("auth.token.realm");
        if realm.is_none() && !self.is_set("auth.token.realm") {
            self.required("auth.token.realm", "the URL where clients get their tokens");
        }
        let service = self.required("auth.token.service", "what tokens must name as their audience");
        let issuer = self.required("auth.token.issuer", "what tokens must name as their issuer");
        let mut file = |path| self.text(path).filter(|text| !text.is_empty()).map(PathBuf::from);
        let (root_cert_bundle, jwks) = (file("auth.token.rootcertbundle"), file("auth.token.jwks"));
        if root_cert_bundle.is_none() && jwks.is_none() {
            let message = "auth.token.rootcertbundle and auth.token.jwks are missing: without keys no token can be checked";
            self.problem("auth.token", message.to_owned());
        }
        let redirected = self.boolean("auth.token.autoredirect").unwrap_or(false);
        let path = self.text("auth.token.autoredirectpath").unwrap_or_else(|| "/auth/token".to_owned());
        if redirected && !path.starts_with('/') {
            self.problem("auth.token.autoredirectpath", format!("`{path}` must begin with /"));
        }
        Some(AuthConfig::Token(TokenAuthConfig {
            realm: realm?,
            service,
            issuer,
            root_cert_bundle,
            jwks,
            signing_algorithms: self.list("auth.token.signingalgorithms"),
            auto_redirect: redirected.then_some(path),
        }))
    }

    fn accounts(&mut self) -> AccountsConfig {
        let host = self.url("http.host").and_then(|url| url.host_str().map(str::to_owned));
        let (least, most) = TOKEN_LIFETIMES;
        let lifetime = self.duration("accounts.token_lifetime").unwrap_or(Duration::from_secs(300));
        if lifetime < least || lifetime > most {
            let message = "accounts.token_lifetime must be from 1m to 1h".to_owned();
            self.problem("accounts.token_lifetime", message);
        }
        AccountsConfig {
            service: self.text("accounts.service").or(host).unwrap_or_else(|| "twinport".to_owned()),
            token_lifetime: lifetime,
            issuers: self.issuers(),
            limits: AccountLimits {
                requests_per_second: self.limit("accounts.limits.requests_per_second"),
                requests_per_second_per_account: self
                    .limit("accounts.limits.requests_per_second_per_account"),
                connections_per_account: self.limit("accounts.limits.connections_per_account"),
            },
        }
    }

    fn limit(&mut self, path: &str) -> Option<NonZeroU32> {
        self.parsed(path, "a number from 1 on", |text| text.parse().ok())
    }

    fn issuers(&mut self) -> Vec<IssuerConfig> {
        const SECTION: &str = "accounts.issuers";
        let names: Vec<String> = match self.tree.at(SECTION).map(|node| &node.value) {
            Some(Value::Map(entries)) => entries.iter().map(|entry| entry.key.clone()).collect(),
            None | Some(Value::Null) => Vec::new(),
            Some(_) => {
                self.problem(SECTION, format!("{SECTION} must be a map, as in `github: {{issuer: URL}}`"));
                Vec::new()
            }
        };
        names.iter().filter_map(|name| self.issuer(SECTION, name)).collect()
    }

    fn issuer(&mut self, section: &str, name: &str) -> Option<IssuerConfig> {
        let path = |key: &str| format!("{section}.{name}.{key}");
        let name = match name.parse() {
            Ok(parsed) if !name.contains('.') => parsed,
            Ok(_) => {
                self.problem(section, format!("{section}: `{name}` must be a name without dots"));
                return None;
            }
            Err(error) => {
                self.problem(section, format!("{section}: {error}"));
                return None;
            }
        };
        let issuer = self.required(&path("issuer"), "the `iss` claim of its tokens");
        if !issuer.is_empty() {
            self.secure_url(&path("issuer"))?;
        }
        let audience = self.required(&path("audience"), "the `aud` claim that its tokens must have");
        let url = self.secure_url(&path("jwks_uri"));
        let file = self.text(&path("jwks_file")).map(PathBuf::from);
        let keys = match (url, file) {
            (None, None) => KeySource::Discovered,
            (Some(url), None) => KeySource::Url(url),
            (None, Some(file)) => KeySource::File(file),
            (Some(_), Some(_)) => {
                self.problem(section, format!("{section}: keep one of jwks_uri and jwks_file"));
                return None;
            }
        };
        Some(IssuerConfig { name, issuer, audience, keys })
    }

    /// Keys that come over plain HTTP are anybody's, unless from this machine.
    fn secure_url(&mut self, path: &str) -> Option<Url> {
        let url = self.url(path)?;
        let local = ["localhost", "127.0.0.1", "[::1]"].contains(&url.host_str().unwrap_or_default());
        if url.scheme() != "https" && !local {
            self.problem(
                path,
                format!("{path} must be https: keys that come over plain HTTP can be anybody's"),
            );
            return None;
        }
        Some(url)
    }
}
