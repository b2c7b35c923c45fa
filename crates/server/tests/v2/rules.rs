//! Rules, as clients meet them: refused with the rule's name, and nothing more than it says.

use http::{Method, StatusCode};
use serde_json::json;
use twinport_access::Rule;
use twinport_metadata::Actor;
use twinport_oci::Digest;

use crate::harness::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Seen, Send, Site, content};
use crate::on_both_databases;

on_both_databases!(
    a7_an_immutable_tag_is_403_by_every_way_around_it,
    a7_an_exception_and_another_repository_are_not_held,
    a8_a_layer_of_a_host_that_no_rule_allows_is_refused,
    a_rule_sets_the_largest_blob_and_manifest_of_its_repositories,
    a_full_quota_refuses_what_adds_to_it_and_nothing_else,
    a_quota_counts_repositories,
);

async fn rule(site: &Site, name: &str, repositories: &str, what: &str) {
    let text = format!(r#"{{"name":"{name}","repositories":"{repositories}",{what}}}"#);
    let rule: Rule = serde_json::from_str(&text).unwrap();
    site.registry.metadata.create_rule(&rule, &Actor::anonymous()).await.unwrap();
    site.look_at_rules_again();
}

/// Counts for the quotas to the end of the log.
async fn count(site: &Site) {
    let metadata = &site.registry.metadata;
    metadata.sequence_now().await.unwrap();
    let rules = site.registry.rules().await.unwrap();
    while metadata.count_usage(rules.quotas(), None).await.unwrap().more {}
}

#[track_caller]
fn denied(seen: &Seen, words: &[&str]) {
    seen.refused(403, "DENIED");
    let message = seen.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

async fn a7_an_immutable_tag_is_403_by_every_way_around_it(site: Site) {
    rule(&site, "releases", "**", r#""rule":"immutable_tags","tags":["v*"]"#).await;
    let (first, digest) = site.push_image("x", "v1", "one").await;
    let (other, other_digest) = site.push_image("x", "latest", "two").await;

    denied(&site.put_manifest("x", "v1", OCI_MANIFEST, other.clone()).await, &["v1", "releases"]);
    let tagged = format!("{other_digest}?tag=v1");
    denied(&site.put_manifest("x", &tagged, OCI_MANIFEST, other).await, &["v1", "releases"]);
    denied(&site.delete("/v2/x/manifests/v1").await, &["v1", "releases"]);
    denied(&site.delete(&format!("/v2/x/manifests/{digest}")).await, &["v1", "releases"]);
    denied(&site.delete(&format!("/v2/x/blobs/{}", Digest::sha256(b"one"))).await, &["v1", "releases"]);
    assert_eq!(site.get("/v2/x/manifests/v1").await.body, first);

    site.put_manifest("x", "v1", OCI_MANIFEST, first.clone()).await.is(StatusCode::CREATED);
    site.put_manifest("x", "v2", OCI_MANIFEST, first).await.is(StatusCode::CREATED);
    site.delete("/v2/x/manifests/latest").await.is(StatusCode::ACCEPTED);
    site.delete(&format!("/v2/x/manifests/{other_digest}")).await.is(StatusCode::ACCEPTED);
}

async fn a7_an_exception_and_another_repository_are_not_held(site: Site) {
    rule(&site, "releases", "team/*", r#""rule":"immutable_tags","tags":["*"],"except":["latest"]"#).await;
    for (repository, tag) in [("team/x", "latest"), ("x", "v1"), ("team/x/y", "v1")] {
        site.push_image(repository, tag, "one").await;
        let (_, digest) = site.push_image(repository, tag, "two").await;
        site.delete(&format!("/v2/{repository}/manifests/{digest}")).await.is(StatusCode::ACCEPTED);
    }
}

async fn a8_a_layer_of_a_host_that_no_rule_allows_is_refused(site: Site) {
    let config = site.push_blob("x", b"{}").await;
    let manifest = |url: &str| {
        let layer =
            json!({"mediaType": OCI_LAYER, "digest": Digest::sha256(b"far away"), "size": 8, "urls": [url]});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config, "size": 2},
            "layers": [layer],
        });
        serde_json::to_vec(&manifest).unwrap()
    };
    let put = async |url: &str| site.put_manifest("x", "windows", OCI_MANIFEST, manifest(url)).await;
    put("https://anywhere.example.com/x").await.is(StatusCode::CREATED);
    rule(&site, "windows", "**", r#""rule":"foreign_urls","allow":["mcr.example.com"]"#).await;
    for url in ["https://anywhere.example.com/x", "http://mcr.example.com/x", "file:///etc/passwd"] {
        denied(&put(url).await, &[url, "windows"]);
    }
    put("https://mcr.example.com/x").await.is(StatusCode::CREATED);
}

async fn a_rule_sets_the_largest_blob_and_manifest_of_its_repositories(site: Site) {
    rule(&site, "small", "small/*", r#""rule":"maximum_size","blob_bytes":1000,"manifest_bytes":600"#).await;
    let bytes = content(7, 1001);
    let digest = Digest::sha256(&bytes);
    let too_large = |seen: &Seen| {
        seen.refused(413, "SIZE_INVALID");
        let message = seen.json()["errors"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("1000 bytes") && message.contains("rule small"), "{message}");
    };
    // Declared, in pieces, streamed, and in one request.
    let location = site.begin("small/x").await;
    too_large(&site.close(&location, digest, &bytes).await);
    let location = site.begin("small/x").await;
    site.patch(&location, 0, &bytes[..600]).await.is(StatusCode::ACCEPTED);
    too_large(&site.patch(&location, 600, &bytes[600..]).await);
    let path = format!("/v2/small/x/blobs/uploads/?digest={digest}");
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes.clone())]);
    too_large(&site.request(Method::POST, &path).body(reqwest::Body::wrap_stream(stream)).seen().await);
    too_large(&site.request(Method::POST, &path).body(bytes.clone()).seen().await);
    // A mount is no way around: it becomes an upload.
    site.push_blob("large", &bytes).await;
    let mount = format!("/v2/small/x/blobs/uploads/?mount={digest}&from=large");
    site.post(&mount).await.is(StatusCode::ACCEPTED);
    assert_eq!(site.head(&format!("/v2/small/x/blobs/{digest}")).await.status, 404);

    site.push_blob("small/x", &bytes[..1000]).await;
    let (manifest, _) = site.push_image("small/x", "v1", "one").await;
    let padded = [manifest, vec![b' '; 600]].concat();
    site.put_manifest("small/x", "v2", OCI_MANIFEST, padded.clone()).await.refused(413, "SIZE_INVALID");
    site.push_image("large", "v1", "one").await;
    site.put_manifest("large", "v2", OCI_MANIFEST, padded).await.is(StatusCode::CREATED);
}

async fn a_full_quota_refuses_what_adds_to_it_and_nothing_else(site: Site) {
    let (manifest, _) = site.push_image("team/x", "v1", "one").await;
    rule(&site, "team", "team/*", r#""rule":"quota","bytes":3000"#).await;
    // Nothing is refused before it is counted.
    let first = content(1, 2000);
    site.push_blob("team/x", &first).await;
    count(&site).await;

    let second = content(2, 2000);
    let digest = Digest::sha256(&second);
    let location = site.begin("team/y").await;
    let seen = site.close(&location, digest, &second).await;
    denied(&seen, &["the quota team is full", "of 3000 bytes", "2000"]);
    let path = format!("/v2/team/y/blobs/uploads/?digest={digest}");
    denied(&site.request(Method::POST, &path).body(second.clone()).seen().await, &["the quota team"]);
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(second.clone())]);
    let streamed = site.request(Method::POST, &path).body(reqwest::Body::wrap_stream(stream)).seen().await;
    denied(&streamed, &["the quota team"]);
    site.push_blob("elsewhere", &second).await;
    site.post(&format!("/v2/team/y/blobs/uploads/?mount={digest}&from=elsewhere"))
        .await
        .is(StatusCode::ACCEPTED);
    assert_eq!(site.head(&format!("/v2/team/y/blobs/{digest}")).await.status, 404);
    // Nothing of what was refused stays.
    assert!(site.spools().is_empty(), "{:?}", site.spools());

    // What is there already adds nothing, what is small enough fits, and other repositories are not concerned.
    site.push_blob("team/x", &first).await;
    site.put_manifest("team/x", "again", OCI_MANIFEST, manifest.clone()).await.is(StatusCode::CREATED);
    site.push_blob("team/y", &second[..100]).await;
    site.push_image("other/x", "v1", "one").await;
    // Room that is made is room that can be used.
    site.delete(&format!("/v2/team/x/blobs/{}", Digest::sha256(&first))).await.is(StatusCode::ACCEPTED);
    count(&site).await;
    site.push_blob("team/y", &second).await;
}

async fn a_quota_counts_repositories(site: Site) {
    rule(&site, "few", "team/*", r#""rule":"quota","most_repositories":2"#).await;
    count(&site).await;
    site.push_image("team/a", "v1", "one").await;
    site.push_image("team/b", "v1", "one").await;
    count(&site).await;
    denied(&site.post("/v2/team/c/blobs/uploads/").await, &["the quota few", "2 of 2 repositories"]);
    let (manifest, _) = site.push_image("team/a", "v2", "two").await;
    site.push_image("c", "v1", "one").await;
    let layer = Digest::sha256(b"one");
    site.post(&format!("/v2/team/c/blobs/uploads/?mount={layer}&from=c")).await.refused(403, "DENIED");
    denied(&site.put_manifest("team/c", "v1", OCI_MANIFEST, manifest).await, &["the quota few"]);
}
