//! The backfill: every repository that the primary had at the join is tracked, page by page.
//! Invariant: the backfill is finished only by a page that says it is the last; it takes nothing away (hazard R3).

use std::time::Duration;

use tokio::time::timeout;
use twinport_metadata::ListedRepository;

use crate::{Error, Result, protocol::RepositoryPage, secondary::Engine, upstream::Upstream};

/// Repositories asked for at a time.
const PAGE: u32 = 1_000;
const ANSWER: Duration = Duration::from_secs(90);
/// A row in motion has its position within a moment.
const IN_MOTION: Duration = Duration::from_millis(50);

/// Lists until the end is reached, and goes on after a restart where it was.
pub(crate) async fn backfill<U: Upstream>(engine: Engine<U>) {
    let mut attempts = 0;
    loop {
        engine.connected().await;
        let pause = match page(&engine).await {
            Ok(Paged::Finished) => return,
            Ok(Paged::More) => {
                attempts = 0;
                continue;
            }
            Ok(Paged::InMotion) => IN_MOTION,
            Err(error) => {
                attempts += 1;
                tracing::warn!(%error, attempts, "the primary's repositories could not be listed, trying again");
                engine.backoff(attempts).min(Duration::from_secs(10))
            }
        };
        tokio::time::sleep(pause).await;
    }
}

enum Paged {
    Finished,
    More,
    /// The next repository has no position yet: whether its event is on its way cannot be told.
    InMotion,
}

async fn page<U: Upstream>(engine: &Engine<U>) -> Result<Paged> {
    let Some(backfill) = engine.metadata.backfill().await? else { return Ok(Paged::Finished) };
    if backfill.finished_at_us.is_some() {
        return Ok(Paged::Finished);
    }
    let answer = timeout(ANSWER, engine.upstream.repositories(&backfill.after_path, PAGE)).await;
    let page =
        answer.map_err(|_| Error::Protocol(format!("it did not list its repositories in {ANSWER:?}")))??;
    check(&page, &backfill.after_path)?;
    let settled = page.repositories.iter().take_while(|entry| entry.position_seq.is_some());
    let rows: Vec<ListedRepository> = settled
        .map(|entry| ListedRepository {
            uuid: entry.uuid,
            path: entry.path.clone(),
            position_seq: entry.position_seq,
        })
        .collect();
    let whole = rows.len() == page.repositories.len();
    if rows.is_empty() && !whole {
        return Ok(Paged::InMotion);
    }
    let finished = whole && page.complete;
    let after = rows.last().map_or(backfill.after_path, |row| row.path.clone());
    engine.metadata.backfill_page(rows, &after, finished).await?;
    engine.scheduler.look_by(Duration::ZERO);
    engine.progressed();
    if finished {
        tracing::info!("every repository of the primary is tracked");
        return Ok(Paged::Finished);
    }
    Ok(Paged::More)
}

fn check(page: &RepositoryPage, after: &str) -> Result<()> {
    if page.repositories.is_empty() && !page.complete {
        return Err(Error::Protocol("its repositories neither go on nor end".to_owned()));
    }
    let mut last = after;
    for entry in &page.repositories {
        if entry.path.as_str() <= last {
            return Err(Error::Protocol("its repositories are out of order, or repeat".to_owned()));
        }
        last = &entry.path;
    }
    Ok(())
}
