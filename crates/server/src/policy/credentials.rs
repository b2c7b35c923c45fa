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
pub(crate) enum Credentials<'a> {
    None,
    Basic(Basic),
    /// As it stands in the header, unread: it is a kilobyte or more, and most are known already.
    Bearer(&'a [u8]),
    /// Something that cannot be read, or of a scheme that is not spoken here.
    Unreadable,
}

impl<'a> Credentials<'a> {
    pub(crate) fn read(headers: &'a HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Self::None };
        if values.next().is_some() {
            return Self::Unreadable;
        }
        let mut words = value.as_bytes().splitn(2, |&byte| byte == b' ');
        let (Some(scheme), Some(rest)) = (words.next(), words.next()) else { return Self::Unreadable };
        let rest = rest.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") && !rest.is_empty() {
            return Self::Bearer(rest);
        }
        if scheme.eq_ignore_ascii_case(b"basic") {
            return basic(rest).map_or(Self::Unreadable, Self::Basic);
        }
        Self::Unreadable
    }
}

fn basic(encoded: &[u8]) -> Option<Basic> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, secret) = text.split_once(':')?;
    Some(Basic { user: user.to_owned(), secret: secret.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[track_caller]
    fn reads(values: &[&str], as_what: &Credentials<'_>) {
        assert!(Credentials::read(&headers(values)) == *as_what, "{values:?}");
    }

    #[test]
    fn credentials_are_read_or_refused_never_guessed() {
        let alice = Credentials::Basic(Basic { user: "alice".to_owned(), secret: "a:b".to_owned() });
        reads(&[], &Credentials::None);
        reads(&["Basic YWxpY2U6YTpi"], &alice);
        reads(&["basic YWxpY2U6YTpi"], &alice);
        reads(&["Bearer abc"], &Credentials::Bearer(b"abc"));
        for odd in ["", "Basic", "Basic !", "Basic YWxpY2U=", "Bearer ", "Digest x", "Basic /w=="] {
            reads(&[odd], &Credentials::Unreadable);
        }
        reads(&["Bearer abc", "Bearer abc"], &Credentials::Unreadable);
        let not_text = (AUTHORIZATION, http::HeaderValue::from_bytes(b"Basic \xff").unwrap());
        assert!(Credentials::read(&HeaderMap::from_iter([not_text])) == Credentials::Unreadable);
    }
}
