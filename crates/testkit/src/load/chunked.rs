//! A blob in several requests, resumed where the site says it stands.
//! Guards: what a 202 said to have arrived counts as arrived only if the site still says so after it was killed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use twinport_oci::Digest;

use crate::load::silence::broke;

/// How long the site may be away in the middle of an upload.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pushes a blob by POST, two PATCHes and PUT. A connection that breaks between them is resumed by asking how far the
/// session is; a session that is not known (it died with an unsynced disk, or its PUT went through) ends the attempt.
///
/// # Errors
/// When a request is refused, with its answer; when the first or the last request breaks.
pub async fn push_in_chunks(
    http: &reqwest::Client,
    url: &str,
    repository: &str,
    blob: &Bytes,
) -> anyhow::Result<()> {
    let begun = http.post(format!("{url}/v2/{repository}/blobs/uploads/")).send().await?;
    ensure!(begun.status() == 202, "{}: {}: {}", begun.url().clone(), begun.status(), begun.text().await?);
    let session = absolute(url, &begun)?;
    let middle = blob.len() / 2;
    let (mut offset, mut interrupted) = (0, false);
    let deadline = Instant::now() + PATIENCE;
    while offset < blob.len() {
        let end = if offset < middle { middle } else { blob.len() };
        let chunk = http
            .patch(&session)
            .header("Content-Type", "application/octet-stream")
            .header("Content-Range", format!("{offset}-{}", end - 1))
            .body(blob.slice(offset..end));
        match chunk.send().await {
            Ok(answer) if answer.status() == 202 => offset = end,
            // The session's row outlived a cut that its file's name did not.
            Ok(answer) if interrupted && answer.status() == 404 => return Ok(()),
            // What was sent before the break was recorded only after it was asked for: a dying node's commit came late.
            Ok(answer) if interrupted && answer.status() == 416 => {
                match stands_at(http, &session, deadline).await? {
                    Some(arrived) => {
                        ensure!(arrived > offset, "{session} refused {offset} and stands at {arrived}");
                        offset = arrived;
                    }
                    None => return Ok(()),
                }
            }
            Ok(answer) => bail!("PATCH {session}: {}: {}", answer.status(), answer.text().await?),
            Err(error) => {
                broke(error.into())?;
                let Some(arrived) = stands_at(http, &session, deadline).await? else { return Ok(()) };
                ensure!(
                    arrived >= offset,
                    "{session} had {offset} bytes acknowledged and stands at {arrived}"
                );
                (offset, interrupted) = (arrived, true);
            }
        }
    }
    let digest = Digest::sha256(blob);
    let separator = if session.contains('?') { '&' } else { '?' };
    let ended = http.put(format!("{session}{separator}digest={digest}")).send().await?;
    if interrupted && ended.status() == 404 {
        return Ok(());
    }
    ensure!(ended.status() == 201, "PUT {session}: {}: {}", ended.status(), ended.text().await?);
    Ok(())
}

/// Asks until the site is back; none where the session is not known.
async fn stands_at(
    http: &reqwest::Client,
    session: &str,
    deadline: Instant,
) -> anyhow::Result<Option<usize>> {
    loop {
        match http.get(session).send().await {
            Ok(answer) if answer.status() == 204 => {
                let range = answer.headers().get("Range").context("a Range header")?.to_str()?;
                let last: usize = range.strip_prefix("0-").context("a range from 0")?.parse()?;
                // Nothing and one byte are both `0-0`; chunks here are larger.
                return Ok(Some(if last == 0 { 0 } else { last + 1 }));
            }
            Ok(answer) if answer.status() == 404 => return Ok(None),
            Ok(answer) => bail!("GET {session}: {}: {}", answer.status(), answer.text().await?),
            Err(error) if Instant::now() >= deadline => return Err(error.into()),
            Err(error) => {
                broke(error.into())?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn absolute(url: &str, answer: &reqwest::Response) -> anyhow::Result<String> {
    let location = answer.headers().get("Location").context("a Location header")?.to_str()?;
    Ok(if location.starts_with('/') { format!("{url}{location}") } else { location.to_owned() })
}
