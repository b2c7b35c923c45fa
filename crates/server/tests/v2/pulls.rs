//! Specification, "Pull": manifests, blobs, ranges, and whether they exist.

use http::{Method, StatusCode};
use twinport_oci::Digest;

use crate::harness::{OCI_MANIFEST, Seen, Send, Site, content, index};
use crate::on_both_databases;

on_both_databases!(
    pulling_a_manifest_gives_the_bytes_with_200_and_their_digest,
    pulling_a_manifest_gives_the_content_type_it_was_pushed_with_and_no_parameters,
    pulling_an_unknown_manifest_is_404,
    a_reference_is_a_tag_or_a_digest_and_nothing_else,
    pulling_a_blob_gives_the_bytes_with_200_and_their_digest,
    pulling_an_unknown_blob_is_404,
    head_of_what_exists_is_200_with_digest_and_length,
    head_of_what_does_not_exist_is_404,
    head_has_the_headers_of_get_everywhere,
    pulling_from_a_repository_that_does_not_exist_is_404,
);

async fn pulling_a_manifest_gives_the_bytes_with_200_and_their_digest(site: Site) {
    let (manifest, digest) = site.push_image("library/x", "latest", "one").await;
    for reference in ["latest".to_owned(), digest.to_string()] {
        let seen = site.get(&format!("/v2/library/x/manifests/{reference}")).await;
        assert_eq!(seen.status, 200);
        assert_eq!(seen.body, manifest);
        assert_eq!(seen.header("docker-content-digest"), digest.to_string());
        assert_eq!(seen.header("content-length"), manifest.len().to_string());
    }
}

async fn pulling_a_manifest_gives_the_content_type_it_was_pushed_with_and_no_parameters(site: Site) {
    let (manifest, _) = site.push_image("x", "a", "one").await;
    let with_parameters = format!("{OCI_MANIFEST}; charset=utf-8");
    site.put_manifest("x", "b", &with_parameters, manifest).await.is(StatusCode::CREATED);
    for tag in ["a", "b"] {
        assert_eq!(site.get(&format!("/v2/x/manifests/{tag}")).await.header("content-type"), OCI_MANIFEST);
    }
}

async fn pulling_an_unknown_manifest_is_404(site: Site) {
    site.push_image("x", "latest", "one").await;
    site.get("/v2/x/manifests/other").await.refused(404, "MANIFEST_UNKNOWN");
    let absent = Digest::sha256(b"absent");
    site.get(&format!("/v2/x/manifests/{absent}")).await.refused(404, "MANIFEST_UNKNOWN");
}

async fn a_reference_is_a_tag_or_a_digest_and_nothing_else(site: Site) {
    let too_long = "a".repeat(129);
    // No manifest has such a tag; such a digest is no digest.
    let tags = [".hidden", "-x", "a%20b", "ä", &too_long].map(|tag| (tag, 404));
    let digests = ["sha256:abc", "sha256:baddigeststring", "md5:00"].map(|digest| (digest, 400));
    for (reference, status) in tags.into_iter().chain(digests) {
        let seen = site.get(&format!("/v2/x/manifests/{reference}")).await;
        assert_eq!(seen.status, status, "{reference}: {seen:?}");
        let pushed = site.put_manifest("x", reference, OCI_MANIFEST, index(&[])).await;
        assert_eq!(pushed.status, 400, "{reference}: {pushed:?}");
    }
    let longest = "a".repeat(128);
    site.push_image("x", &longest, "one").await;
    site.get(&format!("/v2/x/manifests/{longest}")).await.is(StatusCode::OK);
}

async fn pulling_a_blob_gives_the_bytes_with_200_and_their_digest(site: Site) {
    for length in [0, 1, 512, 64 << 10, (64 << 10) + 1, 3 << 20] {
        let bytes = content(length as u64, length);
        let digest = site.push_blob("library/x", &bytes).await;
        let seen = site.get(&format!("/v2/library/x/blobs/{digest}")).await;
        assert_eq!(seen.status, 200);
        assert_eq!(seen.body, bytes);
        assert_eq!(seen.header("docker-content-digest"), digest.to_string());
        assert_eq!(seen.header("content-length"), length.to_string());
        assert_eq!(seen.header("content-encoding"), "");
    }
}

async fn pulling_an_unknown_blob_is_404(site: Site) {
    let absent = Digest::sha256(b"absent");
    site.push_blob("x", b"present").await;
    for repository in ["x", "unknown"] {
        site.get(&format!("/v2/{repository}/blobs/{absent}")).await.refused(404, "BLOB_UNKNOWN");
    }
}

async fn head_of_what_exists_is_200_with_digest_and_length(site: Site) {
    let (manifest, digest) = site.push_image("x", "latest", "one").await;
    let blob = site.push_blob("x", b"twelve bytes").await;
    for (path, digest, length) in [
        ("/v2/x/manifests/latest".to_owned(), digest, manifest.len()),
        (format!("/v2/x/manifests/{digest}"), digest, manifest.len()),
        (format!("/v2/x/blobs/{blob}"), blob, 12),
    ] {
        let seen = site.head(&path).await;
        assert_eq!(seen.status, 200, "{path}");
        assert_eq!(seen.header("docker-content-digest"), digest.to_string());
        assert_eq!(seen.header("content-length"), length.to_string());
    }
}

async fn head_of_what_does_not_exist_is_404(site: Site) {
    site.push_blob("x", b"present").await;
    let absent = Digest::sha256(b"absent");
    for path in [
        "/v2/x/manifests/latest".to_owned(),
        format!("/v2/x/manifests/{absent}"),
        format!("/v2/x/blobs/{absent}"),
        format!("/v2/unknown/blobs/{absent}"),
    ] {
        assert_eq!(site.head(&path).await.status, 404, "{path}");
    }
}

async fn head_has_the_headers_of_get_everywhere(site: Site) {
    let (_, digest) = site.push_image("x", "latest", "one").await;
    let blob = site.push_blob("x", &content(1, 100_000)).await;
    let upload = site.begin("x").await;
    for path in [
        "/v2/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/x/tags/list?n=1".to_owned(),
        "/v2/x/manifests/latest".to_owned(),
        format!("/v2/x/manifests/{digest}"),
        format!("/v2/x/blobs/{blob}"),
        format!("/v2/x/referrers/{digest}"),
        upload,
        "/v2/x/manifests/unknown".to_owned(),
        "/v2/X/manifests/latest".to_owned(),
        "/v2/nothing".to_owned(),
    ] {
        let (mut get, mut head) = (site.get(&path).await, site.head(&path).await);
        assert_eq!(get.status, head.status, "{path}");
        for headers in [&mut get.headers, &mut head.headers] {
            headers.remove("date");
        }
        assert_eq!(get.headers, head.headers, "{path}");
    }
}

async fn pulling_from_a_repository_that_does_not_exist_is_404(site: Site) {
    site.get("/v2/unknown/manifests/latest").await.refused(404, "MANIFEST_UNKNOWN");
    site.get("/v2/unknown/tags/list").await.refused(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn a_range_of_a_blob_is_answered_with_206_and_what_does_not_exist_with_416() {
    let site = Site::start().await;
    for length in [2048, 300_000] {
        let bytes = content(7, length);
        let digest = site.push_blob("x", &bytes).await;
        let path = format!("/v2/x/blobs/{digest}");
        let ask = async |range: &str| site.request(Method::GET, &path).header("range", range).seen().await;
        let last = length - 1;
        for (range, part) in [
            ("bytes=500-1499", 500..1500),
            ("bytes=500-", 500..length),
            ("bytes=-500", length - 500..length),
            ("bytes=2000-500000", 2000..length),
            ("bytes=0-0", 0..1),
        ] {
            let seen = ask(range).await;
            assert_eq!(seen.status, 206, "{range}");
            assert_eq!(
                seen.header("content-range"),
                format!("bytes {}-{}/{length}", part.start, part.end - 1)
            );
            assert_eq!(seen.header("content-length"), part.len().to_string());
            assert_eq!(seen.body, bytes[part]);
        }
        for range in
            ["bytes=500-0".to_owned(), "bytes=500000-1000000".to_owned(), format!("bytes={}-", last + 1)]
        {
            let seen = ask(&range).await;
            seen.refused(416, "SIZE_INVALID");
            assert_eq!(seen.header("content-range"), format!("bytes */{length}"));
        }
        let seen = ask("lines=1-2").await;
        assert_eq!((seen.status, &seen.body[..]), (200, &bytes[..]));
    }
}

/// As a snapshotter reads it that pulls lazily: the parts of a `multipart/byteranges` body, by where they begin.
fn parts(seen: &Seen) -> Vec<(usize, Vec<u8>)> {
    let boundary = seen.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = &seen.body[..];
    let mut parts = Vec::new();
    while let Some(after) = rest.strip_prefix(format!("{delimiter}\r\n").as_bytes()) {
        let head = after.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let lines = std::str::from_utf8(&after[..head]).unwrap();
        assert!(lines.contains("Content-Type: application/octet-stream"), "{lines}");
        let range = lines.lines().find_map(|line| line.strip_prefix("Content-Range: bytes ")).unwrap();
        let (first, last) = range.split('/').next().unwrap().split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let body = &after[head + 4..];
        parts.push((first, body[..=last - first].to_vec()));
        rest = &body[last - first + 1..];
    }
    assert_eq!(rest, format!("{delimiter}--\r\n").as_bytes());
    parts
}

#[tokio::test]
async fn several_ranges_are_sent_as_the_parts_of_one_answer() {
    let site = Site::start().await;
    for length in [2048, 3 << 20] {
        let bytes = content(8, length);
        let digest = site.push_blob("x", &bytes).await;
        let path = format!("/v2/x/blobs/{digest}");
        let ask = async |range: &str| site.request(Method::GET, &path).header("range", range).seen().await;
        for (range, expected) in [
            ("bytes=0-9,100-199,-5", vec![0..10, 100..200, length - 5..length]),
            ("bytes=1000-,0-9", vec![1000..length, 0..10]),
            ("bytes=0-9,20-29,99999999-", vec![0..10, 20..30]),
            // No byte is sent twice.
            ("bytes=0-99,50-149,1000-1000", vec![0..150, 1000..1001]),
        ] {
            let seen = ask(range).await;
            assert_eq!(seen.status, 206, "{range}");
            assert_eq!(seen.header("content-length"), seen.body.len().to_string());
            assert_eq!(seen.header("content-range"), "");
            assert_eq!(seen.header("docker-content-digest"), digest.to_string());
            let found = parts(&seen);
            let wanted: Vec<_> =
                expected.iter().map(|part| (part.start, bytes[part.clone()].to_vec())).collect();
            assert!(found == wanted, "{range}: {:?}", found.iter().map(|part| part.0).collect::<Vec<_>>());
        }
        // What comes to one range is answered as one.
        let seen = ask("bytes=0-9,10-19").await;
        assert_eq!((seen.status, seen.header("content-range")), (206, &*format!("bytes 0-19/{length}")));
        ask(&format!("bytes={length}-,9999999-")).await.refused(416, "SIZE_INVALID");
        let many = format!("bytes={}", "0-0,2-2,".repeat(20));
        assert_eq!(ask(&many).await.is(StatusCode::OK).body, bytes);
    }
}

#[tokio::test]
async fn what_was_given_to_someone_known_is_kept_by_no_shared_cache() {
    let site = Site::start().await;
    let (_, digest) = site.push_image("x", "latest", "one").await;
    let blob = site.push_blob("x", b"blob").await;
    for path in [
        "/v2/x/manifests/latest".to_owned(),
        format!("/v2/x/manifests/{digest}"),
        format!("/v2/x/blobs/{blob}"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let open = site.request(method.clone(), &path).seen().await;
            let known =
                site.request(method.clone(), &path).basic_auth("someone", Some("secret")).seen().await;
            let held = site.request(method, &path).basic_auth("someone", Some("secret"));
            let held = held.header("if-none-match", known.header("etag")).seen().await;
            assert_eq!(held.status, 304);
            assert!(!open.header("cache-control").contains("private"), "{path}");
            for seen in [&known, &held] {
                assert!(seen.header("cache-control").contains("private"), "{path}: {seen:?}");
                assert!(!seen.header("cache-control").contains("public"), "{path}: {seen:?}");
            }
            for seen in [open, known, held] {
                assert_eq!(seen.header("vary"), "Authorization", "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_range_is_answered_only_of_the_content_that_if_range_names() {
    let site = Site::start().await;
    let digest = site.push_blob("x", b"0123456789").await;
    for (condition, status) in [(format!("\"{digest}\""), 206), ("\"other\"".to_owned(), 200)] {
        let request = site.request(Method::GET, &format!("/v2/x/blobs/{digest}"));
        let seen = request.header("range", "bytes=3-4").header("if-range", condition).seen().await;
        assert_eq!(seen.status, status);
    }
}

#[tokio::test]
async fn what_a_client_holds_already_is_not_sent_again() {
    let site = Site::start().await;
    let (_, digest) = site.push_image("x", "latest", "one").await;
    let blob = site.push_blob("x", b"blob").await;
    for (path, held) in [
        ("/v2/x/manifests/latest".to_owned(), digest),
        (format!("/v2/x/manifests/{digest}"), digest),
        (format!("/v2/x/blobs/{blob}"), blob),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let with = async |tag: String| {
                site.request(method.clone(), &path).header("if-none-match", tag).seen().await
            };
            let seen = with(format!("\"{held}\"")).await;
            assert_eq!((seen.status, seen.body.len()), (304, 0), "{path}");
            assert_eq!(seen.header("etag"), format!("\"{held}\""));
            assert_eq!(with("\"sha256:other\"".to_owned()).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_manifest_is_never_converted_whatever_the_client_accepts() {
    let site = Site::start().await;
    let (manifest, digest) = site.push_image("x", "latest", "one").await;
    for accept in [
        "",
        "*/*",
        "application/json",
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json;q=0.9, text/html;q=0.1",
        "nonsense",
    ] {
        for reference in ["latest".to_owned(), digest.to_string()] {
            let request = site.request(Method::GET, &format!("/v2/x/manifests/{reference}"));
            let seen = request.header("accept", accept).header("accept-encoding", "gzip, zstd").seen().await;
            assert_eq!((seen.status, &seen.body[..]), (200, &manifest[..]), "{accept}");
            assert_eq!(seen.header("content-type"), OCI_MANIFEST);
        }
    }
}

#[tokio::test]
async fn caches_may_keep_what_a_digest_names_and_must_ask_for_tags() {
    let site = Site::start().await;
    let (_, digest) = site.push_image("x", "latest", "one").await;
    let blob = site.push_blob("x", b"blob").await;
    let cached = async |path: String| site.get(&path).await.header("cache-control").to_owned();
    assert!(cached(format!("/v2/x/blobs/{blob}")).await.contains("immutable"));
    assert!(cached(format!("/v2/x/manifests/{digest}")).await.contains("immutable"));
    assert_eq!(cached("/v2/x/manifests/latest".to_owned()).await, "no-cache");
    let seen = site.get(&format!("/v2/x/blobs/{blob}")).await;
    assert_eq!(seen.header("content-disposition"), "attachment");
    assert_eq!(seen.header("accept-ranges"), "bytes");
}
