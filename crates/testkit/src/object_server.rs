//! S3 servers of a test run's own: MinIO and versitygw, each on a free loopback port with one bucket.
//! Guards: a server and its data are gone when the test process is, however that ends.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

/// How long a start may take on a loaded machine.
const START: Duration = Duration::from_secs(60);

/// Ends with its standard input: the pipe that the test process holds, and that closes when it dies.
const SERVE: &str = r#"
"$@" >"$dir/server.log" 2>&1 & server=$!
read -r _
kill "$server"
wait "$server"
rm -rf "$dir"
"#;

/// A server that speaks S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectServerKind {
    MinIo,
    Versity,
}

impl ObjectServerKind {
    /// The program's name.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::MinIo => "minio",
            Self::Versity => "versitygw",
        }
    }
}

/// A running server with one bucket, in which each test takes a prefix of its own.
#[derive(Debug)]
pub struct ObjectServer {
    address: SocketAddr,
    data: PathBuf,
    /// Its standard input is what keeps the server alive.
    _supervisor: Child,
}

impl ObjectServer {
    pub const BUCKET: &str = "layers";
    pub const REGION: &str = "us-east-1";
    pub const ACCESS_KEY: &str = "testing1";
    pub const SECRET_KEY: &str = "testing1secret";

    /// Starts a server; `None` where its program is not installed.
    ///
    /// # Errors
    /// When it is installed and does not start; the text has its log.
    pub fn start(kind: ObjectServerKind) -> anyhow::Result<Option<Self>> {
        let Some(program) = find(kind.program()) else { return Ok(None) };
        let directory = tempfile::Builder::new().prefix("twinport-objects.").tempdir()?.keep();
        // Both servers take a directory for a bucket.
        let data = directory.join("data");
        std::fs::create_dir_all(data.join(Self::BUCKET))?;
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut shell = Command::new("sh");
        shell.args(["-c", SERVE, "sh"]).arg(program).env("dir", &directory).stdin(Stdio::piped());
        match kind {
            ObjectServerKind::MinIo => shell
                .args(["server", "--quiet", "--address", &address.to_string()])
                .arg(&data)
                .env("MINIO_ROOT_USER", Self::ACCESS_KEY)
                .env("MINIO_ROOT_PASSWORD", Self::SECRET_KEY)
                .envs([("MINIO_UPDATE", "off"), ("MINIO_BROWSER", "off")]),
            ObjectServerKind::Versity => shell
                .args(["--port", &address.to_string(), "--quiet", "posix"])
                .arg(&data)
                .env("ROOT_ACCESS_KEY", Self::ACCESS_KEY)
                .env("ROOT_SECRET_KEY", Self::SECRET_KEY),
        };
        let supervisor = shell.spawn().context("cannot run sh")?;
        wait_until_ready(address, &directory)?;
        Ok(Some(Self { address, data, _supervisor: supervisor }))
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the server keeps the bucket: a path for each key, in a form of its own.
    #[must_use]
    pub fn bucket_folder(&self) -> PathBuf {
        self.data.join(Self::BUCKET)
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// The server of this test run; `None`, with a line that says so, where its program is not installed.
///
/// # Panics
/// When an installed server does not start: a test that silently skipped would hide it.
#[must_use]
pub fn object_server(kind: ObjectServerKind) -> Option<&'static ObjectServer> {
    static MINIO: OnceLock<Option<ObjectServer>> = OnceLock::new();
    static VERSITY: OnceLock<Option<ObjectServer>> = OnceLock::new();
    let server = match kind {
        ObjectServerKind::MinIo => &MINIO,
        ObjectServerKind::Versity => &VERSITY,
    };
    let server =
        server.get_or_init(|| ObjectServer::start(kind).expect("it is installed, so it starts")).as_ref();
    if server.is_none() {
        eprintln!("skip tests on {}: it is not installed, scripts/install-tools does it", kind.program());
    }
    server
}

/// On the path, or where `scripts/install-tools` puts it.
fn find(program: &str) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let cache = variable("TWINPORT_CACHE").or_else(|| Some(home()?.join("twinport")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(cache.map(|cache| cache.join("bin")));
    folders.map(|folder| folder.join(program)).find(|program| program.is_file())
}

/// Any answer to a request without credentials is one of a server that is up; MinIO says 503 before it is.
fn wait_until_ready(address: SocketAddr, directory: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    while !answers(address) {
        let log = || std::fs::read_to_string(directory.join("server.log")).unwrap_or_default();
        ensure!(Instant::now() < deadline, "the S3 server did not get ready:\n{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn answers(address: SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
    let request =
        format!("GET /{} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n", ObjectServer::BUCKET);
    let mut answer = String::new();
    let asked = stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
        && stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok();
    asked && answer.starts_with("HTTP/1.1 403")
}
