//! A site as a process, driven as an operator drives it: starts that must not happen, drains, commands.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use twinport_testkit::{Image, Pair, SiteDatabase, SiteProcess};

const BUILT: &str = env!("CARGO_BIN_EXE_twinport");
const PATIENCE: Duration = Duration::from_secs(60);

fn start(data: &Path) -> SiteProcess {
    SiteProcess::start(Path::new(BUILT), data, SiteDatabase::Embedded).unwrap()
}

fn pair() -> Pair {
    Pair::joined(BUILT, SiteDatabase::Embedded, SiteDatabase::Embedded).unwrap()
}

/// Runs `serve` where it must not start; what it said.
fn refused(data: &Path) -> String {
    let output = Command::new(BUILT)
        .args(["serve", "--addr", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn s14_a_second_process_on_a_data_directory_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let _site = start(dir.path());
    let said = refused(dir.path());
    assert!(said.contains("another process serves the data directory"), "{said}");
}

#[test]
fn r26_a_blob_store_of_another_life_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
    for data in [&one, &two] {
        start(data).terminate().unwrap();
    }
    std::fs::rename(one.join("blobs"), dir.path().join("kept")).unwrap();
    std::fs::rename(two.join("blobs"), one.join("blobs")).unwrap();
    let said = refused(&one);
    assert!(said.contains("belongs to another database"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r26_a_site_with_history_does_not_start_on_an_empty_blob_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = start(dir.path());
    let image = Image::random(1, 1, 100);
    image.push(&reqwest::Client::new(), &site.url(), "team/app", "v1").await.unwrap();
    site.terminate().unwrap();
    std::fs::rename(dir.path().join("blobs"), dir.path().join("lost")).unwrap();
    let said = refused(dir.path());
    assert!(said.contains("has lost its marker"), "{said}");
}

#[test]
fn a_request_under_way_ends_well_after_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = start(dir.path());
    let mut begin = TcpStream::connect(site.address()).unwrap();
    write!(
        begin,
        "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    begin.read_to_string(&mut answer).unwrap();
    let location = answer.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().trim().to_owned();
    let path = location.trim_start_matches(&site.url()).to_owned();

    let mut upload = TcpStream::connect(site.address()).unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nContent-Type: application/octet-stream\r\n\r\nhalf"
    );
    upload.write_all(head.as_bytes()).unwrap();
    until("the upload is under way", || metric(&site, "twinport_uploads_in_progress") == Some(1.0));
    let draining = std::thread::spawn(move || {
        site.terminate().unwrap();
        site
    });
    until("connections are refused", || upload_is_alone(&upload));
    upload.write_all(b"half").unwrap();
    let mut status = String::new();
    BufReader::new(&upload).read_line(&mut status).unwrap();
    assert!(status.starts_with("HTTP/1.1 202"), "{status}");
    let site = draining.join().unwrap();
    assert!(site.log().contains("all_requests_ended=true"), "{}", site.log());
}

fn upload_is_alone(upload: &TcpStream) -> bool {
    TcpStream::connect(upload.peer_addr().unwrap()).is_err()
}

fn metric(site: &SiteProcess, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(site.address()).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

#[test]
fn a_primary_with_an_open_log_stream_drains_without_breaking_it_off() {
    let mut pair = pair();
    until("the secondary follows", || metric(&pair.secondary, "twinport_geo_connected") == Some(1.0));
    pair.primary.terminate().unwrap();
    assert!(pair.primary.log().contains("all_requests_ended=true"), "{}", pair.primary.log());
    pair.secondary.terminate().unwrap();
    assert!(pair.secondary.log().contains("all_requests_ended=true"), "{}", pair.secondary.log());
}

#[test]
fn r28_a_removed_site_stops_and_says_so() {
    let pair = pair();
    until("the secondary follows", || metric(&pair.secondary, "twinport_geo_connected") == Some(1.0));
    let removed = pair.primary.json(&["site", "remove", "tokyo"]).unwrap();
    assert_eq!(removed["site"], "tokyo");
    let mut replication = Value::Null;
    until("the secondary knows that it was removed", || {
        replication = pair.secondary.json(&["geo", "status"]).unwrap()["replication"].clone();
        replication["state"] == "stopped"
    });
    assert!(replication["problem"].as_str().unwrap().contains("removed"), "{replication}");
    let doctor = pair.secondary.run(&["doctor"]).unwrap();
    assert!(!doctor.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_a_secondary_is_refused_with_the_primarys_name_and_address() {
    let pair = pair();
    let url = format!("{}/v2/team/app/blobs/uploads/", pair.secondary.url());
    let answer = reqwest::Client::new().post(url).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["errors"][0]["code"], "DENIED");
    let message = body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("paris") && message.contains(&pair.link.url()), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_comes_back_and_is_kept_with_the_event() {
    let dir = tempfile::tempdir().unwrap();
    let site = start(dir.path());
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("x-request-id", "trace-4711".parse().unwrap());
    let http = reqwest::Client::builder().default_headers(headers).build().unwrap();
    Image::random(2, 1, 100).push(&http, &site.url(), "team/app", "v1").await.unwrap();
    let answer = http.get(format!("{}/v2/", site.url())).send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "trace-4711");
    let given = reqwest::get(format!("{}/v2/", site.url())).await.unwrap();
    assert!(!given.headers()["x-request-id"].is_empty());
    let rows = site.rows("SELECT body FROM events").await.unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        let event: Value = serde_json::from_slice(row[0].bytes().unwrap()).unwrap();
        assert_eq!(event["correlation"], "trace-4711", "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_are_listed_renamed_scrubbed_and_deleted_by_command() {
    let dir = tempfile::tempdir().unwrap();
    let site = start(dir.path());
    let image = Image::random(3, 2, 5_000);
    image.push(&reqwest::Client::new(), &site.url(), "team/app", "v1").await.unwrap();
    assert_eq!(site.json(&["repo", "list"]).unwrap(), serde_json::json!(["team/app"]));
    let tags = site.json(&["repo", "tags", "team/app"]).unwrap();
    assert_eq!(tags[0]["name"], "v1");
    assert_eq!(tags[0]["digest"], image.digest().to_string());
    site.json(&["repo", "rename", "team/app", "team/api"]).unwrap();
    assert_eq!(site.json(&["repo", "list"]).unwrap(), serde_json::json!(["team/api"]));
    let scrub = site.json(&["blobs", "scrub"]).unwrap();
    assert_eq!(scrub["checked"]["findings"], 0);
    assert!(scrub["checked"]["blobs"].as_u64().unwrap() > 0);
    let unsure = site.run(&["repo", "delete", "team/api"]).unwrap();
    assert!(!unsure.status.success(), "without a terminal, --yes is needed");
    site.json(&["repo", "delete", "team/api", "--yes"]).unwrap();
    assert_eq!(site.json(&["repo", "list"]).unwrap(), serde_json::json!([]));
    let absent = site.run(&["repo", "tags", "team/api"]).unwrap();
    assert!(!absent.status.success());
}

#[test]
fn doctor_looks_at_everything_and_fails_where_no_site_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = start(dir.path());
    let examination = site.json(&["doctor"]).unwrap();
    for area in ["config", "storage", "database", "peers", "clocks"] {
        let checks = examination["checks"].as_array().unwrap();
        assert!(checks.iter().any(|check| check["area"] == area), "{area} is missing: {examination}");
    }
    site.terminate().unwrap();
    let doctor = site.run(&["doctor"]).unwrap();
    assert!(!doctor.status.success());
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("no site is running"));
}

#[test]
fn logs_are_json_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(BUILT)
        .args(["serve", "--addr", "127.0.0.1:0", "--announce", "--exit-with-parent", "--data"])
        .arg(dir.path())
        .env("REGISTRY_LOG_FORMATTER", "json")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut announced = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut announced).unwrap();
    drop(child.stdin.take());
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(log.contains("\"serving\""), "{log}");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
    }
}
