//! Who guesses passwords is slowed down, by address and name together, by address, and by name.
//! Invariant: a name alone is never locked for long, or anybody could lock anybody out. Kept by each node in memory, bounded;
//! what was counted is forgotten with the process.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::error::Refusal;

/// Keys that are remembered, each about 200 bytes; of more, those that were not met again for longest are forgotten.
const REMEMBERED: usize = 30_000;

/// How failures of one kind of key are answered.
struct Scale {
    /// Failures in a row that cost nothing.
    free: u32,
    /// What the first that is not free costs; each further one doubles it.
    first: Duration,
    most: Duration,
}

/// One address and one name.
const PAIR: Scale = Scale { free: 5, first: Duration::from_secs(1), most: Duration::from_secs(900) };
/// One address, whatever names it tries.
const ADDRESS: Scale = Scale { free: 30, first: Duration::from_secs(1), most: Duration::from_secs(60) };
/// One name, from wherever: a botnet is slowed down, its owner waits seconds at most.
const NAME: Scale = Scale { free: 50, first: Duration::from_secs(1), most: Duration::from_secs(5) };

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pair(IpAddr, String),
    Address(IpAddr),
    Name(String),
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    until: Instant,
}

/// The failures of sign-ins.
#[derive(Debug)]
pub(crate) struct Throttle {
    failures: Cache<Key, Failures>,
    /// Counting is read and write in one.
    turn: Mutex<()>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { failures: Cache::new(REMEMBERED), turn: Mutex::new(()) }
    }
}

impl Throttle {
    /// How long this caller has to wait before it may try again; none when it may now.
    pub(crate) fn wait(&self, from: Option<IpAddr>, name: &str, now: Instant) -> Option<Duration> {
        let waits = keys(from, name).into_iter().filter_map(|(key, scale)| {
            let failures = self.failures.get(&key)?;
            // Forgotten after as long again as was waited for.
            (failures.count > scale.free).then(|| failures.until.checked_duration_since(now)).flatten()
        });
        waits.max().filter(|wait| !wait.is_zero())
    }

    /// Refuses a caller that guessed wrong too often.
    ///
    /// # Errors
    /// 429, with when to come back.
    pub(crate) fn check(&self, from: Option<IpAddr>, name: &str) -> Result<(), Refusal> {
        match self.wait(from, name, Instant::now()) {
            None => Ok(()),
            Some(wait) => Err(Refusal::too_many(
                "too many sign-ins failed: wait before the next",
                wait.as_secs() + u64::from(wait.subsec_nanos() > 0),
            )),
        }
    }

    pub(crate) fn failed(&self, from: Option<IpAddr>, name: &str, now: Instant) {
        let _turn = self.turn.lock();
        for (key, scale) in keys(from, name) {
            let before = self.failures.get(&key).filter(|failures| now < failures.until + scale.most);
            let count = before.map_or(0, |failures| failures.count).saturating_add(1);
            let doublings = count.saturating_sub(scale.free + 1).min(16);
            let wait = if count > scale.free { scale.first * (1 << doublings) } else { Duration::ZERO };
            self.failures.insert(key, Failures { count, until: now + wait.min(scale.most) });
        }
    }

    /// A sign-in that holds ends the row of its address and name. Other counts go on: one good account must not pay for
    /// guesses at others.
    pub(crate) fn succeeded(&self, from: Option<IpAddr>, name: &str) {
        if let Some(ip) = from {
            self.failures.remove(&Key::Pair(network(ip), name.to_owned()));
        }
    }
}

fn keys(from: Option<IpAddr>, name: &str) -> Vec<(Key, &'static Scale)> {
    let mut keys = vec![(Key::Name(name.to_owned()), &NAME)];
    if let Some(ip) = from.map(network) {
        keys.push((Key::Pair(ip, name.to_owned()), &PAIR));
        keys.push((Key::Address(ip), &ADDRESS));
    }
    keys
}

/// One customer of a provider has a /64 of IPv6 at least.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const THERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)));

    #[test]
    fn a11_guessing_costs_time_and_locks_nobody_else_out() {
        let throttle = Throttle::default();
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(throttle.wait(HERE, "alice", start), None);
            throttle.failed(HERE, "alice", start);
        }
        assert_eq!(throttle.wait(HERE, "alice", start), None);
        throttle.failed(HERE, "alice", start);
        assert_eq!(throttle.wait(HERE, "alice", start), Some(Duration::from_secs(1)));
        assert_eq!(throttle.wait(THERE, "alice", start), None, "her own address is free");
        assert_eq!(throttle.wait(HERE, "bob", start), None, "so are other names");
        throttle.failed(HERE, "alice", start);
        assert_eq!(throttle.wait(HERE, "alice", start), Some(Duration::from_secs(2)));
        for _ in 0..20 {
            throttle.failed(HERE, "alice", start);
        }
        assert_eq!(throttle.wait(HERE, "alice", start), Some(PAIR.most));
        assert_eq!(throttle.wait(HERE, "alice", start + PAIR.most), None);
        throttle.succeeded(HERE, "alice");
        assert_eq!(throttle.wait(HERE, "alice", start), None);
    }

    #[test]
    fn a11_many_names_from_one_address_and_one_name_from_many_are_slowed_down() {
        let throttle = Throttle::default();
        let start = Instant::now();
        for number in 0..40 {
            throttle.failed(HERE, &format!("user-{number}"), start);
        }
        assert!(throttle.wait(HERE, "another", start).is_some());
        for number in 0..100_u8 {
            throttle.failed(Some(IpAddr::from([10, 1, 0, number])), "admin", start);
        }
        let wait = throttle.wait(THERE, "admin", start).unwrap();
        assert!(wait <= NAME.most, "{wait:?}");
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let throttle = Throttle::default();
        let start = Instant::now();
        for number in 0..7 {
            throttle.failed(ip(&format!("2001:db8::{number}")), "alice", start);
        }
        assert!(throttle.wait(ip("2001:db8::ffff"), "alice", start).is_some());
        assert_eq!(throttle.wait(ip("2001:db8:0:1::1"), "alice", start), None);
    }
}
