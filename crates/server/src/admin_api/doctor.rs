//! `doctor`: looks at configuration, storage, database, peers and clocks, and says what to do where something is not well.

use std::{path::PathBuf, sync::Arc};

use axum::{Json, extract::State};
use twinport_geo::{SiteStanding, SitesStatus};
use twinport_metadata::{Role, SiteState};

use super::{
    answer::Failed,
    types::{Check, Examination, ReplicationStatus, Verdict},
};
use crate::{
    config::{BlobPlace, DatabaseConfig},
    data_directory,
    site::RunningSite,
};

/// Below this much free space (bytes), or this share, a warning is due.
const LITTLE_SPACE: u64 = 1 << 30;
const LITTLE_SHARE: u64 = 20;
/// A site that reports every second and was not heard of for this long (µs) is out of reach.
const SILENCE_US: i64 = 30_000_000;
/// Clocks further apart than this (µs) get a warning; sixty seconds end the trust between sites.
const SKEW_US: i64 = 5_000_000;

pub(super) async fn examine(State(site): State<Arc<RunningSite>>) -> Result<Json<Examination>, Failed> {
    let mut checks = config(&site);
    checks.extend(storage(&site).await);
    checks.extend(database(&site).await);
    let (peers, clocks) = peers(&site).await;
    checks.extend(peers);
    checks.extend(clocks);
    Ok(Json(Examination { checks }))
}

fn check(area: &str, verdict: Verdict, message: impl Into<String>) -> Check {
    Check { area: area.to_owned(), verdict, message: message.into() }
}

fn config(site: &RunningSite) -> Vec<Check> {
    let from = match &site.config.file {
        Some(file) => format!("read from {}", file.display()),
        None => "defaults, as no file was given".to_owned(),
    };
    let mut checks = vec![check("config", Verdict::Ok, from)];
    checks.extend(site.config.warnings.iter().map(|warning| check("config", Verdict::Warning, warning)));
    checks
}

async fn storage(site: &RunningSite) -> Vec<Check> {
    let mut checks = vec![match &site.config.storage.blobs {
        BlobPlace::Directory(root) => room(root.clone()).await,
        BlobPlace::Bucket(_) => bucket(site).await,
    }];
    let marker = site.blobs.incarnation().await;
    let own = site.metadata.site().await;
    checks.push(match (marker, own) {
        (Ok(Some(marker)), Ok(own)) if marker == own.incarnation.0 => {
            check("storage", Verdict::Ok, "blob store and database belong together")
        }
        (Ok(marker), Ok(own)) => {
            let marker = marker.map_or_else(|| "missing".to_owned(), |marker| marker.to_string());
            let message = format!(
                "the blob store's marker is {marker}, the database says {}: one of them was exchanged, stop this site",
                own.incarnation
            );
            check("storage", Verdict::Failed, message)
        }
        (Err(error), _) => check("storage", Verdict::Failed, error.to_string()),
        (_, Err(error)) => check("storage", Verdict::Failed, error.to_string()),
    });
    checks
}

async fn room(root: PathBuf) -> Check {
    let shown = root.display().to_string();
    match tokio::task::spawn_blocking(move || data_directory::space(&root)).await {
        Ok(Ok((free, total))) => {
            let little = free < LITTLE_SPACE || free.saturating_mul(LITTLE_SHARE) < total;
            let figures = format!("{} MiB of {} MiB free in {shown}", free >> 20, total >> 20);
            if little {
                let message = format!("{figures}: pushes fail when it is full, free some space");
                check("storage", Verdict::Warning, message)
            } else {
                check("storage", Verdict::Ok, figures)
            }
        }
        Ok(Err(error)) => check("storage", Verdict::Failed, format!("{shown}: {error}")),
        Err(error) => check("storage", Verdict::Failed, error.to_string()),
    }
}

async fn bucket(site: &RunningSite) -> Check {
    let place = &site.config.storage.blobs;
    match site.blobs.examine().await {
        Ok(()) => check("storage", Verdict::Ok, format!("{place} can be listed, written and read")),
        Err(error) => check("storage", Verdict::Failed, error.to_string()),
    }
}

async fn database(site: &RunningSite) -> Vec<Check> {
    let place = match &site.config.database {
        DatabaseConfig::Embedded => "SQLite in the data directory".to_owned(),
        DatabaseConfig::Postgres { host, port, dbname, .. } => {
            format!("PostgreSQL, {dbname} at {host}:{port}")
        }
    };
    let answered = match site.metadata.schema().await {
        Ok((schema, _)) => check("database", Verdict::Ok, format!("{place}, schema {schema}")),
        Err(error) => check("database", Verdict::Failed, format!("{place}: {error}")),
    };
    let mut checks = vec![answered];
    if let Ok(own) = site.metadata.site().await
        && let Some(reason) = own.halted
    {
        checks.push(check("database", Verdict::Failed, format!("writes are stopped: {reason}")));
    }
    checks
}

/// What is known of the other sites, and of their clocks.
async fn peers(site: &RunningSite) -> (Vec<Check>, Vec<Check>) {
    let (own, status) = match (site.metadata.site().await, SitesStatus::read(&site.metadata).await) {
        (Ok(own), Ok(status)) => (own, status),
        (Err(error), _) => return (vec![check("peers", Verdict::Failed, error.to_string())], Vec::new()),
        (_, Err(error)) => return (vec![check("peers", Verdict::Failed, error.to_string())], Vec::new()),
    };
    if own.role == Role::Secondary {
        let primary = own.primary_name.as_deref().unwrap_or("the primary");
        return followed(primary, site.replication.status().await);
    }
    let joined: Vec<&SiteStanding> =
        status.sites.iter().filter(|standing| standing.site.state == SiteState::Joined).collect();
    if joined.is_empty() {
        let alone = "no other site has joined: `twinport site add NAME` invites one";
        return (
            vec![check("peers", Verdict::Ok, alone)],
            vec![check("clocks", Verdict::Ok, "no other clock to compare")],
        );
    }
    let peers = joined.iter().map(|standing| heard_of(standing)).collect();
    let clocks = "secondaries compare their clocks with this one: run doctor there";
    (peers, vec![check("clocks", Verdict::Ok, clocks)])
}

fn heard_of(standing: &SiteStanding) -> Check {
    let name = &standing.site.name;
    match standing.heard_ago_us {
        None => {
            check("peers", Verdict::Warning, format!("{name} joined and has never reported: is it running?"))
        }
        Some(ago) if ago > SILENCE_US => {
            let message = format!(
                "{name} was last heard of {} s ago: is it running, and can it reach this site?",
                ago / 1_000_000
            );
            check("peers", Verdict::Failed, message)
        }
        Some(ago) => {
            let behind =
                standing.behind_events.map_or_else(String::new, |behind| format!(", {behind} events behind"));
            check("peers", Verdict::Ok, format!("{name} was heard of {} ms ago{behind}", ago / 1000))
        }
    }
}

/// A secondary's own view: whether it follows, and how its clock compares.
fn followed(primary: &str, status: Option<ReplicationStatus>) -> (Vec<Check>, Vec<Check>) {
    let Some(status) = status else {
        let message = format!("{primary} is not followed: restart this site");
        return (vec![check("peers", Verdict::Failed, message)], Vec::new());
    };
    let problem = status.problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
    let behind = status.lag_events.map_or_else(String::new, |events| format!(", {events} events behind"));
    let follows = match status.state.as_str() {
        "connected" => check("peers", Verdict::Ok, format!("follows {primary}{behind}{problem}")),
        "disabled" => check(
            "peers",
            Verdict::Warning,
            "replication is switched off: set geo.replication.enabled".to_owned(),
        ),
        state => check("peers", Verdict::Failed, format!("{state}, {primary} is not followed{problem}")),
    };
    let failed = status.items.failed + status.repositories.failed;
    let mut peers = vec![follows];
    if failed > 0 {
        let message = format!("{failed} items failed to replicate: they are tried again, the log says why");
        peers.push(check("peers", Verdict::Warning, message));
    }
    (peers, vec![clock(primary, status.clock_ahead_us)])
}

fn clock(primary: &str, ahead_us: Option<i64>) -> Check {
    let Some(ahead_us) = ahead_us else {
        return check(
            "clocks",
            Verdict::Warning,
            format!("{primary}'s clock is not known before it was heard of"),
        );
    };
    let seconds = ahead_us.unsigned_abs() as f64 / 1e6;
    let side = if ahead_us < 0 { "behind" } else { "ahead of" };
    let figures = format!("this clock is {seconds:.3} s {side} {primary}'s");
    if ahead_us.abs() > SKEW_US {
        let message = format!("{figures}: at 60 s sites stop trusting each other, run NTP on both");
        return check("clocks", Verdict::Warning, message);
    }
    check("clocks", Verdict::Ok, figures)
}
