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
            Some(Algorithm::Sha256) => deserialize(raw, 32..40).map(State::Sha256),
            Some(Algorithm::Sha512) => deserialize(raw, 64..80).map(State::Sha512),
            None => None,
        };
        resumed.map(Hasher).ok_or(invalid)
    }
}

/// `blocks` is where the state keeps its count of hashed blocks, little endian. A count above 2^48 (16 PiB) is
/// refused: sha2 multiplies it into a count of bits, and a larger one would overflow.
fn deserialize<H: SerializableState>(raw: &[u8], blocks: std::ops::Range<usize>) -> Option<H> {
    if raw.get(blocks)?[6..].iter().any(|byte| *byte != 0) {
        return None;
    }
    let state: &SerializedState<H> = raw.try_into().ok()?;
    H::deserialize(state).ok()
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm())
    }
}

#[cfg(test)]
mod tests {
    use super::Hasher;
    use crate::digest::{Algorithm, Digest};
    use crate::error::DigestError;

    #[test]
    fn a_resumed_hasher_gives_the_digest_of_the_whole_wherever_it_was_cut() {
        let content: Vec<u8> = (0..400u32).map(|n| n as u8).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for cut in 0..=content.len() {
                let mut first = Hasher::new(algorithm);
                first.update(&content[..cut]);
                let mut second = Hasher::resume(&first.state()).unwrap();
                assert_eq!(second.algorithm(), algorithm);
                second.update(&content[cut..]);
                assert_eq!(second.finish(), Digest::of(algorithm, &content), "{algorithm} cut at {cut}");
            }
        }
    }

    #[test]
    fn the_stored_state_of_a_known_content_stays_what_it_is() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"twinport");
        let initial = "67e6096a85ae67bb72f36e3c3af54fa57f520e518c68059babd9831f19cde05b";
        let pending = "0000000000000000087477696e706f7274";
        assert_eq!(hex::encode(hasher.state()), format!("01{initial}{pending}{}", "00".repeat(55)));
    }

    #[test]
    fn a_broken_state_is_refused() {
        let state = Hasher::new(Algorithm::Sha256).state();
        let sha512_in_sha256 = [&[1], &Hasher::new(Algorithm::Sha512).state()[1..]].concat();
        let mut impossible_position = state.clone();
        impossible_position[1 + 32 + 8] = 64;
        let mut impossible_count = state.clone();
        impossible_count[1 + 32 + 7] = 0xff;
        for broken in [
            &[][..],
            &[1],
            &[0; 105],
            &state[..state.len() - 1],
            &sha512_in_sha256,
            &impossible_position,
            &impossible_count,
        ] {
            assert!(matches!(Hasher::resume(broken), Err(DigestError::State(len)) if len == broken.len()));
        }
    }
}
