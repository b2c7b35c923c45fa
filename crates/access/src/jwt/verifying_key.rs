//! Public keys that tokens are checked with, and the signatures each kind is for.
//! Invariant: an algorithm belongs to a kind of key, so no token can have one key read as another (HS/RS swap, curve swap).

use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::BASE32_NOPAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::error::shown;
use crate::{Error, Result};

/// An algorithm that a token may be signed with. Shared secrets and `none` are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SigningAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl SigningAlgorithm {
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// As RFC 7518 and RFC 8037 write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    const fn jsonwebtoken(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Rs384 => Algorithm::RS384,
            Self::Rs512 => Algorithm::RS512,
            Self::Ps256 => Algorithm::PS256,
            Self::Ps384 => Algorithm::PS384,
            Self::Ps512 => Algorithm::PS512,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

impl FromStr for SigningAlgorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text);
        known.ok_or_else(|| Error::SigningAlgorithm(shown(text)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A public key.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    kind: Kind,
    /// Where the key itself says that it is for one algorithm alone (`alg` of a JWK).
    only: Option<SigningAlgorithm>,
    thumbprint: String,
    key: DecodingKey,
}

impl VerifyingKey {
    /// A key in the form that certificates and `PUBLIC KEY` files have (RFC 5280, SubjectPublicKeyInfo).
    pub(super) fn from_spki(der: &[u8]) -> Result<Self, &'static str> {
        const MALFORMED: &str = "it is no public key";
        let (rest, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| MALFORMED)?;
        if !rest.is_empty() {
            return Err(MALFORMED);
        }
        let bits: &[u8] = &info.subject_public_key.data;
        let algorithm = &info.algorithm.algorithm;
        if *algorithm == OID_PKCS1_RSAENCRYPTION {
            let Ok(PublicKey::RSA(key)) = info.parsed() else { return Err(MALFORMED) };
            return Self::rsa(key.modulus, key.exponent);
        }
        if *algorithm == OID_SIG_ED25519 {
            return Self::ed25519(bits);
        }
        if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            return match curve {
                Some(oid) if oid == OID_EC_P256 => Self::point(Kind::P256, bits),
                Some(oid) if oid == OID_NIST_EC_P384 => Self::point(Kind::P384, bits),
                _ => Err("its curve is neither P-256 nor P-384"),
            };
        }
        Err("it is neither RSA, P-256, P-384 nor Ed25519")
    }

    /// From modulus and exponent, big-endian.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, &'static str> {
        let (n, e) = (without_zeros(modulus), without_zeros(exponent));
        if !(256..=1024).contains(&n.len()) {
            return Err("it is RSA of less than 2048 or more than 8192 bits");
        }
        if e.is_empty() || e.len() > 8 || e == [1] || e[e.len() - 1].is_multiple_of(2) {
            return Err("its RSA exponent is not an odd number over 1");
        }
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let thumbprint = thumbprint(&format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text(e), text(n)));
        Ok(Self { kind: Kind::Rsa, only: None, thumbprint, key: DecodingKey::from_rsa_raw_components(n, e) })
    }

    /// From an uncompressed point on P-256.
    pub(super) fn p256(point: &[u8]) -> Result<Self, &'static str> {
        Self::point(Kind::P256, point)
    }

    /// From an uncompressed point on P-384.
    pub(super) fn p384(point: &[u8]) -> Result<Self, &'static str> {
        Self::point(Kind::P384, point)
    }

    fn point(kind: Kind, point: &[u8]) -> Result<Self, &'static str> {
        let (curve, len) = if kind == Kind::P256 { ("P-256", 32) } else { ("P-384", 48) };
        let Some((&4, coordinates)) = point.split_first() else {
            return Err("its point is not uncompressed");
        };
        if coordinates.len() != 2 * len {
            return Err("its point is not of its curve");
        }
        let (x, y) = coordinates.split_at(len);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let thumbprint =
            thumbprint(&format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, text(x), text(y)));
        Ok(Self { kind, only: None, thumbprint, key: DecodingKey::from_ec_der(point) })
    }

    /// From the 32 bytes of an Ed25519 key.
    pub(super) fn ed25519(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() != 32 {
            return Err("it is no Ed25519 key");
        }
        let text = URL_SAFE_NO_PAD.encode(bytes);
        let thumbprint = thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{text}"}}"#));
        Ok(Self { kind: Kind::Ed25519, only: None, thumbprint, key: DecodingKey::from_ed_der(bytes) })
    }

    /// The same key for one algorithm alone.
    pub(super) fn only(self, algorithm: SigningAlgorithm) -> Self {
        Self { only: Some(algorithm), ..self }
    }

    /// The key's thumbprint by RFC 7638, in base64url.
    pub(super) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    pub(super) fn takes(&self, algorithm: SigningAlgorithm) -> bool {
        use SigningAlgorithm as A;
        let of_kind = match self.kind {
            Kind::Rsa => {
                matches!(algorithm, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512)
            }
            Kind::P256 => algorithm == A::Es256,
            Kind::P384 => algorithm == A::Es384,
            Kind::Ed25519 => algorithm == A::EdDsa,
        };
        of_kind && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether `signature`, in base64url, over `message` was made with this key by this algorithm.
    pub(super) fn signed(&self, algorithm: SigningAlgorithm, message: &str, signature: &str) -> bool {
        self.takes(algorithm)
            && jsonwebtoken::crypto::verify(
                signature,
                message.as_bytes(),
                &self.key,
                algorithm.jsonwebtoken(),
            )
            .unwrap_or(false)
    }
}

/// The id that libtrust gives a key, which GitLab's and Distribution's token services write into `kid`: of the SHA-256 of
/// its SubjectPublicKeyInfo the first 240 bits, in base32, in groups of four.
pub(super) fn libtrust_id(spki: &[u8]) -> String {
    let text = BASE32_NOPAD.encode(&digest(&SHA256, spki).as_ref()[..30]);
    let groups: Vec<String> =
        text.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    groups.join(":")
}

fn thumbprint(canonical: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..]
}
