//! Specification, "Pushing a blob in chunks" and "Cancel a blob upload"; what a broken upload leaves.

use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;
use twinport_oci::Digest;

use crate::harness::{Send, Site, content, eventually};
use crate::on_both_databases;

on_both_databases!(
    chunks_are_taken_in_order_and_the_session_closed_with_put,
    the_last_chunk_may_come_with_the_closing_put,
    a_chunk_out_of_order_is_416_and_the_upload_goes_on,
    the_last_chunk_out_of_order_is_416,
    the_status_of_an_upload_is_204_with_location_and_range,
    a_chunk_may_be_streamed_without_a_length,
    a_cancelled_upload_is_gone,
    a_chunk_whose_length_and_range_disagree_is_400,
    an_upload_goes_on_after_a_restart,
    a_broken_body_keeps_what_arrived,
    a_broken_small_put_keeps_what_arrived,
    there_is_no_smallest_chunk,
);

async fn chunks_are_taken_in_order_and_the_session_closed_with_put(site: Site) {
    let bytes = content(1, 200_000);
    let digest = Digest::sha256(&bytes);
    let mut location = site.begin("library/x").await;
    let mut at = 0;
    for size in [1, 70_000, 129_999] {
        let seen = site.patch(&location, at, &bytes[at..at + size]).await;
        seen.is(StatusCode::ACCEPTED);
        at += size;
        assert_eq!(seen.header("range"), format!("0-{}", at - 1));
        location = seen.header("location").to_owned();
        assert!(!location.is_empty());
    }
    let seen = site.close(&location, digest, b"").await;
    seen.is(StatusCode::CREATED);
    assert_eq!(site.get(seen.header("location")).await.body, bytes);
    site.get(&location).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert!(site.spools().is_empty());
}

async fn the_last_chunk_may_come_with_the_closing_put(site: Site) {
    let bytes = content(2, 1000);
    let digest = Digest::sha256(&bytes);
    for with_range in [true, false] {
        let location = site.begin("x").await;
        site.patch(&location, 0, &bytes[..400]).await.is(StatusCode::ACCEPTED);
        let mut put = site.request(Method::PUT, &format!("{location}?digest={digest}"));
        if with_range {
            put = put.header("content-range", "400-999");
        }
        let seen = put.body(bytes[400..].to_vec()).seen().await;
        seen.is(StatusCode::CREATED);
        assert_eq!(site.get(seen.header("location")).await.body, bytes);
    }
}

async fn a_chunk_out_of_order_is_416_and_the_upload_goes_on(site: Site) {
    let bytes = content(3, 900);
    let location = site.begin("x").await;
    // The first chunk must begin with 0.
    site.patch(&location, 300, &bytes[300..600]).await.refused(416, "BLOB_UPLOAD_INVALID");
    site.patch(&location, 0, &bytes[..300]).await.is(StatusCode::ACCEPTED);
    for (start, end) in [(600, 900), (0, 300), (299, 600), (301, 600)] {
        let seen = site.patch(&location, start, &bytes[start..end]).await;
        seen.refused(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(seen.header("range"), "0-299");
        assert!(seen.header("location").ends_with(&location));
    }
    let status = site.get(&location).await;
    assert_eq!((status.status, status.header("range")), (204, "0-299"));
    site.patch(status.header("location"), 300, &bytes[300..]).await.is(StatusCode::ACCEPTED);
    site.close(&location, Digest::sha256(&bytes), b"").await.is(StatusCode::CREATED);
}

async fn the_last_chunk_out_of_order_is_416(site: Site) {
    let bytes = content(4, 900);
    let digest = Digest::sha256(&bytes);
    let location = site.begin("x").await;
    site.patch(&location, 0, &bytes[..300]).await.is(StatusCode::ACCEPTED);
    let put = async |range: &str, part: &[u8]| {
        let request = site.request(Method::PUT, &format!("{location}?digest={digest}"));
        request.header("content-range", range).body(part.to_vec()).seen().await
    };
    put("600-899", &bytes[600..]).await.refused(416, "BLOB_UPLOAD_INVALID");
    put("0-299", &bytes[..300]).await.refused(416, "BLOB_UPLOAD_INVALID");
    put("nonsense", &bytes[300..]).await.refused(416, "BLOB_UPLOAD_INVALID");
    put("300-899", &bytes[300..]).await.is(StatusCode::CREATED);
}

async fn the_status_of_an_upload_is_204_with_location_and_range(site: Site) {
    let location = site.begin("x").await;
    let status = site.get(&location).await;
    assert_eq!((status.status, status.header("range")), (204, "0-0"));
    site.patch(&location, 0, &[7; 10]).await.is(StatusCode::ACCEPTED);
    let status = site.get(&location).await;
    assert_eq!((status.status, status.header("range")), (204, "0-9"));
    assert!(status.header("location").ends_with(&location));
    assert!(location.ends_with(status.header("docker-upload-uuid")));
}

async fn a_chunk_may_be_streamed_without_a_length(site: Site) {
    let bytes = content(5, 300_000);
    let location = site.begin("x").await;
    for part in bytes.chunks(150_000) {
        let pieces: Vec<_> =
            part.chunks(10_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        site.request(Method::PATCH, &location).body(body).seen().await.is(StatusCode::ACCEPTED);
    }
    assert_eq!(site.get(&location).await.header("range"), "0-299999");
    site.close(&location, Digest::sha256(&bytes), b"").await.is(StatusCode::CREATED);
}

async fn a_cancelled_upload_is_gone(site: Site) {
    let location = site.begin("x").await;
    site.patch(&location, 0, b"abc").await.is(StatusCode::ACCEPTED);
    let seen = site.delete(&location).await;
    seen.is(StatusCode::NO_CONTENT);
    assert!(seen.body.is_empty());
    assert!(site.spools().is_empty());
    site.get(&location).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    site.patch(&location, 3, b"d").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    site.close(&location, Digest::sha256(b"abc"), b"").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    site.delete(&location).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert!(site.spools().is_empty());
}

async fn a_chunk_whose_length_and_range_disagree_is_400(site: Site) {
    let location = site.begin("x").await;
    let request = site.request(Method::PATCH, &location).header("content-range", "0-9");
    request.body("abc").seen().await.refused(400, "SIZE_INVALID");
    assert_eq!(site.get(&location).await.header("range"), "0-0");
    // Without a Content-Length the difference shows at the end: what arrived is kept, and the answer says so.
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("abc")]));
    let seen = site.request(Method::PATCH, &location).header("content-range", "0-9").body(body).seen().await;
    seen.refused(400, "SIZE_INVALID");
    assert_eq!(seen.header("range"), "0-2");
    // More than the range says is not taken at all.
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("defgh")]));
    let seen = site.request(Method::PATCH, &location).header("content-range", "3-4").body(body).seen().await;
    seen.refused(400, "SIZE_INVALID");
    assert_eq!(site.get(&location).await.header("range"), "0-2");
    site.close(&location, Digest::sha256(b"abcd"), b"d").await.is(StatusCode::CREATED);
}

async fn an_upload_goes_on_after_a_restart(site: Site) {
    let bytes = content(6, 500_000);
    let location = site.begin("x").await;
    site.patch(&location, 0, &bytes[..333_333]).await.is(StatusCode::ACCEPTED);
    let site = site.restart().await;
    let status = site.get(&location).await;
    assert_eq!((status.status, status.header("range")), (204, "0-333332"));
    site.patch(&location, 333_333, &bytes[333_333..]).await.is(StatusCode::ACCEPTED);
    let seen = site.close(&location, Digest::sha256(&bytes), b"").await;
    seen.is(StatusCode::CREATED);
    assert_eq!(site.get(seen.header("location")).await.body, bytes);
}

async fn a_broken_body_keeps_what_arrived(site: Site) {
    let bytes = content(7, 500_000);
    let digest = Digest::sha256(&bytes);
    for closing in [false, true] {
        let location = site.begin("x").await;
        let (method, path) = if closing {
            ("PUT", format!("{location}?digest={digest}"))
        } else {
            ("PATCH", location.clone())
        };
        let mut stream = site.connect().await;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&bytes[..200_000]).await.unwrap();
        drop(stream);
        eventually("the session is advanced", async || {
            site.get(&location).await.header("range") == "0-199999"
        })
        .await;
        site.patch(&location, 200_000, &bytes[200_000..]).await.is(StatusCode::ACCEPTED);
        site.close(&location, digest, b"").await.is(StatusCode::CREATED);
    }
}

async fn a_broken_small_put_keeps_what_arrived(site: Site) {
    let location = site.begin("x").await;
    let digest = Digest::sha256(b"0123456789");
    let mut stream = site.connect().await;
    let head =
        format!("PUT {location}?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234");
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    eventually("the session is advanced", async || site.get(&location).await.header("range") == "0-4").await;
    site.close(&location, digest, b"56789").await.is(StatusCode::CREATED);
}

async fn there_is_no_smallest_chunk(site: Site) {
    let begun = site.post("/v2/x/blobs/uploads/").await;
    assert_eq!(begun.header("oci-chunk-min-length"), "");
    let location = begun.header("location");
    for (at, byte) in b"abc".iter().enumerate() {
        site.patch(location, at, &[*byte]).await.is(StatusCode::ACCEPTED);
    }
    site.close(location, Digest::sha256(b"abc"), b"").await.is(StatusCode::CREATED);
}
