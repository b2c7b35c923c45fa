//! Whether the database and the blob store lived the same life (hazard R26).
//! Invariant: a store whose marker names another incarnation is never served.

use twinport_blobs::Blobs;
use twinport_metadata::{Metadata, Role};

use crate::config::BlobPlace;
use crate::start_error::StartError;

/// Compares the two incarnations; the first start of a site writes the marker. Two nodes with databases of their own on
/// one store are two incarnations: only one of them is served (hazard S14).
pub(super) async fn check(metadata: &Metadata, blobs: &Blobs, place: &BlobPlace) -> Result<(), StartError> {
    let site = metadata.site().await?;
    let database = site.incarnation.0;
    if blobs.incarnation().await?.is_none() {
        // A start that was cut short before the marker has no history either.
        let fresh = site.role == Role::Primary
            && metadata.log_head().await?.position.seq == 0
            && metadata.repositories(None, 1).await?.is_empty();
        if !fresh {
            return Err(StartError::MarkerMissing { store: place.to_string(), database });
        }
    }
    match blobs.claim_store(database).await? {
        marker if marker == database => Ok(()),
        marker => Err(StartError::Incarnation { store: place.to_string(), marker, database }),
    }
}
