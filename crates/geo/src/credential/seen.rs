//! Credentials whose signature was checked a moment ago: a site sends one many times before it makes the next.
//! Guards: only the signature is remembered. Times, audience, scope and the site's state are checked at every call.

use std::collections::VecDeque;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::Claims;

/// Sites have one at a time, so this is many sites; each entry takes less than a KiB.
const REMEMBERED: usize = 64;

/// The latest credentials, by the hash of their text: the text itself is not kept.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<VecDeque<Credential>>);

#[derive(Debug)]
struct Credential {
    hash: [u8; 32],
    public_key: Vec<u8>,
    claims: Claims,
}

impl Seen {
    /// The claims of a token that this key is known to have signed.
    pub(super) fn claims(&self, token: &str, public_key: &[u8]) -> Option<Claims> {
        let hash = hash(token);
        let seen = self.0.lock();
        let found = seen.iter().find(|known| known.hash == hash && known.public_key == public_key)?;
        Some(found.claims.clone())
    }

    pub(super) fn remember(&self, token: &str, public_key: &[u8], claims: &Claims) {
        let credential =
            Credential { hash: hash(token), public_key: public_key.to_vec(), claims: claims.clone() };
        let mut seen = self.0.lock();
        if seen.len() == REMEMBERED {
            seen.pop_front();
        }
        seen.push_back(credential);
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(jti: usize) -> Claims {
        Claims {
            iss: String::new(),
            aud: String::new(),
            scope: String::new(),
            iat: 0,
            nbf: 0,
            exp: 0,
            jti: jti.to_string(),
        }
    }

    #[test]
    fn a_credential_counts_for_the_key_that_signed_it_until_others_push_it_out() {
        let (seen, key) = (Seen::default(), b"key".to_vec());
        seen.remember("first", &key, &claims(0));
        assert_eq!(seen.claims("first", &key).map(|claims| claims.jti), Some("0".to_owned()));
        assert!(seen.claims("first", b"another").is_none());
        assert!(seen.claims("firs", &key).is_none());
        (1..=REMEMBERED).for_each(|number| seen.remember(&number.to_string(), &key, &claims(number)));
        assert!(seen.claims("first", &key).is_none());
        assert!(seen.claims("1", &key).is_some());
    }
}
