//! Specification, "Listing Referrers".

use http::StatusCode;
use serde_json::{Value, json};
use twinport_oci::Digest;

use crate::harness::{OCI_INDEX, OCI_MANIFEST, Site};
use crate::on_both_databases;

on_both_databases!(
    a_subject_without_referrers_has_an_empty_index_and_never_404,
    a_referrer_is_listed_with_its_type_size_and_annotations,
    an_artifact_type_filter_is_applied_and_said_to_be,
    referrers_that_do_not_fit_a_page_are_linked,
    a_deleted_referrer_is_listed_no_more,
    referrers_belong_to_one_repository,
    a_fallback_tag_is_a_tag_and_what_it_lists_are_referrers_all_the_same,
);

async fn push(site: &Site, repository: &str, manifest: Value) -> Digest {
    site.push_blob(repository, b"{}").await;
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let digest = Digest::sha256(&bytes);
    let media_type = manifest["mediaType"].as_str().unwrap();
    site.put_manifest(repository, digest, media_type, bytes).await.is(StatusCode::CREATED);
    digest
}

fn referrer(subject: &Digest, artifact_type: Option<&str>, annotations: Value) -> Value {
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.example.config+json", "digest": Digest::sha256(b"{}"), "size": 2},
        "layers": [],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1},
        "annotations": annotations,
    });
    if let Some(artifact_type) = artifact_type {
        manifest["artifactType"] = json!(artifact_type);
    }
    manifest
}

fn subject() -> Digest {
    Digest::sha256(b"subject")
}

async fn list(site: &Site, query: &str) -> Vec<Value> {
    let seen = site.get(&format!("/v2/x/referrers/{}{query}", subject())).await;
    seen.is(StatusCode::OK);
    seen.json()["manifests"].as_array().unwrap().clone()
}

async fn a_subject_without_referrers_has_an_empty_index_and_never_404(site: Site) {
    site.push_blob("x", b"known repository").await;
    for repository in ["x", "unknown"] {
        let seen = site.get(&format!("/v2/{repository}/referrers/{}", subject())).await;
        seen.is(StatusCode::OK);
        assert_eq!(seen.header("content-type"), OCI_INDEX);
        assert_eq!(seen.json(), json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}));
    }
    for invalid in ["sha256:abc", "latest", "md5:00"] {
        site.get(&format!("/v2/x/referrers/{invalid}")).await.refused(400, "DIGEST_INVALID");
    }
}

async fn a_referrer_is_listed_with_its_type_size_and_annotations(site: Site) {
    let annotations = json!({"org.example.a": "1", "org.example.ä": "\"quoted\"\n"});
    let typed = referrer(&subject(), Some("application/vnd.example.sbom"), annotations.clone());
    let untyped = referrer(&subject(), None, json!({}));
    let untyped_index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject(), "size": 1},
    });
    let mut expected = Vec::new();
    for (manifest, artifact_type, annotations) in [
        (typed, Some("application/vnd.example.sbom"), Some(annotations)),
        (untyped, Some("application/vnd.example.config+json"), None),
        (untyped_index, None, None),
    ] {
        let size = serde_json::to_vec(&manifest).unwrap().len();
        let media_type = manifest["mediaType"].clone();
        let digest = push(&site, "x", manifest).await;
        let mut descriptor = json!({"mediaType": media_type, "digest": digest, "size": size});
        if let Some(artifact_type) = artifact_type {
            descriptor["artifactType"] = json!(artifact_type);
        }
        if let Some(annotations) = annotations {
            descriptor["annotations"] = annotations;
        }
        expected.push(descriptor);
    }
    expected.sort_by_key(|descriptor| descriptor["digest"].as_str().unwrap().to_owned());
    assert_eq!(list(&site, "").await, expected);
}

async fn an_artifact_type_filter_is_applied_and_said_to_be(site: Site) {
    let sbom =
        push(&site, "x", referrer(&subject(), Some("application/vnd.example.sbom+json"), json!({}))).await;
    push(&site, "x", referrer(&subject(), Some("application/vnd.example.signature"), json!({}))).await;
    // A plus that a client forgot to encode is still a plus.
    for filter in ["application%2Fvnd.example.sbom%2Bjson", "application/vnd.example.sbom+json"] {
        let seen = site.get(&format!("/v2/x/referrers/{}?artifactType={filter}", subject())).await;
        assert_eq!(seen.header("oci-filters-applied"), "artifactType");
        let found = seen.json()["manifests"].as_array().unwrap().clone();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["digest"], sbom.to_string());
    }
    assert!(list(&site, "?artifactType=application/unknown").await.is_empty());
    let seen = site.get(&format!("/v2/x/referrers/{}", subject())).await;
    assert_eq!(seen.header("oci-filters-applied"), "");
}

async fn referrers_that_do_not_fit_a_page_are_linked(site: Site) {
    let mut expected = Vec::new();
    for i in 0..60 {
        let kind = if i % 2 == 0 { "application/even" } else { "application/odd" };
        let digest = push(&site, "x", referrer(&subject(), Some(kind), json!({"i": i.to_string()}))).await;
        expected.push((digest.to_string(), kind));
    }
    expected.sort();
    for (query, wanted) in [
        ("n=7", None),
        ("n=50", None),
        ("", None),
        ("n=4&artifactType=application/odd", Some("application/odd")),
    ] {
        let mut path = format!("/v2/x/referrers/{}?{query}", subject());
        let mut found = Vec::new();
        loop {
            let seen = site.get(&path).await;
            seen.is(StatusCode::OK);
            if wanted.is_some() {
                assert_eq!(seen.header("oci-filters-applied"), "artifactType");
            }
            let page = seen.json()["manifests"].as_array().unwrap().clone();
            found.extend(page.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()));
            let Some(next) = seen.next() else { break };
            path = next;
        }
        let expected: Vec<_> = expected
            .iter()
            .filter(|(_, kind)| wanted.is_none_or(|wanted| *kind == wanted))
            .map(|(d, _)| d.clone())
            .collect();
        assert_eq!(found, expected, "{query}");
    }
}

async fn a_deleted_referrer_is_listed_no_more(site: Site) {
    let digest = push(&site, "x", referrer(&subject(), None, json!({}))).await;
    assert_eq!(list(&site, "").await.len(), 1);
    site.delete(&format!("/v2/x/manifests/{digest}")).await.is(StatusCode::ACCEPTED);
    assert!(list(&site, "").await.is_empty());
}

async fn referrers_belong_to_one_repository(site: Site) {
    push(&site, "other", referrer(&subject(), None, json!({}))).await;
    assert!(list(&site, "").await.is_empty());
}

/// Specification, "Enabling the Referrers API": clients of older registries kept the list themselves, in a tag.
async fn a_fallback_tag_is_a_tag_and_what_it_lists_are_referrers_all_the_same(site: Site) {
    let attached = referrer(&subject(), Some("application/vnd.example.sbom"), json!({}));
    let size = serde_json::to_vec(&attached).unwrap().len();
    let digest = push(&site, "x", attached).await;
    let fallback = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [{"mediaType": OCI_MANIFEST, "digest": digest, "size": size,
            "artifactType": "application/vnd.example.sbom"}],
    });
    let (tag, bytes) = (subject().to_string().replace(':', "-"), serde_json::to_vec(&fallback).unwrap());
    site.put_manifest("x", &tag, OCI_INDEX, bytes.clone()).await.is(StatusCode::CREATED);
    // Once, whoever keeps a list; and the list itself is nobody's referrer.
    let found = list(&site, "").await;
    assert_eq!(found.iter().map(|entry| &entry["digest"]).collect::<Vec<_>>(), [&json!(digest)]);
    assert_eq!(site.get(&format!("/v2/x/manifests/{tag}")).await.body, bytes);
    // A client that takes the tag away takes no referrer with it.
    site.delete(&format!("/v2/x/manifests/{tag}")).await.is(StatusCode::ACCEPTED);
    assert_eq!(list(&site, "").await.len(), 1);
}

#[tokio::test]
async fn a1_a_page_of_referrers_is_bounded_in_bytes() {
    let site = Site::start().await;
    let mut pushed = 0;
    for i in 0..5 {
        let annotations = json!({"i": i.to_string(), "large": "x".repeat(1 << 20)});
        push(&site, "x", referrer(&subject(), None, annotations)).await;
        pushed += 1;
    }
    let mut path = format!("/v2/x/referrers/{}", subject());
    let (mut found, mut pages) = (0, 0);
    loop {
        let seen = site.get(&path).await;
        assert!(seen.body.len() < 5 << 20, "a page of {} bytes", seen.body.len());
        found += seen.json()["manifests"].as_array().unwrap().len();
        pages += 1;
        let Some(next) = seen.next() else { break };
        path = next;
    }
    assert_eq!((found, pages), (pushed, 2));
}
