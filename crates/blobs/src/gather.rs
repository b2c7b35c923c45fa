//! Taking pieces from a body until a batch is worth handing on.
//! Guards: a body's length is checked as it arrives, before any of it is written.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};

use crate::batch::Batch;
use crate::{Error, Result};

/// Why gathering stopped.
pub(crate) enum Filled<E> {
    Full,
    Ended,
    Broken(E),
}

impl<E> Filled<E> {
    pub(crate) fn broken(self) -> Option<E> {
        match self {
            Self::Broken(e) => Some(e),
            Self::Full | Self::Ended => None,
        }
    }
}

/// Gathers from `body` until `batch` holds `target` bytes, or the body ends or breaks.
pub(crate) async fn fill<S, E>(
    body: &mut Pin<&mut S>,
    batch: &mut Batch,
    target: usize,
    room: &mut u64,
    limit: u64,
) -> Result<Filled<E>>
where
    S: Stream<Item = Result<Bytes, E>>,
{
    while batch.len() < target {
        match body.next().await {
            Some(Ok(piece)) => {
                *room = room.checked_sub(piece.len() as u64).ok_or(Error::SizeExceeded { limit })?;
                batch.push(piece);
            }
            Some(Err(e)) => return Ok(Filled::Broken(e)),
            None => return Ok(Filled::Ended),
        }
    }
    Ok(Filled::Full)
}
