//! The registered claims of a token (RFC 7519 section 4.1): who says so, to whom, about whom, from when and until when.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::access::{AccessEntry, entries};
use super::refusal::{Part, Refusal};
use super::times::Times;
use super::{json, mint};
use crate::error::shown;

const US_PER_S: i64 = 1_000_000;
/// A claim that is shown and logged is no longer than this.
const MAX_TEXT: usize = 1_024;
/// Until the year 9999; what is later overflows somebody's calendar.
const MAX_TIME_S: i64 = 253_402_300_799;

/// Claims whose signature is good; [`Claims::check`] says whether they count here and at present.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    pub issuer: String,
    /// Empty where the token service vouches for nobody in particular.
    pub subject: String,
    pub audience: Vec<String>,
    pub times: Times,
    /// `jti`.
    pub id: Option<String>,
    /// Everything, the above included.
    pub all: Map<String, Value>,
}

impl Claims {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let all = json::object(bytes, Part::Claims)?;
        let audience = match all.get("aud") {
            None => return Err(Refusal::Missing("aud")),
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(several)) => {
                let texts = several.iter().map(|value| value.as_str().map(str::to_owned));
                texts.collect::<Option<Vec<_>>>().ok_or(Refusal::Claim("aud"))?
            }
            Some(_) => return Err(Refusal::Claim("aud")),
        };
        Ok(Self {
            issuer: text(&all, "iss")?.ok_or(Refusal::Missing("iss"))?,
            subject: text(&all, "sub")?.unwrap_or_default(),
            audience,
            times: Times {
                expires_at_s: time(&all, "exp")?.ok_or(Refusal::Missing("exp"))?,
                not_before_s: time(&all, "nbf")?,
                issued_at_s: time(&all, "iat")?,
            },
            id: text(&all, "jti")?,
            all,
        })
    }

    /// What the token lets its bearer do.
    ///
    /// # Errors
    /// The [`Refusal`] of a list that cannot be read.
    pub fn access(&self) -> Result<Vec<AccessEntry>, Refusal> {
        entries(&self.all)
    }

    /// When the token ends (µs since the epoch, UTC), without the skew.
    pub fn expires_at_us(&self) -> i64 {
        self.times.expires_at_s * US_PER_S
    }

    /// Whether the claims are of one of these issuers, for one of these audiences, and valid at `now_us`, give or take
    /// [`SKEW_S`](super::SKEW_S).
    ///
    /// # Errors
    /// The [`Refusal`] of the first of these that they are not.
    pub fn check(&self, issuers: &[String], audiences: &[String], now_us: i64) -> Result<(), Refusal> {
        if !issuers.contains(&self.issuer) {
            return Err(Refusal::Issuer(shown(&self.issuer)));
        }
        if !self.audience.iter().any(|audience| audiences.contains(audience)) {
            return Err(Refusal::Audience(shown(&self.audience.join(", "))));
        }
        self.times.check(now_us)
    }

    /// What more holds for tokens of the built-in service: they are short-lived, and none was signed after its key
    /// retired. Together that ends a stolen old key, which could backdate its tokens.
    pub(super) fn check_own(&self, retires_at_us: Option<i64>) -> Result<(), Refusal> {
        let issued_at_s = self.times.issued_at_s.ok_or(Refusal::Missing("iat"))?;
        if self.times.expires_at_s - issued_at_s > mint::MAX_LIFETIME_S {
            return Err(Refusal::Lifetime);
        }
        if retires_at_us.is_some_and(|at_us| issued_at_s > at_us.div_euclid(US_PER_S)) {
            return Err(Refusal::KeyRetired);
        }
        Ok(())
    }

    /// The claims that are single texts, numbers or booleans, as texts: what roles may ask for. Those within objects have
    /// the objects' names before theirs, as in Kubernetes' `kubernetes.io/namespace`.
    pub fn flat(&self) -> BTreeMap<String, String> {
        let mut flat = BTreeMap::new();
        flatten("", &self.all, &mut flat);
        flat
    }
}

/// Objects first, so that none can stand in for a claim of the outer level.
fn flatten(before: &str, fields: &Map<String, Value>, flat: &mut BTreeMap<String, String>) {
    for (name, value) in fields {
        if let Value::Object(inner) = value {
            flatten(&format!("{before}{name}/"), inner, flat);
        }
    }
    for (name, value) in fields {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        flat.insert(format!("{before}{name}"), text);
    }
}

/// A claim that is a text and may be shown: bounded and without control characters.
pub(super) fn text(all: &Map<String, Value>, name: &'static str) -> Result<Option<String>, Refusal> {
    match all.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= MAX_TEXT && !text.contains(char::is_control) => {
            Ok(Some(text.clone()))
        }
        Some(_) => Err(Refusal::Claim(name)),
    }
}

/// A NumericDate: seconds, of which fractions do not count.
fn time(all: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, Refusal> {
    let seconds = match all.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(seconds), _) => Some(seconds),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a float becomes the nearest integer there is"
            )]
            (None, Some(seconds)) => Some(seconds as i64),
            (None, None) => None,
        },
        Some(_) => None,
    };
    match seconds {
        Some(seconds) if (0..=MAX_TIME_S).contains(&seconds) => Ok(Some(seconds)),
        _ => Err(Refusal::Claim(name)),
    }
}
