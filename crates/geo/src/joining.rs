//! The new site's side of a join: a token in, a secondary of that primary out.
//! Invariant: nothing of this site changes unless the primary admitted it, and a site that holds anything never joins.

use std::time::Duration;

use reqwest::Client;
use twinport_blobs::Blobs;
use twinport_metadata::{BecomeSecondary, LogHead, Metadata, Role, Site};
use url::Url;

use crate::{
    Error, JoinToken, PrimaryAddress, Result, SiteKey,
    protocol::{CLOCK_TOLERANCE_US, JoinRequest, JoinResponse, Versions, paths},
    upstream::{client, refusal, unreachable},
};

const ANSWER: Duration = Duration::from_secs(60);

/// What a join needs besides the token.
#[derive(Clone, Debug, Default)]
pub struct JoinOptions {
    /// The name this site is configured with, if it is; it must be the token's.
    pub configured_name: Option<String>,
    /// Where clients reach this site.
    pub external_url: Option<String>,
    /// Where other sites reach this site, where they can.
    pub internal_url: Option<String>,
}

/// What came of a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub site: String,
    pub primary_name: String,
    pub primary_url: String,
    /// The primary's log at the join: what is before it is backfilled.
    pub head_seq: i64,
}

/// Joins the federation that `token` is for. Afterwards this site is a secondary, and its engine can be started.
///
/// # Errors
/// [`Error::Refused`] in the primary's words; [`Error::Stopped`] where this site may not join, or not that primary;
/// [`Error::Unreachable`]. The token is spent only once the primary admitted the site.
pub async fn join(
    metadata: &Metadata,
    blobs: &Blobs,
    token: &JoinToken,
    options: &JoinOptions,
) -> Result<Joined> {
    let site = joinable(metadata, blobs, token, options).await?;
    let primary = PrimaryAddress::checked(&token.primary_url, token.tls_pin)?;
    let mut request = join_request(&site, token, options, metadata.clock().now_us())?;
    request.token_keys = metadata.token_keys().await?.into_iter().map(|key| key.public).collect();
    let response = ask(&client(primary.pin)?, &primary.url, &request).await?;
    accept(metadata, token, options, response).await
}

/// Checks that this site can become a secondary, before anything is sent.
async fn joinable(
    metadata: &Metadata,
    blobs: &Blobs,
    token: &JoinToken,
    options: &JoinOptions,
) -> Result<Site> {
    let site = metadata.site().await?;
    if site.role == Role::Secondary {
        let primary = site.primary_name.unwrap_or_else(|| "(unnamed)".to_owned());
        return Err(Error::Stopped(format!("this site follows {primary} already")));
    }
    for name in [&site.name, &options.configured_name].into_iter().flatten() {
        if *name != token.site {
            return Err(Error::Stopped(format!(
                "the join token is for a site called {}, and this one is called {name}: make a token for {name}",
                token.site
            )));
        }
    }
    if metadata.holds_anything().await? {
        return Err(Error::Stopped(
            "this site holds repositories or history of its own, which a join would hide: start it with an empty \
             data directory and an empty database"
                .to_owned(),
        ));
    }
    check_marker(&site, blobs).await?;
    Ok(site)
}

/// Refuses a database and a blob store that do not belong together (hazard R26).
pub(crate) async fn check_marker(site: &Site, blobs: &Blobs) -> Result<()> {
    match blobs.incarnation().await? {
        Some(marker) if marker == site.incarnation.0 => Ok(()),
        Some(marker) => Err(Error::Stopped(format!(
            "the database is of incarnation {} and the blob store of {marker}: one of the two was restored or swapped. \
             Put back the pair that belongs together",
            site.incarnation
        ))),
        None => Err(Error::Stopped(format!(
            "the blob store carries no incarnation, and the database is of {}: start the server once on this pair, or \
             put back the blob store that belongs to it",
            site.incarnation
        ))),
    }
}

/// The request that proves who this site is.
///
/// # Errors
/// [`Error::Key`] where the site's own key cannot be used.
pub fn join_request(
    site: &Site,
    token: &JoinToken,
    options: &JoinOptions,
    clock_us: i64,
) -> Result<JoinRequest> {
    let key = SiteKey::from_bytes(&site.signing_key)?;
    let mut request = JoinRequest {
        token_id: token.id,
        secret: token.secret.clone(),
        site: token.site.clone(),
        incarnation: site.incarnation,
        public_key: key.public_key().to_vec(),
        external_url: options.external_url.clone(),
        internal_url: options.internal_url.clone(),
        versions: Versions::OURS,
        clock_us,
        token_keys: Vec::new(),
        proof: Vec::new(),
    };
    request.proof = key.sign(&request.proof_message());
    Ok(request)
}

async fn ask(client: &Client, url: &Url, request: &JoinRequest) -> Result<JoinResponse> {
    let base = url.as_str().trim_end_matches('/');
    let sent = client.post(format!("{base}{}", paths::JOIN)).timeout(ANSWER).json(request).send().await;
    let response = sent.map_err(|error| unreachable(base, &error))?;
    if !response.status().is_success() {
        return Err(refusal(base, response).await);
    }
    response
        .json()
        .await
        .map_err(|error| Error::Protocol(format!("the answer to the join cannot be read: {error}")))
}

/// Becomes what the primary's answer says.
///
/// # Errors
/// [`Error::Protocol`] for an answer that contradicts the token; clocks too far apart; versions too far apart.
pub async fn accept(
    metadata: &Metadata,
    token: &JoinToken,
    options: &JoinOptions,
    response: JoinResponse,
) -> Result<Joined> {
    if response.federation != token.federation || response.primary.name != token.primary_name {
        return Err(Error::Protocol(format!(
            "{} answered as {} of federation {}, and the token is of {} of {}",
            token.primary_url,
            response.primary.name,
            response.federation,
            token.primary_name,
            token.federation
        )));
    }
    response.versions.check()?;
    let now_us = metadata.clock().now_us();
    if now_us.abs_diff(response.clock_us) > CLOCK_TOLERANCE_US.unsigned_abs() {
        return Err(Error::Stopped(format!(
            "the clocks differ by {} s (this site {now_us} µs, primary {} µs since 1970): set them, remove this site at \
             the primary, and join with another token",
            now_us.abs_diff(response.clock_us) / 1_000_000,
            response.clock_us
        )));
    }
    let head = LogHead::from(response.head);
    if !response
        .epochs
        .iter()
        .any(|line| line.number == response.head.number && line.owner == response.head.owner)
    {
        return Err(Error::Protocol("the primary's epoch history does not hold its own epoch".to_owned()));
    }
    metadata
        .become_secondary(BecomeSecondary {
            name: token.site.clone(),
            federation: response.federation,
            primary_name: response.primary.name.clone(),
            primary_url: PrimaryAddress::stored(&token.primary_url, token.tls_pin),
            primary_key: response.primary.public_key.into(),
            primary_incarnation: response.primary.incarnation,
            epochs: response.epochs.into_iter().map(Into::into).collect(),
            head,
        })
        .await?;
    metadata.set_urls(options.external_url.as_deref(), options.internal_url.as_deref()).await?;
    metadata.learn_sites(response.sites, head.position).await?;
    Ok(Joined {
        site: token.site.clone(),
        primary_name: response.primary.name,
        primary_url: token.primary_url.clone(),
        head_seq: head.position.seq,
    })
}
