//! What each secondary last reported of itself.
//! Guards: any node of this site finds the latest nonce here, so any node's heartbeat can echo it.

use crate::{Error, Incarnation, Metadata, Result, SiteState, db::Row};

/// The last report of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReport {
    pub incarnation: Incarnation,
    pub nonce: [u8; 16],
    /// The report as JSON, as it came.
    pub report: String,
    /// µs since the epoch, UTC, by this site's clock.
    pub reported_at_us: i64,
}

/// What a log stream has to know about its reader before each heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderState {
    pub state: SiteState,
    /// The latest nonce it sent, if any.
    pub nonce: Option<[u8; 16]>,
}

impl Metadata {
    /// Replaces the report of a joined site; false where the site is not joined (any more).
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn store_report(&self, report: StoredReport) -> Result<bool> {
        const STORE: &str = "INSERT INTO site_reports (incarnation, nonce, report, reported_at_us) \
             SELECT incarnation, $2, $3, $4 \
             FROM sites WHERE incarnation = $1 AND state = 'joined' \
             ON CONFLICT (incarnation) DO UPDATE SET nonce = excluded.nonce, report = excluded.report, \
             reported_at_us = excluded.reported_at_us";
        self.db
            .write(move |tx| {
                let report = report.clone();
                Box::pin(async move {
                    let params = vec![
                        report.incarnation.into(),
                        report.nonce.as_slice().into(),
                        report.report.into(),
                        report.reported_at_us.into(),
                    ];
                    Ok(tx.execute(STORE, params).await? == 1)
                })
            })
            .await
    }

    /// The last report of every site that has sent one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn reports(&self) -> Result<Vec<StoredReport>> {
        const REPORTS: &str =
            "SELECT incarnation, nonce, report, reported_at_us FROM site_reports ORDER BY incarnation";
        self.db.query(REPORTS, vec![]).await?.iter().map(stored).collect()
    }

    /// The state of a site and its latest nonce; `None` for a site that never joined.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn reader_state(&self, incarnation: Incarnation) -> Result<Option<ReaderState>> {
        const READER: &str = "SELECT s.state, r.nonce FROM sites s \
             LEFT JOIN site_reports r ON r.incarnation = s.incarnation WHERE s.incarnation = $1";
        let Some(row) = self.db.query_opt(READER, vec![incarnation.into()]).await? else {
            return Ok(None);
        };
        let nonce = row.opt_blob(1)?.map(|bytes| nonce(&bytes)).transpose()?;
        Ok(Some(ReaderState { state: SiteState::parse(&row.text(0)?)?, nonce }))
    }
}

fn stored(row: &Row) -> Result<StoredReport> {
    Ok(StoredReport {
        incarnation: Incarnation(row.uuid(0)?),
        nonce: nonce(&row.blob(1)?)?,
        report: row.text(2)?,
        reported_at_us: row.int(3)?,
    })
}

fn nonce(bytes: &[u8]) -> Result<[u8; 16]> {
    bytes.try_into().map_err(|_| Error::Corrupt("a nonce is not 16 bytes".to_owned()))
}
