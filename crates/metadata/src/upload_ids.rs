//! Upload ids that certify themselves: a session without bytes needs no row, so beginning one costs no commit.
//! Invariant: an id is taken for a session only in the repository it was issued for, and only for [`LIFETIME_US`].

use std::fmt;

use aws_lc_rs::hmac;
use twinport_oci::{RepositoryName, UploadId};
use uuid::Builder;

/// How long a session may wait for its first bytes: one day, in microseconds.
pub(crate) const LIFETIME_US: i64 = 24 * 3600 * 1_000_000;
/// Clocks of a site's nodes may differ by this much: five minutes, in microseconds.
const SKEW_US: i64 = 300 * 1_000_000;
const SECOND_US: i64 = 1_000_000;
/// What the tag covers: the second of issue (4 bytes), then 50 random bits among the version's and variant's six.
const COVERED: usize = 11;
const PURPOSE: &[u8] = b"twinport upload id, version 1";

/// Issues a site's upload ids, and tells them from others. Every node of the site has the same key.
///
/// The tag has 40 bits. More would take bits from chance, which keeps two sessions apart; and who guesses one gains
/// a session, which a POST would have given.
#[derive(Clone)]
pub(crate) struct UploadIds {
    key: hmac::Key,
}

impl fmt::Debug for UploadIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadIds")
    }
}

impl UploadIds {
    /// Derives the key from the site's private one.
    pub(crate) fn new(signing_key: &[u8]) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, signing_key), PURPOSE);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) }
    }

    pub(crate) fn issue(&self, repository: &RepositoryName, now_us: i64) -> UploadId {
        let mut bytes: [u8; 16] = rand::random();
        let second = u32::try_from(now_us / SECOND_US).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&second.to_be_bytes());
        bytes = Builder::from_custom_bytes(bytes).into_uuid().into_bytes();
        let tag = self.tag(repository, &bytes);
        bytes[COVERED..].copy_from_slice(&tag);
        UploadId(uuid::Uuid::from_bytes(bytes))
    }

    /// When the id was issued for this repository (µs since the epoch), if it was, and not too long ago.
    pub(crate) fn issued_at_us(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
        now_us: i64,
    ) -> Option<i64> {
        let bytes = id.0.as_bytes();
        let tag = self.tag(repository, bytes);
        aws_lc_rs::constant_time::verify_slices_are_equal(&tag, &bytes[COVERED..]).ok()?;
        let second = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let issued_at_us = i64::from(second) * SECOND_US;
        (issued_at_us - SKEW_US..=issued_at_us + LIFETIME_US).contains(&now_us).then_some(issued_at_us)
    }

    fn tag(&self, repository: &RepositoryName, bytes: &[u8; 16]) -> [u8; 16 - COVERED] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&bytes[..COVERED]);
        context.update(repository.as_str().as_bytes());
        let signed = context.sign();
        std::array::from_fn(|index| signed.as_ref()[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: i64 = 1_800_000_000_123_456;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    #[test]
    fn a5_an_id_counts_in_its_own_repository_only() {
        let ids = UploadIds::new(b"site");
        let id = ids.issue(&name("app"), NOW_US);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(ids.issued_at_us(&name("app"), &id, NOW_US), Some(1_800_000_000_000_000));
        assert_eq!(ids.issued_at_us(&name("apq"), &id, NOW_US), None);
        assert_eq!(UploadIds::new(b"another site").issued_at_us(&name("app"), &id, NOW_US), None);
        for bit in 0..128 {
            let altered = UploadId(uuid::Uuid::from_u128(id.0.as_u128() ^ (1 << bit)));
            assert_eq!(ids.issued_at_us(&name("app"), &altered, NOW_US), None, "bit {bit}");
        }
    }

    #[test]
    fn an_id_counts_for_a_day() {
        let ids = UploadIds::new(b"site");
        let id = ids.issue(&name("app"), NOW_US);
        let counts = |after_us: i64| ids.issued_at_us(&name("app"), &id, NOW_US + after_us).is_some();
        assert!(counts(0) && counts(LIFETIME_US - SECOND_US) && counts(-SKEW_US));
        assert!(!counts(LIFETIME_US + SECOND_US) && !counts(-SKEW_US - SECOND_US));
    }

    #[test]
    fn ids_of_one_moment_differ() {
        let ids = UploadIds::new(b"site");
        let issued: std::collections::BTreeSet<_> =
            (0..10_000).map(|_| ids.issue(&name("app"), NOW_US)).collect();
        assert_eq!(issued.len(), 10_000);
    }
}
