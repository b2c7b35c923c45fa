//! One site as an operator runs it: a `twinport serve` process with a data directory, killed and restarted at will.
//! Guards: a process ends with the test that started it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::{Field, ObjectServer, SharedStore, records};

/// How long a start may take on a loaded machine.
const START: Duration = Duration::from_secs(60);
/// How long the answer of a site that starts may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a secondary may take to have everything, on a loaded machine.
const CONVERGENCE: Duration = Duration::from_secs(180);

/// Where a site keeps its metadata.
#[derive(Clone, Debug)]
pub enum SiteDatabase {
    /// SQLite in the data directory.
    Embedded,
    /// The URL of a database of its own: `postgres://user@host:port/name`.
    Postgres(String),
}

/// A bucket in which a site keeps its blobs, on a server of [`ObjectServer`]'s keys.
#[derive(Clone, Debug)]
pub struct SiteBucket {
    /// `http://127.0.0.1:PORT`
    pub endpoint: String,
    /// A prefix of the site's own.
    pub root: String,
    /// Whether clients are sent to the bucket for their blobs.
    pub redirect: bool,
}

impl SiteBucket {
    /// A prefix that no other test uses.
    #[must_use]
    pub fn at(endpoint: String) -> Self {
        Self { endpoint, root: format!("/sites/{:016x}", rand::random::<u64>()), redirect: true }
    }
}

/// A running or killed `twinport serve`.
#[derive(Debug)]
pub struct SiteProcess {
    binary: PathBuf,
    data: PathBuf,
    address: SocketAddr,
    database: SiteDatabase,
    environment: Vec<(String, String)>,
    /// Where blobs are kept, if not in the data directory.
    store: Option<SharedStore>,
    child: Option<Child>,
}

impl SiteProcess {
    /// Starts a site on a free loopback port and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or does not get ready; the text has its log.
    pub fn start(binary: &Path, data: &Path, database: SiteDatabase) -> anyhow::Result<Self> {
        let mut site = Self::spawned(binary, data, database)?;
        site.wait_ready()?;
        Ok(site)
    }

    /// Starts a site that finds these variables, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or does not get ready; the text has its log.
    pub fn start_with(
        binary: &Path,
        data: &Path,
        database: SiteDatabase,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let mut site = Self::unstarted(binary, data, database)?;
        site.set_environment(environment);
        site.start_again()?;
        Ok(site)
    }

    /// Starts a site that keeps its blobs in a bucket, where one is given, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or does not get ready; the text has its log. A bucket needs PostgreSQL.
    pub fn start_on(
        binary: &Path,
        data: &Path,
        database: SiteDatabase,
        bucket: Option<SiteBucket>,
    ) -> anyhow::Result<Self> {
        let mut site = Self::unstarted(binary, data, database)?;
        site.store = bucket.map(SharedStore::Bucket);
        site.start_again()?;
        Ok(site)
    }

    /// Starts a site without waiting, so that something can happen to its very first start.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn spawned(binary: &Path, data: &Path, database: SiteDatabase) -> anyhow::Result<Self> {
        let mut site = Self::unstarted(binary, data, database)?;
        site.spawn()?;
        Ok(site)
    }

    /// A site that is to be set up before its first start.
    ///
    /// # Errors
    /// When its data directory cannot be made, or no port is free.
    pub(crate) fn unstarted(binary: &Path, data: &Path, database: SiteDatabase) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data)?;
        Ok(Self {
            binary: binary.to_owned(),
            data: data.to_owned(),
            address: free_address()?,
            database,
            environment: Vec::new(),
            store: None,
            child: None,
        })
    }

    /// What it finds in its environment from its next start on.
    pub(crate) fn set_environment<'v>(
        &mut self,
        variables: impl IntoIterator<Item = &'v (&'v str, &'v str)>,
    ) {
        let owned = variables.into_iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.environment = owned.collect();
    }

    /// Where it keeps its blobs from its next start on.
    pub(crate) fn set_store(&mut self, store: SharedStore) {
        self.store = Some(store);
    }

    /// Starts a killed site on the same address and data, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or does not get ready; the text has its log.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Starts it without waiting, so that it can be killed while it recovers.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "the site runs already");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut command = self.command();
        command.arg("serve").args(self.site_arguments()?);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.child = Some(child.with_context(|| format!("cannot run {}", self.binary.display()))?);
        Ok(())
    }

    /// Waits until the site says that it is ready.
    ///
    /// # Errors
    /// When it ends first, or takes longer than a minute; the text has its log.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        while !self.is_ready() {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended {
                self.child = None;
                bail!("the site ended with {status}:\n{}", self.log());
            }
            ensure!(Instant::now() < deadline, "the site did not get ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGHUP: has the site read its certificate and its log level again.
    ///
    /// # Errors
    /// When it does not run.
    pub fn hang_up(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::HUP)
    }

    /// SIGSTOP: it stands still as if its machine did, all its threads when this returns.
    ///
    /// # Errors
    /// When it does not run, or ends first.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::STOP)?;
        let status = waitid(WaitId::Pid(self.process()?), WaitIdOptions::STOPPED)?;
        ensure!(status.is_some_and(|status| status.stopped()), "the site ended before it stood still");
        Ok(())
    }

    /// SIGCONT: it goes on as if nothing had been.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    fn signal(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        Ok(rustix::process::kill_process(self.process()?, signal)?)
    }

    fn process(&self) -> anyhow::Result<Pid> {
        let pid = i32::try_from(self.pid().context("the site runs")?)?;
        Pid::from_raw(pid).context("a process has a pid")
    }

    /// SIGTERM, without waiting for what comes of it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn begin_termination(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::TERM)
    }

    /// How it ended; none while it runs.
    ///
    /// # Errors
    /// The system's.
    pub fn ended(&mut self) -> anyhow::Result<Option<std::process::ExitStatus>> {
        Ok(self.child.as_mut().map(Child::try_wait).transpose()?.flatten())
    }

    /// SIGTERM, and waits for the drain.
    ///
    /// # Errors
    /// When it does not end within a minute.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            self.signal(rustix::process::Signal::TERM)?;
        }
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let deadline = Instant::now() + START;
        while child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                let _ = child.kill();
                bail!("the site did not drain:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// `http://127.0.0.1:PORT`, or `https://…` where it speaks TLS.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.speaks_tls() { "https" } else { "http" }, self.address)
    }

    fn speaks_tls(&self) -> bool {
        self.environment.iter().any(|(name, _)| name == "REGISTRY_HTTP_TLS_CERTIFICATE")
    }

    /// Asked in clear on its socket file where its address speaks TLS.
    fn is_ready(&self) -> bool {
        if self.speaks_tls() {
            let Ok(stream) = UnixStream::connect(self.data.join("twinport.sock")) else { return false };
            return stream.set_read_timeout(Some(ANSWER)).is_ok() && says_ready(stream);
        }
        let Ok(stream) = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)) else {
            return false;
        };
        stream.set_read_timeout(Some(ANSWER)).is_ok() && says_ready(stream)
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Everything that all its lives have logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Runs `twinport ARGUMENTS` against this site, as an operator does.
    ///
    /// # Errors
    /// When the program cannot be run; that it failed is in the answer.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.command();
        command.args(arguments).arg("--data").arg(&self.data);
        Ok(command.stdin(Stdio::null()).output()?)
    }

    /// [`Self::run`] with `--output json`; what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said; when it printed no JSON.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let output = self.run(&[arguments, &["--output", "json"]].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "twinport {} failed: {said}", arguments.join(" "));
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(&output.stdout)))
    }

    /// Joins `secondary` to this site under `name`, this one being called `own`.
    ///
    /// # Errors
    /// When a step fails, with what it said.
    pub fn join(&self, own: &str, secondary: &Self, name: &str) -> anyhow::Result<()> {
        self.join_at(&self.url(), own, secondary, name)
    }

    /// [`Self::join`] where the secondary reaches this site at `url`, a proxy's.
    ///
    /// # Errors
    /// When a step fails, with what it said.
    pub fn join_at(&self, url: &str, own: &str, secondary: &Self, name: &str) -> anyhow::Result<()> {
        secondary.json(&["site", "join", "--token", &self.join_token(url, own, name)?])?;
        Ok(())
    }

    /// A token with which a site called `name` joins this one, called `own`, at `url`.
    ///
    /// # Errors
    /// When `site add` fails, with what it said.
    pub fn join_token(&self, url: &str, own: &str, name: &str) -> anyhow::Result<String> {
        let added = self.json(&["site", "add", name, "--as", own, "--url", url])?;
        Ok(added["token"].as_str().context("site add prints a token")?.to_owned())
    }

    /// What a query finds in this site's database, whether the site runs or not. Nothing is written.
    ///
    /// # Errors
    /// When the database refuses; for a column that is no BIGINT, TEXT or byte string.
    pub async fn rows(&self, query: &str) -> anyhow::Result<Vec<Vec<Field>>> {
        records::rows(&self.database, &self.data, query).await
    }

    /// Changes this site's database in PostgreSQL behind its back.
    ///
    /// # Errors
    /// When the database refuses, or is SQLite.
    pub async fn alter(&self, statements: &str) -> anyhow::Result<()> {
        records::alter(&self.database, statements).await
    }

    /// Processor time that the site has used since it started, and so have its sessions in PostgreSQL, in milliseconds.
    ///
    /// # Errors
    /// When the database refuses to name its sessions.
    pub async fn processor_ms(&self) -> anyhow::Result<(u64, u64)> {
        const SESSIONS: &str =
            "SELECT CAST(pid AS BIGINT) FROM pg_stat_activity WHERE datname = current_database()";
        let mut sessions = 0;
        if let SiteDatabase::Postgres(_) = self.database {
            for row in self.rows(SESSIONS).await? {
                sessions += processor_ms_of(u32::try_from(row[0].int()?)?);
            }
        }
        Ok((self.pid().map_or(0, processor_ms_of), sessions))
    }

    /// Waits until a query for one number finds `count`.
    ///
    /// # Errors
    /// When it does not within three minutes, with what it found last and the site's log.
    pub async fn wait_for_count(&self, query: &str, count: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + CONVERGENCE;
        loop {
            let found =
                self.rows(query).await?.first().context("one row")?.first().context("a number")?.int()?;
            if usize::try_from(found) == Ok(count) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{found} instead of {count} for {query}, and the site says:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env_remove("TWINPORT_TEST_POSTGRES").env("NO_COLOR", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn log_path(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    fn store(&self) -> SharedStore {
        self.store.clone().unwrap_or_else(|| SharedStore::Directory(self.data.join("blobs")))
    }

    fn site_arguments(&self) -> anyhow::Result<Vec<String>> {
        let data = self.data.to_str().context("the data directory is UTF-8")?.to_owned();
        let mut arguments = vec!["--data".to_owned(), data, "--addr".to_owned(), self.address.to_string()];
        if let SiteDatabase::Postgres(url) = &self.database {
            let config = self.data.with_extension("yml");
            std::fs::write(&config, postgres_config(url, &self.store())?)?;
            arguments.extend(["--config".to_owned(), config.to_string_lossy().into_owned()]);
        }
        Ok(arguments)
    }
}

impl Drop for SiteProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A loopback port below those that the kernel gives to outgoing connections: one of them could take it while the
/// site is dead.
fn free_address() -> anyhow::Result<SocketAddr> {
    for _ in 0..100 {
        let address = SocketAddr::from(([127, 0, 0, 1], rand::random_range(12_000..32_000)));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port between 12000 and 32000")
}

/// User and system time of a process by the kernel's books; none once it has ended.
fn processor_ms_of(pid: u32) -> u64 {
    /// `USER_HZ` of every architecture that Linux runs servers on.
    const MS_PER_TICK: u64 = 10;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold blanks; the times are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * MS_PER_TICK
}

fn postgres_config(url: &str, store: &SharedStore) -> anyhow::Result<String> {
    let rest = url.strip_prefix("postgres://").context("a postgres:// URL")?;
    let (account, rest) = rest.split_once('@').context("a user")?;
    let (host, database) = rest.split_once('/').context("a database")?;
    let (host, port) = host.split_once(':').context("a port")?;
    let (user, password) = account.split_once(':').unwrap_or((account, ""));
    let storage = match store {
        SharedStore::Directory(root) => format!("filesystem: {{rootdirectory: {}}}", root.display()),
        SharedStore::Bucket(SiteBucket { endpoint, root, redirect }) => format!(
            "s3: {{bucket: {}, region: {}, regionendpoint: '{endpoint}', forcepathstyle: true, rootdirectory: {root}, \
             accesskey: {}, secretkey: {}}}\n  redirect: {{disable: {}}}",
            ObjectServer::BUCKET,
            ObjectServer::REGION,
            ObjectServer::ACCESS_KEY,
            ObjectServer::SECRET_KEY,
            !redirect
        ),
    };
    Ok(format!(
        "version: 0.1\nstorage:\n  {storage}\n  delete: {{enabled: true}}\n\
         database: {{enabled: true, host: {host}, port: {port}, dbname: {database}, user: {user}, \
         password: \"{password}\", sslmode: disable}}\n"
    ))
}

/// One request without a client: a connection that is refused is an answer too.
fn says_ready(mut stream: impl Read + Write) -> bool {
    let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}
