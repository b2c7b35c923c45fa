//! `blobs scrub`: hashes every stored blob, and tells how far it is, line by line.

use std::{convert::Infallible, sync::Arc};

use axum::{body::Body, extract::State, response::IntoResponse};
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use tokio::sync::mpsc;
use twinport_metadata::Job;
use twinport_upkeep::{ScrubProgress, ScrubReport};

use super::types::ScrubLine;
use crate::site::RunningSite;

/// Lines that a slow reader may leave waiting; progress beyond that is skipped.
const WAITING: usize = 64;

pub(super) async fn scrub(State(site): State<Arc<RunningSite>>) -> impl IntoResponse {
    let (lines, received) = mpsc::channel::<Bytes>(WAITING);
    let work = tokio::spawn(async move {
        let progress = |progress| {
            // Only the report must arrive.
            drop(lines.try_send(line(&ScrubLine::Progress(progress))));
        };
        let last = match scrub_alone(&site, progress).await {
            Ok(report) => ScrubLine::Report(report),
            Err(reason) => ScrubLine::Failed(reason),
        };
        drop(lines.send(line(&last)).await);
    });
    // A reader that goes away ends the scrub with it.
    let state = (received, AbortOnDrop(work));
    let body = stream::unfold(state, |(mut received, work)| async move {
        let bytes = received.recv().await?;
        Some((Ok::<_, Infallible>(bytes), (received, work)))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body))
}

/// Two scrubs at one time would only take twice as long.
async fn scrub_alone(site: &RunningSite, progress: impl FnMut(ScrubProgress)) -> Result<ScrubReport, String> {
    let told = |error: twinport_metadata::Error| error.to_string();
    let Some(lease) = site.metadata.take_lease(Job::Scrub).await.map_err(told)? else {
        return Err("another node of this site is at it: `twinport db status` shows which".to_owned());
    };
    let fenced = site.metadata.under(&lease);
    let scrubbing = twinport_upkeep::scrub(&fenced, &site.blobs, progress);
    let report = site.metadata.while_held(&lease, scrubbing).await;
    // A lease that is not given back lapses.
    drop(site.metadata.give_lease(&lease).await);
    report.ok_or("another node of this site has taken it over")?.map_err(|error| error.to_string())
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn line(line: &ScrubLine) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}
