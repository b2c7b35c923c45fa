//! Hazards of `/v2` (docs/explanation/hazards.md): A1, A2, A3, A5, A6, A9 and S9, by their ids.

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use twinport_oci::Digest;

use crate::harness::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Send, Site, content, image, index};
use crate::on_both_databases;

on_both_databases!(
    a1_n_may_be_huge_and_must_not_be_negative_or_absurd,
    a5_an_upload_of_another_repository_can_be_neither_read_nor_continued_nor_cancelled,
    a6_a_digest_that_another_repository_stores_is_not_readable_here,
    s9_of_two_writers_of_one_upload_one_wins,
    s9_writers_at_the_same_time_never_mix_their_bytes,
    s9_overlap_gap_and_repetition_are_refused,
);

async fn a1_n_may_be_huge_and_must_not_be_negative_or_absurd(site: Site) {
    site.push_image("x", "latest", "one").await;
    for path in ["/v2/x/tags/list", "/v2/_catalog", &format!("/v2/x/referrers/{}", Digest::sha256(b"s"))] {
        for n in ["10000", "2147483648", "9223372036854775807", "18446744073709551616", &"9".repeat(500)] {
            site.get(&format!("{path}?n={n}")).await.is(StatusCode::OK);
        }
        for n in ["-1", "-9223372036854775808", "1e9", "0x10", "1.5", "ten", "%00", "+1"] {
            assert_eq!(site.get(&format!("{path}?n={n}")).await.status, 400, "{path} {n}");
        }
        for last in ["%00", "%0d%0a", "%ff", &"a".repeat(5000)] {
            assert_eq!(site.get(&format!("{path}?last={last}")).await.status, 400, "{path} {last}");
        }
    }
}

async fn a5_an_upload_of_another_repository_can_be_neither_read_nor_continued_nor_cancelled(site: Site) {
    let location = site.begin("mine").await;
    site.patch(&location, 0, b"abc").await.is(StatusCode::ACCEPTED);
    let theirs = location.replace("/v2/mine/", "/v2/theirs/");
    let digest = Digest::sha256(b"abc");
    site.get(&theirs).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    site.patch(&theirs, 3, b"d").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    site.close(&theirs, digest, b"").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    site.delete(&theirs).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(site.get(&location).await.header("range"), "0-2");
    site.close(&location, digest, b"").await.is(StatusCode::CREATED);
    assert_eq!(site.head(&format!("/v2/theirs/blobs/{digest}")).await.status, 404);
}

async fn a6_a_digest_that_another_repository_stores_is_not_readable_here(site: Site) {
    let digest = site.push_blob("private", b"secret").await;
    site.push_blob("mine", b"{}").await;
    let path = format!("/v2/mine/blobs/{digest}");
    site.get(&path).await.refused(404, "BLOB_UNKNOWN");
    assert_eq!(site.head(&path).await.status, 404);
    // Nor by naming it in a manifest, nor by a mount from a repository that lacks it.
    let manifest = image(&Digest::sha256(b"{}"), 2, &digest, 6);
    site.put_manifest("mine", "latest", OCI_MANIFEST, manifest).await.refused(404, "MANIFEST_BLOB_UNKNOWN");
    site.post(&format!("/v2/mine/blobs/uploads/?mount={digest}&from=mine")).await.is(StatusCode::ACCEPTED);
    site.get(&path).await.refused(404, "BLOB_UNKNOWN");
    // Nor by claiming the digest with other bytes.
    let location = site.begin("mine").await;
    site.close(&location, digest, b"guess").await.refused(400, "DIGEST_INVALID");
    site.get(&path).await.refused(404, "BLOB_UNKNOWN");
}

async fn s9_of_two_writers_of_one_upload_one_wins(site: Site) {
    let (first, second) = (content(1, 300_000), content(2, 300_000));
    for _ in 0..5 {
        let location = site.begin("x").await;
        let writers = [&first, &second].map(|bytes| site.patch(&location, 0, bytes));
        let mut won = Vec::new();
        for (seen, bytes) in join_all(writers).await.into_iter().zip([&first, &second]) {
            match seen.status {
                202 => won.push(bytes),
                416 => assert_eq!(seen.header("range"), "0-299999"),
                other => panic!("{other}"),
            }
        }
        assert_eq!(won.len(), 1);
        site.close(&location, Digest::sha256(won[0]), b"").await.is(StatusCode::CREATED);
    }
}

async fn s9_writers_at_the_same_time_never_mix_their_bytes(site: Site) {
    let writers = 6;
    let size = 40_000;
    let location = site.begin("x").await;
    // Without a Content-Range each is appended where the one before it ended.
    let patches = (0..writers).map(|i| {
        let (site, location) = (&site, &location);
        async move {
            loop {
                let request = site.request(Method::PATCH, location).body(vec![i as u8; size]);
                let seen = request.seen().await;
                // Nodes that share no directory do not wait for each other: who comes second is told so, and tries again.
                if !(site.is_in_a_bucket() && seen.status == 416) {
                    return (seen.is(StatusCode::ACCEPTED).range_end(), i as u8);
                }
            }
        }
    });
    let mut order = join_all(patches).await;
    order.sort_unstable();
    assert_eq!(site.get(&location).await.range_end(), writers * size - 1);
    let ends: Vec<_> = order.iter().map(|(end, _)| *end).collect();
    assert_eq!(ends, (1..=writers).map(|n| n * size - 1).collect::<Vec<_>>(), "two are told the same place");
    let bytes: Vec<u8> = order.iter().flat_map(|(_, writer)| vec![*writer; size]).collect();
    let digest = Digest::sha256(&bytes);
    site.close(&location, digest, b"").await.is(StatusCode::CREATED);
    assert!(site.get(&format!("/v2/x/blobs/{digest}")).await.body == bytes, "bytes are mixed");
}

async fn s9_overlap_gap_and_repetition_are_refused(site: Site) {
    let bytes = content(3, 1000);
    let location = site.begin("x").await;
    site.patch(&location, 0, &bytes[..500]).await.is(StatusCode::ACCEPTED);
    for (start, end) in [(0, 500), (499, 1000), (501, 1000), (250, 750)] {
        site.patch(&location, start, &bytes[start..end]).await.refused(416, "BLOB_UPLOAD_INVALID");
    }
    site.patch(&location, 500, &bytes[500..]).await.is(StatusCode::ACCEPTED);
    site.close(&location, Digest::sha256(&bytes), b"").await.is(StatusCode::CREATED);
    site.close(&location, Digest::sha256(&bytes), b"").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn s9_cancelling_ends_a_body_that_is_being_written() {
    let site = Site::start().await;
    let location = site.begin("x").await;
    let mut stream = site.connect().await;
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[0; 300_000]).await.unwrap();
    crate::harness::eventually("the body is being written", async || site.uploads_in_progress() == 1).await;
    site.delete(&location).await.is(StatusCode::NO_CONTENT);
    let answer = crate::harness::read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(site.spools().is_empty());
    assert_eq!(site.uploads_in_progress(), 0);
}

/// A manifest padded with space to exactly this many bytes.
fn padded(manifest: Vec<u8>, length: usize) -> Vec<u8> {
    let mut bytes = manifest;
    bytes.resize(length, b' ');
    bytes
}

#[tokio::test]
async fn a1_a_manifest_of_4_mib_is_taken_and_one_byte_more_is_413() {
    let site = Site::start().await;
    let (manifest, _) = site.push_image("x", "small", "one").await;
    let largest = padded(manifest.clone(), 4 << 20);
    site.put_manifest("x", "largest", OCI_MANIFEST, largest.clone()).await.is(StatusCode::CREATED);
    assert_eq!(site.get("/v2/x/manifests/largest").await.body, largest);
    let too_large = padded(manifest, (4 << 20) + 1);
    site.put_manifest("x", "over", OCI_MANIFEST, too_large.clone()).await.refused(413, "SIZE_INVALID");
    // Nor without a length, by the chunk.
    let streamed = reqwest::Body::wrap_stream(futures_util::stream::iter(
        too_large.chunks(65_536).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect::<Vec<_>>(),
    ));
    let request = site.request(Method::PUT, "/v2/x/manifests/over").header("content-type", OCI_MANIFEST);
    request.body(streamed).seen().await.refused(413, "SIZE_INVALID");
    assert_eq!(site.head("/v2/x/manifests/over").await.status, 404);
}

#[tokio::test]
async fn a1_depth_duplicates_and_hosts_of_descriptors_are_refused() {
    let site = Site::start().await;
    let config = site.push_blob("x", b"{}").await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let config_json = format!("{{\"mediaType\":\"{OCI_CONFIG}\",\"digest\":\"{config}\",\"size\":2}}");
    let layer = json!({"mediaType": "a/b", "digest": config, "size": 2}).to_string();
    for manifest in [
        deep.clone(),
        format!("{{\"schemaVersion\":2,\"config\":{config_json},\"layers\":[],\"x\":{deep}}}"),
        format!("{{\"schemaVersion\":2,\"schemaVersion\":2,\"config\":{config_json},\"layers\":[]}}"),
        format!("{{\"schemaVersion\":2,\"config\":{config_json},\"config\":{config_json},\"layers\":[]}}"),
        format!(
            "{{\"schemaVersion\":2,\"config\":{config_json},\"layers\":[{}]}}",
            vec![layer; 20_000].join(",")
        ),
        "{".to_owned(),
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "\"string\"".to_owned(),
        format!(
            "{{\"schemaVersion\":2,\"config\":{config_json},\"layers\":[{{\"digest\":\"{config}\",\"size\":-1}}]}}"
        ),
    ] {
        let seen = site.put_manifest("x", "bomb", OCI_MANIFEST, manifest.clone()).await;
        assert_eq!(seen.status, 400, "{}: {seen:?}", &manifest[..manifest.len().min(80)]);
    }
    assert_eq!(site.head("/v2/x/manifests/bomb").await.status, 404);
}

#[tokio::test]
async fn a1_an_index_cycle_cannot_be_followed_because_nothing_follows_it() {
    let site = Site::start().await;
    // No digest can be in its own content, so a cycle takes children that do not exist.
    let mut child = Digest::sha256(b"absent");
    for _ in 0..50 {
        let bytes = index(&[child, child, child]);
        child = Digest::sha256(&bytes);
        site.put_manifest("x", child, OCI_INDEX, bytes).await.is(StatusCode::CREATED);
    }
    site.get(&format!("/v2/x/manifests/{child}")).await.is(StatusCode::OK);
    site.delete(&format!("/v2/x/manifests/{child}")).await.is(StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a2_a_document_that_is_image_and_index_at_once_is_refused() {
    let site = Site::start().await;
    let config = site.push_blob("x", b"{}").await;
    let descriptor = json!({"mediaType": OCI_CONFIG, "digest": config, "size": 2});
    let both = json!({"schemaVersion": 2, "config": descriptor, "layers": [], "manifests": []});
    let bytes = serde_json::to_vec(&both).unwrap();
    for media_type in [
        OCI_MANIFEST,
        OCI_INDEX,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/json",
        "application/vnd.example.unknown+json",
    ] {
        site.put_manifest("x", "both", media_type, bytes.clone()).await.refused(400, "MANIFEST_INVALID");
    }
    let request = site.request(Method::PUT, "/v2/x/manifests/both");
    request.body(bytes).seen().await.refused(400, "MANIFEST_INVALID");
    assert_eq!(site.head("/v2/x/manifests/both").await.status, 404);
}

#[tokio::test]
async fn a2_a_media_type_other_than_the_content_type_is_refused() {
    let site = Site::start().await;
    let (manifest, _) = site.push_image("x", "good", "one").await;
    for media_type in
        [OCI_INDEX, "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.example+json"]
    {
        site.put_manifest("x", "bad", media_type, manifest.clone()).await.refused(400, "MANIFEST_INVALID");
    }
    site.put_manifest("x", "bad", OCI_MANIFEST, index(&[])).await.refused(400, "MANIFEST_INVALID");
    assert_eq!(site.head("/v2/x/manifests/bad").await.status, 404);
}

#[tokio::test]
async fn a3_names_and_digests_that_no_grammar_admits_are_refused() {
    let site = Site::start().await;
    let digest = Digest::sha256(b"x");
    let long = "a".repeat(10_000);
    // As bytes: a client library would tidy some of these up before sending them.
    for name in [
        "..", "a/../b", "%2e%2e", "a%252Fb", "a%2fb", "a%00", "UPPER", "a/", "/a", "a..b", "a//b", "%c0%ae",
        "ä", &long,
    ] {
        for (method, rest) in [
            ("GET", "tags/list".to_owned()),
            ("PUT", "manifests/latest".to_owned()),
            ("POST", "blobs/uploads/".to_owned()),
            ("GET", format!("blobs/{digest}")),
        ] {
            let request = format!(
                "{method} /v2/{name}/{rest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            );
            let answer = site.raw(request.as_bytes()).await;
            let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
            assert!((400..500).contains(&status), "{name} {rest}: {answer}");
        }
    }
    let hex = "a".repeat(64);
    for digest in [
        format!("sha256:{}", "a".repeat(63)),
        format!("sha256:{}", "a".repeat(65)),
        format!("sha256:{}", "A".repeat(64)),
        format!("sha512:{hex}"),
        format!("md5:{hex}"),
        format!("sha256:{}/{}", "a".repeat(31), "a".repeat(32)),
        format!("sha256:..%2f{hex}"),
        format!("sha256:{}..", "a".repeat(62)),
        hex,
        format!("sha256:{long}"),
    ] {
        let seen = site.get(&format!("/v2/x/blobs/{digest}")).await;
        assert!((400..500).contains(&seen.status), "{digest}: {seen:?}");
        let seen = site.post(&format!("/v2/x/blobs/uploads/?digest={digest}")).await;
        seen.refused(400, "DIGEST_INVALID");
    }
    assert!(site.stored_blobs().is_empty() && site.spools().is_empty());
}

#[tokio::test]
async fn a9_a_site_credential_pushes_nothing_and_pulls_all_the_same() {
    use base64::Engine as _;
    let site = Site::start().await;
    let (manifest, _) = site.push_image("x", "latest", "one").await;
    let blob = site.push_blob("x", b"blob").await;
    let upload = site.begin("x").await;
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(r#"{"alg":"EdDSA","typ":"JWT","kid":"6b3c9a93-af5d-473f-a4ff-9710022185cd"}"#);
    let token = format!("{header}.e30.c2lnbmF0dXJl");
    for (method, path) in [
        (Method::POST, "/v2/x/blobs/uploads/".to_owned()),
        (Method::POST, format!("/v2/x/blobs/uploads/?digest={blob}")),
        (Method::POST, format!("/v2/y/blobs/uploads/?mount={blob}&from=x")),
        (Method::PATCH, upload.clone()),
        (Method::PUT, format!("{upload}?digest={blob}")),
        (Method::DELETE, upload.clone()),
        (Method::GET, upload),
        (Method::PUT, "/v2/x/manifests/stolen".to_owned()),
        (Method::DELETE, "/v2/x/manifests/latest".to_owned()),
        (Method::DELETE, format!("/v2/x/blobs/{blob}")),
    ] {
        let request = site.request(method.clone(), &path).bearer_auth(&token).body(manifest.clone());
        let seen = request.seen().await;
        assert_eq!((seen.status, seen.code().as_str()), (403, "DENIED"), "{method} {path}");
    }
    let seen = site.request(Method::GET, "/v2/x/manifests/latest").bearer_auth(&token).seen().await;
    assert_eq!(seen.body, manifest);
}
