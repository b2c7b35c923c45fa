//! `blobs scrub`: hashes every stored blob, and tells how far it is, line by line.

use std::{convert::Infallible, sync::Arc};

use axum::{body::Body, extract::State, response::IntoResponse};
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use tokio::sync::mpsc;

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
        let last = match twinport_upkeep::scrub(&site.metadata, &site.blobs, progress).await {
            Ok(report) => ScrubLine::Report(report),
            Err(error) => ScrubLine::Failed(error.to_string()),
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
