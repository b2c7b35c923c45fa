//! The `Authorization` header, read once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// A name and a secret; the secret is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Basic {
    pub(crate) user: String,
    pub(crate) secret: String,
}

impl std::fmt::Debug for Basic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Basic").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a request showed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    None,
    Basic(Basic),
    Bearer(String),
    /// Something that cannot be read, or of a scheme that is not spoken here.
    Unreadable,
}

impl Credentials {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Self::None };
        if values.next().is_some() {
            return Self::Unreadable;
        }
        let Some((scheme, rest)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return Self::Unreadable;
        };
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty() {
            return Self::Bearer(rest.to_owned());
        }
        if scheme.eq_ignore_ascii_case("basic") {
            return basic(rest).map_or(Self::Unreadable, Self::Basic);
        }
        Self::Unreadable
    }
}

fn basic(encoded: &str) -> Option<Basic> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, secret) = text.split_once(':')?;
    Some(Basic { user: user.to_owned(), secret: secret.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Credentials {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        Credentials::read(&headers)
    }

    #[test]
    fn credentials_are_read_or_refused_never_guessed() {
        let alice = Credentials::Basic(Basic { user: "alice".to_owned(), secret: "a:b".to_owned() });
        assert!(read(&[]) == Credentials::None);
        assert!(read(&["Basic YWxpY2U6YTpi"]) == alice);
        assert!(read(&["basic YWxpY2U6YTpi"]) == alice);
        assert!(read(&["Bearer abc"]) == Credentials::Bearer("abc".to_owned()));
        for odd in ["", "Basic", "Basic !", "Basic YWxpY2U=", "Bearer ", "Digest x", "Basic /w=="] {
            assert!(read(&[odd]) == Credentials::Unreadable, "{odd:?}");
        }
        assert!(read(&["Bearer abc", "Bearer abc"]) == Credentials::Unreadable);
    }
}
