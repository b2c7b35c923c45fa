//! Waits for the secondary's own word: its tracking record says that the tag arrived whole and was verified.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde::Deserialize;
use twinport_oci::{Digest, RepositoryName, Tag};

use crate::{admin_client::AdminClient, output::complain};

/// Often enough to be no part of the lag that is shown: that one is computed from the record's own time.
const POLL: Duration = Duration::from_millis(5);
/// How long replication may stand still.
const PATIENCE: Duration = Duration::from_secs(300);
const TELL: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Record {
    state: String,
    verification: String,
    digest: Option<Digest>,
    verified_at_us: Option<i64>,
    last_error: Option<String>,
}

/// When the record became `verified` (µs since the Unix epoch).
pub(super) async fn wait(
    client: &AdminClient,
    repository: &RepositoryName,
    tag: &Tag,
    digest: &Digest,
) -> anyhow::Result<i64> {
    let path = format!("/api/v1/tracking?repository={repository}&kind=tag&key={tag}");
    let began = Instant::now();
    let mut told = began;
    let mut last: Option<Record> = None;
    loop {
        let record: Option<Record> = client.get(&path).await?;
        if let Some(record) = &record
            && record.digest.as_ref() == Some(digest)
            && record.verification == "succeeded"
            && let Some(at_us) = record.verified_at_us
        {
            return Ok(at_us);
        }
        if began.elapsed() > PATIENCE {
            bail!(
                "the secondary has not verified {repository}:{tag} within {} s: {}",
                PATIENCE.as_secs(),
                tell(&record)
            );
        }
        if record != last || told.elapsed() > TELL {
            if told.elapsed() > TELL {
                complain(&format!("  waiting for the secondary: {}", tell(&record)));
                told = Instant::now();
            }
            last = record;
        }
        tokio::time::sleep(POLL).await;
    }
}

fn tell(record: &Option<Record>) -> String {
    match record {
        None => "it has not heard of the push".to_owned(),
        Some(Record { state, verification, last_error, .. }) => {
            let error = last_error.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
            format!("{state}, verification {verification}{error}")
        }
    }
}
