//! Content digests: an algorithm and the raw bytes it gave.
//! Invariant: a `Digest` has one textual form (lower-case hex) and one database key, and both read back to it.

use std::fmt;
use std::str::FromStr;

use crate::error::DigestError;
use crate::hasher::Hasher;
use crate::text::textual;

/// A digest algorithm of OCI Image Specification, "Registered algorithms".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    /// The name in front of the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Length of the raw digest in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }

    /// The byte that stands for the algorithm in database keys and hasher states: 1 = sha256, 2 = sha512.
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Algorithm::Sha256 => 1,
            Algorithm::Sha512 => 2,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Algorithm::Sha256),
            2 => Some(Algorithm::Sha512),
            _ => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text {
            "sha256" => Ok(Algorithm::Sha256),
            "sha512" => Ok(Algorithm::Sha512),
            _ => Err(DigestError::unsupported(text)),
        }
    }
}

textual!(Algorithm, DigestError, "a digest algorithm");

/// A content digest (OCI Image Specification, "Digests"). Ordered by algorithm, then by bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

impl Digest {
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Sha256(_) => Algorithm::Sha256,
            Digest::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw digest: 32 or 64 bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(bytes) => bytes,
            Digest::Sha512(bytes) => bytes,
        }
    }

    /// The raw digest in lower-case hex, without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.as_bytes())
    }

    /// The sha256 digest of a whole content.
    pub fn sha256(content: &[u8]) -> Self {
        Digest::of(Algorithm::Sha256, content)
    }

    /// The digest of a whole content.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// The database key: one algorithm byte (1 = sha256, 2 = sha512), then the raw digest.
    pub fn to_key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + self.as_bytes().len());
        key.push(self.algorithm().byte());
        key.extend_from_slice(self.as_bytes());
        key
    }

    /// Reads what [`Digest::to_key`] wrote.
    pub fn from_key(key: &[u8]) -> Result<Self, DigestError> {
        let malformed = DigestError::Key(key.len());
        let Some((&byte, raw)) = key.split_first() else { return Err(malformed) };
        match Algorithm::from_byte(byte) {
            Some(Algorithm::Sha256) => raw.try_into().map(Digest::Sha256).map_err(|_| malformed),
            Some(Algorithm::Sha512) => raw.try_into().map(Digest::Sha512).map_err(|_| malformed),
            None => Err(malformed),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm())?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Only the canonical form: a supported algorithm, a colon, lower-case hex of the exact length.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::malformed(text);
        let (algorithm, encoded) = text.split_once(':').ok_or_else(malformed)?;
        if !is_algorithm(algorithm) {
            return Err(malformed());
        }
        let algorithm: Algorithm = algorithm.parse()?;
        if encoded.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(malformed());
        }
        match algorithm {
            Algorithm::Sha256 => {
                let mut raw = [0; 32];
                hex::decode_to_slice(encoded, &mut raw).map_err(|_| malformed())?;
                Ok(Digest::Sha256(raw))
            }
            Algorithm::Sha512 => {
                let mut raw = [0; 64];
                hex::decode_to_slice(encoded, &mut raw).map_err(|_| malformed())?;
                Ok(Digest::Sha512(raw))
            }
        }
    }
}

/// The specification's `algorithm-component (separator algorithm-component)*`.
fn is_algorithm(text: &str) -> bool {
    text.split(['+', '.', '_', '-']).all(|component| {
        !component.is_empty()
            && component.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}

textual!(Digest, DigestError, "a digest like sha256:<64 hex digits>");
