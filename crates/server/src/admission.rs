//! How much one client may ask: requests a second of an address that shows nothing, requests a second and connections of an account.
//! Guards: a client that is over its share is told when to come back, before anything is read for it. Kept by each node in memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::request;
use parking_lot::Mutex;
use twinport_access::Identity;

use crate::config::AccountLimits;
use crate::error::Refusal;

/// Callers that are counted at most before those that asked nothing of late are forgotten.
const COUNTED: usize = 100_000;

/// Connections by account.
type Counts = Arc<Mutex<HashMap<String, u32>>>;

/// The shares of all callers.
#[derive(Debug)]
pub(crate) struct Admission {
    by_address: Option<DefaultKeyedRateLimiter<IpAddr>>,
    by_account: Option<DefaultKeyedRateLimiter<String>>,
    connections: Option<(u32, Counts)>,
}

/// The accounts that one connection counts for; in the extensions of its requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionShare(Arc<OnceLock<Held>>);

#[derive(Debug)]
struct Held {
    account: String,
    counts: Counts,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.account);
            }
        }
    }
}

impl Admission {
    pub(crate) fn new(limits: AccountLimits) -> Self {
        // A burst of two seconds' worth: a client opens a page of layers at once.
        let quota = |rate: NonZeroU32| Quota::per_second(rate).allow_burst(rate.saturating_add(rate.get()));
        Self {
            by_address: limits.requests_per_second.map(|rate| RateLimiter::keyed(quota(rate))),
            by_account: limits.requests_per_second_per_account.map(|rate| RateLimiter::keyed(quota(rate))),
            connections: limits.connections_per_account.map(|most| (most.get(), Arc::default())),
        }
    }

    /// Takes one request of the caller's share.
    ///
    /// # Errors
    /// 429, with when to come back.
    pub(crate) fn admit(
        &self,
        identity: &Identity,
        from: Option<IpAddr>,
        request: &request::Parts,
    ) -> Result<(), Refusal> {
        if *identity == Identity::Anonymous {
            return match (&self.by_address, from) {
                (Some(limiter), Some(ip)) => take(limiter, &ip),
                _ => Ok(()),
            };
        }
        if self.by_account.is_none() && self.connections.is_none() {
            return Ok(());
        }
        let account = identity.to_string();
        if let Some(limiter) = &self.by_account {
            take(limiter, &account)?;
        }
        match (&self.connections, request.extensions.get::<ConnectionShare>()) {
            (Some((most, counts)), Some(share)) => share.take(account, *most, counts),
            _ => Ok(()),
        }
    }
}

fn take<K: std::hash::Hash + Eq + Clone>(
    limiter: &DefaultKeyedRateLimiter<K>,
    key: &K,
) -> Result<(), Refusal> {
    if limiter.len() > COUNTED {
        limiter.retain_recent();
    }
    limiter.check_key(key).map_err(|early| {
        let wait: Duration = early.wait_time_from(DefaultClock::default().now());
        Refusal::too_many("this client asks more often than it may: slow down", wait.as_secs() + 1)
    })
}

impl ConnectionShare {
    /// Counts this connection for the first account that uses it.
    fn take(&self, account: String, most: u32, counts: &Counts) -> Result<(), Refusal> {
        if self.0.get().is_some_and(|held| held.account == account) {
            return Ok(());
        }
        let mut counting = counts.lock();
        let count = counting.entry(account.clone()).or_default();
        if *count >= most {
            let message = format!("{account} has {most} connections open, and may have no more: close one");
            return Err(Refusal::too_many(message, 1));
        }
        *count += 1;
        drop(counting);
        // A connection that changes hands counts for its first account alone: the rest of this count is given back at once.
        self.0.set(Held { account, counts: counts.clone() }).ok();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(share: &ConnectionShare) -> request::Parts {
        http::Request::get("/v2/").extension(share.clone()).body(()).unwrap().into_parts().0
    }

    fn account(name: &str) -> Identity {
        Identity::Account { name: name.parse().unwrap(), kind: twinport_access::AccountKind::User }
    }

    #[test]
    fn connections_of_an_account_are_counted_while_they_are_open() {
        let limits =
            AccountLimits { connections_per_account: NonZeroU32::new(2), ..AccountLimits::default() };
        let admission = Admission::new(limits);
        let admit =
            |share: &ConnectionShare, name: &str| admission.admit(&account(name), None, &request(share));
        let shares: Vec<ConnectionShare> = (0..3).map(|_| ConnectionShare::default()).collect();
        assert!(admit(&shares[0], "alice").is_ok() && admit(&shares[0], "alice").is_ok());
        assert!(admit(&shares[1], "alice").is_ok());
        assert!(admit(&shares[2], "alice").is_err());
        assert!(admit(&shares[2], "bob").is_ok());
        let mut shares = shares.into_iter();
        drop(shares.next());
        assert!(admit(&ConnectionShare::default(), "alice").is_ok());
    }

    #[test]
    fn a_caller_over_its_share_is_told_when_to_come_back() {
        let limits = AccountLimits {
            requests_per_second: NonZeroU32::new(1),
            requests_per_second_per_account: NonZeroU32::new(2),
            ..AccountLimits::default()
        };
        let admission = Admission::new(limits);
        let share = ConnectionShare::default();
        let here = Some(IpAddr::from([10, 0, 0, 1]));
        let admitted =
            (0..20).take_while(|_| admission.admit(&Identity::Anonymous, here, &request(&share)).is_ok());
        assert_eq!(admitted.count(), 2);
        let there = Some(IpAddr::from([10, 0, 0, 2]));
        assert!(admission.admit(&Identity::Anonymous, there, &request(&share)).is_ok());
        let of_account = |name: &str| {
            (0..20).take_while(|_| admission.admit(&account(name), here, &request(&share)).is_ok()).count()
        };
        assert_eq!(of_account("alice"), 4);
        assert_eq!(of_account("bob"), 4);
    }
}
