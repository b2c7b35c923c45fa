//! Secrets that were checked a moment ago, so that a client which shows a password with every request pays for its hash once.
//! Invariant: what is kept is a keyed hash of name and secret, under a key of this process; it counts as long as no account,
//! token or role changed, and a minute at most.

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use quick_cache::sync::Cache;

use super::SignedIn;
use crate::policy::Basic;

/// Logins that are remembered at most; each takes about 400 bytes.
const REMEMBERED: usize = 10_000;
const LIFETIME: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Login {
    signed_in: SignedIn,
    generation: i64,
    at: Instant,
}

/// The logins of the last minute.
pub(super) struct Logins {
    key: hmac::Key,
    known: Cache<[u8; 32], Login>,
}

impl Default for Logins {
    fn default() -> Self {
        let key: [u8; 32] = rand::random();
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), known: Cache::new(REMEMBERED) }
    }
}

impl std::fmt::Debug for Logins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logins").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

impl Logins {
    pub(super) fn find(&self, basic: &Basic, generation: i64, now: Instant, now_us: i64) -> Option<SignedIn> {
        let login = self.known.get(&self.digest(basic))?;
        let holds = login.generation == generation
            && now.saturating_duration_since(login.at) < LIFETIME
            && login.signed_in.until_us.is_none_or(|until| now_us < until);
        holds.then_some(login.signed_in)
    }

    pub(super) fn keep(&self, basic: &Basic, signed_in: SignedIn, generation: i64, now: Instant) {
        self.known.insert(self.digest(basic), Login { signed_in, generation, at: now });
    }

    /// Name and secret, with their lengths, so that neither can be taken for a part of the other.
    fn digest(&self, basic: &Basic) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [&basic.user, &basic.secret] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a14_a_login_counts_until_anything_changes_and_a_minute_at_most() {
        let logins = Logins::default();
        let basic = |user: &str, secret: &str| Basic { user: user.to_owned(), secret: secret.to_owned() };
        let now = Instant::now();
        let alice = basic("alice", "secret");
        assert!(logins.find(&alice, 1, now, 0).is_none());
        logins.keep(&alice, SignedIn { until_us: Some(10), ..SignedIn::anonymous() }, 1, now);
        assert!(logins.find(&alice, 1, now, 9).is_some());
        assert!(logins.find(&alice, 1, now, 10).is_none(), "the secret expired");
        assert!(logins.find(&alice, 2, now, 9).is_none(), "something changed");
        assert!(logins.find(&alice, 1, now + LIFETIME, 9).is_none());
        assert!(logins.find(&basic("alice", "secre"), 1, now, 9).is_none());
        assert!(logins.find(&basic("alices", "ecret"), 1, now, 9).is_none());
    }
}
