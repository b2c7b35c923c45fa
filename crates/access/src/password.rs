//! Passwords of the built-in accounts: argon2id, as PHC strings.
//! Invariant: a wrong password, an account without one and an account that is not there take the same time (hazard A11).
//!
//! Both functions take some 20 ms of a processor and 19 MiB: they belong on threads for blocking work, few at a time. A thread that
//! verifies keeps its 19 MiB (64 at most).

use std::cell::RefCell;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Block, Params, PasswordHasher as _, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::{Error, Result};

/// OWASP's first choice for argon2id where memory is dear.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
/// The most that a stored hash may ask for: ours of years to come, and nobody's attempt to use up a machine.
const MOST_MEMORY_KIB: u32 = 64 << 10;
const MOST_PASSES: u32 = 10;

/// Longer than any person's; hashing more would be work for nothing.
const MAX_BYTES: usize = 256;
const MIN_CHARS: usize = 8;

/// A hash of the parameters above that is of no password: what a password is held against where there is none.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$dHdpbnBvcnRub2JvZHk$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A password's hash, with a salt of its own.
///
/// # Errors
/// [`Error::Password`] when it is too short or too long.
pub fn hash(password: &str) -> Result<String> {
    if password.chars().count() < MIN_CHARS {
        return Err(Error::Password("it has less than 8 characters"));
    }
    if password.len() > MAX_BYTES {
        return Err(Error::Password("it is longer than 256 bytes"));
    }
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| Error::Password("the system gave no random numbers"))?;
    let params = Params::new(MEMORY_KIB, PASSES, 1, None)
        .map_err(|_| Error::Password("its parameters are not valid"))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: PasswordHash = argon2
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map_err(|_| Error::Password("it cannot be hashed"))?;
    Ok(hash.to_string())
}

/// Whether a password is the one that was hashed. Where there is no hash the same work is done, and the answer is no.
pub fn verify(hash: Option<&str>, password: &str) -> bool {
    let found = hash.and_then(usable);
    let is_there = found.is_some();
    let Some(against) = found.or_else(|| PasswordHash::new(NOBODY).ok()) else { return false };
    let fits = password.len() <= MAX_BYTES;
    // One that is too long is nobody's, and is told so as late as any other.
    let password = if fits { password } else { "" };
    matches(&against, password) && is_there && fits
}

thread_local! {
    /// What hashing works in. It stays with its thread: given back and taken again for each hash, so large and aligned a piece
    /// leaves holes that add up to hundreds of MiB.
    static WORK: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

fn matches(against: &PasswordHash, password: &str) -> bool {
    let (Some(salt), Some(expected)) = (&against.salt, &against.hash) else { return false };
    let Ok(params) = Params::try_from(against) else { return false };
    let blocks = params.block_count();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut made = vec![0; expected.as_ref().len()];
    let hashed = WORK.with_borrow_mut(|work| {
        work.resize(blocks, Block::default());
        argon2.hash_password_into_with_memory(
            password.as_bytes(),
            salt.as_ref(),
            &mut made,
            work.as_mut_slice(),
        )
    });
    hashed.is_ok() && verify_slices_are_equal(&made, expected.as_ref()).is_ok()
}

fn usable(hash: &str) -> Option<PasswordHash> {
    let parsed = PasswordHash::new(hash).ok()?;
    let params = Params::try_from(&parsed).ok()?;
    let bounded =
        params.m_cost() <= MOST_MEMORY_KIB && params.t_cost() <= MOST_PASSES && params.p_cost() <= 4;
    let whole = parsed.salt.is_some() && parsed.hash.is_some();
    (bounded && whole && parsed.algorithm == Algorithm::Argon2id.ident()).then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_its_own_and_no_other() {
        let stored = hash("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_ne!(stored, hash("correct horse").unwrap(), "each has a salt of its own");
        assert!(verify(Some(&stored), "correct horse"));
        for wrong in ["correct horsf", "correct hors", "", "correct horse "] {
            assert!(!verify(Some(&stored), wrong), "{wrong:?}");
        }
    }

    #[test]
    fn nobody_signs_in_where_there_is_no_password() {
        assert!(!verify(None, "") && !verify(None, "correct horse"));
        assert!(!verify(Some("plain"), "plain"));
        let dear = NOBODY.replace("m=19456", "m=4194304");
        assert!(!verify(Some(&dear), "x"), "and nothing is done with so much memory");
        assert!(!verify(Some(&NOBODY.replace("argon2id", "argon2d")), "x"));
    }

    #[test]
    fn nobody_has_the_hash_that_stands_for_nobody_but_it_is_one() {
        assert!(PasswordHash::new(NOBODY).is_ok());
        assert!(usable(NOBODY).is_some(), "it costs what a real one costs");
    }

    #[test]
    fn too_short_and_too_long_are_refused_when_set_and_wrong_when_given() {
        assert_eq!(hash("1234567"), Err(Error::Password("it has less than 8 characters")));
        let long = "x".repeat(257);
        assert_eq!(hash(&long), Err(Error::Password("it is longer than 256 bytes")));
        assert!(!verify(Some(&hash(&long[..256]).unwrap()), &long));
    }
}
