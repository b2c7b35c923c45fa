//! Logins that were right a moment ago: a pull is many requests, and each carries the password.
//! Guards: neither name nor password is kept, only a code under a key that this process alone has and never writes.

use std::collections::{HashMap, VecDeque};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use parking_lot::Mutex;

use crate::{Error, Result};

/// How long a login counts without a look at the hash.
const LIFETIME_US: i64 = 60_000_000;
const REMEMBERED: usize = 4_096;

type Code = [u8; 32];

pub(super) struct Verified {
    key: hmac::Key,
    logins: Mutex<Logins>,
}

#[derive(Default)]
struct Logins {
    /// When each was found right.
    at_us: HashMap<Code, i64>,
    order: VecDeque<Code>,
}

impl Verified {
    pub(super) fn new() -> Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| Error::Keys {
            what: "a key for the cache of logins".to_owned(),
            reason: "the system gave no random numbers for it".to_owned(),
        })?;
        Ok(Self { key, logins: Mutex::default() })
    }

    pub(super) fn contains(&self, user: &str, password: &str, now_us: i64) -> bool {
        let found = self.logins.lock().at_us.get(&self.code(user, password)).copied();
        // A clock that was set back makes nothing last longer.
        found.is_some_and(|at_us| (0..LIFETIME_US).contains(&(now_us - at_us)))
    }

    pub(super) fn remember(&self, user: &str, password: &str, now_us: i64) {
        let code = self.code(user, password);
        let mut logins = self.logins.lock();
        if logins.at_us.insert(code, now_us).is_some() {
            return;
        }
        logins.order.push_back(code);
        if logins.order.len() > REMEMBERED
            && let Some(oldest) = logins.order.pop_front()
        {
            logins.at_us.remove(&oldest);
        }
    }

    fn code(&self, user: &str, password: &str) -> Code {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&user.len().to_be_bytes());
        context.update(user.as_bytes());
        context.update(password.as_bytes());
        let mut code = [0; 32];
        code.copy_from_slice(context.sign().as_ref());
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded() {
        let verified = Verified::new().unwrap();
        (0..=REMEMBERED).for_each(|number| verified.remember(&number.to_string(), "x", 0));
        assert_eq!(verified.logins.lock().at_us.len(), REMEMBERED);
        assert!(!verified.contains("0", "x", 0) && verified.contains("1", "x", 0));
    }
}
