//! Signed Docker schema 1, as Debian's docker-registry 2.8.2 served an image that skopeo had pushed to it.
//! Invariant: the digest is the one that registry gave, and the signatures come back as they were sent.

use http::StatusCode;
use twinport_oci::Digest;

use crate::harness::{Seen, Site};
use crate::on_both_databases;

const SIGNED: &[u8] = include_bytes!("schema1/signed.json");
const LAYER: &[u8] = include_bytes!("schema1/layer.tar.gz");
/// Its `Docker-Content-Digest`.
const DIGEST: &str = "sha256:fe2be351c5ada578a9d22920f96a85fc99e6f80bdef9468f18476d4ee394960d";
const SIGNED_TYPE: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const REPOSITORY: &str = "library/hello";

on_both_databases!(
    what_docker_registry_signed_has_its_digest_and_comes_back_with_its_signatures,
    a_schema_1_manifest_is_pushed_by_the_digest_of_its_payload_alone,
    of_two_signatures_on_one_payload_the_first_stays,
);

#[track_caller]
fn is_verbatim(seen: &Seen) {
    seen.is(StatusCode::OK);
    assert_eq!((seen.header("docker-content-digest"), seen.header("content-type")), (DIGEST, SIGNED_TYPE));
    assert_eq!(seen.body, SIGNED);
}

async fn what_docker_registry_signed_has_its_digest_and_comes_back_with_its_signatures(site: Site) {
    site.push_blob(REPOSITORY, LAYER).await;
    let pushed = site.put_manifest(REPOSITORY, "latest", SIGNED_TYPE, SIGNED).await;
    assert_eq!(pushed.is(StatusCode::CREATED).header("docker-content-digest"), DIGEST);
    for reference in ["latest", DIGEST] {
        is_verbatim(&site.get(&format!("/v2/{REPOSITORY}/manifests/{reference}")).await);
    }
}

async fn a_schema_1_manifest_is_pushed_by_the_digest_of_its_payload_alone(site: Site) {
    site.push_blob(REPOSITORY, LAYER).await;
    let bytes = Digest::sha256(SIGNED);
    site.put_manifest(REPOSITORY, bytes, SIGNED_TYPE, SIGNED).await.refused(400, "DIGEST_INVALID");
    site.put_manifest(REPOSITORY, DIGEST, SIGNED_TYPE, SIGNED).await.is(StatusCode::CREATED);
    is_verbatim(&site.get(&format!("/v2/{REPOSITORY}/manifests/{DIGEST}")).await);
}

/// Old registries signed anew at every pull, so the same manifest comes by with many signatures: one digest is one document.
async fn of_two_signatures_on_one_payload_the_first_stays(site: Site) {
    site.push_blob(REPOSITORY, LAYER).await;
    site.put_manifest(REPOSITORY, "latest", SIGNED_TYPE, SIGNED).await.is(StatusCode::CREATED);
    let again = String::from_utf8(SIGNED.to_vec()).unwrap().replace("\"signature\":\"c", "\"signature\":\"d");
    assert_ne!(again.as_bytes(), SIGNED);
    let pushed = site.put_manifest(REPOSITORY, "again", SIGNED_TYPE, again).await;
    assert_eq!(pushed.is(StatusCode::CREATED).header("docker-content-digest"), DIGEST);
    for reference in ["latest", "again", DIGEST] {
        is_verbatim(&site.get(&format!("/v2/{REPOSITORY}/manifests/{reference}")).await);
    }
}
