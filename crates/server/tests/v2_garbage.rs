//! Seeded garbage in path, headers, query and body: no 5xx, no panic, no hang, and refusals in the form of the
//! specification. `TWINPORT_GARBAGE_REQUESTS` sets how many (20,000), `TWINPORT_GARBAGE_SEED` repeats a run.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "v2_garbage/generator.rs"]
mod generator;
#[path = "v2/harness.rs"]
mod harness;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use twinport_blobs::Verdict;

use self::generator::{Garbage, Seeds};
use self::harness::Site;

const CONNECTIONS: u64 = 8;
/// No request takes this long unless it hangs.
const HANG: Duration = Duration::from_secs(60);

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
    /// The server will take no further request on this connection.
    closed: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_refused_in_the_form_of_the_specification_and_harms_nothing() {
    let number =
        |name: &str, otherwise: u64| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let requests = number("TWINPORT_GARBAGE_REQUESTS", 20_000);
    let seed = number("TWINPORT_GARBAGE_SEED", rand::random::<u32>().into());
    println!("TWINPORT_GARBAGE_SEED={seed}");
    let site = Site::start().await;
    let (kept, _) = site.push_image("kept/safe", "latest", "kept").await;
    let (_, manifest) = site.push_image("x", "latest", "one").await;
    let seeds = Seeds {
        manifest: manifest.to_string(),
        blob: site.push_blob("x", b"blob").await.to_string(),
        upload: site.begin("x").await.rsplit('/').next().unwrap().to_owned(),
    };

    let counts = join_all((0..CONNECTIONS).map(|lane| {
        let (site, seeds) = (&site, &seeds);
        async move { run(site, seeds, seed, (lane..requests).step_by(CONNECTIONS as usize)).await }
    }))
    .await;
    let refused: u64 = counts.iter().map(|(refused, _)| refused).sum();
    let met: u64 = counts.iter().map(|(_, met)| met).sum();
    println!("{requests} requests: {refused} refused, {met} met");
    // Garbage that is all refused at the door tests nothing behind it.
    assert!(refused > requests / 4 && met > requests / 20, "{refused} refused, {met} met");

    assert_eq!(site.get("/v2/kept/safe/manifests/latest").await.body, kept);
    let mut stored = std::pin::pin!(site.registry.blobs.scan());
    while let Some(blob) = stored.next().await {
        let (digest, size) = blob.unwrap();
        assert_eq!(site.registry.blobs.verify(&digest).await.unwrap(), Verdict::Whole { size });
        assert_eq!(
            site.registry.metadata.blob_is_known(&digest).await.unwrap(),
            Some(size),
            "{digest} is unowned"
        );
    }
    assert_eq!(site.registry.uploads_in_progress(), 0);
}

async fn run(site: &Site, seeds: &Seeds, seed: u64, requests: impl Iterator<Item = u64>) -> (u64, u64) {
    let (mut refused, mut met) = (0, 0);
    let mut connection: Option<BufReader<TcpStream>> = None;
    for index in requests {
        let garbage = Garbage::generate(seed, index, seeds);
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => BufReader::new(site.connect().await),
        };
        let exchanged = timeout(HANG, exchange(&mut stream, &garbage)).await;
        let Ok(answer) = exchanged else { panic!("request {index} hangs: {garbage}") };
        check(index, &garbage, &answer);
        if answer.status >= 400 {
            refused += 1
        } else {
            met += 1
        }
        if !answer.closed {
            connection = Some(stream);
        }
    }
    (refused, met)
}

/// Sends one request and reads its answer.
async fn exchange(stream: &mut BufReader<TcpStream>, garbage: &Garbage) -> Answer {
    // The answer may come, and the connection end, before everything is sent.
    let unsent = stream.write_all(&garbage.bytes).await.is_err();
    loop {
        let mut answer = read_head(stream, garbage).await;
        if (100..200).contains(&answer.status) {
            continue;
        }
        let length = field(&answer.headers, "content-length").map_or(0, |text| text.parse().unwrap());
        if !garbage.is_head && !matches!(answer.status, 204 | 304) {
            answer.body.resize(length, 0);
            stream.read_exact(&mut answer.body).await.unwrap_or_else(|error| panic!("{error}: {garbage}"));
        }
        answer.closed = unsent || field(&answer.headers, "connection").is_some_and(|value| value == "close");
        return answer;
    }
}

async fn read_head(stream: &mut BufReader<TcpStream>, garbage: &Garbage) -> Answer {
    let mut headers = String::new();
    loop {
        let mut line = Vec::new();
        let read = stream.read_until(b'\n', &mut line).await;
        assert!(matches!(read, Ok(1..)), "no answer ({read:?}) after {headers:?}: {garbage}");
        headers.push_str(&String::from_utf8_lossy(&line));
        if line == b"\r\n" {
            break;
        }
    }
    let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer { status: status.unwrap(), headers, body: Vec::new(), closed: false }
}

fn field<'a>(headers: &'a str, name: &str) -> Option<&'a str> {
    headers.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn check(index: u64, garbage: &Garbage, answer: &Answer) {
    let shown =
        || format!("request {index}: {garbage}\n{}{}", answer.headers, String::from_utf8_lossy(&answer.body));
    assert!((200..500).contains(&answer.status), "{}", shown());
    if field(&answer.headers, "docker-distribution-api-version").is_none() {
        // Not HTTP, or not to be read as such: the registry has not seen it.
        assert!(garbage.may_not_be_http && matches!(answer.status, 400 | 414 | 431), "{}", shown());
        return;
    }
    if answer.status < 400 || garbage.is_head {
        return;
    }
    assert_eq!(field(&answer.headers, "content-type"), Some("application/json"), "{}", shown());
    let body: serde_json::Value =
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", shown()));
    let errors = body["errors"].as_array().unwrap_or_else(|| panic!("{}", shown()));
    assert!(!errors.is_empty(), "{}", shown());
    for error in errors {
        let code = error["code"].as_str().unwrap_or_else(|| panic!("{}", shown()));
        assert!(!code.is_empty() && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{}", shown());
    }
}
