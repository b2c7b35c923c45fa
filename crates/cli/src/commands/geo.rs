//! `twinport geo status`.

use twinport_geo::SiteStanding;
use twinport_metadata::SiteState;
use twinport_server::admin::{GeoStatus, ItemCounts, ReplicationStatus};

use crate::{
    admin_client::AdminClient,
    arguments::Target,
    output::{bytes, columns, facts, or_unknown, show},
    time::span,
};

pub(super) async fn status(target: &Target) -> anyhow::Result<()> {
    let client = AdminClient::choose(&target.site)?;
    let status: GeoStatus = client.get("/api/v1/geo/status").await?;
    show(target.output, &status, text)
}

/// One site's status for people.
pub(crate) fn text(status: &GeoStatus) -> String {
    let name = status.this.name.clone().unwrap_or_else(|| "(unnamed)".to_owned());
    let mut rows = vec![
        ("site", format!("{name}, {}", status.this.role)),
        ("URL", status.this.url.clone()),
        ("last event ID", status.sites.head.seq.to_string()),
    ];
    if let Some(reason) = &status.this.halted {
        rows.push(("writes", format!("stopped: {reason}")));
    }
    if let Some(primary) = &status.this.primary_name {
        let url = status.this.primary_url.clone().unwrap_or_default();
        rows.push(("primary", format!("{primary} at {url}")));
        match &status.replication {
            Some(replication) => rows.extend(replicated(replication)),
            None => rows.push(("replication", "not running: restart this site".to_owned())),
        }
        return facts(rows);
    }
    let joined: Vec<&SiteStanding> =
        status.sites.sites.iter().filter(|standing| standing.site.state == SiteState::Joined).collect();
    if joined.is_empty() {
        rows.push(("secondaries", "none: `twinport site add NAME` invites one".to_owned()));
        return facts(rows);
    }
    format!("{}\n\n{}", facts(rows), secondaries(&joined))
}

fn replicated(status: &ReplicationStatus) -> Vec<(&'static str, String)> {
    let problem = status.problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
    let mut rows = vec![
        ("replication", format!("{}{problem}", status.state)),
        (
            "reads",
            if status.fresh {
                "fresh, at most 5 s behind".to_owned()
            } else {
                "not known to be fresh".to_owned()
            },
        ),
        ("last event ID from primary", or_unknown(status.ingested_seq)),
        ("last event ID processed", or_unknown(status.applied_seq)),
        ("lag", lag(status)),
        (
            "primary heard of",
            status.heard_ago_us.map_or_else(|| "never".to_owned(), |ago| format!("{} ago", span(ago))),
        ),
    ];
    if status.backfill_finished == Some(false) {
        rows.push(("backfill", "under way".to_owned()));
    }
    rows.push(("repositories", counts(&status.repositories)));
    rows.push(("tags and manifests", counts(&status.items)));
    rows
}

fn lag(status: &ReplicationStatus) -> String {
    let events = or_unknown(status.lag_events);
    format!(
        "{events} events, {}, {}",
        or_unknown(status.lag_bytes.map(bytes)),
        or_unknown(status.lag_us.map(span))
    )
}

fn counts(counts: &ItemCounts) -> String {
    format!(
        "{} synced, {} pending, {} started, {} failed; verification: {} succeeded, {} pending, {} failed",
        counts.synced,
        counts.pending,
        counts.started,
        counts.failed,
        counts.verification_succeeded,
        counts.verification_pending,
        counts.verification_failed,
    )
}

/// What the secondaries reported last.
fn secondaries(joined: &[&SiteStanding]) -> String {
    let rows = joined.iter().map(|standing| {
        let report = standing.report.as_ref();
        [
            standing.site.name.clone(),
            standing.heard_ago_us.map_or_else(|| "never".to_owned(), |ago| format!("{} ago", span(ago))),
            or_unknown(report.map(|report| report.ingested.seq)),
            or_unknown(report.map(|report| report.applied_seq)),
            or_unknown(standing.behind_events),
            or_unknown(report.and_then(|report| report.lag_us).map(span)),
            or_unknown(report.map(|report| report.items.failed)),
        ]
    });
    columns(["SECONDARY", "HEARD", "RECEIVED", "PROCESSED", "BEHIND", "LAG", "FAILED"], rows)
}
