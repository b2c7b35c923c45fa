//! The repositories that wait for the primary to return.
//! Guards: none of them waits longer than the outage, however short that was (hazard R14).

use parking_lot::Mutex;
use twinport_metadata::RepositoryUuid;

/// More than this are not named one by one: everything is made due in one statement then.
const NAMED_MOST: usize = 64;

/// Named, or too many to name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    For(Vec<RepositoryUuid>),
    Many,
}

#[derive(Debug)]
pub(crate) struct Away(Mutex<Waiting>);

impl Default for Away {
    fn default() -> Self {
        Self(Mutex::new(Waiting::For(Vec::new())))
    }
}

impl Away {
    /// To be called before the wait is written: whoever connects meanwhile finds the name, or the one who writes finds
    /// the connection.
    pub(crate) fn add(&self, uuid: RepositoryUuid) {
        let mut waiting = self.0.lock();
        match &mut *waiting {
            Waiting::For(named) if named.contains(&uuid) => {}
            Waiting::For(named) if named.len() < NAMED_MOST => named.push(uuid),
            Waiting::For(_) | Waiting::Many => *waiting = Waiting::Many,
        }
    }

    /// What is to be made due, the primary being back.
    pub(crate) fn take(&self) -> Waiting {
        std::mem::replace(&mut *self.0.lock(), Waiting::For(Vec::new()))
    }

    /// Puts back that something waits which could not be made due.
    pub(crate) fn many(&self) {
        *self.0.lock() = Waiting::Many;
    }
}

#[cfg(test)]
mod tests {
    use super::{Away, NAMED_MOST, Waiting};
    use twinport_metadata::RepositoryUuid;
    use uuid::Uuid;

    #[test]
    fn what_waits_is_named_once_and_taken_once() {
        let (away, uuid) = (Away::default(), RepositoryUuid(Uuid::from_u128(1)));
        away.add(uuid);
        away.add(uuid);
        assert_eq!(away.take(), Waiting::For(vec![uuid]));
        assert_eq!(away.take(), Waiting::For(vec![]));
    }

    #[test]
    fn more_than_can_be_named_are_many_until_taken() {
        let away = Away::default();
        for number in 0..=NAMED_MOST as u128 {
            away.add(RepositoryUuid(Uuid::from_u128(number)));
        }
        assert_eq!(away.take(), Waiting::Many);
        assert_eq!(away.take(), Waiting::For(vec![]));
    }
}
