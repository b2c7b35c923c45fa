//! Tokens whose signature was checked a moment ago: a client sends one with every request of a pull.
//! Guards: only what depends on the token alone is remembered. Its times are checked at every call, and another set of keys is
//! another verifier, which remembers nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;

use super::times::Times;
use super::verifier::VerifiedToken;

/// Bytes of token text; what is read from a token takes some three times its length. This is 8,000 common tokens.
const REMEMBERED_BYTES: usize = 8 << 20;

/// The latest tokens, by the hash of their text: the text itself is not kept.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Latest>);

#[derive(Debug, Default)]
struct Latest {
    tokens: HashMap<Hash, (Times, Arc<VerifiedToken>)>,
    /// Oldest first, with the length of each.
    order: VecDeque<(Hash, usize)>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Hash([u8; 32]);

impl Seen {
    pub(super) fn find(&self, token: Hash) -> Option<(Times, Arc<VerifiedToken>)> {
        self.0.lock().tokens.get(&token).cloned()
    }

    pub(super) fn remember(&self, token: Hash, len: usize, times: Times, verified: Arc<VerifiedToken>) {
        let mut latest = self.0.lock();
        if latest.tokens.insert(token, (times, verified)).is_some() {
            return;
        }
        latest.order.push_back((token, len));
        latest.bytes += len;
        while latest.bytes > REMEMBERED_BYTES
            && let Some((oldest, len)) = latest.order.pop_front()
        {
            latest.tokens.remove(&oldest);
            latest.bytes -= len;
        }
    }
}

impl Hash {
    pub(super) fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_remembered_until_others_push_it_out() {
        const LEN: usize = 32 << 10;
        const FIT: usize = REMEMBERED_BYTES / LEN;
        let (seen, hash) = (Seen::default(), |number: usize| Hash::of(&number.to_string()));
        let times = Times { expires_at_s: 1, not_before_s: None, issued_at_s: None };
        let token = Arc::new(VerifiedToken {
            issuer: String::new(),
            subject: "alice".to_owned(),
            auth_type: None,
            id: None,
            access: Vec::new(),
            expires_at_us: 1,
        });
        let remember = |number| seen.remember(hash(number), LEN, times, Arc::clone(&token));
        assert!(seen.find(hash(0)).is_none());
        (0..FIT).for_each(remember);
        assert_eq!(seen.find(hash(0)).map(|(_, token)| token.subject.clone()), Some("alice".to_owned()));
        remember(1);
        assert!(seen.find(hash(0)).is_some(), "the same token again takes no place");
        remember(FIT);
        assert!(seen.find(hash(0)).is_none() && seen.find(hash(1)).is_some());
        assert_eq!(seen.0.lock().tokens.len(), FIT);
    }
}
