//! What a browser gets to see: pages of other origins (the Fetch standard's CORS protocol), and headers an operator sets.

use http::{Method, StatusCode};
use twinport_oci::Digest;
use twinport_server::{RegistrySettings, ResponseHeaders};

use crate::harness::{Seen, Send, Site};

async fn start(headers: &[(&str, &str)]) -> Site {
    let mut configured = ResponseHeaders::default();
    for (name, value) in headers {
        configured.add(name, value).unwrap();
    }
    let settings = RegistrySettings { headers: configured, ..RegistrySettings::default() };
    Site::start_with(settings, Default::default()).await
}

fn cross_origin(seen: &Seen) -> Vec<&str> {
    seen.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("access-control-")).collect()
}

async fn from(site: &Site, method: Method, path: &str, origin: &str) -> Seen {
    site.request(method, path).header("origin", origin).seen().await
}

async fn preflight(site: &Site, path: &str, origin: &str) -> Seen {
    let request = site.request(Method::OPTIONS, path).header("origin", origin);
    request.header("access-control-request-method", "DELETE").seen().await
}

#[tokio::test]
async fn without_configuration_no_page_of_another_origin_is_told_anything() {
    let site = Site::start().await;
    site.push_image("x", "latest", "one").await;
    for path in ["/v2/", "/v2/_catalog", "/v2/x/manifests/latest", "/v2/x/manifests/none"] {
        for origin in ["https://ui.example.com", "null"] {
            assert!(cross_origin(&from(&site, Method::GET, path, origin).await).is_empty());
            let asked = preflight(&site, path, origin).await;
            asked.is(StatusCode::NO_CONTENT);
            assert!(cross_origin(&asked).is_empty(), "{asked:?}");
        }
    }
}

#[tokio::test]
async fn a_page_of_a_configured_origin_is_told_what_it_may_do_and_no_other_is() {
    let site = start(&[
        ("Access-Control-Allow-Origin", "https://ui.example.com"),
        ("Access-Control-Allow-Origin", "http://localhost:8080"),
        ("Access-Control-Allow-Methods", "HEAD"),
        ("Access-Control-Allow-Methods", "GET"),
        ("Access-Control-Allow-Methods", "DELETE"),
        ("Access-Control-Allow-Headers", "Authorization, Accept"),
        ("Access-Control-Expose-Headers", "Docker-Content-Digest"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Max-Age", "600"),
    ])
    .await;
    let (_, digest) = site.push_image("x", "latest", "one").await;
    let path = format!("/v2/x/manifests/{digest}");
    for origin in ["https://ui.example.com", "http://localhost:8080"] {
        let asked = preflight(&site, &path, origin).await;
        asked.is(StatusCode::NO_CONTENT);
        assert_eq!(asked.header("access-control-allow-origin"), origin);
        assert_eq!(asked.header("access-control-allow-methods"), "HEAD, GET, DELETE");
        assert_eq!(asked.header("access-control-allow-headers"), "Authorization, Accept");
        assert_eq!(asked.header("access-control-allow-credentials"), "true");
        assert_eq!(asked.header("access-control-max-age"), "600");
        assert_eq!(asked.header("allow"), "GET, HEAD, PUT, DELETE, OPTIONS");
        // Refusals too: a page is to know why.
        for (path, status) in [(&*path, 200), ("/v2/x/manifests/none", 404), ("/v2/X/manifests/none", 400)] {
            let seen = from(&site, Method::GET, path, origin).await;
            assert_eq!((seen.status, seen.header("access-control-allow-origin")), (status, origin));
            assert_eq!(seen.header("access-control-expose-headers"), "Docker-Content-Digest");
            assert_eq!(seen.header("access-control-allow-methods"), "");
            assert!(seen.headers.get_all("vary").iter().any(|vary| vary == "Origin"));
        }
    }
    for other in
        ["https://evil.example.com", "https://ui.example.com.evil.com", "http://ui.example.com", "null", ""]
    {
        for seen in [preflight(&site, &path, other).await, from(&site, Method::GET, &path, other).await] {
            assert!(cross_origin(&seen).is_empty(), "{other}: {seen:?}");
            assert!(seen.headers.get_all("vary").iter().any(|vary| vary == "Origin"));
        }
    }
}

#[tokio::test]
async fn an_asterisk_lets_every_origin_read() {
    let site = start(&[("access-control-allow-origin", "*")]).await;
    let digest = site.push_blob("x", b"blob").await;
    let seen = from(&site, Method::GET, &format!("/v2/x/blobs/{digest}"), "https://anyone.example.com").await;
    assert_eq!(seen.header("access-control-allow-origin"), "*");
    assert_eq!(seen.headers.get_all("vary").iter().count(), 1);
}

#[tokio::test]
async fn headers_of_the_configuration_are_on_every_answer_and_take_none_of_its_own_away() {
    let site = start(&[
        ("Strict-Transport-Security", "max-age=31536000"),
        ("X-Frame-Options", "DENY"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Two", "one"),
        ("X-Two", "two"),
    ])
    .await;
    let blob = site.push_blob("x", b"blob").await;
    for path in [
        "/v2/".to_owned(),
        format!("/v2/x/blobs/{blob}"),
        "/v2/x/manifests/none".to_owned(),
        "/v2/X/".to_owned(),
    ] {
        let seen = site.get(&path).await;
        assert_eq!(seen.header("strict-transport-security"), "max-age=31536000", "{path}");
        assert_eq!(seen.header("x-frame-options"), "DENY");
        assert_eq!(seen.headers.get_all("x-content-type-options").iter().count(), 1);
        assert_eq!(seen.headers.get_all("x-two").iter().count(), 2);
    }
    let mut headers = ResponseHeaders::default();
    for name in
        ["Content-Length", "Transfer-Encoding", "Location", "Docker-Content-Digest", "OCI-Subject", "ETag"]
    {
        assert!(headers.add(name, "0").is_err(), "{name}");
    }
    for (name, value) in
        [("not a name", "x"), ("x-y", "two\nlines"), ("access-control-allow-origin", "https://a.example/b")]
    {
        assert!(headers.add(name, value).is_err(), "{name}: {value}");
    }
}

#[tokio::test]
async fn a_path_says_what_it_takes_when_it_is_asked() {
    let site = Site::start().await;
    let digest = Digest::sha256(b"x");
    for (path, allowed) in [
        ("/v2/".to_owned(), "GET, HEAD, OPTIONS"),
        ("/v2/x/blobs/uploads/".to_owned(), "POST, OPTIONS"),
        (format!("/v2/x/blobs/{digest}"), "GET, HEAD, DELETE, OPTIONS"),
    ] {
        let seen = site.request(Method::OPTIONS, &path).seen().await;
        assert_eq!((seen.status, seen.header("allow")), (204, allowed), "{path}");
    }
}
