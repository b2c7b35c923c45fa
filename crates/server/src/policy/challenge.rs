//! `WWW-Authenticate`: what a client is to do about a 401 (RFC 9110, section 11.6.1; Docker's token protocol).

use http::HeaderValue;

/// What a request that was answered 401 is lacking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// As in the token protocol: `repository:a/b:pull,push`.
    pub(crate) scope: Option<String>,
    /// The client showed a token that holds, and that is not good for this.
    pub(crate) insufficient: bool,
    /// The client showed a token that does not hold.
    pub(crate) invalid: bool,
}

pub(super) fn basic(realm: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("Basic realm={}", quoted(realm))).ok()
}

pub(super) fn bearer(realm: &str, service: &str, wanted: &Wanted) -> Option<HeaderValue> {
    let mut value = format!("Bearer realm={},service={}", quoted(realm), quoted(service));
    if let Some(scope) = &wanted.scope {
        value.push_str(&format!(",scope={}", quoted(scope)));
    }
    if wanted.invalid {
        value.push_str(",error=\"invalid_token\"");
    } else if wanted.insufficient {
        value.push_str(",error=\"insufficient_scope\"");
    }
    HeaderValue::try_from(value).ok()
}

/// A quoted string; what could end it early is left out, what no header may hold becomes `?`.
fn quoted(text: &str) -> String {
    let sound = |c: char| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' };
    let text: String = text.chars().filter(|c| !['"', '\\'].contains(c)).map(sound).collect();
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_says_where_for_what_and_why() {
        let scope = Some("repository:a/b:pull,push".to_owned());
        let wanted = Wanted { scope, insufficient: true, invalid: false };
        assert_eq!(
            bearer("https://r.example.com/token", "r.example.com", &wanted).unwrap(),
            "Bearer realm=\"https://r.example.com/token\",service=\"r.example.com\",\
             scope=\"repository:a/b:pull,push\",error=\"insufficient_scope\""
        );
        assert_eq!(basic("my \"realm\"\n\\").unwrap(), "Basic realm=\"my realm?\"");
    }
}
