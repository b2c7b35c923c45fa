//! Specification, "Content Management".

use http::StatusCode;
use twinport_oci::Digest;
use twinport_server::RegistrySettings;

use crate::harness::{OCI_MANIFEST, Site};
use crate::on_both_databases;

on_both_databases!(
    deleting_a_tag_is_202_and_leaves_the_manifest_and_other_tags,
    deleting_a_manifest_is_202_and_takes_its_tags_along,
    r4_delete_by_digest_leaves_tags_on_other_manifests,
    deleting_a_blob_is_202_and_then_404,
    deleting_what_does_not_exist_is_404,
    a_deleted_blob_stays_where_others_link_it,
);

async fn deleting_a_tag_is_202_and_leaves_the_manifest_and_other_tags(site: Site) {
    let (manifest, digest) = site.push_image("x", "a", "one").await;
    site.put_manifest("x", "b", OCI_MANIFEST, manifest).await.is(StatusCode::CREATED);
    site.delete("/v2/x/manifests/a").await.is(StatusCode::ACCEPTED);
    site.get("/v2/x/manifests/a").await.refused(404, "MANIFEST_UNKNOWN");
    site.delete("/v2/x/manifests/a").await.refused(404, "MANIFEST_UNKNOWN");
    for reference in ["b".to_owned(), digest.to_string()] {
        site.get(&format!("/v2/x/manifests/{reference}")).await.is(StatusCode::OK);
    }
}

async fn deleting_a_manifest_is_202_and_takes_its_tags_along(site: Site) {
    let (manifest, digest) = site.push_image("x", "a", "one").await;
    site.put_manifest("x", "b", OCI_MANIFEST, manifest).await.is(StatusCode::CREATED);
    site.delete(&format!("/v2/x/manifests/{digest}")).await.is(StatusCode::ACCEPTED);
    for reference in ["a".to_owned(), "b".to_owned(), digest.to_string()] {
        site.get(&format!("/v2/x/manifests/{reference}")).await.refused(404, "MANIFEST_UNKNOWN");
    }
    assert!(site.get("/v2/x/tags/list").await.json()["tags"].as_array().unwrap().is_empty());
}

async fn r4_delete_by_digest_leaves_tags_on_other_manifests(site: Site) {
    let (_, first) = site.push_image("x", "latest", "one").await;
    let (second, _) = site.push_image("x", "v1.0", "two").await;
    site.delete(&format!("/v2/x/manifests/{first}")).await.is(StatusCode::ACCEPTED);
    assert_eq!(site.get("/v2/x/manifests/v1.0").await.body, second);
}

async fn deleting_a_blob_is_202_and_then_404(site: Site) {
    let digest = site.push_blob("x", b"blob").await;
    let path = format!("/v2/x/blobs/{digest}");
    site.delete(&path).await.is(StatusCode::ACCEPTED);
    site.get(&path).await.refused(404, "BLOB_UNKNOWN");
    assert_eq!(site.head(&path).await.status, 404);
    site.delete(&path).await.refused(404, "BLOB_UNKNOWN");
}

async fn deleting_what_does_not_exist_is_404(site: Site) {
    let absent = Digest::sha256(b"absent");
    site.push_blob("x", b"known repository").await;
    for repository in ["x", "unknown"] {
        site.delete(&format!("/v2/{repository}/manifests/latest")).await.refused(404, "MANIFEST_UNKNOWN");
        site.delete(&format!("/v2/{repository}/manifests/{absent}")).await.refused(404, "MANIFEST_UNKNOWN");
        site.delete(&format!("/v2/{repository}/blobs/{absent}")).await.refused(404, "BLOB_UNKNOWN");
    }
}

async fn a_deleted_blob_stays_where_others_link_it(site: Site) {
    let digest = site.push_blob("x", b"shared").await;
    site.push_blob("y", b"shared").await;
    site.delete(&format!("/v2/x/blobs/{digest}")).await.is(StatusCode::ACCEPTED);
    assert_eq!(site.get(&format!("/v2/y/blobs/{digest}")).await.body, "shared");
}

#[tokio::test]
async fn deleting_is_405_where_it_is_switched_off() {
    let settings = RegistrySettings { delete_enabled: false, ..RegistrySettings::default() };
    let site = Site::start_with(settings, Default::default()).await;
    let (_, digest) = site.push_image("x", "latest", "one").await;
    let blob = site.push_blob("x", b"blob").await;
    for path in ["manifests/latest".to_owned(), format!("manifests/{digest}"), format!("blobs/{blob}")] {
        site.delete(&format!("/v2/x/{path}")).await.refused(405, "UNSUPPORTED");
        site.get(&format!("/v2/x/{path}")).await.is(StatusCode::OK);
    }
    // An upload is cancelled all the same.
    let upload = site.begin("x").await;
    site.delete(&upload).await.is(StatusCode::NO_CONTENT);
}
