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

/// Bytes of the longest digest.
const LONGEST: usize = 64;

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 2 * LONGEST];
        let text = &mut text[..2 * self.as_bytes().len()];
        hex::encode_to_slice(self.as_bytes(), text).map_err(|_| fmt::Error)?;
        f.write_str(self.algorithm().as_str())?;
        f.write_str(":")?;
        f.write_str(std::str::from_utf8(text).map_err(|_| fmt::Error)?)
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

#[cfg(test)]
mod tests {
    use super::{Algorithm, Digest};
    use crate::error::DigestError;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::sha256(b"")));
        assert_eq!(format!("{:?}", Digest::sha256(b"")), EMPTY);
        let sha512 = Digest::of(Algorithm::Sha512, b"").to_string();
        assert!(
            sha512.starts_with(
                "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c"
            )
        );
    }

    #[test]
    fn an_algorithm_that_is_not_supported_is_told_from_garbage() {
        let sha384 = format!("sha384:{}", "0".repeat(96));
        assert_eq!(sha384.parse::<Digest>(), Err(DigestError::Unsupported("sha384".into())));
        let multihash = format!("multihash+base58:{}", "0".repeat(46));
        assert!(matches!(multihash.parse::<Digest>(), Err(DigestError::Unsupported(_))));
    }

    #[test]
    fn a3_digests_with_slashes_wrong_lengths_or_unknown_algorithms_are_refused() {
        let hex = "a".repeat(64);
        let refused = [
            String::new(),
            ":".into(),
            "sha256".into(),
            "sha256:".into(),
            format!(":{hex}"),
            format!("sha256{hex}"),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}a"),
            format!("sha512:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("SHA256:{hex}"),
            format!("sha256:{}/", &hex[1..]),
            format!("sha256:../{}", &hex[3..]),
            format!("sha256:{}\0", &hex[1..]),
            format!("sha256: {}", &hex[1..]),
            format!("sha256:+{}", &hex[1..]),
            format!("sha256:%{}", &hex[1..]),
            format!("sha256/../../etc:{hex}"),
            format!("sha256:{hex}\n"),
            format!("sha256:sha256:{hex}"),
            format!("sha256+:{hex}"),
            format!("md5:{}", "0".repeat(32)),
            "é".repeat(71),
            "x".repeat(10_000),
        ];
        for text in refused {
            let error = text.parse::<Digest>().expect_err(&text);
            assert!(error.to_string().len() < 300, "a message repeats its input at length");
        }
    }

    #[test]
    fn a_key_reads_back_and_no_other_bytes_do() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"content");
            let key = digest.to_key();
            assert_eq!((key[0], key.len()), (algorithm.byte(), 1 + algorithm.digest_len()));
            assert_eq!(Digest::from_key(&key), Ok(digest));
            assert!(Digest::from_key(&key[..key.len() - 1]).is_err());
            assert!(Digest::from_key(&[key.as_slice(), b"x"].concat()).is_err());
        }
        for key in [&[][..], &[0; 33], &[3; 33], &[1; 65], &[2; 33]] {
            assert_eq!(Digest::from_key(key), Err(DigestError::Key(key.len())));
        }
    }

    #[test]
    fn digests_travel_as_strings_in_json() {
        let json = serde_json::to_string(&Digest::sha256(b"")).unwrap();
        assert_eq!(json, format!("\"{EMPTY}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), Digest::sha256(b""));
        assert!(serde_json::from_str::<Digest>("\"sha256:abc\"").is_err());
        assert!(serde_json::from_str::<Digest>("5").is_err());
    }
}
