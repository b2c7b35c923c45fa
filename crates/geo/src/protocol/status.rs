//! What a secondary reports of itself, and the heartbeat that answers it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use twinport_access::SigningKey;
use twinport_metadata::{Incarnation, LogPosition};

use super::Head;

/// A reader's random value that a heartbeat echoes: proof that the heartbeat's head is younger than the report.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 16]);

impl Nonce {
    /// A fresh random nonce.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(D::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// Sent on the log stream every second and at once when a nonce arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The reader's latest nonce; none until it has reported.
    pub nonce: Option<Nonce>,
    /// The head of a sequencer pass that began after `nonce` was read.
    #[serde(flatten)]
    pub head: Head,
    /// The primary's clock (µs since the epoch, UTC).
    pub clock_us: i64,
    /// Clients keep the node that sends this busy: what can wait should ask little of it.
    #[serde(default)]
    pub busy: bool,
}

/// Things by Geo's states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ItemCounts {
    pub pending: u64,
    pub started: u64,
    pub synced: u64,
    pub failed: u64,
    pub verification_pending: u64,
    pub verification_succeeded: u64,
    pub verification_failed: u64,
}

/// `POST /geo/v1/status`: where a secondary stands. Unknown fields of a newer peer are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    pub nonce: Nonce,
    /// The reporting site; must be the one that the credential names.
    pub incarnation: Incarnation,
    /// "Last event ID from primary": the last event ingested.
    pub ingested: LogPosition,
    /// "Last event ID processed".
    pub applied_seq: i64,
    /// Lag in events: known head minus applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_events: Option<i64>,
    /// Lag in µs by the primary's clock; none before the first contact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_us: Option<i64>,
    /// Repositories by state.
    #[serde(default)]
    pub repositories: ItemCounts,
    /// Tags and manifests by state.
    #[serde(default)]
    pub items: ItemCounts,
    /// The keys that its token service signs with, and those before them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_keys: Vec<SigningKey>,
}
