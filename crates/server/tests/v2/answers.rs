//! Specification, "Determining Support", "Error Codes" and "Endpoints"; what clients of ten years rely on.

use http::{Method, StatusCode};
use serde_json::json;
use twinport_metadata::EventKind;
use twinport_oci::Digest;
use twinport_server::{ExternalAddress, RegistrySettings, TrustedProxies};

use crate::harness::{OCI_MANIFEST, Send, Site};
use crate::on_both_databases;

on_both_databases!(every_endpoint_of_the_specification_answers_with_its_success_status);

/// In the order and by the ids of the specification's table of endpoints.
async fn every_endpoint_of_the_specification_answers_with_its_success_status(site: Site) {
    let (manifest, digest) = site.push_image("library/x", "latest", "one").await;
    let blob = site.push_blob("library/x", b"blob").await;
    let [patched, closed, asked, cancelled] = [(); 4].map(|()| site.begin("library/x"));
    let (patched, closed, asked, cancelled) = (patched.await, closed.await, asked.await, cancelled.await);
    let closed = format!("{closed}?digest={}", Digest::sha256(b"chunk"));
    let pushed = format!("/v2/library/x/blobs/uploads/?digest={}", Digest::sha256(b"whole"));
    for (id, method, path, body, status) in [
        ("end-1", "GET", "/v2/".to_owned(), "", 200),
        ("end-2", "GET", format!("/v2/library/x/blobs/{blob}"), "", 200),
        ("end-2", "HEAD", format!("/v2/library/x/blobs/{blob}"), "", 200),
        ("end-3", "GET", "/v2/library/x/manifests/latest".to_owned(), "", 200),
        ("end-3", "HEAD", format!("/v2/library/x/manifests/{digest}"), "", 200),
        ("end-4a", "POST", "/v2/library/x/blobs/uploads/".to_owned(), "", 202),
        ("end-4b", "POST", pushed, "whole", 201),
        ("end-4c", "POST", "/v2/library/x/blobs/uploads/?digest-algorithm=sha512".to_owned(), "", 202),
        ("end-5", "PATCH", patched, "chunk", 202),
        ("end-6", "PUT", closed, "chunk", 201),
        ("end-7a", "PUT", "/v2/library/x/manifests/next".to_owned(), "manifest", 201),
        ("end-7b", "PUT", format!("/v2/library/x/manifests/{digest}?tag=1&tag=2&tag=3"), "manifest", 201),
        ("end-8a", "GET", "/v2/library/x/tags/list".to_owned(), "", 200),
        ("end-8b", "GET", "/v2/library/x/tags/list?n=1&last=1".to_owned(), "", 200),
        ("end-11", "POST", format!("/v2/other/blobs/uploads/?mount={blob}&from=library/x"), "", 201),
        ("end-12a", "GET", format!("/v2/library/x/referrers/{digest}"), "", 200),
        ("end-12b", "GET", format!("/v2/library/x/referrers/{digest}?artifactType=a/b"), "", 200),
        ("end-13", "GET", asked, "", 204),
        ("end-14", "DELETE", cancelled, "", 204),
        ("end-9", "DELETE", "/v2/library/x/manifests/next".to_owned(), "", 202),
        ("end-9", "DELETE", format!("/v2/library/x/manifests/{digest}"), "", 202),
        ("end-10", "DELETE", format!("/v2/library/x/blobs/{blob}"), "", 202),
    ] {
        let body = if body == "manifest" { manifest.clone() } else { body.as_bytes().to_vec() };
        let request = site.request(method.parse().unwrap(), &path).header("content-type", OCI_MANIFEST);
        let seen = request.body(body).seen().await;
        assert_eq!(seen.status, status, "{id} {method} {path}: {seen:?}");
    }
}

#[tokio::test]
async fn the_base_says_that_the_specification_is_implemented() {
    let site = Site::start().await;
    for path in ["/v2/", "/v2", "/v2/?ns=docker.io"] {
        let seen = site.get(path).await;
        assert_eq!((seen.status, seen.json()), (200, json!({})));
        assert_eq!(seen.header("content-type"), "application/json");
    }
    // Credentials that nobody asked for do no harm.
    let seen = site.request(Method::GET, "/v2/").basic_auth("someone", Some("secret")).seen().await;
    seen.is(StatusCode::OK);
}

#[tokio::test]
async fn a_path_that_is_no_endpoint_is_404_in_the_form_of_the_specification() {
    let site = Site::start().await;
    for path in
        ["/v2/x", "/v2/x/", "/v2/x/tags", "/v2/x/tags/list/", "/v2/x/manifests", "/v2/nothing/here/at/all"]
    {
        site.get(path).await.refused(404, "UNSUPPORTED");
    }
    for path in ["/v2/X/tags/list", "/v2/a%2Fb/tags/list", "/v2/a//b/tags/list", "/v2/-a/tags/list"] {
        site.get(path).await.refused(400, "NAME_INVALID");
    }
}

#[tokio::test]
async fn what_is_refused_is_refused_with_a_code_of_the_specification() {
    let site = Site::start().await;
    site.push_image("x", "latest", "one").await;
    let (upload, digest) = (site.begin("x").await, Digest::sha256(b"absent"));
    // Each answer is held to the table of codes by the harness.
    for (method, path, status) in [
        ("GET", "/v2/x/tags/list?n=-1".to_owned(), 400),
        ("GET", "/v2/x/tags/list?last=%0a".to_owned(), 400),
        ("GET", format!("/v2/x/referrers/{digest}?last=nonsense"), 400),
        ("GET", "/v2/x/tags/list?n=%".to_owned(), 400),
        ("GET", "/v2/x/manifests/.hidden".to_owned(), 404),
        ("PUT", "/v2/x/manifests/-x".to_owned(), 400),
        ("PUT", format!("/v2/x/manifests/{digest}?tag=.x"), 400),
        ("PATCH", upload, 416),
        ("GET", "/v2/x/blobs/uploads/nonsense".to_owned(), 404),
        ("GET", "/v2/unknown/tags/list".to_owned(), 404),
    ] {
        let request = site.request(method.parse().unwrap(), &path).header("content-range", "7-8");
        assert_eq!(request.body("ab").seen().await.status, status, "{method} {path}");
    }
}

#[tokio::test]
async fn a_method_that_an_endpoint_does_not_have_is_405_and_names_those_it_has() {
    let site = Site::start().await;
    let digest = Digest::sha256(b"x");
    for (method, path, allowed) in [
        (Method::POST, "/v2/".to_owned(), "GET, HEAD, OPTIONS"),
        (Method::DELETE, "/v2/_catalog".to_owned(), "GET, HEAD, OPTIONS"),
        (Method::PUT, "/v2/x/tags/list".to_owned(), "GET, HEAD, OPTIONS"),
        (Method::POST, "/v2/x/manifests/latest".to_owned(), "GET, HEAD, PUT, DELETE, OPTIONS"),
        (Method::PUT, format!("/v2/x/blobs/{digest}"), "GET, HEAD, DELETE, OPTIONS"),
        (Method::GET, "/v2/x/blobs/uploads/".to_owned(), "POST, OPTIONS"),
        (Method::POST, format!("/v2/x/referrers/{digest}"), "GET, HEAD, OPTIONS"),
        (Method::from_bytes(b"PURGE").unwrap(), "/v2/x/tags/list".to_owned(), "GET, HEAD, OPTIONS"),
    ] {
        let seen = site.request(method, &path).seen().await;
        seen.refused(405, "UNSUPPORTED");
        assert_eq!(seen.header("allow"), allowed, "{path}");
    }
}

#[tokio::test]
async fn unknown_query_parameters_are_let_be() {
    let site = Site::start().await;
    let (manifest, _) = site.push_image("x", "latest", "one").await;
    let seen = site.get("/v2/x/manifests/latest?ns=docker.io&_state=abc&unknown").await;
    assert_eq!(seen.body, manifest);
    let location =
        site.post("/v2/x/blobs/uploads/?_state=1&whatever=%20").await.header("location").to_owned();
    let seen = site
        .request(Method::PUT, &format!("{location}?_state=2&digest={}&x=y", Digest::sha256(b"z")))
        .body("z");
    seen.seen().await.is(StatusCode::CREATED);
}

#[tokio::test]
async fn an_upload_to_a_name_with_every_awkward_word_works() {
    let site = Site::start().await;
    for name in [
        "blobs/uploads",
        "a/manifests/b",
        "tags/list",
        "uploads",
        "library/x",
        "x",
        "v2/_a".trim_end_matches("/_a"),
    ] {
        let (manifest, _) = site.push_image(name, "latest", name).await;
        assert_eq!(site.get(&format!("/v2/{name}/manifests/latest")).await.body, manifest);
        assert_eq!(site.get(&format!("/v2/{name}/tags/list")).await.json()["name"], name);
    }
}

#[tokio::test]
async fn locations_are_relative_unless_a_base_is_set() {
    let site = Site::start().await;
    assert!(site.begin("x").await.starts_with("/v2/x/blobs/uploads/"));
    let settings = RegistrySettings {
        external: ExternalAddress {
            root: Some("https://registry.example/prefix".to_owned()),
            ..ExternalAddress::default()
        },
        ..RegistrySettings::default()
    };
    let site = Site::start_with(settings, Default::default()).await;
    assert!(site.begin("x").await.starts_with("https://registry.example/prefix/v2/x/blobs/uploads/"));
}

#[tokio::test]
async fn behind_a_trusted_proxy_locations_and_links_begin_where_the_client_did() {
    let mut trusted = TrustedProxies::default();
    trusted.add("127.0.0.0/8").unwrap();
    let external = ExternalAddress { trusted, ..ExternalAddress::default() };
    let site =
        Site::start_with(RegistrySettings { external, ..RegistrySettings::default() }, Default::default())
            .await;
    let forwarded = |method, path: &str| {
        site.request(method, path)
            .header("x-forwarded-host", "registry.example")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-port", "8443")
            .header("x-forwarded-prefix", "/images")
    };
    let base = "https://registry.example:8443/images/v2/x/";
    let begun = forwarded(Method::POST, "/v2/x/blobs/uploads/").header("content-length", "0").seen().await;
    let location = begun.header("location").to_owned();
    assert!(location.starts_with(&format!("{base}blobs/uploads/")), "{location}");
    // What the client, or something on its way, put into the query comes along, on refusals too.
    let path = location.strip_prefix("https://registry.example:8443/images").unwrap();
    let patched = forwarded(Method::PATCH, &format!("{path}?_state=a%2Fb&ns=y")).body("abc").seen().await;
    assert_eq!(patched.is(StatusCode::ACCEPTED).header("location"), format!("{location}?_state=a%2Fb&ns=y"));
    let gap = forwarded(Method::PATCH, &format!("{path}?ns=y")).header("content-range", "9-11").body("abc");
    assert_eq!(gap.seen().await.header("location"), format!("{location}?ns=y"));
    let digest = Digest::sha256(b"abc");
    let put = forwarded(Method::PUT, &format!("{path}?ns=y&digest={digest}")).body("").seen().await;
    assert_eq!(put.is(StatusCode::CREATED).header("location"), format!("{base}blobs/{digest}"));
    for tag in ["a", "b"] {
        site.push_image("x", tag, tag).await;
    }
    let tags = forwarded(Method::GET, "/v2/x/tags/list?n=1").seen().await;
    assert_eq!(tags.next().unwrap(), format!("{base}tags/list?n=1&last=a"));
    let catalog = forwarded(Method::GET, "/v2/_catalog?n=1").seen().await;
    assert_eq!(catalog.next(), None);
}

#[tokio::test]
async fn the_correlation_id_of_a_request_goes_into_its_events() {
    let site = Site::start().await;
    let digest = Digest::sha256(b"x");
    let request = site.request(Method::POST, &format!("/v2/x/blobs/uploads/?digest={digest}"));
    request.header("x-request-id", "request-7").body("x").seen().await.is(StatusCode::CREATED);
    let events = site.registry.metadata.events_after(0, 10).await.unwrap();
    let linked =
        events.iter().map(|logged| logged.event().unwrap()).find(|event| event.kind == EventKind::BlobLinked);
    let linked = linked.unwrap();
    assert_eq!(linked.correlation.as_deref(), Some("request-7"));
    assert_eq!(linked.actor.as_deref(), Some("anonymous"));
}

#[tokio::test]
async fn headers_up_to_32_kib_are_taken_and_larger_ones_refused_in_words() {
    let site = Site::start().await;
    let with = async |length: usize| {
        site.request(Method::GET, "/v2/").header("x-padding", "a".repeat(length)).seen().await
    };
    with(30 << 10).await.is(StatusCode::OK);
    with(33 << 10).await.refused(431, "SIZE_INVALID");
}
