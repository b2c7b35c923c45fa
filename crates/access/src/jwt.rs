//! Signed tokens: verification of those that foreign token services make, minting and verification of the built-in one's.
//!
//! **Architecture invariant:** nothing in a token picks the key, the algorithm or the clock. A token names a key by its id
//! or shows a chain of certificates; the key is one that the operator configured, or vouched for by one, and says
//! itself which algorithms it is for.

mod access;
mod bundle;
mod chain;
mod claims;
mod json;
mod jwks;
mod keys;
mod mint;
mod refusal;
mod seen;
mod signed;
mod tag_limits;
mod times;
mod verifier;
mod verifying_key;

#[cfg(test)]
mod forged;
#[cfg(test)]
mod genuine;
#[cfg(test)]
mod minted;

pub use access::{AccessEntry, Project};
pub use claims::Claims;
pub use keys::KeySet;
pub use mint::{MAX_LIFETIME_S, Minted, Names, SigningPair};
pub use refusal::{Part, Refusal};
pub use signed::SignedToken;
pub use tag_limits::{TagLimits, TagRefusal};
pub use times::{SKEW_S, Times};
pub use verifier::{TokenVerifier, VerifiedToken};
pub use verifying_key::SigningAlgorithm;
