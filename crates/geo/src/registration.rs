//! The primary's side of membership: making join tokens, admitting sites, removing them.
//!
//! **Architecture invariant:** a site is admitted only with an unused token of its name and proof that it holds its key.

use std::time::Duration;

use subtle::ConstantTimeEq as _;
use twinport_metadata::{Actor, Admission, JoinTokenRecord, Metadata, NewSite, Role, SiteRecord, SiteState};
use url::Url;
use uuid::Uuid;

use crate::{
    Error, Feed, JoinToken, PrimaryAddress, Refusal, RefusalCode, Result, TlsPin,
    credential::{removed, signed_by},
    feed::record_token_keys,
    protocol::{CLOCK_TOLERANCE_US, JoinRequest, JoinResponse, SiteInfo, Versions},
};

/// How long a join token is good for when nobody says otherwise.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);
const MAX_NAME_BYTES: usize = 63;

/// What `twinport site add` asks for.
#[derive(Clone, Debug)]
pub struct AddSite {
    /// The new site's name.
    pub name: String,
    /// What this site is called, where it has no name yet (`--as`).
    pub own_name: Option<String>,
    /// Where the new site reaches this one.
    pub primary_url: String,
    /// By which key the new site knows this one there; none: by the authorities that its machine trusts.
    pub tls_pin: Option<TlsPin>,
    /// How long the token is good for; an hour when none.
    pub lifetime: Option<Duration>,
}

/// Who is in the federation and who is not; cheap to clone.
#[derive(Clone)]
pub struct Registrar {
    metadata: Metadata,
    feed: Feed,
}

impl Registrar {
    /// A registrar over the sites of `metadata`; a removal ends streams of `feed`.
    #[must_use]
    pub fn new(metadata: Metadata, feed: Feed) -> Self {
        Self { metadata, feed }
    }

    /// Makes a join token for a new site. Nothing else changes; the token is the only copy of its secret.
    ///
    /// # Errors
    /// A refusal in words where this is no primary, has no name and is given none, a name is no site name or taken,
    /// or the URL is neither https nor on loopback.
    pub async fn add(&self, add: AddSite) -> Result<JoinToken> {
        check_name(&add.name)?;
        PrimaryAddress::checked(&add.primary_url, add.tls_pin)?;
        if let Some(own) = &add.own_name {
            check_name(own)?;
        }
        let mut own = self.metadata.site().await?;
        if own.role == Role::Primary
            && let (None, Some(name)) = (&own.name, &add.own_name)
        {
            self.metadata.name_site(name).await?;
            own = self.metadata.site().await?;
        }
        let primary_name = match (own.name, add.own_name) {
            (Some(name), Some(asked)) if name != asked => {
                return Err(stopped(format!("this site is called {name} already: leave out `--as {asked}`")));
            }
            (Some(name), _) => name,
            (None, _) => {
                return Err(stopped(format!(
                    "this site has no name yet: add `--as NAME`, its location, as in `twinport site add {} --as paris`",
                    add.name
                )));
            }
        };
        let secret = JoinToken::fresh_secret();
        let lifetime = add.lifetime.unwrap_or(TOKEN_LIFETIME);
        let lifetime_us = i64::try_from(lifetime.as_micros()).unwrap_or(i64::MAX);
        let expires_at_us = self.metadata.clock().now_us().saturating_add(lifetime_us);
        let record = JoinTokenRecord {
            id: Uuid::new_v4(),
            secret_hash: JoinToken::secret_hash(&secret),
            site: add.name.clone(),
            expires_at_us,
            used_at_us: None,
        };
        let id = record.id;
        self.metadata.create_join_token(record).await?;
        Ok(JoinToken {
            site: add.name,
            primary_name,
            primary_url: add.primary_url,
            tls_pin: add.tls_pin,
            federation: own.federation,
            id,
            secret,
            expires_at_us,
        })
    }

    /// Admits the site that asks, and tells it what it must know to follow.
    ///
    /// # Errors
    /// [`Error::Refused`] with `UPGRADE`, `TOKEN_INVALID`, `TOKEN_USED`, `TOKEN_EXPIRED`, `PROOF_INVALID`,
    /// `CLOCK_SKEW`, `SITE_EXISTS` or `SITE_REMOVED`; nothing has changed then.
    pub async fn join(&self, request: JoinRequest) -> Result<JoinResponse> {
        request.versions.check()?;
        let token = self.metadata.join_token(request.token_id).await?;
        // An unknown token costs the same as a wrong secret, and is answered the same.
        let kept = token.as_ref().map_or([0; 32], |token| token.secret_hash);
        let secret_matches: bool = JoinToken::secret_hash(&request.secret).ct_eq(&kept).into();
        let Some(token) = token.filter(|token| secret_matches && token.site == request.site) else {
            return Err(refuse(
                RefusalCode::TokenInvalid,
                "the join token is not one of this site, or is for another name: make one with `twinport site add`",
            ));
        };
        if token.used_at_us.is_some() {
            return Err(used(&token.site));
        }
        if request.public_key.len() != 32
            || !signed_by(&request.public_key, &request.proof_message(), &request.proof)
        {
            return Err(refuse(
                RefusalCode::ProofInvalid,
                "the join does not prove that the site holds its key",
            ));
        }
        let now_us = self.metadata.clock().now_us();
        if now_us.abs_diff(request.clock_us) > CLOCK_TOLERANCE_US.unsigned_abs() {
            return Err(Refusal::new(
                RefusalCode::ClockSkew,
                format!(
                    "the clocks differ by {} s (primary {now_us} µs, joining site {} µs since 1970): set them, then join \
                     again with the same token",
                    now_us.abs_diff(request.clock_us) / 1_000_000,
                    request.clock_us
                ),
            )
            .with_detail(serde_json::json!({ "primary_clock_us": now_us, "site_clock_us": request.clock_us }))
            .into());
        }
        let token_keys = request.token_keys;
        let new = NewSite {
            token: token.id,
            name: request.site,
            incarnation: request.incarnation,
            public_key: request.public_key,
            external_url: request.external_url,
            internal_url: request.internal_url,
            protocol: request.versions.protocol,
        };
        match self.metadata.admit_site(new).await? {
            Admission::Admitted(site) => {
                record_token_keys(&self.metadata, &site, token_keys).await;
                tracing::info!(site = %site.name, incarnation = %site.incarnation, "a site joined");
                self.welcome().await
            }
            Admission::TokenUnknown => {
                Err(refuse(RefusalCode::TokenInvalid, "the join token is no longer known here"))
            }
            Admission::TokenUsed => Err(used(&token.site)),
            Admission::TokenExpired => Err(refuse(
                RefusalCode::TokenExpired,
                format!("the join token has expired: make another with `twinport site add {}`", token.site),
            )),
            Admission::NameTaken => Err(refuse(
                RefusalCode::SiteExists,
                format!(
                    "a site called {0} has joined already: remove it first with `twinport site remove {0}`",
                    token.site
                ),
            )),
            Admission::Known(site) if site.state == SiteState::Removed => Err(removed(&site)),
            Admission::Known(site) => Err(refuse(
                RefusalCode::SiteExists,
                format!(
                    "this data directory has joined as {} already: start the new site with an empty one",
                    site.name
                ),
            )),
        }
    }

    /// Removes a joined site for ever, and ends its streams; what it was, or `None` where no such site is joined.
    ///
    /// # Errors
    /// Where this site may not write.
    pub async fn remove(&self, name: &str, actor: &Actor) -> Result<Option<SiteRecord>> {
        let site = self.metadata.remove_site(name, actor).await?;
        if let Some(site) = &site {
            self.feed.end(site.incarnation);
            tracing::info!(site = %site.name, incarnation = %site.incarnation, "a site was removed");
        }
        Ok(site)
    }

    async fn welcome(&self) -> Result<JoinResponse> {
        let own = self.metadata.site().await?;
        // Begun after the admission committed, so the head has the join in it.
        let head = self.metadata.sequence_now().await?;
        let epochs = self.metadata.epochs().await?;
        let sites = self.metadata.sites().await?;
        Ok(JoinResponse {
            federation: own.federation,
            primary: SiteInfo {
                name: own.name.unwrap_or_default(),
                incarnation: own.incarnation,
                public_key: own.public_key.to_vec(),
                internal_url: own.internal_url,
            },
            versions: Versions::OURS,
            epochs: epochs.into_iter().map(Into::into).collect(),
            head: head.into(),
            sites,
            clock_us: self.metadata.clock().now_us(),
        })
    }
}

/// Checks a site name: lower-case letters, digits and hyphens, at most 63, beginning with a letter.
///
/// # Errors
/// [`Error::Stopped`] says what a name may be.
pub fn check_name(name: &str) -> Result<()> {
    let shaped = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if shaped && begins && name.len() <= MAX_NAME_BYTES && !name.ends_with('-') {
        return Ok(());
    }
    Err(stopped(format!(
        "{name:?} is no site name: use its location, up to {MAX_NAME_BYTES} lower-case letters, digits and hyphens, \
         beginning with a letter"
    )))
}

/// Checks the address at which a secondary reaches its primary: https, or http on loopback.
///
/// # Errors
/// [`Error::Stopped`] says what is wrong with it. Without TLS, whoever sits in between could read every credential.
pub fn check_primary_url(text: &str) -> Result<Url> {
    let url = Url::parse(text)
        .map_err(|error| stopped(format!("{text:?} is no URL ({error}): use https://HOST:PORT")))?;
    let loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.query().is_some() || url.fragment().is_some() {
        return Err(stopped(format!("{text} has more than a host and a path: use https://HOST:PORT")));
    }
    match url.scheme() {
        "https" if url.host().is_some() => Ok(url),
        "http" if loopback => Ok(url),
        "http" => Err(stopped(format!(
            "{text} is not encrypted, and not on loopback: give the primary TLS and use https"
        ))),
        _ => Err(stopped(format!("{text} is no address of a site: use https://HOST:PORT"))),
    }
}

fn used(site: &str) -> Error {
    refuse(
        RefusalCode::TokenUsed,
        format!(
            "the join token was used already: if that was not you, remove the site with `twinport site remove {site}`; \
             then make another token"
        ),
    )
}

fn stopped(message: String) -> Error {
    Error::Stopped(message)
}

fn refuse(code: RefusalCode, message: impl Into<String>) -> Error {
    Refusal::new(code, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_name_is_a_location() {
        for good in ["paris", "eu-west-1", "a"] {
            check_name(good).unwrap();
        }
        for bad in ["", "Paris", "1a", "-a", "a-", "a b", "a/b", "ä", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a8_without_tls_a_primary_is_reached_on_loopback_only() {
        for good in [
            "http://127.0.0.1:5000",
            "http://[::1]:5000",
            "http://localhost:5000",
            "https://paris.example.com",
        ] {
            check_primary_url(good).unwrap();
        }
        for bad in [
            "http://10.0.0.1:5000",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://127.0.0.1@evil.example.com",
            "file:///etc/passwd",
            "unix:/run/x",
            "https://paris.example.com/?a=b",
            "https://paris.example.com/#a",
            "paris",
        ] {
            assert!(check_primary_url(bad).is_err(), "{bad}");
        }
    }
}
