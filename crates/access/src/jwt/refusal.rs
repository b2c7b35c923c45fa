//! Why a token is refused: a reason for each way to be malformed, forged or late.
//!
//! The reason is for the log and the operator. Who sent the token learns that it is not valid, and no more.

/// A part of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Header,
    Claims,
    Signature,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Claims => "claims",
            Self::Signature => "signature",
        })
    }
}

/// Why a token gives nobody anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error("the token is longer than 32 KiB: let the token service name fewer repositories")]
    TooLong,
    #[error("the token does not have three parts between dots, so it is no signed JWT")]
    Parts,
    #[error("the token's {0} is not base64url without padding")]
    Encoding(Part),
    #[error("the token's {0} is not a JSON object")]
    Json(Part),
    #[error("the token's {part} has the field `{field}` twice")]
    Duplicate { part: Part, field: String },
    #[error("the token's {0} nests deeper than 16 levels")]
    TooDeep(Part),
    #[error("the token's header field `{0}` is not of the type that RFC 7515 gives it")]
    HeaderField(&'static str),
    #[error("the token is of type `{0}`: only JWT and at+jwt are taken")]
    Type(String),
    #[error("the token's header names critical extensions, and this registry has none")]
    Critical,
    #[error(
        "the token's header brings its own key or says where to find one (`{0}`): only configured keys count"
    )]
    EmbeddedKey(&'static str),
    #[error("the token is not signed (algorithm none)")]
    Unsigned,
    #[error("the token is signed with a shared secret (algorithm {0}): only public keys are taken")]
    Symmetric(String),
    #[error("the token's algorithm `{0}` is not known")]
    UnknownAlgorithm(String),
    #[error("the token's algorithm {0} is not among the configured ones")]
    AlgorithmNotAllowed(&'static str),
    #[error("the token names no key: neither `kid` nor `x5c` is in its header")]
    NoKey,
    #[error(
        "the token names the key `{0}`, which is not configured: compare it with the keys in the bundle and JWKS"
    )]
    UnknownKey(String),
    #[error("the token's algorithm {0} is not one of the key that it names")]
    AlgorithmOfKey(&'static str),
    #[error("the token's chain of certificates (x5c) leads to none in the bundle: {0}")]
    Chain(String),
    #[error("the token's signature is not one of the key that it names")]
    Signature,
    #[error("the token was signed after its key retired")]
    KeyRetired,
    #[error("the token lacks the claim `{0}`")]
    Missing(&'static str),
    #[error("the token's claim `{0}` is not of the type that it must be")]
    Claim(&'static str),
    #[error("the token is from the issuer `{0}`, which is not the configured one")]
    Issuer(String),
    #[error("the token's issuer `{0}` is not the owner of the key that signed it")]
    IssuerOfKey(String),
    #[error("the token is for `{0}`, not for this service")]
    Audience(String),
    #[error("the token expired {ago_s} s ago")]
    Expired { ago_s: i64 },
    #[error("the token is valid only in {in_s} s: compare the clocks of the token service and this registry")]
    NotYetValid { in_s: i64 },
    #[error(
        "the token was issued {in_s} s in the future: compare the clocks of the token service and this registry"
    )]
    IssuedInTheFuture { in_s: i64 },
    #[error("the token expires before it is valid")]
    NoLifetime,
    #[error("the token is good for longer than its issuer ever makes one")]
    Lifetime,
    #[error("the token has more than 100 claims")]
    TooManyClaims,
    #[error("the token's access list has more than 1,000 entries")]
    TooManyEntries,
    #[error("the token's access list has an entry of class `{0}`: only image and plugin are known")]
    Class(String),
}
