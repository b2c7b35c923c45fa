//! A PostgreSQL server that a test rules over: its settings, its certificates, its end and its next start, its copies.
//! Guards: the server is gone when the test process is, however that ends; its data goes with the value.

use std::{
    io::Read as _,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::postgres::{free_port, ids_of, server_programs};

/// How long a start may take, recovery included, on a loaded machine.
const START: Duration = Duration::from_secs(120);

/// Ends the server when its standard input closes, which it does with the test process.
const SERVE: &str = r#"
"$bin/postgres" -D "$data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$dir" \
  >>"$dir/server.log" 2>&1 &
read -r _
[ ! -f "$data/postmaster.pid" ] || kill -s QUIT "$(head -n 1 "$data/postmaster.pid")" 2>/dev/null
wait
"#;

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, what is in memory is written.
    Fast,
    /// As after a crash: the next start recovers.
    Immediate,
    /// `kill -9` of the server's first process.
    Kill,
}

/// One cluster, running or not.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    /// Sockets, log and certificates.
    directory: tempfile::TempDir,
    data: PathBuf,
    port: u16,
    owner: Option<(u32, u32)>,
    supervisor: Option<Child>,
}

impl PostgresServer {
    /// A fresh cluster that runs, with lines for `postgresql.conf`; none where PostgreSQL is not installed.
    ///
    /// # Errors
    /// When it is installed and does not start; the text has its log.
    pub fn start(settings: &[&str]) -> anyhow::Result<Option<Self>> {
        let Some(mut server) = Self::empty()? else { return Ok(None) };
        let data = server.data.to_string_lossy().into_owned();
        let made = server
            .program("initdb")
            .args(["--pgdata", &data, "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"])
            .args(["--locale=C", "--locale-provider=icu", "--icu-locale=en-US"])
            .output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.configure(&["max_connections = 60", "wal_keep_size = '256MB'"])?;
        server.configure(settings)?;
        server.resume()?;
        Ok(Some(server))
    }

    fn empty() -> anyhow::Result<Option<Self>> {
        let Some(programs) = server_programs() else { return Ok(None) };
        let directory = tempfile::Builder::new().prefix("twinport-server.").tempdir()?;
        let owner = rustix::process::geteuid().is_root().then(|| ids_of("postgres")).transpose()?;
        if let Some((user, group)) = owner {
            // The server refuses to run as root.
            chown(directory.path(), Some(user), Some(group))?;
        }
        let data = directory.path().join("data");
        Ok(Some(Self { programs, directory, data, port: free_port()?, owner, supervisor: None }))
    }

    /// A superuser's URL of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The port it listens on, stopped or not.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its unix socket is.
    #[must_use]
    pub fn sockets(&self) -> &Path {
        self.directory.path()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default()
    }

    /// Makes a database and gives its URL.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn database(&self, name: &str) -> anyhow::Result<String> {
        self.execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await?;
        Ok(format!("postgres://postgres@127.0.0.1:{}/{name}", self.port))
    }

    /// Runs statements in the database `postgres`, each in a transaction of its own; none may hold a semicolon.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn execute(&self, statements: &str) -> anyhow::Result<()> {
        let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await?;
        let connection = tokio::spawn(connection);
        for statement in statements.split(';').filter(|statement| !statement.trim().is_empty()) {
            client.batch_execute(statement).await?;
        }
        drop(client);
        Ok(connection.await??)
    }

    /// Waits until every standby that is connected has all that this server has committed.
    ///
    /// # Errors
    /// When they do not within two minutes.
    pub async fn wait_for_standbys(&self) -> anyhow::Result<()> {
        const BEHIND: &str =
            "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn < pg_current_wal_lsn()";
        let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let deadline = Instant::now() + START;
        while client.query_one(BEHIND, &[]).await?.get::<_, i64>(0) > 0 {
            ensure!(Instant::now() < deadline, "a standby does not catch up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Adds lines to `postgresql.conf`; they count from the next start.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn configure(&self, settings: &[&str]) -> anyhow::Result<()> {
        let file = self.data.join("postgresql.conf");
        let mut text = std::fs::read_to_string(&file)?;
        for line in settings {
            text.push_str(line);
            text.push('\n');
        }
        self.write(&file, &text)
    }

    /// Replaces `pg_hba.conf`; it counts from the next start.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn let_in(&self, lines: &[&str]) -> anyhow::Result<()> {
        // Tests always get in by the socket, and standbys by loopback.
        let own = "local all all trust\nhost replication postgres 127.0.0.1/32 trust\n";
        self.write(&self.data.join("pg_hba.conf"), &format!("{own}{}\n", lines.join("\n")))
    }

    /// A file beside the data, for the server's eyes only; its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.directory.path().join(name);
        self.write(&path, text)?;
        Ok(path)
    }

    fn write(&self, path: &Path, text: &str) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(path, text)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        if let Some((user, group)) = self.owner {
            chown(path, Some(user), Some(group))?;
        }
        Ok(())
    }

    /// Ends it, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub fn stop(&mut self, how: Stop) -> anyhow::Result<()> {
        let mut supervisor = self.supervisor.take().context("the server runs")?;
        let pid = self.first_process()?;
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
            Stop::Kill => Signal::KILL,
        };
        kill_process(pid, signal)?;
        let deadline = Instant::now() + START;
        // Its parent reaps it at the end: until then an ended one is a zombie.
        while !has_ended(pid) {
            ensure!(Instant::now() < deadline, "the server does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(supervisor.stdin.take());
        supervisor.wait()?;
        Ok(())
    }

    /// Starts it on its data as it is, and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not start; the text has its log.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let mut shell = self.owned(Command::new("sh"));
            shell
                .args(["-c", SERVE])
                .env("bin", &self.programs)
                .env("data", &self.data)
                .env("dir", self.directory.path())
                .env("port", self.port.to_string())
                .stdin(Stdio::piped());
            let mut supervisor = shell.spawn().context("cannot run sh")?;
            while !self.is_ready() {
                ensure!(Instant::now() < deadline, "the server did not start:\n{}", self.log());
                if self.has_failed(&supervisor) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            if self.is_ready() {
                self.supervisor = Some(supervisor);
                return Ok(());
            }
            // After `kill -9` its other processes hold their memory for a moment.
            drop(supervisor.stdin.take());
            supervisor.wait()?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// [`Self::stop`] and [`Self::resume`].
    ///
    /// # Errors
    /// Theirs.
    pub fn restart(&mut self, how: Stop) -> anyhow::Result<()> {
        self.stop(how)?;
        self.resume()
    }

    /// Copies the running cluster as `pg_basebackup` does.
    ///
    /// # Errors
    /// When that fails, with what it said.
    pub fn base_backup(&self) -> anyhow::Result<BaseBackup> {
        let directory = tempfile::Builder::new().prefix("twinport-backup.").tempdir()?;
        if let Some((user, group)) = self.owner {
            chown(directory.path(), Some(user), Some(group))?;
        }
        let data = directory.path().join("data");
        self.copy_to(&data, &[])?;
        Ok(BaseBackup { _directory: directory, data })
    }

    fn copy_to(&self, data: &Path, more: &[&str]) -> anyhow::Result<()> {
        let copied = self
            .program("pg_basebackup")
            .args(["--checkpoint=fast", "--no-sync", "--wal-method=stream", "--host=127.0.0.1"])
            .args(["--username=postgres", &format!("--port={}", self.port), "--pgdata"])
            .arg(data)
            .args(more)
            .output()?;
        ensure!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        Ok(())
    }

    /// Puts a backup in the place of a stopped server's data.
    ///
    /// # Errors
    /// When it runs, or the data cannot be exchanged.
    pub fn restore(&mut self, backup: &BaseBackup) -> anyhow::Result<()> {
        ensure!(self.supervisor.is_none(), "a running server is not restored");
        std::fs::remove_dir_all(&self.data)?;
        let copied = self.owned(Command::new("cp")).arg("-a").arg(&backup.data).arg(&self.data).output()?;
        ensure!(copied.status.success(), "cp: {}", String::from_utf8_lossy(&copied.stderr));
        Ok(())
    }

    /// A running standby of this server, which knows it as `name`.
    ///
    /// # Errors
    /// When it cannot be made or does not start.
    pub fn standby(&self, name: &str) -> anyhow::Result<Self> {
        let mut standby = Self::empty()?.context("PostgreSQL is installed")?;
        self.copy_to(&standby.data, &["--write-recovery-conf"])?;
        let primary = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres application_name={name}'",
            self.port
        );
        std::fs::write(standby.data.join("postgresql.auto.conf"), "")?;
        standby.configure(&[&primary])?;
        standby.resume()?;
        Ok(standby)
    }

    /// Makes a standby a primary, and waits until it takes writes.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn promote(&self) -> anyhow::Result<()> {
        self.execute("SELECT pg_promote(true, 60)").await
    }

    fn is_ready(&self) -> bool {
        // The eighth line is the server's state.
        let state = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let ready = state.lines().nth(7).is_some_and(|state| ["ready", "standby"].contains(&state.trim()));
        ready && self.first_process().is_ok_and(|pid| !has_ended(pid))
    }

    /// The server's process has ended, or never came to be, and only its shell is left.
    fn has_failed(&self, supervisor: &Child) -> bool {
        let children = format!("/proc/{0}/task/{0}/children", supervisor.id());
        let mut text = String::new();
        let read = std::fs::File::open(children).and_then(|mut file| file.read_to_string(&mut text));
        let ended = |pid: &str| pid.parse().ok().and_then(Pid::from_raw).is_none_or(has_ended);
        // The shell has no child before it has begun, and logs from its first on.
        read.is_ok() && text.split_whitespace().next().is_some() && text.split_whitespace().all(ended)
    }

    fn first_process(&self) -> anyhow::Result<Pid> {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid"))?;
        let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
        pid.and_then(Pid::from_raw).context("a pid in postmaster.pid")
    }

    fn program(&self, name: &str) -> Command {
        self.owned(Command::new(self.programs.join(name)))
    }

    fn owned(&self, mut command: Command) -> Command {
        command.current_dir(self.directory.path());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            drop(supervisor.stdin.take());
            let _ = supervisor.wait();
        }
    }
}

/// A copy of a cluster; it goes with the value.
#[derive(Debug)]
pub struct BaseBackup {
    _directory: tempfile::TempDir,
    data: PathBuf,
}

fn has_ended(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // The state follows the name, which is in parentheses.
    stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with('Z'))
}
