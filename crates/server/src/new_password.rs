//! Passwords that are set: chosen and long enough, or made.
//! Guards: none is a default, and none is logged.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use twinport_metadata::RecordSecret;

/// The shortest password that is taken, in characters.
const SHORTEST: usize = 12;

/// A password that nobody has: 144 random bits, in 24 characters.
pub(crate) fn generate() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 18]>())
}

/// What is kept of a password. Making it takes a while, on a thread of its own.
///
/// # Errors
/// [`twinport_access::Error::Password`] when it is too short or too long.
pub(crate) async fn hash(password: String) -> Result<RecordSecret, twinport_access::Error> {
    if password.chars().count() < SHORTEST {
        return Err(twinport_access::Error::Password("it has less than 12 characters"));
    }
    let hashed = tokio::task::spawn_blocking(move || twinport_access::password::hash(&password)).await;
    Ok(RecordSecret::new(hashed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?))
}
