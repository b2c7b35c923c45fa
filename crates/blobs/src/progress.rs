//! How far a spool has come: its offset and the state of the hash over everything before it.
//! Guards: a `Progress` handed out names bytes that are synced, so that a session row may record it.

use twinport_oci::{Algorithm, Hasher};

/// An offset in bytes and the hash of all bytes before it ([`Hasher::state`] serialises it).
#[derive(Debug, Clone)]
pub struct Progress {
    pub offset: u64,
    pub hasher: Hasher,
}

impl Progress {
    /// The beginning of an empty spool.
    pub fn start(algorithm: Algorithm) -> Self {
        Self { offset: 0, hasher: Hasher::new(algorithm) }
    }
}

/// What an append left behind. `E` is the error of the body's stream.
#[derive(Debug)]
pub struct Appended<E> {
    /// All bytes up to here are on the disk.
    pub progress: Progress,
    /// Why the body ended early; what came before it is kept.
    pub broken: Option<E>,
}
