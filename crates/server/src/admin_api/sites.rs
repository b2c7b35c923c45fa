//! `site add`, `join`, `list`, `show`, `remove`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use twinport_geo::{AddSite, JoinOptions, JoinToken, PrimaryAddress, SitesStatus};
use twinport_metadata::Actor;

use super::{
    answer::Failed,
    asked::Asked,
    types::{AddSiteRequest, AddedSite, JoinSiteRequest, JoinedSite, OwnSite, RemovedSite},
};
use crate::audit::Change;
use crate::site::{RunningSite, root};

type Site = State<Arc<RunningSite>>;

/// Who acts through the socket: whoever may open it.
pub(super) fn operator() -> Actor {
    Actor { name: "operator".to_owned(), correlation: None }
}

pub(super) async fn own(State(site): Site) -> Result<Json<OwnSite>, Failed> {
    Ok(Json(describe(&site).await?))
}

pub(super) async fn describe(site: &RunningSite) -> Result<OwnSite, Failed> {
    let own = site.metadata.site().await?;
    Ok(OwnSite {
        name: own.name,
        role: own.role.to_string(),
        url: site.url_for_sites(),
        pid: std::process::id(),
        data_dir: site.config.data.display().to_string(),
        incarnation: own.incarnation.to_string(),
        federation: own.federation.to_string(),
        database: site.metadata.backend().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        primary_name: own.primary_name,
        primary_url: own.primary_url.map(|url| PrimaryAddress::shown(&url).to_owned()),
        halted: own.halted,
    })
}

pub(super) async fn list(State(site): Site) -> Result<Json<SitesStatus>, Failed> {
    Ok(Json(SitesStatus::read(&site.metadata).await?))
}

pub(super) async fn add(
    State(site): Site,
    asked: Asked,
    request: Result<Json<AddSiteRequest>, JsonRejection>,
) -> Result<Json<AddedSite>, Failed> {
    let Json(request) = request?;
    let primary_url = request.url.unwrap_or_else(|| site.url_for_sites());
    let tls_pin = if request.no_pin { None } else { site.pin_at(&primary_url).await? };
    let add = AddSite {
        name: request.name,
        own_name: request.own_name,
        primary_url,
        tls_pin,
        lifetime: request.lifetime_seconds.map(Duration::from_secs),
    };
    let token = site.registrar.add(add).await?;
    asked.record(Change::SiteAdd, &token.site);
    Ok(Json(AddedSite {
        token: token.to_string(),
        tls_pin: token.tls_pin.map(|pin| pin.to_string()),
        site: token.site,
        primary_name: token.primary_name,
        primary_url: token.primary_url,
        expires_at_us: token.expires_at_us,
    }))
}

pub(super) async fn join(
    State(site): Site,
    asked: Asked,
    request: Result<Json<JoinSiteRequest>, JsonRejection>,
) -> Result<Json<JoinedSite>, Failed> {
    let Json(request) = request?;
    let token: JoinToken = request.token.parse()?;
    let options = JoinOptions {
        configured_name: site.config.geo.site.clone(),
        external_url: root(&site.config),
        internal_url: Some(site.url_for_sites()),
    };
    let joined = twinport_geo::join(&site.metadata, &site.blobs, &token, &options).await?;
    site.replication.start_if_secondary().await?;
    asked.record(Change::SiteJoin, &joined.site);
    tracing::info!(site = %joined.site, primary = %joined.primary_name, "joined");
    Ok(Json(JoinedSite {
        site: joined.site,
        primary_name: joined.primary_name,
        primary_url: joined.primary_url,
        following: site.replication.is_enabled(),
    }))
}

pub(super) async fn remove(
    State(site): Site,
    asked: Asked,
    Path(name): Path<String>,
) -> Result<Json<RemovedSite>, Failed> {
    let Some(removed) = site.registrar.remove(&name, &operator()).await? else {
        return Err(Failed::not_found(format!(
            "no joined site is called {name}: `twinport site list` shows those that are"
        )));
    };
    asked.record(Change::SiteRemove, &removed.name);
    tracing::info!(site = %removed.name, incarnation = %removed.incarnation, "removed a site");
    Ok(Json(RemovedSite { site: removed.name, incarnation: removed.incarnation.to_string() }))
}
