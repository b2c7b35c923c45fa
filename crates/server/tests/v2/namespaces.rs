//! Specification, "Registry Proxying": pulls that name another registry in `ns`.

use http::{Method, StatusCode};
use twinport_oci::Digest;
use twinport_server::{Namespaces, RegistrySettings};

use crate::harness::{Send, Site};

async fn start() -> Site {
    let mut namespaces = Namespaces::default();
    namespaces.add("docker.io", "mirrors/docker").unwrap();
    namespaces.add("registry.example.com:5000", "").unwrap();
    let settings = RegistrySettings { namespaces, ..RegistrySettings::default() };
    Site::start_with(settings, Default::default()).await
}

#[tokio::test]
async fn a_pull_for_a_known_registry_is_answered_from_where_its_repositories_are_and_says_so() {
    let site = start().await;
    let (manifest, digest) = site.push_image("mirrors/docker/library/nginx", "latest", "theirs").await;
    let blob = site.push_blob("mirrors/docker/library/nginx", b"blob").await;
    site.push_image("library/nginx", "latest", "ours").await;
    for method in [Method::GET, Method::HEAD] {
        for rest in [
            "manifests/latest".to_owned(),
            format!("manifests/{digest}"),
            format!("blobs/{blob}"),
            "tags/list".to_owned(),
            format!("referrers/{digest}"),
        ] {
            let path = format!("/v2/library/nginx/{rest}?ns=docker.io");
            let seen = site.request(method.clone(), &path).seen().await;
            assert_eq!((seen.status, seen.header("oci-namespace")), (200, "docker.io"), "{method} {rest}");
        }
    }
    assert_eq!(site.get("/v2/library/nginx/manifests/latest?ns=docker.io").await.body, manifest);
    // What is not there is missing in that registry, and not to be had from the repository of the same name.
    let ours =
        site.get("/v2/library/nginx/manifests/latest").await.header("docker-content-digest").to_owned();
    let seen = site.get(&format!("/v2/library/nginx/manifests/{ours}?ns=docker.io")).await;
    assert_eq!(seen.header("oci-namespace"), "docker.io");
    seen.refused(404, "MANIFEST_UNKNOWN");
    let same = site.get("/v2/library/nginx/tags/list?ns=registry.example.com%3A5000").await;
    assert_eq!(same.header("oci-namespace"), "registry.example.com:5000");
}

#[tokio::test]
async fn an_unknown_registry_and_a_push_are_not_scoped_and_nothing_claims_so() {
    let site = start().await;
    let (manifest, _) = site.push_image("library/nginx", "latest", "ours").await;
    for path in [
        "/v2/library/nginx/manifests/latest?ns=quay.io",
        "/v2/library/nginx/manifests/latest?ns=",
        "/v2/?ns=docker.io",
    ] {
        let seen = site.get(path).await;
        seen.is(StatusCode::OK);
        assert!(!seen.headers.contains_key("oci-namespace"), "{path}");
    }
    assert_eq!(site.get("/v2/library/nginx/manifests/latest?ns=quay.io").await.body, manifest);
    let pushed = format!("/v2/library/nginx/blobs/uploads/?digest={}&ns=docker.io", Digest::sha256(b"x"));
    let seen = site.request(Method::POST, &pushed).body("x").seen().await;
    seen.is(StatusCode::CREATED);
    assert!(seen.header("location").starts_with("/v2/library/nginx/blobs/"), "{seen:?}");
    assert!(!seen.headers.contains_key("oci-namespace"));
    // Without any configuration the parameter is let be.
    let plain = Site::start().await;
    plain.push_image("x", "latest", "one").await;
    let seen = plain.get("/v2/x/manifests/latest?ns=docker.io").await;
    seen.is(StatusCode::OK);
    assert!(!seen.headers.contains_key("oci-namespace"));
}
