//! Specification, "Pushing blobs": whole, by mount, and what is refused.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use twinport_oci::{Algorithm, Digest, UploadId};

use crate::harness::{Send, Site, content, eventually};
use crate::on_both_databases;

on_both_databases!(
    post_then_put_pushes_a_blob_whole,
    a_single_post_pushes_a_blob_whole,
    a_digest_that_is_invalid_or_unsupported_is_400,
    a_digest_mismatch_is_400_and_leaves_nothing_visible,
    a_mount_is_201_with_a_pullable_location,
    a_mount_that_cannot_be_had_begins_an_upload,
    a_mount_without_a_source_finds_the_blob_where_the_client_may_read_it,
    blobs_are_pushed_with_sha512,
    an_empty_blob_is_pushed_in_every_way,
    a_blob_that_is_there_is_pushed_again_with_201,
    identical_blobs_pushed_at_once_all_succeed,
    a_post_that_ends_before_its_length_leaves_nothing,
);

async fn post_then_put_pushes_a_blob_whole(site: Site) {
    for length in [10, 70_000, 2 << 20] {
        let bytes = content(3, length);
        let digest = Digest::sha256(&bytes);
        let begun = site.post("/v2/library/x/blobs/uploads/").await;
        begun.is(StatusCode::ACCEPTED);
        let location = begun.header("location");
        let id: UploadId = location.rsplit('/').next().unwrap().parse().unwrap();
        assert_eq!(begun.header("docker-upload-uuid"), id.to_string());
        assert_eq!(begun.header("range"), "0-0");
        let closed = site.close(location, digest, &bytes).await;
        closed.is(StatusCode::CREATED);
        assert_eq!(closed.header("docker-content-digest"), digest.to_string());
        assert_eq!(site.get(closed.header("location")).await.body, bytes);
    }
    assert!(site.spools().is_empty());
}

async fn a_single_post_pushes_a_blob_whole(site: Site) {
    for length in [10, 70_000, 2 << 20] {
        let bytes = content(4, length);
        let digest = Digest::sha256(&bytes);
        let path = format!("/v2/library/x/blobs/uploads/?digest={digest}");
        let seen = site.request(Method::POST, &path).body(bytes.clone()).seen().await;
        seen.is(StatusCode::CREATED);
        assert_eq!(seen.header("docker-content-digest"), digest.to_string());
        assert_eq!(site.get(seen.header("location")).await.body, bytes);
    }
    assert!(site.spools().is_empty());
}

async fn a_digest_that_is_invalid_or_unsupported_is_400(site: Site) {
    let location = site.begin("x").await;
    for digest in ["sha256:baddigeststring", "md5:d41d8cd98f00b204e9800998ecf8427e", "nonsense", "sha256:"] {
        site.close(&location, digest, b"x").await.refused(400, "DIGEST_INVALID");
        site.post(&format!("/v2/x/blobs/uploads/?digest={digest}")).await.refused(400, "DIGEST_INVALID");
        site.post(&format!("/v2/x/blobs/uploads/?mount={digest}&from=y"))
            .await
            .refused(400, "DIGEST_INVALID");
    }
    site.post("/v2/x/blobs/uploads/?digest-algorithm=md5").await.refused(400, "DIGEST_INVALID");
    // The closing PUT must include the digest.
    let seen = site.request(Method::PUT, &location).body("x").seen().await;
    seen.refused(400, "DIGEST_INVALID");
    // None of it ended the session.
    site.get(&location).await.is(StatusCode::NO_CONTENT);
}

async fn a_digest_mismatch_is_400_and_leaves_nothing_visible(site: Site) {
    for length in [10, 300_000] {
        let bytes = content(5, length);
        let (actual, claimed) = (Digest::sha256(&bytes), Digest::sha256(b"something else"));
        let whole = site.begin("x").await;
        site.close(&whole, claimed, &bytes).await.refused(400, "DIGEST_INVALID");
        let post = format!("/v2/x/blobs/uploads/?digest={claimed}");
        site.request(Method::POST, &post).body(bytes.clone()).seen().await.refused(400, "DIGEST_INVALID");
        let chunked = site.begin("x").await;
        site.patch(&chunked, 0, &bytes).await.is(StatusCode::ACCEPTED);
        site.close(&chunked, claimed, b"").await.refused(400, "DIGEST_INVALID");
        for digest in [actual, claimed] {
            assert_eq!(site.head(&format!("/v2/x/blobs/{digest}")).await.status, 404);
        }
        for location in [whole, chunked] {
            site.get(&location).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
        }
    }
    assert!(site.spools().is_empty(), "{:?}", site.spools());
    assert!(site.stored_blobs().is_empty(), "{:?}", site.stored_blobs());
    site.get("/v2/x/tags/list").await.refused(404, "NAME_UNKNOWN");
}

async fn a_mount_is_201_with_a_pullable_location(site: Site) {
    let digest = site.push_blob("source/a", b"shared").await;
    let path = format!("/v2/target/b/blobs/uploads/?mount={digest}&from=source/a");
    let seen = site.post(&path).await;
    seen.is(StatusCode::CREATED);
    assert_eq!(seen.header("docker-content-digest"), digest.to_string());
    let location = seen.header("location").to_owned();
    assert!(location.contains("/v2/target/b/blobs/"), "{location}");
    assert_eq!(site.get(&location).await.body, "shared");
    // Mounting what is there already is fine, also onto itself.
    site.post(&path).await.is(StatusCode::CREATED);
    site.post(&format!("/v2/source/a/blobs/uploads/?mount={digest}&from=source%2Fa"))
        .await
        .is(StatusCode::CREATED);
}

async fn a_mount_that_cannot_be_had_begins_an_upload(site: Site) {
    let digest = site.push_blob("source", b"shared").await;
    let absent = Digest::sha256(b"absent");
    for query in [
        format!("mount={absent}&from=source"),
        format!("mount={digest}&from=unknown"),
        format!("mount={digest}&from=NOT%20A%20NAME"),
        format!("mount={absent}"),
    ] {
        let seen = site.post(&format!("/v2/target/blobs/uploads/?{query}")).await;
        seen.is(StatusCode::ACCEPTED);
        site.close(seen.header("location"), Digest::sha256(b"own"), b"own").await.is(StatusCode::CREATED);
    }
    assert_eq!(site.head(&format!("/v2/target/blobs/{digest}")).await.status, 404);
}

async fn a_mount_without_a_source_finds_the_blob_where_the_client_may_read_it(site: Site) {
    let digest = site.push_blob("source/a", b"shared").await;
    let path = format!("/v2/target/b/blobs/uploads/?mount={digest}");
    let seen = site.post(&path).await;
    seen.is(StatusCode::CREATED);
    assert_eq!(seen.header("docker-content-digest"), digest.to_string());
    assert_eq!(site.get(seen.header("location")).await.body, "shared");
    // Found in the repository itself, too; and where no repository links it any more, not at all.
    site.post(&path).await.is(StatusCode::CREATED);
    for repository in ["source/a", "target/b"] {
        site.delete(&format!("/v2/{repository}/blobs/{digest}")).await.is(StatusCode::ACCEPTED);
    }
    site.post(&path).await.is(StatusCode::ACCEPTED);
    assert_eq!(site.head(&format!("/v2/target/b/blobs/{digest}")).await.status, 404);
}

async fn blobs_are_pushed_with_sha512(site: Site) {
    for length in [10, 300_000] {
        let bytes = content(6, length);
        let digest = Digest::of(Algorithm::Sha512, &bytes);
        // With the algorithm told first, in chunks.
        let seen = site.post("/v2/told/blobs/uploads/?digest-algorithm=sha512").await;
        seen.is(StatusCode::ACCEPTED);
        let location = seen.header("location");
        site.patch(location, 0, &bytes[..5]).await.is(StatusCode::ACCEPTED);
        site.close(location, digest, &bytes[5..]).await.is(StatusCode::CREATED);
        // With the algorithm known only at the end, after chunks that were hashed with another.
        let location = site.begin("late").await;
        site.patch(&location, 0, &bytes[..5]).await.is(StatusCode::ACCEPTED);
        site.patch(&location, 5, &bytes[5..]).await.is(StatusCode::ACCEPTED);
        site.close(&location, digest, b"").await.is(StatusCode::CREATED);
        // Whole.
        let location = site.begin("put").await;
        site.close(&location, digest, &bytes).await.is(StatusCode::CREATED);
        let post = format!("/v2/post/blobs/uploads/?digest={digest}");
        site.request(Method::POST, &post).body(bytes.clone()).seen().await.is(StatusCode::CREATED);
        for repository in ["told", "late", "put", "post"] {
            let seen = site.get(&format!("/v2/{repository}/blobs/{digest}")).await;
            assert_eq!((seen.status, &seen.body[..]), (200, &bytes[..]), "{repository}");
            assert_eq!(seen.header("docker-content-digest"), digest.to_string());
        }
        // The other algorithm's digest is another blob.
        assert_eq!(site.head(&format!("/v2/put/blobs/{}", Digest::sha256(&bytes))).await.status, 404);
    }
    // Told one algorithm, closed with the other.
    let seen = site.post("/v2/x/blobs/uploads/?digest-algorithm=sha512").await;
    let location = seen.header("location");
    site.patch(location, 0, b"abc").await.is(StatusCode::ACCEPTED);
    site.close(location, Digest::sha256(b"abcd"), b"d").await.is(StatusCode::CREATED);
}

async fn an_empty_blob_is_pushed_in_every_way(site: Site) {
    let digest = Digest::sha256(b"");
    let location = site.begin("put").await;
    site.close(&location, digest, b"").await.is(StatusCode::CREATED);
    site.post(&format!("/v2/post/blobs/uploads/?digest={digest}")).await.is(StatusCode::CREATED);
    let location = site.begin("chunked").await;
    let seen = site.request(Method::PATCH, &location).header("content-length", "0").seen().await;
    seen.is(StatusCode::ACCEPTED);
    site.close(&location, digest, b"").await.is(StatusCode::CREATED);
    for repository in ["put", "post", "chunked"] {
        let seen = site.get(&format!("/v2/{repository}/blobs/{digest}")).await;
        assert_eq!((seen.status, seen.header("content-length")), (200, "0"), "{repository}");
    }
}

async fn a_blob_that_is_there_is_pushed_again_with_201(site: Site) {
    let digest = site.push_blob("x", b"again").await;
    assert_eq!(site.push_blob("x", b"again").await, digest);
    site.delete(&format!("/v2/x/blobs/{digest}")).await.is(StatusCode::ACCEPTED);
    assert_eq!(site.head(&format!("/v2/x/blobs/{digest}")).await.status, 404);
    site.push_blob("x", b"again").await;
    assert_eq!(site.get(&format!("/v2/x/blobs/{digest}")).await.body, "again");
}

async fn identical_blobs_pushed_at_once_all_succeed(site: Site) {
    for length in [1000, 200_000] {
        let bytes = content(8, length);
        let pushes = (0..8).map(|i| {
            let (site, bytes) = (&site, &bytes);
            async move { site.push_blob(["a", "b"][i % 2], bytes).await }
        });
        let digests: BTreeSet<Digest> = join_all(pushes).await.into_iter().collect();
        assert_eq!(digests.len(), 1);
        for repository in ["a", "b"] {
            let seen = site.get(&format!("/v2/{repository}/blobs/{}", digests.first().unwrap())).await;
            assert_eq!(seen.body, bytes);
        }
    }
    assert!(site.spools().is_empty(), "{:?}", site.spools());
}

async fn a_post_that_ends_before_its_length_leaves_nothing(site: Site) {
    for length in [10, 300_000] {
        let bytes = content(10, length);
        let digest = Digest::sha256(&bytes);
        let mut stream = site.connect().await;
        let head = format!(
            "POST /v2/x/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            length + 1
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
        eventually("nothing is left of it", async || site.spools().is_empty()).await;
        assert_eq!(site.head(&format!("/v2/x/blobs/{digest}")).await.status, 404);
    }
}

#[tokio::test]
async fn a_blob_over_the_limit_is_413() {
    let settings = twinport_server::RegistrySettings { max_blob_bytes: Some(1000), ..Default::default() };
    let site = Site::start_with(settings, Default::default()).await;
    let bytes = content(9, 1001);
    let digest = Digest::sha256(&bytes);
    let location = site.begin("x").await;
    site.close(&location, digest, &bytes).await.refused(413, "SIZE_INVALID");
    site.patch(&location, 0, &bytes[..600]).await.is(StatusCode::ACCEPTED);
    site.patch(&location, 600, &bytes[600..]).await.refused(413, "SIZE_INVALID");
    // Without a length the limit is met on the way.
    let streamed =
        reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(bytes.clone())]));
    let path = format!("/v2/x/blobs/uploads/?digest={digest}");
    site.request(Method::POST, &path).body(streamed).seen().await.refused(413, "SIZE_INVALID");
    site.patch(&location, 600, &bytes[600..1000]).await.is(StatusCode::ACCEPTED);
    site.close(&location, Digest::sha256(&bytes[..1000]), b"").await.is(StatusCode::CREATED);
}
