//! A site as a process behind TLS, on a socket file, below a prefix, under a service manager; and two sites over TLS.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixDatagram, UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use twinport_testkit::{Authority, Image, KeyedCertificate, SiteDatabase, SiteProcess, program, pull_whole};

const PATIENCE: Duration = Duration::from_secs(60);

fn start(data: &Path, environment: &[(&str, &str)]) -> SiteProcess {
    let program = program(env!("CARGO_BIN_EXE_twinport"));
    SiteProcess::start_with(&program, data, SiteDatabase::Embedded, environment).unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A client that trusts the last certificate of a chain and no other.
fn trusting(chain: &str) -> reqwest::Client {
    let trusted = reqwest::Certificate::from_pem_bundle(chain.as_bytes()).unwrap();
    reqwest::Client::builder().tls_certs_only(trusted.into_iter().last()).build().unwrap()
}

/// paris, which speaks TLS, and tokyo, which does not.
struct Sites {
    paris: SiteProcess,
    tokyo: SiteProcess,
    folder: TempDir,
}

impl Sites {
    fn start(shown: &KeyedCertificate) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = shown.write(folder.path()).unwrap();
        let tls = [
            ("REGISTRY_HTTP_TLS_CERTIFICATE", certificate.to_str().unwrap()),
            ("REGISTRY_HTTP_TLS_KEY", key.to_str().unwrap()),
        ];
        let paris = start(&folder.path().join("paris"), &tls);
        let tokyo = start(&folder.path().join("tokyo"), &[]);
        Self { paris, tokyo, folder }
    }

    fn join(&self) {
        self.paris.join("paris", &self.tokyo, "tokyo").unwrap();
    }

    /// Pushes an image to paris, waits until tokyo has it, and pulls every byte there.
    async fn replicates(&self, chain: &str, tag: &str) {
        let image = Image::random(tag.len() as u64, 2, 10_000);
        image.push(&trusting(chain), &self.paris.url(), "team/app", tag).await.unwrap();
        let query = format!("SELECT COUNT(*) FROM tags WHERE name = '{tag}'");
        self.tokyo.wait_for_count(&query, 1).await.unwrap();
        let pulled = pull_whole(&reqwest::Client::new(), &self.tokyo.url(), "team/app", tag).await.unwrap();
        assert_eq!(pulled, image.digest());
    }

    fn restart_paris(&mut self, shown: &KeyedCertificate) {
        self.paris.terminate().unwrap();
        shown.write(self.folder.path()).unwrap();
        self.paris.start_again().unwrap();
    }

    /// What tokyo says of its primary, once it waits for it.
    fn problem(&self) -> String {
        let mut problem = String::new();
        until("tokyo says what is wrong", || {
            let status = self.tokyo.json(&["geo", "status"]).unwrap();
            problem = status["replication"]["problem"].as_str().unwrap_or_default().to_owned();
            problem.contains("pinned")
        });
        problem
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_joins_and_follows_a_primary_with_a_self_signed_certificate() {
    let shown = KeyedCertificate::self_signed().unwrap();
    let mut sites = Sites::start(&shown);
    let added = sites.paris.json(&["site", "add", "tokyo", "--as", "paris"]).unwrap();
    assert!(added["tls_pin"].as_str().unwrap().starts_with("sha256:"), "{added}");
    assert_eq!(added["primary_url"], sites.paris.url());
    sites.tokyo.json(&["site", "join", "--token", added["token"].as_str().unwrap()]).unwrap();
    sites.replicates(&shown.certificate, "one").await;
    // The pin is remembered, and nobody sees it where a URL is wanted.
    sites.tokyo.terminate().unwrap();
    sites.tokyo.start_again().unwrap();
    sites.replicates(&shown.certificate, "second").await;
    let own = sites.tokyo.json(&["site", "show"]).unwrap();
    assert_eq!(own["primary_url"], sites.paris.url());
    let refused =
        reqwest::Client::new().post(format!("{}/v2/x/blobs/uploads/", sites.tokyo.url())).send().await;
    let said = refused.unwrap().text().await.unwrap();
    assert!(said.contains(&sites.paris.url()) && !said.contains("tls-pin"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_primary_that_shows_another_key_is_not_joined() {
    let (shown, other) = (KeyedCertificate::self_signed().unwrap(), KeyedCertificate::self_signed().unwrap());
    let mut sites = Sites::start(&shown);
    let token = sites.paris.join_token(&sites.paris.url(), "paris", "tokyo").unwrap();
    sites.restart_paris(&other);
    let joined = sites.tokyo.run(&["site", "join", "--token", &token]).unwrap();
    assert!(!joined.status.success());
    let said = String::from_utf8_lossy(&joined.stderr).into_owned();
    assert!(said.contains("neither the one that the join token pinned"), "{said}");
    assert_eq!(sites.tokyo.json(&["site", "show"]).unwrap()["role"], "primary");
    // Nothing was spent.
    sites.restart_paris(&shown);
    sites.tokyo.json(&["site", "join", "--token", &token]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_secondary_follows_nobody_else_than_the_key_it_joined() {
    let (shown, other) = (KeyedCertificate::self_signed().unwrap(), KeyedCertificate::self_signed().unwrap());
    let mut sites = Sites::start(&shown);
    sites.join();
    sites.replicates(&shown.certificate, "one").await;
    sites.restart_paris(&other);
    assert!(sites.problem().contains("somebody else answers there"));
    sites.restart_paris(&shown);
    sites.replicates(&shown.certificate, "second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pinned_authority_signs_anew_is_followed_without_a_restart() {
    let authority = Authority::new("the sites").unwrap();
    let sites = Sites::start(&authority.server().unwrap());
    sites.join();
    sites.replicates(authority.pem(), "one").await;
    let renewed = authority.server().unwrap();
    renewed.write(sites.folder.path()).unwrap();
    sites.paris.hang_up().unwrap();
    until("the certificate was taken", || sites.paris.log().contains("took a new certificate"));
    sites.replicates(authority.pem(), "second").await;
}

#[test]
fn after_sighup_the_log_level_of_the_file_counts_and_a_broken_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yml");
    let write = |text: &str| std::fs::write(&file, format!("version: 0.1\n{text}\n")).unwrap();
    write("log: {level: error}");
    let site = start(&folder.path().join("site"), &[("REGISTRY_CONFIGURATION_PATH", file.to_str().unwrap())]);
    assert!(!site.log().contains("serving"), "{}", site.log());
    write("log: {level: loud}");
    site.hang_up().unwrap();
    until("the broken file was seen", || site.log().contains("kept the configuration in use"));
    write("log: {level: info}\nstorage: {delete: {enabled: true}}");
    site.hang_up().unwrap();
    until("the level was taken", || site.log().contains("the log level has changed"));
    until("the rest is named", || site.log().contains("restart to put that into effect"));
    until("requests are logged", || {
        ask(std::net::TcpStream::connect(site.address()).unwrap(), "/v2/");
        site.log().contains("access")
    });
}

/// The answer to a GET.
fn ask(mut stream: impl std::io::Read + std::io::Write, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn after_sigterm_requests_may_end_and_a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = start(&folder.path().join("site"), &[("REGISTRY_HTTP_DRAINTIMEOUT", "1h")]);
    let mut upload = std::net::TcpStream::connect(site.address()).unwrap();
    let digest = format!("sha256:{}", "0".repeat(64));
    write!(
        upload,
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhalf"
    )
    .unwrap();
    until("the upload is under way", || {
        ask(std::net::TcpStream::connect(site.address()).unwrap(), "/metrics").contains("in_flight 2")
    });
    site.begin_termination().unwrap();
    until("nothing listens", || std::net::TcpStream::connect(site.address()).is_err());
    assert_eq!(site.ended().unwrap(), None, "a request is under way");
    site.begin_termination().unwrap();
    let mut status = None;
    until("it ends", || {
        status = site.ended().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(143));
    assert!(site.log().contains("a second signal"), "{}", site.log());
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut words = [0; 512];
        let length = manager.recv(&mut words).unwrap();
        String::from_utf8(words[..length].to_vec()).unwrap()
    };
    let mut site = start(&folder.path().join("site"), &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert!(told().contains("READY=1"));
    site.hang_up().unwrap();
    let reloading = told();
    let since = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(reloading.contains("RELOADING=1") && since.parse::<u64>().unwrap() > 0, "{reloading}");
    assert!(told().contains("READY=1"));
    site.terminate().unwrap();
    assert!(told().contains("STOPPING=1"));
}

#[test]
fn a_site_on_a_socket_file_below_a_prefix_serves_a_proxy_on_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.sock");
    let data = folder.path().join("site");
    let program = program(env!("CARGO_BIN_EXE_twinport"));
    let mut site = std::process::Command::new(program)
        .args(["serve", "--announce", "--exit-with-parent", "--data"])
        .arg(&data)
        .env("REGISTRY_HTTP_NET", "unix")
        .env("REGISTRY_HTTP_ADDR", &path)
        .env("REGISTRY_HTTP_PREFIX", "/registry/")
        .env("REGISTRY_HTTP_TRUSTED_PROXIES", "[unix]")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut announced = [0; 16];
    let length = site.stdout.as_mut().unwrap().read(&mut announced).unwrap();
    assert!(announced[..length].starts_with(b"{\"address\":null}"), "{announced:?}");
    let connect = || UnixStream::connect(&path).unwrap();
    assert!(ask(connect(), "/registry/v2/").starts_with("HTTP/1.1 200"));
    assert!(ask(connect(), "/readyz").starts_with("HTTP/1.1 200"));
    let outside = ask(connect(), "/v2/");
    assert!(outside.starts_with("HTTP/1.1 404") && outside.contains("begins with /registry/"), "{outside}");
    let mut begin = connect();
    write!(
        begin,
        "POST /registry/v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\
         X-Forwarded-Host: r.example.com\r\nX-Forwarded-Proto: https\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    begin.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("location: https://r.example.com/registry/v2/a/blobs/uploads/"), "{answer}");
    // A second process leaves the file of a living one alone.
    let second = start_on(&path, &folder.path().join("second"));
    assert!(second.contains("cannot listen on") && second.contains("in use"), "{second}");
    assert!(ask(connect(), "/registry/v2/").starts_with("HTTP/1.1 200"));
    drop(site.stdin.take());
    assert!(site.wait().unwrap().success());
    assert!(!path.try_exists().unwrap());
}

/// Runs `serve` on a socket file that is taken; what it said.
fn start_on(path: &Path, data: &Path) -> String {
    let output = std::process::Command::new(program(env!("CARGO_BIN_EXE_twinport")))
        .args(["serve", "--data"])
        .arg(data)
        .env("REGISTRY_HTTP_NET", "unix")
        .env("REGISTRY_HTTP_ADDR", path)
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}
