//! Site credentials: short-lived tokens that a site signs with its own key, and their verification.
//!
//! **Architecture invariant:** a site is who its key says: nothing a caller sends picks the key, the algorithm or the clock.

mod seen;

use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio::sync::OnceCell;
use twinport_metadata::{Federation, Incarnation, Metadata, SiteRecord, SiteState};
use uuid::Uuid;

use self::seen::Seen;
use crate::{Error, Refusal, RefusalCode, Result, protocol::CLOCK_TOLERANCE_US};

/// How long a credential is good for, in seconds; a verifier takes none that claims more.
pub const CREDENTIAL_LIFETIME_S: i64 = 300;
/// Read the log, listings, manifests and blobs.
pub const SCOPE_PULL: &str = "pull";
/// Report one's own status.
pub const SCOPE_STATUS: &str = "status";

const SCOPES: &str = "pull status";
const US_PER_S: i64 = 1_000_000;
/// A credential is some 400 bytes; nothing longer is looked at.
const MAX_CREDENTIAL_BYTES: usize = 2_048;

/// A site's own Ed25519 key pair.
#[derive(Debug)]
pub struct SiteKey {
    pair: Ed25519KeyPair,
    jwt: EncodingKey,
}

impl SiteKey {
    /// The key as the site's database keeps it: a 32-byte seed, or a PKCS#8 document.
    ///
    /// # Errors
    /// [`Error::Key`] when the bytes are neither.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let pair = if bytes.len() == 32 {
            Ed25519KeyPair::from_seed_unchecked(bytes)
        } else {
            Ed25519KeyPair::from_pkcs8(bytes)
        }
        .map_err(|error| Error::Key(error.to_string()))?;
        let document =
            pair.to_pkcs8().map_err(|_| Error::Key("it cannot be written as PKCS#8".to_owned()))?;
        let jwt = EncodingKey::from_ed_der(document.as_ref());
        Ok(Self { pair, jwt })
    }

    /// The raw public key, 32 bytes.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// An Ed25519 signature, 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    /// A credential of the site `incarnation` for `federation`, good from now for [`CREDENTIAL_LIFETIME_S`].
    ///
    /// # Errors
    /// [`Error::Key`] when signing fails.
    pub fn credential(
        &self,
        incarnation: Incarnation,
        federation: Federation,
        now_us: i64,
    ) -> Result<String> {
        let now = now_us.div_euclid(US_PER_S);
        let claims = Claims {
            iss: incarnation.to_string(),
            aud: federation.to_string(),
            scope: SCOPES.to_owned(),
            iat: now,
            nbf: now,
            exp: now + CREDENTIAL_LIFETIME_S,
            jti: Uuid::new_v4().to_string(),
        };
        self.encode(incarnation, &claims)
    }

    fn encode(&self, incarnation: Incarnation, claims: &Claims) -> Result<String> {
        let header = Header { kid: Some(incarnation.to_string()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.jwt).map_err(|error| Error::Key(error.to_string()))
    }
}

/// Whether `signature` over `message` was made with the key whose raw public half is `public_key`.
pub(crate) fn signed_by(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(message, signature).is_ok()
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    scope: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
}

/// The incarnation that a bearer token says signed it, if it has the shape of a site credential; nothing is verified.
///
/// For `/v2`, which must tell a site's credential from a user's token before it asks a [`CredentialVerifier`].
#[must_use]
pub fn key_id(token: &str) -> Option<Incarnation> {
    if token.len() > MAX_CREDENTIAL_BYTES {
        return None;
    }
    jsonwebtoken::decode_header(token).ok()?.kid?.parse().ok()
}

/// A site that proved who it is.
#[derive(Clone, Debug)]
pub struct Peer {
    pub site: SiteRecord,
}

/// Checks credentials against the sites this one knows.
#[derive(Clone)]
pub struct CredentialVerifier {
    metadata: Metadata,
    /// Read once: a site that others may call has no way to another federation.
    federation: Arc<OnceCell<Federation>>,
    seen: Arc<Seen>,
}

impl CredentialVerifier {
    /// A verifier over the sites of `metadata`.
    #[must_use]
    pub fn new(metadata: Metadata) -> Self {
        Self { metadata: metadata.reserved(), federation: Arc::default(), seen: Arc::default() }
    }

    /// The site behind an `Authorization` header, if its credential carries `scope`.
    ///
    /// # Errors
    /// [`Error::Refused`] with `CREDENTIAL_MISSING`, `CREDENTIAL_INVALID`, `CREDENTIAL_EXPIRED`, `SITE_REMOVED` or
    /// `SCOPE`; a metadata error when the sites cannot be read.
    pub async fn verify(&self, authorization: Option<&str>, scope: &str) -> Result<Peer> {
        let Some(header) = authorization else {
            return Err(refuse(
                RefusalCode::CredentialMissing,
                "this call needs a site credential: join this site first",
            ));
        };
        let token =
            bearer(header).ok_or_else(|| invalid("the Authorization header is not a bearer token"))?;
        let incarnation = key_id(token).ok_or_else(|| invalid("the token names no site"))?;
        let site = self.metadata.site_record(incarnation).await?.ok_or_else(|| {
            invalid("no site with this incarnation has joined: join it with a token of `twinport site add`")
        })?;
        let read = async || self.metadata.site().await.map(|own| own.federation);
        let federation = *self.federation.get_or_try_init(read).await?;
        let claims = match self.seen.claims(token, &site.public_key) {
            Some(claims) => claims,
            None => {
                let claims = decode(token, &site.public_key)?;
                self.seen.remember(token, &site.public_key, &claims);
                claims
            }
        };
        check(&claims, incarnation, federation, self.metadata.clock().now_us())?;
        // Only after the signature: whoever cannot sign learns nothing about who was removed.
        if site.state == SiteState::Removed {
            return Err(removed(&site));
        }
        if !claims.scope.split(' ').any(|held| held == scope) {
            return Err(refuse(
                RefusalCode::Scope,
                format!("the credential of site {} does not carry the scope {scope}", site.name),
            ));
        }
        Ok(Peer { site })
    }
}

pub(crate) fn removed(site: &SiteRecord) -> Error {
    refuse(
        RefusalCode::SiteRemoved,
        format!(
            "site {} was removed from the federation: to take it back, start it with an empty data directory and join it anew",
            site.name
        ),
    )
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_CREDENTIAL_BYTES)
        .then_some(token)
}

fn decode(token: &str, public_key: &[u8]) -> Result<Claims> {
    let mut validation = Validation::new(Algorithm::EdDSA);
    // Times and audience are checked by `check`, against the injected clock.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.set_required_spec_claims::<&str>(&[]);
    jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_ed_der(public_key), &validation)
        .map(|data| data.claims)
        .map_err(|_| invalid("the token is not signed by the site that it names"))
}

fn check(claims: &Claims, incarnation: Incarnation, federation: Federation, now_us: i64) -> Result<()> {
    if claims.iss != incarnation.to_string() {
        return Err(invalid("the token's issuer is not the site that signed it"));
    }
    if !same(&claims.aud, &federation.to_string()) {
        return Err(invalid("the token is for another federation"));
    }
    if claims.exp.saturating_sub(claims.iat) > CREDENTIAL_LIFETIME_S || claims.exp <= claims.iat {
        return Err(invalid("the token's lifetime is over five minutes"));
    }
    let now = now_us.div_euclid(US_PER_S);
    let skew = CLOCK_TOLERANCE_US / US_PER_S;
    if claims.nbf > now + skew || claims.iat > now + skew {
        return Err(invalid(format!(
            "the token is from the future: the clocks of the two sites differ by over {skew} s"
        )));
    }
    if claims.exp < now - skew {
        return Err(refuse(
            RefusalCode::CredentialExpired,
            format!(
                "the token expired {} s ago: send a fresh one, and compare the clocks of the two sites",
                now - claims.exp
            ),
        ));
    }
    Ok(())
}

fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

fn invalid(message: impl Into<String>) -> Error {
    refuse(RefusalCode::CredentialInvalid, message)
}

fn refuse(code: RefusalCode, message: impl Into<String>) -> Error {
    Refusal::new(code, message).into()
}
