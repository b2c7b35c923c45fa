//! What the primary knows of every site: who it is, what it last reported, how long ago.
//! Guards: a site that has not been heard of has no lag, never a lag of zero (hazard R29).

use serde::{Deserialize, Serialize};
use twinport_metadata::{Metadata, SiteRecord};

use crate::{
    Result,
    protocol::{Head, StatusReport},
};

/// This site and all others, as this site sees them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SitesStatus {
    /// None where the site was never named.
    pub name: Option<String>,
    /// `primary` or `secondary`.
    pub role: String,
    pub head: Head,
    /// Why writes are stopped here, where they are.
    pub halted: Option<String>,
    /// By this site's clock (µs since the epoch, UTC).
    pub clock_us: i64,
    /// Every site that ever joined, by name.
    pub sites: Vec<SiteStanding>,
}

/// One other site.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SiteStanding {
    pub site: SiteRecord,
    /// Its last report; none before its first.
    pub report: Option<StatusReport>,
    /// How long ago it reported (µs).
    pub heard_ago_us: Option<i64>,
    /// Events of this site's log that it has not applied, by its last report; none before its first.
    pub behind_events: Option<i64>,
}

impl SitesStatus {
    /// Reads it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn read(metadata: &Metadata) -> Result<Self> {
        let own = metadata.site().await?;
        let head = metadata.sequence_now().await?;
        let reports = metadata.reports().await?;
        let clock_us = metadata.clock().now_us();
        let sites = metadata.sites().await?.into_iter().map(|site| {
            let stored = reports.iter().find(|report| report.incarnation == site.incarnation);
            let report: Option<StatusReport> =
                stored.and_then(|stored| serde_json::from_str(&stored.report).ok());
            SiteStanding {
                heard_ago_us: stored.map(|stored| clock_us.saturating_sub(stored.reported_at_us)),
                behind_events: report.as_ref().map(|report| (head.position.seq - report.applied_seq).max(0)),
                report,
                site,
            }
        });
        Ok(Self {
            sites: sites.collect(),
            name: own.name,
            role: own.role.to_string(),
            head: head.into(),
            halted: own.halted,
            clock_us,
        })
    }
}
