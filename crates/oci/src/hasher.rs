//! Hashing whose state can be stored and taken up again, by another process or node.
//! Invariant: resuming from a state and feeding the rest gives the digest of the whole.

use std::fmt;

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256, Sha512};

use crate::digest::{Algorithm, Digest};
use crate::error::DigestError;

/// A running digest.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Self {
        Hasher(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// About 2 GB/s (sha256) on one core: large contents belong on a blocking thread.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hasher) => hasher.update(bytes),
            State::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            State::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }

    /// The state to store: the algorithm byte of [`Digest::to_key`], then sha2's serialised state. It holds up to
    /// one block of the content. Stable within sha2 0.11; not Go's format.
    pub fn state(&self) -> Vec<u8> {
        let mut state = vec![self.algorithm().byte()];
        match &self.0 {
            State::Sha256(hasher) => state.extend_from_slice(&hasher.serialize()),
            State::Sha512(hasher) => state.extend_from_slice(&hasher.serialize()),
        }
        state
    }

    /// Takes up what [`Hasher::state`] stored.
    pub fn resume(state: &[u8]) -> Result<Self, DigestError> {
        let invalid = DigestError::State(state.len());
        let Some((&byte, raw)) = state.split_first() else { return Err(invalid) };
        let resumed = match Algorithm::from_byte(byte) {
            Some(Algorithm::Sha256) => deserialize(raw).map(State::Sha256),
            Some(Algorithm::Sha512) => deserialize(raw).map(State::Sha512),
            None => None,
        };
        resumed.map(Hasher).ok_or(invalid)
    }
}

fn deserialize<H: SerializableState>(raw: &[u8]) -> Option<H> {
    let state: &SerializedState<H> = raw.try_into().ok()?;
    H::deserialize(state).ok()
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm())
    }
}
