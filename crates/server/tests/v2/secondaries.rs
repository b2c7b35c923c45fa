//! Writes at a secondary are refused with the primary's name, before their body; reads are served.

use bytes::Bytes;
use http::Method;
use twinport_metadata::BecomeSecondary;
use twinport_oci::Digest;

use crate::harness::{OCI_MANIFEST, Send, Site, index};
use crate::on_both_databases;

on_both_databases!(
    every_write_at_a_secondary_is_403_and_names_the_primary,
    a_halted_site_answers_503_and_says_when_to_try_again,
);

async fn become_secondary(site: &Site) {
    let metadata = &site.registry.metadata;
    let own = metadata.site().await.unwrap();
    let join = BecomeSecondary {
        name: "tokyo".to_owned(),
        federation: own.federation,
        primary_name: "paris".to_owned(),
        primary_url: "http://paris.example:5000".to_owned(),
        primary_key: Bytes::from_static(&[7; 32]),
        primary_incarnation: own.incarnation,
        epochs: metadata.epochs().await.unwrap(),
        head: metadata.log_head().await.unwrap(),
    };
    metadata.become_secondary(join).await.unwrap();
}

async fn every_write_at_a_secondary_is_403_and_names_the_primary(site: Site) {
    become_secondary(&site).await;
    let digest = Digest::sha256(b"x");
    for (method, path) in [
        (Method::POST, "/v2/x/blobs/uploads/".to_owned()),
        (Method::POST, format!("/v2/x/blobs/uploads/?digest={digest}")),
        (Method::POST, format!("/v2/x/blobs/uploads/?mount={digest}&from=y")),
        (Method::PUT, "/v2/x/manifests/latest".to_owned()),
        (Method::DELETE, "/v2/x/manifests/latest".to_owned()),
        (Method::DELETE, format!("/v2/x/manifests/{digest}")),
        (Method::DELETE, format!("/v2/x/blobs/{digest}")),
    ] {
        let body = if method == Method::PUT { index(&[]) } else { b"x".to_vec() };
        let request = site
            .request(method.clone(), &path)
            .header("content-type", "application/vnd.oci.image.index.v1+json");
        let seen = request.body(body).seen().await;
        seen.refused(403, "DENIED");
        let message = seen.json()["errors"][0]["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains("paris") && message.contains("http://paris.example:5000"),
            "{method} {path}: {message}"
        );
    }
    assert!(site.stored_blobs().is_empty() && site.spools().is_empty());
    if site.is_behind_a_balancer() {
        return;
    }
    // A body that was announced is not asked for.
    for target in
        [format!("POST /v2/x/blobs/uploads/?digest={digest}"), "PUT /v2/x/manifests/latest".to_owned()]
    {
        let head = format!(
            "{target} HTTP/1.1\r\nHost: x\r\nContent-Type: {OCI_MANIFEST}\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
        );
        let answer = site.raw(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
}

async fn a_halted_site_answers_503_and_says_when_to_try_again(site: Site) {
    let (manifest, _) = site.push_image("x", "latest", "one").await;
    site.registry.metadata.halt("tokyo has another history").await.unwrap();
    let seen = site.put_manifest("x", "latest", OCI_MANIFEST, manifest.clone()).await;
    seen.refused(503, "UNAVAILABLE");
    assert_eq!(seen.header("retry-after"), "30");
    assert!(String::from_utf8_lossy(&seen.body).contains("tokyo has another history"));
    assert_eq!(site.get("/v2/x/manifests/latest").await.body, manifest);
}
