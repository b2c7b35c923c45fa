//! Counting on a secondary: what came by backfill has no event here, so a repository whose events are all applied is summed
//! from its rows. Once every repository is quiet, the counts are those of the primary.

use std::sync::Arc;

use twinport_access::Quota;

use super::{Counted, FORGET, STORE, Sums, Usage, fill_sums, lock_cursor};
use crate::{
    RepositoryUuid, Result,
    db::{Db, Row, Tx},
};

/// Repositories that one step looks at.
const PER_STEP: i64 = 200;
/// Repositories that one step sums: each may be large.
const SUMMED_PER_STEP: usize = 4;

/// A repository that changed since it was counted.
#[derive(Clone, Debug)]
struct Changed {
    uuid: RepositoryUuid,
    /// What it holds, and the event up to which that is so; none where it is gone.
    usage: Option<(Usage, i64)>,
}

/// One step through the repositories, by identity; at their end it begins anew.
pub(super) async fn step(db: &Db, quotas: Arc<[Quota]>, after: Option<RepositoryUuid>) -> Result<Counted> {
    let (changed, next) =
        db.snapshot(move |tx| Box::pin(async move { changed_after(tx, after).await })).await?;
    let more = next.is_some();
    let changed: Arc<[Changed]> = changed.into();
    db.write(move |tx| {
        let (quotas, changed) = (Arc::clone(&quotas), Arc::clone(&changed));
        Box::pin(async move { record(tx, &quotas, &changed).await })
    })
    .await?;
    Ok(Counted { more, after: next })
}

/// What changed among the next repositories, and after which to go on; none at the end.
async fn changed_after(
    tx: &mut Tx,
    after: Option<RepositoryUuid>,
) -> Result<(Vec<Changed>, Option<RepositoryUuid>)> {
    const TRACKED: &str = "SELECT t.repository, t.path, t.applied_seq, t.state, u.path, u.counted_seq \
         FROM tracked_repositories t LEFT JOIN repository_usage u ON u.repository = t.repository \
         WHERE t.repository > $1 ORDER BY t.repository LIMIT $2";
    const GONE: &str = "SELECT u.repository, r.id FROM repository_usage u \
         LEFT JOIN repositories r ON r.uuid = u.repository \
         WHERE u.repository > $1 ORDER BY u.repository LIMIT $2";
    let from: crate::db::Value = match after {
        Some(uuid) => uuid.into(),
        None => Vec::<u8>::new().into(),
    };
    let page = || vec![from.clone(), PER_STEP.into()];
    let tracked = tx.query(TRACKED, page()).await?;
    let counted = tx.query(GONE, page()).await?;
    let mut last = page_end(&tracked)?.into_iter().chain(page_end(&counted)?).min();
    let within = |uuid: RepositoryUuid, last: Option<RepositoryUuid>| last.is_none_or(|last| uuid <= last);

    let mut changed = Vec::new();
    for row in &tracked {
        let uuid = RepositoryUuid(row.uuid(0)?);
        if !within(uuid, last) {
            break;
        }
        let same = row.opt_text(4)? == Some(row.text(1)?) && row.opt_int(5)? == Some(row.int(2)?);
        if row.text(3)? != "synced" || same {
            continue;
        }
        if let Some(bytes) = sum(tx, uuid).await? {
            changed.push(Changed { uuid, usage: Some((Usage { path: row.text(1)?, bytes }, row.int(2)?)) });
        }
        if changed.len() == SUMMED_PER_STEP {
            last = Some(uuid);
        }
    }
    for row in &counted {
        let uuid = RepositoryUuid(row.uuid(0)?);
        if within(uuid, last) && row.opt_int(1)?.is_none() {
            changed.push(Changed { uuid, usage: None });
        }
    }
    Ok((changed, last))
}

/// The last of a full page.
fn page_end(rows: &[Row]) -> Result<Option<RepositoryUuid>> {
    let last = rows.last().filter(|_| rows.len() as i64 == PER_STEP);
    last.map(|row| row.uuid(0).map(RepositoryUuid)).transpose()
}

/// The bytes of a repository's rows; none where it is gone.
async fn sum(tx: &mut Tx, uuid: RepositoryUuid) -> Result<Option<i64>> {
    const SUM: &str = "SELECT (SELECT CAST(COALESCE(SUM(b.size), 0) AS BIGINT) FROM blob_links l \
         JOIN blobs b ON b.digest = l.digest WHERE l.repository_id = r.id), \
         (SELECT CAST(COALESCE(SUM(m.size), 0) AS BIGINT) FROM manifests m WHERE m.repository_id = r.id) \
         FROM repositories r WHERE r.uuid = $1";
    let row = tx.query_opt(SUM, vec![uuid.into()]).await?;
    row.map(|row| Ok(row.int(0)? + row.int(1)?)).transpose()
}

async fn record(tx: &mut Tx, quotas: &[Quota], changed: &[Changed]) -> Result<()> {
    const STORED: &str = "SELECT path, bytes FROM repository_usage WHERE repository = $1";
    lock_cursor(tx).await?;
    let mut sums = Sums::load(tx, quotas).await?;
    for Changed { uuid, usage } in changed {
        let before = tx.query_opt(STORED, vec![(*uuid).into()]).await?;
        let before =
            before.map(|row| Ok::<_, crate::Error>(Usage { path: row.text(0)?, bytes: row.int(1)? }));
        sums.change(before.transpose()?.as_ref(), usage.as_ref().map(|(usage, _)| usage))?;
        match usage {
            Some((usage, seq)) => {
                let row = vec![(*uuid).into(), usage.path.as_str().into(), usage.bytes.into(), (*seq).into()];
                tx.send(STORE, row).await?;
            }
            None => tx.send(FORGET, vec![(*uuid).into()]).await?,
        }
    }
    fill_sums(tx, &mut sums).await?;
    sums.store(tx).await
}
