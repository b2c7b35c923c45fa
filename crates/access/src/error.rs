//! Why a text is not one of this crate's values, and what to write instead.

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any failure to read one of this crate's values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("pattern `{pattern}` is not valid: {reason}")]
    Pattern { pattern: String, reason: &'static str },
    #[error("name `{name}` is not valid: {reason}")]
    Name { name: String, reason: &'static str },
    #[error("`{0}` is no action: use pull, create, push, delete or admin")]
    Action(String),
    #[error("`{0}` is no role: use reader, creator, writer, maintainer or admin")]
    Role(String),
    #[error(
        "`{0}` is no subject: use anyone, signed-in, user:NAME, robot:NAME, certificate:NAME or workload:ISSUER[,claim=pattern]"
    )]
    Subject(String),
    #[error("scope `{scope}` is not valid: {reason}")]
    Scope { scope: String, reason: &'static str },
    #[error("a request may name {limit} scopes: ask for fewer at a time")]
    TooManyScopes { limit: usize },
    #[error(
        "`{0}` is no algorithm that tokens are taken with: use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA"
    )]
    SigningAlgorithm(String),
    #[error("{what} cannot be used: {reason}")]
    Keys { what: String, reason: String },
    #[error("line {line} of the htpasswd file: {reason}")]
    Htpasswd { line: usize, reason: String },
    #[error("the password cannot be used: {0}")]
    Password(&'static str),
    #[error("host `{host}` is not valid: {reason}")]
    Host { host: String, reason: &'static str },
    #[error("the rule {name} cannot be kept: {reason}")]
    Rule { name: String, reason: &'static str },
}

/// A text as an error shows it: bounded, and on one line.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
