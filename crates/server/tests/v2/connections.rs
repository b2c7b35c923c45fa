//! The listener: hazard A10, early refusals, and how it ends.

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use twinport_oci::Digest;
use twinport_server::{ListenerLimits, RegistrySettings};

use crate::harness::{OCI_MANIFEST, Site, content, eventually, read_to_end};

/// Short enough to wait for, long enough not to end what is well.
fn impatient() -> ListenerLimits {
    ListenerLimits {
        header_timeout: Duration::from_millis(700),
        body_timeout: Duration::from_millis(700),
        write_timeout: Duration::from_millis(700),
        ..ListenerLimits::default()
    }
}

async fn start(limits: ListenerLimits) -> Site {
    Site::start_with(RegistrySettings::default(), limits).await
}

#[tokio::test]
async fn a10_slow_headers_are_cut_off() {
    let site = start(impatient()).await;
    for begun in ["", "P", "PRI", "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut stream = site.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.contains("200 OK"), "{begun:?} was answered with {answer}");
    }
}

#[tokio::test]
async fn a10_a_client_that_drips_its_headers_is_cut_off_too() {
    let site = start(impatient()).await;
    let mut stream = site.connect().await;
    let began = Instant::now();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Drip: ").await.unwrap();
    // Each byte comes well within the limit, and all of them together do not.
    while stream.write_all(b"a").await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(30), "the connection was kept");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a10_a_stalled_body_is_answered_with_408_and_what_arrived_is_kept() {
    let site = start(impatient()).await;
    let location = site.begin("x").await;
    let mut stream = site.connect().await;
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&content(1, 100_000)).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.to_lowercase().contains("range: 0-99999"), "{answer}");
    assert_eq!(site.get(&location).await.header("range"), "0-99999");
}

#[tokio::test]
async fn a10_a_body_that_drips_is_cut_off() {
    let site = start(impatient()).await;
    let mut stream = site.connect().await;
    let digest = Digest::sha256(b"");
    let head = format!(
        "POST /v2/x/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let dripping = tokio::spawn(async move {
        while writing.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = [0; 12];
    tokio::time::timeout(Duration::from_secs(30), reading.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    dripping.abort();
    assert!(site.spools().is_empty());
}

#[tokio::test]
async fn a10_a_client_that_stops_reading_is_let_go() {
    let site = start(ListenerLimits { max_connections: 1, ..impatient() }).await;
    let bytes = content(2, 64 << 20);
    // Pushed past HTTP's one place, in one connection that is closed again.
    let digest = {
        let mut stream = site.connect().await;
        let digest = Digest::sha256(&bytes);
        let head = format!(
            "POST /v2/x/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 201"));
        digest
    };
    let mut stuck = site.connect().await;
    stuck
        .write_all(format!("GET /v2/x/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut first = [0; 15];
    stuck.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    // The only place becomes free although the client holds on to the connection.
    site.head("/v2/").await.is(StatusCode::OK);
    drop(stuck);
}

#[tokio::test]
async fn a10_connections_beyond_the_limit_wait_until_half_open_ones_are_gone() {
    let site = start(ListenerLimits { max_connections: 8, ..impatient() }).await;
    let mut half_open = Vec::new();
    for _ in 0..40 {
        half_open.push(site.connect().await);
    }
    site.get("/v2/").await.is(StatusCode::OK);
}

#[tokio::test]
async fn a10_no_more_connections_are_served_at_one_time_than_the_limit() {
    let limits = ListenerLimits { max_connections: 2, ..ListenerLimits::default() };
    let site = start(limits).await;
    let mut served = Vec::new();
    for _ in 0..2 {
        let mut stream = site.connect().await;
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        served.push(stream);
    }
    let mut third = site.connect().await;
    third.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(300), third.read(&mut byte)).await;
    assert!(early.is_err(), "the third connection was served beside two others");
    served.pop();
    assert!(read_to_end(&mut third).await.contains("200 OK"));
}

#[tokio::test]
async fn a_refusal_comes_before_a_body_that_was_announced() {
    let site = start(ListenerLimits::default()).await;
    for (target, status) in [
        ("PUT /v2/x/manifests/latest", "413"),
        ("PUT /v2/X/manifests/latest", "400"),
        ("PATCH /v2/x/blobs/uploads/6b3c9a93-af5d-473f-a4ff-9710022185cd", "404"),
        ("POST /v2/x/blobs/uploads/?digest=md5:00", "400"),
    ] {
        let head = format!(
            "{target} HTTP/1.1\r\nHost: x\r\nContent-Type: {OCI_MANIFEST}\r\nExpect: 100-continue\r\nContent-Length: 9000000\r\n\r\n"
        );
        let answer = site.raw(head.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
        assert!(!answer.contains("100 Continue"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_wanted_is_asked_for() {
    let site = start(ListenerLimits::default()).await;
    let digest = Digest::sha256(b"wanted");
    let mut stream = site.connect().await;
    let head = format!(
        "POST /v2/x/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut asked = [0; 21];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue");
    stream.write_all(b"wanted").await.unwrap();
    assert!(read_to_end(&mut stream).await.contains("HTTP/1.1 201"));
}

#[tokio::test]
async fn a_client_that_sends_on_regardless_still_gets_its_refusal() {
    let site = start(ListenerLimits::default()).await;
    for _ in 0..10 {
        let stream = site.connect().await;
        let (mut reading, mut writing) = stream.into_split();
        let head = format!(
            "PUT /v2/x/manifests/latest HTTP/1.1\r\nHost: x\r\nContent-Type: {OCI_MANIFEST}\r\nContent-Length: 20000000\r\n\r\n"
        );
        writing.write_all(head.as_bytes()).await.unwrap();
        // Everything is sent before anything is read, as simple clients do.
        let sent = async {
            for _ in 0..200 {
                writing.write_all(&[b' '; 100_000]).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        tokio::time::timeout(Duration::from_secs(30), sent).await.unwrap().unwrap();
        let mut answer = Vec::new();
        reading.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
}

#[tokio::test]
async fn after_a_small_refused_body_the_connection_goes_on() {
    let site = start(ListenerLimits::default()).await;
    let body = "x".repeat(100_000);
    let requests = format!(
        "PUT /v2/X/manifests/latest HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{body}\
         GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    );
    let answer = site.raw(requests.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn http2_is_spoken_to_clients_that_begin_with_it() {
    let site = start(ListenerLimits::default()).await;
    let (manifest, _) = site.push_image("x", "latest", "one").await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let url = site.url("/v2/x/manifests/latest");
    let response = client.get(&url).send().await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(response.bytes().await.unwrap(), manifest);
    let head = client.head(&url).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], manifest.len().to_string().as_str());
    let refused = client.put(site.url("/v2/X/manifests/a")).body(vec![0; 5 << 20]).send().await.unwrap();
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn stopping_lets_a_request_under_way_end() {
    let site = start(ListenerLimits::default()).await;
    let bytes = content(3, 300_000);
    let digest = Digest::sha256(&bytes);
    let idle = site.connect().await;
    let mut stream = site.connect().await;
    let head = format!(
        "POST /v2/x/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&bytes[..100_000]).await.unwrap();
    eventually("the body is being written", async || !site.spools().is_empty()).await;
    site.begin_stop();
    eventually("nothing listens", async || tokio::net::TcpStream::connect(site.address).await.is_err()).await;
    stream.write_all(&bytes[100_000..]).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(site.stop().await);
    drop(idle);
}

#[tokio::test]
async fn stopping_breaks_off_what_outlasts_the_grace_time() {
    let site = start(ListenerLimits { grace: Duration::from_millis(300), ..ListenerLimits::default() }).await;
    let location = site.begin("x").await;
    let mut stream = site.connect().await;
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[0; 100_000]).await.unwrap();
    eventually("the body is being written", async || !site.spools().is_empty()).await;
    assert!(!site.stop().await);
}
