//! A site of the demo: a `twinport serve` process with its own data directory and log.
//! Invariant: it does not outlive the demo: it holds the read end of a pipe that the kernel closes with the demo.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    time::timeout,
};
use url::Url;

/// A start takes a moment; on a busy machine, several.
const START: Duration = Duration::from_secs(60);
/// Requests under way may end; the demo has none by then.
const END: Duration = Duration::from_secs(5);
/// Lines of a log shown when its site died.
const LAST_LINES: usize = 10;

/// What the story needs to know of a site.
#[derive(Debug, Clone)]
pub(super) struct SiteHandle {
    pub(super) name: &'static str,
    pub(super) data: PathBuf,
    pub(super) url: Url,
    pub(super) pid: u32,
}

/// A running site.
pub(super) struct SiteProcess {
    handle: SiteHandle,
    log: PathBuf,
    child: Child,
    /// Its end is the signal to stop; never written to.
    lifeline: ChildStdin,
}

#[derive(Deserialize)]
struct Announcement {
    address: std::net::SocketAddr,
}

impl SiteProcess {
    /// Starts a site below `place` on a free loopback port, and waits until it serves.
    pub(super) async fn start(name: &'static str, place: &Path) -> anyhow::Result<Self> {
        let data = place.join(name);
        let log = place.join(format!("{name}.log"));
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let errors = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--addr", "127.0.0.1:0", "--exit-with-parent", "--announce", "--data"])
            .arg(&data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            // Ctrl-C is for the demo, which ends its sites in order.
            .process_group(0);
        // The demo itself is what a service manager would wait for.
        command.env_remove("NOTIFY_SOCKET");
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("REGISTRY_") {
                command.env_remove(variable);
            }
        }
        let mut child = command.spawn().with_context(|| format!("cannot start site {name}"))?;
        let (Some(lifeline), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("site {name} has no standard input or output");
        };
        let pid = child.id().with_context(|| format!("site {name} ended at once"))?;
        let mut line = String::new();
        let announced = timeout(START, BufReader::new(output).read_line(&mut line)).await;
        let address = match announced {
            Ok(Ok(n)) if n > 0 => serde_json::from_str::<Announcement>(&line)?.address,
            Ok(_) => return Err(dead(name, &log, "did not start")),
            Err(_) => {
                return Err(dead(name, &log, &format!("did not serve within {} s", START.as_secs())));
            }
        };
        let url = Url::parse(&format!("http://{address}/"))?;
        Ok(Self { handle: SiteHandle { name, data, url, pid }, log, child, lifeline })
    }

    pub(super) fn handle(&self) -> &SiteHandle {
        &self.handle
    }

    pub(super) fn clone_handle(&self) -> SiteHandle {
        self.handle.clone()
    }

    /// Waits for the site to end, which it should not do by itself.
    pub(super) async fn death(&mut self) -> anyhow::Error {
        let how = match self.child.wait().await {
            Ok(status) => format!("died ({status})"),
            Err(error) => format!("cannot be watched ({error})"),
        };
        dead(self.handle.name, &self.log, &how)
    }

    /// Drains the site and waits for its end; kills it when it takes too long.
    pub(super) async fn end(mut self) {
        drop(self.lifeline);
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // A site that died already is what was wanted.
            kill_process(pid, Signal::TERM).ok();
        }
        if timeout(END, self.child.wait()).await.is_err() {
            drop(self.child.kill().await);
        }
    }
}

/// An error that shows what the site said last.
fn dead(name: &str, log: &Path, how: &str) -> anyhow::Error {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
    anyhow!("site {name} {how}; its log ends:\n  {last}")
}
