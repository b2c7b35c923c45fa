//! A PostgreSQL server of a test run's own, and a database for each test in it.
//! Guards: the server and its data are gone when the test process is, however that ends.

use std::{
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};

/// Holds the URL of a superuser's database on loopback, where tests should use a server that runs already.
pub const POSTGRES_VARIABLE: &str = "TWINPORT_TEST_POSTGRES";

/// How long `initdb` and the first start may take together.
const START: Duration = Duration::from_secs(120);

/// Ends with its standard input: the pipe that the test process holds, and that closes when it dies.
const SERVE: &str = r#"
"$bin/initdb" --pgdata="$dir/data" --username=postgres --auth=trust --encoding=UTF8 --no-sync \
  --locale=C --locale-provider=icu --icu-locale=en-US >"$dir/server.log" 2>&1 || { touch "$dir/ended"; exit 1; }
{ "$bin/postgres" -D "$dir/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$dir" \
  -c fsync=on -c synchronous_commit=on -c max_connections=300 >>"$dir/server.log" 2>&1; touch "$dir/ended"; } &
read -r _
kill -s QUIT "$(head -n 1 "$dir/data/postmaster.pid")"
wait
rm -rf "$dir"
"#;

/// A running server with `fsync` on, on a loopback port, sorting text by a language's rules rather than by bytes.
#[derive(Debug)]
pub struct TemporaryPostgres {
    url: String,
    /// Its standard input is what keeps the server alive.
    _supervisor: Child,
}

impl TemporaryPostgres {
    /// Starts a server; `None` where PostgreSQL is not installed.
    ///
    /// # Errors
    /// When it is installed and does not start; the text has the server's log.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let Some(programs) = server_programs() else { return Ok(None) };
        let directory = tempfile::Builder::new().prefix("twinport-postgres.").tempdir()?.keep();
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", SERVE])
            .env("bin", &programs)
            .env("dir", &directory)
            .env("port", port.to_string())
            .current_dir(&directory)
            .stdin(Stdio::piped());
        if rustix::process::geteuid().is_root() {
            // The server refuses to run as root.
            let (user, group) = ids_of("postgres")?;
            chown(&directory, Some(user), Some(group))?;
            shell.uid(user).gid(group);
        }
        let supervisor = shell.spawn().context("cannot run sh")?;
        wait_until_ready(&directory)?;
        Ok(Some(Self {
            url: format!("postgres://postgres@127.0.0.1:{port}/postgres"),
            _supervisor: supervisor,
        }))
    }

    /// A superuser's URL of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// The server of this test run: the one in [`POSTGRES_VARIABLE`], else one started for this process. `None`
/// where there is neither, which the caller reports as a skip.
///
/// # Panics
/// When an installed server does not start: a test that silently skipped would hide it.
#[must_use]
pub fn postgres_url() -> Option<&'static str> {
    static URL: OnceLock<Option<String>> = OnceLock::new();
    static STARTED: OnceLock<TemporaryPostgres> = OnceLock::new();
    URL.get_or_init(|| {
        if let Ok(url) = std::env::var(POSTGRES_VARIABLE)
            && !url.is_empty()
        {
            return Some(url);
        }
        let server = TemporaryPostgres::start().expect("PostgreSQL is installed, so it starts")?;
        Some(STARTED.get_or_init(|| server).url().to_owned())
    })
    .as_deref()
}

/// Makes an empty database and gives its URL; `None` where there is no server.
///
/// # Errors
/// When the server refuses.
pub async fn postgres_database() -> anyhow::Result<Option<String>> {
    let Some(server) = tokio::task::spawn_blocking(postgres_url).await? else { return Ok(None) };
    let (client, connection) = tokio_postgres::connect(server, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let name = format!("twinport_{:016x}", rand::random::<u64>());
    client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await?;
    drop(client);
    connection.await??;
    let (address, _) =
        server.rsplit_once('/').ok_or_else(|| anyhow!("{POSTGRES_VARIABLE} names no database"))?;
    Ok(Some(format!("{address}/{name}")))
}

/// The directory of `initdb` and `postgres`: the newest that is installed, 15 or later.
pub(crate) fn server_programs() -> Option<PathBuf> {
    let packaged = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = packaged
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(version, programs)| *version >= 15 && programs.join("initdb").is_file())
        .max()
        .map(|(_, programs)| programs);
    let path = std::env::var_os("PATH").unwrap_or_default();
    newest.or_else(|| std::env::split_paths(&path).find(|programs| programs.join("initdb").is_file()))
}

pub(crate) fn ids_of(user: &str) -> anyhow::Result<(u32, u32)> {
    let accounts = std::fs::read_to_string("/etc/passwd")?;
    let account = accounts
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&user) && fields.len() > 3)
        .with_context(|| format!("there is no user {user} to run the server as"))?;
    Ok((account[2].parse()?, account[3].parse()?))
}

/// A loopback port below those that the kernel gives to outgoing connections: one of them could take it while a server is
/// stopped.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    for _ in 0..100 {
        let port = rand::random_range(12_000..32_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(anyhow!("no free port between 12000 and 32000"))
}

fn wait_until_ready(directory: &Path) -> anyhow::Result<()> {
    let pid_file = directory.join("data/postmaster.pid");
    let deadline = Instant::now() + START;
    loop {
        // The eighth line is the server's state.
        let state = std::fs::read_to_string(&pid_file).unwrap_or_default();
        if state.lines().nth(7).is_some_and(|state| state.trim() == "ready") {
            return Ok(());
        }
        let log = || std::fs::read_to_string(directory.join("server.log")).unwrap_or_default();
        ensure!(!directory.join("ended").is_file(), "the PostgreSQL server did not start:\n{}", log());
        ensure!(Instant::now() < deadline, "the PostgreSQL server did not get ready:\n{}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
}
