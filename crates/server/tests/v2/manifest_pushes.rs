//! Specification, "Pushing Manifests": by tag, by digest, with tags, with a subject, and in every format.

use http::{Method, StatusCode};
use serde_json::json;
use twinport_oci::{Algorithm, Digest};

use crate::harness::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Send, Site, image, index};
use crate::on_both_databases;

on_both_databases!(
    a_pushed_manifest_is_201_with_a_pullable_location_and_its_digest,
    manifest_bytes_are_stored_exactly_as_they_came,
    a_manifest_pushed_by_another_digest_is_400_and_not_stored,
    a_manifest_that_names_missing_blobs_is_refused_with_each_of_them,
    a_subject_that_does_not_exist_is_accepted_and_named_in_the_answer,
    an_index_may_be_sparse_and_nested,
    a_push_by_digest_sets_the_tags_of_its_query,
    a_manifest_is_pushed_by_its_sha512_digest,
    a_tag_moves_and_the_old_manifest_stays,
    foreign_layers_need_not_be_there,
);

async fn a_pushed_manifest_is_201_with_a_pullable_location_and_its_digest(site: Site) {
    let (manifest, digest) = site.push_image("library/x", "first", "one").await;
    for reference in ["latest".to_owned(), digest.to_string()] {
        let seen = site.put_manifest("library/x", reference, OCI_MANIFEST, manifest.clone()).await;
        seen.is(StatusCode::CREATED);
        assert_eq!(seen.header("docker-content-digest"), digest.to_string());
        assert_eq!(site.get(seen.header("location")).await.body, manifest);
    }
}

async fn manifest_bytes_are_stored_exactly_as_they_came(site: Site) {
    let config = site.push_blob("x", b"{}").await;
    let odd = format!(
        "\n{{ \"layers\" : [ ],\t\"config\":{{\"size\":2,\"digest\":\"{config}\",\"mediaType\":\"{OCI_CONFIG}\"}},\r\n \
         \"schemaVersion\":2, \"unknown\": {{\"\\u00e4\": 1.50e1}}, \"mediaType\":\"{OCI_MANIFEST}\" }}  \n"
    );
    site.put_manifest("x", "odd", OCI_MANIFEST, odd.clone()).await.is(StatusCode::CREATED);
    let seen = site.get("/v2/x/manifests/odd").await;
    assert_eq!(seen.body, odd);
    assert_eq!(seen.header("docker-content-digest"), Digest::sha256(odd.as_bytes()).to_string());
}

async fn a_manifest_pushed_by_another_digest_is_400_and_not_stored(site: Site) {
    let (mut manifest, _) = site.push_image("x", "latest", "one").await;
    manifest.extend_from_slice(b"  ");
    let (actual, claimed) = (Digest::sha256(&manifest), Digest::sha256(b"other"));
    site.put_manifest("x", claimed, OCI_MANIFEST, manifest).await.refused(400, "DIGEST_INVALID");
    for digest in [actual, claimed] {
        assert_eq!(site.head(&format!("/v2/x/manifests/{digest}")).await.status, 404);
    }
}

async fn a_manifest_that_names_missing_blobs_is_refused_with_each_of_them(site: Site) {
    let elsewhere = site.push_blob("elsewhere", b"not linked here").await;
    let absent = Digest::sha256(b"absent");
    let seen = site.put_manifest("x", "latest", OCI_MANIFEST, image(&absent, 6, &elsewhere, 15)).await;
    seen.refused(404, "MANIFEST_BLOB_UNKNOWN");
    let errors = seen.json()["errors"].as_array().unwrap().clone();
    let named: Vec<_> = errors.iter().map(|error| error["detail"]["digest"].as_str().unwrap()).collect();
    assert_eq!(named.len(), 2);
    assert!(named.contains(&absent.to_string().as_str()) && named.contains(&elsewhere.to_string().as_str()));
    site.get("/v2/x/manifests/latest").await.refused(404, "MANIFEST_UNKNOWN");
    site.get("/v2/x/tags/list").await.refused(404, "NAME_UNKNOWN");
}

async fn a_subject_that_does_not_exist_is_accepted_and_named_in_the_answer(site: Site) {
    let subject = Digest::sha256(b"not pushed yet");
    let config = site.push_blob("x", b"{}").await;
    let image = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 100},
    });
    let list = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 100},
    });
    for (media_type, manifest) in [(OCI_MANIFEST, image), (OCI_INDEX, list)] {
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let digest = Digest::sha256(&bytes);
        let seen = site.put_manifest("x", digest, media_type, bytes).await;
        seen.is(StatusCode::CREATED);
        assert_eq!(seen.header("oci-subject"), subject.to_string());
    }
    let seen = site.get(&format!("/v2/x/referrers/{subject}")).await;
    assert_eq!(seen.json()["manifests"].as_array().unwrap().len(), 2);
    // Without a subject there is no such header.
    let (manifest, _) = site.push_image("x", "plain", "one").await;
    let seen = site.put_manifest("x", "plain", OCI_MANIFEST, manifest).await;
    assert_eq!(seen.headers.get("oci-subject"), None);
}

async fn an_index_may_be_sparse_and_nested(site: Site) {
    let (_, present) = site.push_image("x", "one", "one").await;
    let sparse = index(&[present, Digest::sha256(b"absent platform")]);
    let inner = Digest::sha256(&sparse);
    site.put_manifest("x", inner, OCI_INDEX, sparse.clone()).await.is(StatusCode::CREATED);
    let outer = index(&[inner]);
    site.put_manifest("x", "nested", OCI_INDEX, outer.clone()).await.is(StatusCode::CREATED);
    site.put_manifest("x", "empty", OCI_INDEX, index(&[])).await.is(StatusCode::CREATED);
    assert_eq!(site.get("/v2/x/manifests/nested").await.body, outer);
    assert_eq!(site.get(&format!("/v2/x/manifests/{inner}")).await.body, sparse);
}

async fn a_push_by_digest_sets_the_tags_of_its_query(site: Site) {
    let (manifest, digest) = site.push_image("x", "first", "one").await;
    let tags: Vec<String> = (0..20).map(|i| format!("v1.{i}")).collect();
    let query = |tags: &[String]| tags.iter().map(|tag| format!("tag={tag}")).collect::<Vec<_>>().join("&");
    let put = async |query: &str| {
        site.put_manifest("x", format!("{digest}?{query}"), OCI_MANIFEST, manifest.clone()).await
    };
    let seen = put(&query(&tags)).await;
    seen.is(StatusCode::CREATED);
    let accepted: Vec<_> = seen.headers.get_all("oci-tag").iter().map(|tag| tag.to_str().unwrap()).collect();
    assert_eq!(accepted, tags);
    for tag in &tags {
        assert_eq!(
            site.head(&format!("/v2/x/manifests/{tag}")).await.header("docker-content-digest"),
            digest.to_string()
        );
    }
    let many: Vec<String> = (0..200).map(|i| format!("t{i}")).collect();
    put(&query(&many)).await.refused(414, "TAG_INVALID");
    put("tag=.invalid").await.refused(400, "TAG_INVALID");
    assert_eq!(site.get("/v2/x/tags/list").await.json()["tags"].as_array().unwrap().len(), 21);
}

async fn a_manifest_is_pushed_by_its_sha512_digest(site: Site) {
    let (manifest, _) = site.push_image("x", "first", "one").await;
    let digest = Digest::of(Algorithm::Sha512, &manifest);
    let seen = site.put_manifest("x", format!("{digest}?tag=strong"), OCI_MANIFEST, manifest.clone()).await;
    seen.is(StatusCode::CREATED);
    for reference in [digest.to_string(), "strong".to_owned()] {
        let seen = site.get(&format!("/v2/x/manifests/{reference}")).await;
        assert_eq!(seen.body, manifest);
        assert_eq!(seen.header("docker-content-digest"), digest.to_string());
    }
}

async fn a_tag_moves_and_the_old_manifest_stays(site: Site) {
    let (first, old) = site.push_image("x", "latest", "one").await;
    let (second, _) = site.push_image("x", "latest", "two").await;
    assert_eq!(site.get("/v2/x/manifests/latest").await.body, second);
    assert_eq!(site.get(&format!("/v2/x/manifests/{old}")).await.body, first);
}

async fn foreign_layers_need_not_be_there(site: Site) {
    let config = site.push_blob("x", b"{}").await;
    let foreign = Digest::sha256(b"served by someone else");
    for layer in [
        json!({"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": foreign, "size": 22,
            "urls": ["https://example.com/layer"]}),
        json!({"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "digest": foreign, "size": 22}),
    ] {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config, "size": 2},
            "layers": [layer],
        });
        let bytes = serde_json::to_vec(&manifest).unwrap();
        site.put_manifest("x", "windows", OCI_MANIFEST, bytes).await.is(StatusCode::CREATED);
    }
}

#[tokio::test]
async fn a_manifest_without_a_content_type_is_read_by_its_own_word() {
    let site = Site::start().await;
    let (manifest, _) = site.push_image("x", "first", "one").await;
    let path = "/v2/x/manifests/untyped";
    site.request(Method::PUT, path).body(manifest.clone()).seen().await.is(StatusCode::CREATED);
    assert_eq!(site.get(path).await.header("content-type"), OCI_MANIFEST);
    site.put_manifest("x", "json", "application/json", manifest).await.is(StatusCode::CREATED);
    site.put_manifest("x", "odd", "not a media type", "{}").await.refused(400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn docker_manifests_of_both_schemas_are_kept_as_they_are() {
    let site = Site::start().await;
    let layer = site.push_blob("x", b"layer").await;
    let config = site.push_blob("x", b"{}").await;
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let schema2 = json!({
        "schemaVersion": 2,
        "mediaType": docker,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": layer, "size": 5}],
    });
    let bytes = serde_json::to_vec(&schema2).unwrap();
    let list_type = "application/vnd.docker.distribution.manifest.list.v2+json";
    let list = json!({
        "schemaVersion": 2,
        "mediaType": list_type,
        "manifests": [{"mediaType": docker, "digest": Digest::sha256(&bytes), "size": bytes.len(),
            "platform": {"architecture": "amd64", "os": "linux"}}],
    });
    let schema1_type = "application/vnd.docker.distribution.manifest.v1+json";
    let schema1 = json!({
        "schemaVersion": 1, "name": "x", "tag": "one", "architecture": "amd64",
        "fsLayers": [{"blobSum": layer}], "history": [{"v1Compatibility": "{}"}],
    });
    for (tag, media_type, bytes) in [
        ("two", docker, bytes),
        ("list", list_type, serde_json::to_vec(&list).unwrap()),
        ("one", schema1_type, serde_json::to_vec(&schema1).unwrap()),
    ] {
        site.put_manifest("x", tag, media_type, bytes.clone()).await.is(StatusCode::CREATED);
        let seen = site.get(&format!("/v2/x/manifests/{tag}")).await;
        assert_eq!((seen.header("content-type"), &seen.body[..]), (media_type, &bytes[..]));
    }
}

#[tokio::test]
async fn an_artifact_with_descriptors_that_hold_data_is_kept_as_it_is() {
    let site = Site::start().await;
    let empty = site.push_blob("x", b"{}").await;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.sbom",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2, "data": "e30="},
        "layers": [{"mediaType": "application/vnd.example+weird;q=1", "digest": empty, "size": 2, "data": "e30="}],
        "annotations": {"org.example": "ä"},
    });
    let bytes = serde_json::to_vec(&manifest).unwrap();
    site.put_manifest("x", "sbom", OCI_MANIFEST, bytes.clone()).await.is(StatusCode::CREATED);
    assert_eq!(site.get("/v2/x/manifests/sbom").await.body, bytes);
}

#[tokio::test]
async fn a_layer_that_is_itself_a_manifest_is_taken_as_a_blob() {
    let site = Site::start().await;
    let layer = site.push_blob("x", &index(&[])).await;
    let config = site.push_blob("x", b"{}").await;
    let manifest = image(&config, 2, &layer, 1);
    let odd = String::from_utf8(manifest).unwrap().replace(OCI_LAYER, OCI_INDEX);
    site.put_manifest("x", "odd", OCI_MANIFEST, odd).await.is(StatusCode::CREATED);
}
