//! What needs no bytes and takes effect with ingest: repositories' names, and the sites of the federation.
//! Invariant: paths change in the log's order, so no two repositories ever claim one (hazard R27).

use std::collections::BTreeSet;

use twinport_oci::RepositoryName;

use crate::{
    Error, Event, EventKind, LogPosition, LoggedEvent, RepositoryUuid, Result, SiteRecord,
    apply::{BURY, replicated_tombstone},
    db::{Tx, Value},
    deletions::Deleted,
    repositories::{Leftover, Removal, remove},
};

/// Which of these repositories have a row.
pub(super) async fn known(tx: &mut Tx, keys: Vec<Vec<u8>>) -> Result<BTreeSet<RepositoryUuid>> {
    if keys.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows =
        tx.query("SELECT uuid FROM repositories WHERE uuid {any $1}", vec![Value::Blobs(keys)]).await?;
    rows.iter().map(|row| Ok(RepositoryUuid(row.uuid(0)?))).collect()
}

/// Gives a repository the path that its event states, and a row if this is the first that is heard of it.
pub(super) async fn named(
    tx: &mut Tx,
    logged: &LoggedEvent,
    event: &Event,
    uuid: RepositoryUuid,
    path: &RepositoryName,
    known: &mut BTreeSet<RepositoryUuid>,
) -> Result<()> {
    let LogPosition { epoch, seq } = logged.position;
    if known.insert(uuid) {
        tx.execute(
            "INSERT INTO repositories (uuid, path, created_at_us, position_epoch, position_seq) \
             VALUES ($1, $2, $3, $4, $5)",
            vec![uuid.into(), path.as_str().into(), event.at_us.into(), epoch.number.into(), seq.into()],
        )
        .await?;
    } else if event.kind == EventKind::RepositoryRenamed {
        tx.execute(
            "UPDATE repositories SET path = $2, change = NULL, position_epoch = $3, position_seq = $4 WHERE uuid = $1",
            vec![uuid.into(), path.as_str().into(), epoch.number.into(), seq.into()],
        )
        .await?;
    }
    Ok(())
}

/// Deletes a repository with what is known and still to be done about it, and remembers that it is gone.
pub(super) async fn deleted(
    tx: &mut Tx,
    logged: &LoggedEvent,
    event: &Event,
    uuid: RepositoryUuid,
    path: &RepositoryName,
) -> Result<Option<Leftover>> {
    const LOCK: &str = "SELECT id FROM repositories WHERE uuid = $1 {for update}";
    // The repository's row before the tracking row, as apply takes them.
    let mut leftover = None;
    if let Some(row) = tx.query_opt(LOCK, vec![uuid.into()]).await?
        && let Removal::RowsLeft(rows) = remove(tx, row.int(0)?, uuid).await?
    {
        leftover = Some(rows);
    }
    tx.execute("DELETE FROM tracked_repositories WHERE repository = $1", vec![uuid.into()]).await?;
    tx.execute("DELETE FROM tracked_items WHERE repository = $1", vec![uuid.into()]).await?;
    let key = path.as_str().as_bytes();
    tx.execute(
        BURY,
        replicated_tombstone(uuid, Deleted::Repository, key, None, event.at_us, logged.position),
    )
    .await?;
    Ok(leftover)
}

/// Records a site that joined or was removed.
pub(super) async fn site_changed(tx: &mut Tx, logged: &LoggedEvent, event: &Event) -> Result<()> {
    let seq = logged.position.seq;
    let site = event.site.clone().ok_or_else(|| Error::Refused(format!("event {seq} names no site")))?;
    let site: SiteRecord = serde_json::from_value(site)
        .map_err(|error| Error::Refused(format!("event {seq} names a site that cannot be read: {error}")))?;
    record_site(tx, &site, logged.position).await
}

/// Writes what is known of a site; what is known already gives way.
pub(crate) async fn record_site(tx: &mut Tx, site: &SiteRecord, position: LogPosition) -> Result<()> {
    tx.execute(
        "INSERT INTO sites (incarnation, name, public_key, external_url, internal_url, protocol, state, \
         joined_at_us, removed_at_us, position_epoch, position_seq) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (incarnation) DO UPDATE SET name = excluded.name, public_key = excluded.public_key, \
         external_url = excluded.external_url, internal_url = excluded.internal_url, protocol = excluded.protocol, \
         state = excluded.state, joined_at_us = excluded.joined_at_us, removed_at_us = excluded.removed_at_us, \
         change = NULL, position_epoch = excluded.position_epoch, position_seq = excluded.position_seq",
        vec![
            site.incarnation.into(),
            (&site.name).into(),
            site.public_key.clone().into(),
            site.external_url.clone().into(),
            site.internal_url.clone().into(),
            site.protocol.into(),
            site.state.as_str().into(),
            site.joined_at_us.into(),
            site.removed_at_us.into(),
            position.epoch.number.into(),
            position.seq.into(),
        ],
    )
    .await?;
    Ok(())
}
