//! Where a reader says it stands, against what this site's log says of that place.
//! Guards: a log whose history two sites remember differently is never written further (hazard R26), and nothing is
//! halted by an epoch that only the reader has heard of (hazard R28).

use twinport_metadata::{LogHead, Metadata, Role, SiteRecord};

use crate::{Error, Refusal, RefusalCode, Result};

/// Refuses a cursor that does not lie on this site's log.
pub(super) async fn check(metadata: &Metadata, site: &SiteRecord, cursor: &LogHead) -> Result<()> {
    let own = metadata.site().await?;
    if own.role != Role::Primary {
        let name = own.primary_name.unwrap_or_else(|| "(unnamed)".to_owned());
        return Err(refuse(
            RefusalCode::NotPrimary,
            format!("this site is a secondary: follow the primary site {name}"),
        ));
    }
    let position = cursor.position;
    if position.seq < 0 {
        return Err(refuse(
            RefusalCode::BadRequest,
            format!("seq is {}: it counts events, from 0", position.seq),
        ));
    }
    let epochs = metadata.epochs().await?;
    if !epochs.iter().any(|record| record.epoch == position.epoch) {
        tracing::warn!(site = %site.name, number = position.epoch.number, owner = %position.epoch.owner,
            "a site claims an epoch that this one does not know; it is not believed");
        return Err(refuse(
            RefusalCode::EpochUnknown,
            format!(
                "epoch {} of {} is not in this site's history",
                position.epoch.number, position.epoch.owner
            ),
        ));
    }
    // A pass of its own: a head that this node merely has not heard of yet must not look like rewritten history.
    let head = metadata.sequence_now().await?;
    if position.seq > head.position.seq {
        return Err(halt(metadata, site, RefusalCode::PeerAhead, cursor, &head).await);
    }
    if let Some(base) = epochs.iter().find(|record| record.began_seq == position.seq + 1)
        && base.base_hash == cursor.hash
    {
        return Ok(());
    }
    match metadata.event_at(position.seq).await? {
        Some(event) if event.hash == cursor.hash && event.position == position => Ok(()),
        Some(event) if event.hash == cursor.hash => Err(refuse(
            RefusalCode::BadRequest,
            format!(
                "event {} belongs to epoch {} of {}",
                position.seq, event.position.epoch.number, event.position.epoch.owner
            ),
        )),
        // The base of an epoch is known by its hash even where its event is not stored.
        None if epochs.iter().all(|record| record.began_seq != position.seq + 1) => Err(refuse(
            RefusalCode::BeyondHorizon,
            format!(
                "the events after {} are no longer kept here: compare instead of following",
                position.seq
            ),
        )),
        Some(_) | None => Err(halt(metadata, site, RefusalCode::HistoryRewritten, cursor, &head).await),
    }
}

/// Stops writes on this site; the reason names the peer, and its incarnation ties the halt to it: removing the site
/// lifts it.
async fn halt(
    metadata: &Metadata,
    site: &SiteRecord,
    code: RefusalCode,
    cursor: &LogHead,
    head: &LogHead,
) -> Error {
    let seq = cursor.position.seq;
    let what = match code {
        RefusalCode::PeerAhead => {
            format!("has event {seq}, and this site's log ends at {}", head.position.seq)
        }
        _ => format!("has another event {seq} than this site"),
    };
    let reason = format!(
        "site {} ({}) {what}: this site's history was rewritten, by a restore or a snapshot. Restore what is missing, \
         or give it up with `twinport site remove {}`",
        site.name, site.incarnation, site.name
    );
    if let Err(error) = metadata.halt(&reason).await {
        return error.into();
    }
    Refusal::new(code, reason)
        .with_detail(serde_json::json!({ "site": site.name, "seq": seq, "head_seq": head.position.seq }))
        .into()
}

fn refuse(code: RefusalCode, message: String) -> Error {
    Refusal::new(code, message).into()
}
