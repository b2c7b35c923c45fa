//! From when until when a token is valid.

use super::refusal::Refusal;

/// By how much the clock of a token service may differ from this site's, in seconds. Distribution and GitLab take as much.
pub const SKEW_S: i64 = 60;

const US_PER_S: i64 = 1_000_000;

/// The times of a token, in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// `exp`.
    pub expires_at_s: i64,
    /// `nbf`.
    pub not_before_s: Option<i64>,
    /// `iat`.
    pub issued_at_s: Option<i64>,
}

impl Times {
    /// Whether the token is valid at `now_us`, give or take [`SKEW_S`].
    pub(super) fn check(&self, now_us: i64) -> Result<(), Refusal> {
        let start_s = self.not_before_s.max(self.issued_at_s);
        if start_s.is_some_and(|start_s| start_s >= self.expires_at_s) {
            return Err(Refusal::NoLifetime);
        }
        let now_s = now_us.div_euclid(US_PER_S);
        if now_s > self.expires_at_s + SKEW_S {
            return Err(Refusal::Expired { ago_s: now_s - self.expires_at_s });
        }
        if let Some(start_s) = self.not_before_s.filter(|start_s| now_s < start_s - SKEW_S) {
            return Err(Refusal::NotYetValid { in_s: start_s - now_s });
        }
        if let Some(issued_s) = self.issued_at_s.filter(|issued_s| now_s < issued_s - SKEW_S) {
            return Err(Refusal::IssuedInTheFuture { in_s: issued_s - now_s });
        }
        Ok(())
    }
}
