//! Where clients reach this site, for the `Location` and `Link` headers they follow.
//! Invariant: only a proxy that the configuration trusts is believed about the address that a client used, and no
//! header can lead a client from https to http.

mod forwarded;

use http::header::{HOST, LINK, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Uri, request, uri::PathAndQuery};

use self::forwarded::Forwarded;
use crate::config::TrustedProxies;
use crate::listener::Peer;

/// How a site is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExternalAddress {
    /// The URL of the site's root, without a trailing slash, where it is always the same.
    pub root: Option<String>,
    /// `/registry`: every path begins with it, here and outside. Empty for none.
    pub prefix: String,
    /// Locations never name a host.
    pub relative: bool,
    /// Who may say which address a client used.
    pub trusted: TrustedProxies,
}

impl ExternalAddress {
    /// Whether what handlers write is what clients get.
    fn is_plain(&self) -> bool {
        self.root.is_none() && self.prefix.is_empty() && self.trusted.is_empty()
    }

    /// The path that a request is for, without the prefix. `None` where it has none.
    pub(crate) fn inside<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(&*self.prefix).filter(|rest| rest.starts_with('/'))
    }

    /// A request's target without the prefix. `None` where it has none, or is not of that form.
    pub(crate) fn inside_uri(&self, uri: &Uri) -> Option<Uri> {
        let rest = self.inside(uri.path())?;
        let rest = match uri.query() {
            Some(query) => format!("{rest}?{query}"),
            None => rest.to_owned(),
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(rest).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// Makes the addresses of an answer, which handlers write from `/v2` on, those that this client can follow.
    pub(crate) fn complete(&self, request: &request::Parts, answer: &mut HeaderMap) {
        if let Some(query) = request.uri.query()
            && request.method != Method::POST
        {
            keep_unknown(query, answer);
        }
        if self.is_plain() || !(answer.contains_key(LOCATION) || answer.contains_key(LINK)) {
            return;
        }
        let base = self.base(&request.headers, request.extensions.get());
        if base.is_empty() {
            return;
        }
        rewrite(answer, LOCATION, |location| location.starts_with('/').then(|| format!("{base}{location}")));
        rewrite(answer, LINK, |link| {
            let target = link.strip_prefix('<').filter(|target| target.starts_with('/'))?;
            Some(format!("<{base}{target}"))
        });
    }

    /// The absolute URL of the site's root for this client, without a trailing slash: where a challenge leads it. It tells only
    /// the client itself what the client said.
    pub(crate) fn origin(&self, request: &request::Parts) -> String {
        let base = self.base(&request.headers, request.extensions.get());
        if base.contains("://") {
            return base;
        }
        format!("{}{base}", self.host(request))
    }

    /// Scheme and host by which this client knows the site, as in `https://r.example.com`.
    pub(crate) fn host(&self, request: &request::Parts) -> String {
        let base = self.base(&request.headers, request.extensions.get());
        if let Some((scheme, rest)) = base.split_once("://") {
            return format!("{scheme}://{}", rest.split('/').next().unwrap_or_default());
        }
        let named = request.uri.authority().map(http::uri::Authority::as_str);
        let host = named.or_else(|| request.headers.get(HOST)?.to_str().ok()).unwrap_or_default();
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        let host = if host.bytes().all(sound) { host } else { "" };
        let tls = matches!(request.extensions.get(), Some(Peer::Tls(_)));
        let scheme = if tls { "https" } else { "http" };
        format!("{scheme}://{host}")
    }

    /// What stands before `/v2` for this client.
    fn base(&self, headers: &HeaderMap, peer: Option<&Peer>) -> String {
        let prefix = &self.prefix;
        if let Some(root) = self.root.as_ref().filter(|_| !self.relative) {
            return root.clone();
        }
        let trusted = peer.is_some_and(|peer| self.trusted.contains(peer.ip()));
        let Forwarded { origin, prefix: outer } =
            if trusted { Forwarded::read(headers) } else { Forwarded::default() };
        match origin.filter(|_| !self.relative) {
            Some(origin) => format!("{origin}{outer}{prefix}"),
            None => format!("{outer}{prefix}"),
        }
    }
}

/// A client goes on with an upload where `Location` says: what it, or a proxy on its way, wrote into the query of the
/// last one stays there.
fn keep_unknown(query: &str, answer: &mut HeaderMap) {
    let unknown = |pair: &&str| !pair.is_empty() && pair.split('=').next() != Some("digest");
    let kept: Vec<&str> = query.split('&').filter(unknown).collect();
    if kept.is_empty() {
        return;
    }
    rewrite(answer, LOCATION, |location| {
        location.contains("/blobs/uploads/").then(|| format!("{location}?{}", kept.join("&")))
    });
}

fn rewrite(answer: &mut HeaderMap, name: http::HeaderName, change: impl FnOnce(&str) -> Option<String>) {
    let Some(value) = answer.get_mut(name) else { return };
    let changed = value.to_str().ok().and_then(change);
    if let Some(changed) = changed.and_then(|text| HeaderValue::try_from(text).ok()) {
        *value = changed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusting(text: &str) -> ExternalAddress {
        let mut external = ExternalAddress::default();
        external.trusted.add(text).unwrap();
        external
    }

    /// The Location and the Link that a client gets for these headers, from this peer.
    fn seen(external: &ExternalAddress, peer: &str, headers: &[(&'static str, &str)]) -> (String, String) {
        let mut request = http::Request::get("/v2/x/tags/list").extension(Peer::Tcp(peer.parse().unwrap()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut answer = HeaderMap::new();
        answer.insert(LOCATION, "/v2/x/blobs/uploads/1".parse().unwrap());
        answer.insert(LINK, "</v2/x/tags/list?n=1>; rel=\"next\"".parse().unwrap());
        external.complete(&parts, &mut answer);
        let text = |name| answer[name].to_str().unwrap().to_owned();
        (text(LOCATION), text(LINK))
    }

    const PROXY: &str = "10.0.0.7:1234";

    #[test]
    fn a_trusted_proxy_says_which_address_the_client_used() {
        let external = trusting("10.0.0.0/8");
        for (headers, base) in [
            (
                &[("x-forwarded-host", "r.example.com"), ("x-forwarded-proto", "https")][..],
                "https://r.example.com",
            ),
            (
                &[
                    ("x-forwarded-host", "r.example.com"),
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-port", "8443"),
                ],
                "https://r.example.com:8443",
            ),
            (
                &[
                    ("x-forwarded-host", "r.example.com"),
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-port", "443"),
                ],
                "https://r.example.com",
            ),
            (
                &[("x-forwarded-host", "[2001:db8::1]:5000, inner"), ("x-forwarded-proto", "http, http")],
                "http://[2001:db8::1]:5000",
            ),
            (
                &[
                    ("x-forwarded-host", "r.example.com"),
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-prefix", "/registry/"),
                ],
                "https://r.example.com/registry",
            ),
            (&[("x-forwarded-prefix", "/registry")], "/registry"),
            (
                &[("forwarded", "for=1.2.3.4;host=\"r.example.com:8443\";proto=https, for=10.0.0.7")],
                "https://r.example.com:8443",
            ),
            // The standard's header counts where both are there.
            (
                &[
                    ("forwarded", "host=a.example.com;proto=https"),
                    ("x-forwarded-host", "b"),
                    ("x-forwarded-proto", "http"),
                ],
                "https://a.example.com",
            ),
        ] {
            let (location, link) = seen(&external, PROXY, headers);
            assert_eq!(location, format!("{base}/v2/x/blobs/uploads/1"), "{headers:?}");
            assert_eq!(link, format!("<{base}/v2/x/tags/list?n=1>; rel=\"next\""), "{headers:?}");
        }
    }

    #[test]
    fn a8_whoever_is_not_trusted_is_not_believed() {
        let forwarded = [
            ("x-forwarded-host", "evil.example.com"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/evil"),
            ("forwarded", "host=evil.example.com;proto=https"),
        ];
        for external in [ExternalAddress::default(), trusting("10.0.0.8")] {
            assert_eq!(seen(&external, PROXY, &forwarded).0, "/v2/x/blobs/uploads/1");
        }
    }

    #[test]
    fn a8_a_header_that_could_lead_elsewhere_is_left_out() {
        let external = trusting("10.0.0.7");
        for (name, value) in [
            ("x-forwarded-host", "user@evil.example.com"),
            ("x-forwarded-host", "r.example.com/evil"),
            ("x-forwarded-host", ""),
            ("x-forwarded-proto", "javascript"),
            ("x-forwarded-prefix", "//evil.example.com"),
            ("x-forwarded-prefix", "/a/../b"),
            ("x-forwarded-prefix", "registry"),
            ("x-forwarded-prefix", "/a?b"),
        ] {
            let headers = [(name, value)];
            assert_eq!(seen(&external, PROXY, &headers).0, "/v2/x/blobs/uploads/1", "{name}: {value}");
        }
        // A host without its scheme could turn https into http.
        assert_eq!(
            seen(&external, PROXY, &[("x-forwarded-host", "r.example.com")]).0,
            "/v2/x/blobs/uploads/1"
        );
    }

    #[test]
    fn what_is_configured_counts_before_what_is_forwarded() {
        let forwarded = [("x-forwarded-host", "other"), ("x-forwarded-proto", "http")];
        let mut external = trusting("10.0.0.7");
        external.root = Some("https://r.example.com/registry".to_owned());
        external.prefix = "/registry".to_owned();
        assert_eq!(
            seen(&external, PROXY, &forwarded).0,
            "https://r.example.com/registry/v2/x/blobs/uploads/1"
        );
        external.relative = true;
        assert_eq!(seen(&external, PROXY, &forwarded).0, "/registry/v2/x/blobs/uploads/1");
    }

    #[test]
    fn a_prefix_is_whole_segments() {
        let external = ExternalAddress { prefix: "/registry".to_owned(), ..ExternalAddress::default() };
        assert_eq!(external.inside("/registry/v2/"), Some("/v2/"));
        for outside in ["/registry", "/registryv2/", "/v2/", "/other/registry/v2/"] {
            assert_eq!(external.inside(outside), None, "{outside}");
        }
        let uri = external.inside_uri(&"/registry/v2/x/tags/list?n=1".parse().unwrap()).unwrap();
        assert_eq!(uri, "/v2/x/tags/list?n=1");
    }

    #[test]
    fn what_a_client_carries_along_an_upload_stays_in_its_location() {
        let kept = |query: &str| {
            let mut answer = HeaderMap::from_iter([(LOCATION, "/v2/x/blobs/uploads/1".parse().unwrap())]);
            keep_unknown(query, &mut answer);
            answer[LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(kept("_state=a%2Fb&digest=sha256:1&ns=x"), "/v2/x/blobs/uploads/1?_state=a%2Fb&ns=x");
        assert_eq!(kept("digest=sha256:1"), "/v2/x/blobs/uploads/1");
    }
}
