//! The demo, run as a stranger would run it: status 0 only when every byte held, and nothing is left behind.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use twinport_oci::Digest;

const PATIENCE: Duration = Duration::from_secs(120);

/// A small image, so that a test spends its time on what it tests.
fn small_image(dir: &Path) -> PathBuf {
    let layout = dir.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let store = |bytes: &[u8], media_type: &str| {
        let digest = Digest::sha256(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
    };
    let config = store(b"{}", "application/vnd.oci.image.config.v1+json");
    let layer = store(&[42; 100_000], "application/vnd.oci.image.layer.v1.tar");
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer] });
    let entry = store(manifest.to_string().as_bytes(), manifest_type);
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

fn twinport(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinport"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A demo that holds before the comparison, or serves on.
struct Demo {
    child: Child,
    input: ChildStdin,
    dir: TempDir,
}

impl Demo {
    fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = small_image(dir.path());
        let mut command = twinport(&["demo", "--output", "json"]);
        command.args(more).arg("--image").arg(image).arg("--dir").arg(dir.path().join("sites"));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        Self { child, input, dir }
    }

    fn site(&self, name: &str) -> PathBuf {
        self.dir.path().join("sites").join(name)
    }

    /// Reads standard error up to the pause, then goes on reading so that the demo never blocks on it. What it says
    /// from then on comes at its end.
    fn wait_for_pause(&mut self) -> JoinHandle<String> {
        let mut lines = BufReader::new(self.child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("paused")), "the demo ended before it paused");
        std::thread::spawn(move || lines.collect::<Vec<_>>().join("\n"))
    }

    /// The one line of JSON.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        BufReader::new(self.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn resume(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the demo does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The pids of both sites, by their sockets' owner.
    fn pids(&self) -> [i32; 2] {
        ["paris", "tokyo"].map(|name| {
            let shown = twinport(&["site", "show", "--output", "json", "--data"])
                .arg(self.site(name))
                .output()
                .unwrap();
            let own: Value = serde_json::from_slice(&shown.stdout).unwrap();
            i32::try_from(own["pid"].as_i64().unwrap()).unwrap()
        })
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_gone(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_err()
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn listens(url: &str) -> bool {
    let address: SocketAddr = url.trim_start_matches("http://").parse().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_demo_of_this_very_program_ends_well_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let output = twinport(&["demo", "--exit"]).env("TMPDIR", temporary.path()).output().unwrap();
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    for expected in ["every byte equal", "sha256:", "lag", "paris, primary", "tokyo, secondary"] {
        assert!(told.contains(expected), "{expected} is missing:\n{told}");
    }
    for url in told.split_whitespace().filter(|word| word.starts_with("http://127.0.0.1:")) {
        assert!(!listens(url), "{url} still listens");
    }
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "temporary files are left");
}

#[test]
fn for_scripts_the_demo_writes_one_line_and_serves_on_until_it_is_told_to_stop() {
    let mut demo = Demo::start(&[]);
    let line = demo.line();
    assert_eq!(line["verified"], true);
    assert!(line["lag_ms"].as_f64().unwrap() >= 0.0);
    assert!(line["image"].as_str().unwrap().starts_with("demo/layout:"));
    assert!(line["digest"].as_str().unwrap().starts_with("sha256:"));
    let sites = line["sites"].as_array().unwrap();
    let urls: Vec<&str> = sites.iter().map(|site| site["url"].as_str().unwrap()).collect();
    assert_eq!([&sites[0]["role"], &sites[1]["role"]], ["primary", "secondary"]);
    assert!(sites.iter().all(|site| Path::new(site["data_dir"].as_str().unwrap()).is_dir()));
    assert!(urls.iter().all(|url| listens(url)));

    let pid = i32::try_from(demo.child.id()).unwrap();
    signal(pid, Signal::TERM);
    assert!(demo.wait().success());
    assert!(!urls.iter().any(|url| listens(url)), "a site still listens");
}

#[test]
fn with_one_site_killed_the_other_serves_on_and_the_status_tells_of_it() {
    let mut demo = Demo::start(&[]);
    let line = demo.line();
    let [primary, secondary] = [&line["sites"][0], &line["sites"][1]];
    signal(i32::try_from(primary["pid"].as_i64().unwrap()).unwrap(), Signal::KILL);
    let (gone, left) = (primary["url"].as_str().unwrap(), secondary["url"].as_str().unwrap());
    until("the killed site ends", || !listens(gone));
    let mut told = BufReader::new(demo.child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(told.any(|line| line.contains("site paris died")), "the demo says nothing of the death");
    std::thread::spawn(move || told.for_each(drop));
    assert!(listens(left), "the other site ended with it");
    signal(i32::try_from(demo.child.id()).unwrap(), Signal::TERM);
    assert!(!demo.wait().success());
    assert!(!listens(left), "the other site still listens");
}

#[test]
fn one_altered_byte_on_the_secondary_fails_the_demo() {
    let mut demo = Demo::start(&["--exit", "--pause-before-compare"]);
    let told = demo.wait_for_pause();
    let hex = Digest::sha256(&[42; 100_000]).hex();
    let stored =
        demo.site("tokyo/blobs/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(&hex).join("data");
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[77_777] ^= 1;
    std::fs::write(&stored, bytes).unwrap();
    demo.resume();
    assert!(!demo.wait().success(), "an altered byte went unnoticed");
    let told = told.join().unwrap();
    assert!(told.contains("byte 77777 differs"), "{told}");
}

#[test]
fn an_untouched_secondary_passes_after_the_same_pause() {
    let mut demo = Demo::start(&["--exit", "--pause-before-compare"]);
    demo.wait_for_pause();
    signal(i32::try_from(demo.child.id()).unwrap(), Signal::USR1);
    assert!(demo.wait().success());
}

#[test]
fn a_secondary_that_is_killed_fails_the_demo_and_the_primary_ends_with_it() {
    let mut demo = Demo::start(&["--exit", "--pause-before-compare"]);
    let told = demo.wait_for_pause();
    let [primary, secondary] = demo.pids();
    signal(secondary, Signal::KILL);
    assert!(!demo.wait().success());
    let told = told.join().unwrap();
    assert!(told.contains("site tokyo died"), "{told}");
    until("the primary ends", || is_gone(primary));
}

#[test]
fn when_the_demo_itself_is_killed_its_sites_end_by_themselves() {
    let mut demo = Demo::start(&["--pause-before-compare"]);
    demo.wait_for_pause();
    let pids = demo.pids();
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    until("both sites end", || pids.iter().all(|pid| is_gone(*pid)));
}

#[test]
fn a_missing_image_fails_before_anything_is_started() {
    let output = twinport(&["demo", "--exit", "--image", "/nonexistent/image.tar"]).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("/nonexistent/image.tar"), "{}", text(&output));
}

#[test]
fn a_directory_that_is_not_empty_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("precious"), "x").unwrap();
    let output = twinport(&["demo", "--exit", "--dir"]).arg(dir.path()).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("is not empty"), "{}", text(&output));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_site_that_is_not_running_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let output = twinport(&["site", "list", "--data"]).arg(dir.path()).output().unwrap();
    assert!(!output.status.success());
    let told = text(&output);
    assert!(told.contains("no site is running") && told.contains("twinport serve --data"), "{told}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_configuration_problem_stops_the_start_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yml");
    std::fs::write(&path, "version: 0.1\nlog:\n  level: loud\n").unwrap();
    let mut child = twinport(&["serve", "--config"])
        .arg(&path)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(told.contains("line 3: log.level"), "{told}");
}
