//! The public half of a key with which a site's token service signs.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A key whose tokens every site of the federation takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// As in the header of the tokens; unique in the federation.
    pub kid: String,
    /// The incarnation of the site that holds the private half.
    pub site: Uuid,
    /// The uncompressed point of an ES256 key, 65 bytes, in base64url without padding.
    pub public_key: String,
    pub created_at_us: i64,
    /// Tokens that were signed after this are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires_at_us: Option<i64>,
}
