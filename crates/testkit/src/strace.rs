//! What processes ask of the kernel, in order, watched by strace.
//! Guards: a call counts as done only where strace saw it return, however many threads are in between.

mod parse;

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};

/// Calls that change files, make them durable, or talk over sockets.
const CALLS: &str = "trace=open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,fsync,fdatasync,\
    sync_file_range,syncfs,msync,link,linkat,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,sendto,sendmsg";

/// One system call that returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub pid: u32,
    pub name: String,
    /// As strace prints them: descriptors with their paths, at most the first bytes of a buffer.
    pub arguments: String,
    pub succeeded: bool,
    /// Where in the trace it began and returned; larger is later, over all processes.
    pub began: usize,
    pub ended: usize,
}

impl Call {
    /// The path of the file that the first argument, a descriptor, stands for.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        let (_, rest) = self.arguments.split_once('<')?;
        let first = self.arguments.find([',', '<'])?;
        (self.arguments.as_bytes()[first] == b'<')
            .then(|| rest.split_once('>'))
            .flatten()
            .map(|(path, _)| Path::new(path))
    }

    /// Whether it writes to an open file or socket.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self.name.as_str(), "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" | "ftruncate")
    }

    /// Whether it makes a file or a directory durable.
    #[must_use]
    pub fn is_sync(&self) -> bool {
        self.succeeded && matches!(self.name.as_str(), "fsync" | "fdatasync")
    }
}

/// A strace that is attached to processes.
#[derive(Debug)]
pub struct Strace {
    tracer: Child,
    output: PathBuf,
}

impl Strace {
    /// Whether strace is installed.
    #[must_use]
    pub fn is_installed() -> bool {
        let version = Command::new("strace").arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }

    /// Watches processes with all their threads and children from now on; `output` gets what strace writes.
    ///
    /// # Errors
    /// When strace cannot attach to one of them.
    pub fn attach(processes: &[u32], output: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("strace");
        // A COMMIT may travel at the end of what it commits.
        command.args(["-f", "-y", "-s", "16384", "-e", CALLS, "-e", "signal=none", "-o"]).arg(output);
        for process in processes {
            command.arg("-p").arg(process.to_string());
        }
        let mut tracer =
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot run strace")?;
        let said = tracer.stderr.take().context("a pipe")?;
        let mut attached = 0;
        let mut lines = BufReader::new(said).lines();
        while attached < processes.len() {
            let line = lines.next().with_context(|| format!("strace attached to {attached} processes"))??;
            ensure!(line.contains("attached"), "strace: {line}");
            attached +=
                usize::from(processes.iter().any(|pid| line.contains(&format!("Process {pid} attached"))));
        }
        // strace must never wait for somebody to read what it says.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(Self { tracer, output: output.to_owned() })
    }

    /// Lets the processes go; what they did meanwhile.
    ///
    /// # Errors
    /// When strace does not end, or has written something that cannot be read.
    pub fn finish(mut self) -> anyhow::Result<Vec<Call>> {
        let pid = i32::try_from(self.tracer.id())?;
        let pid = rustix::process::Pid::from_raw(pid).context("a process has a pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        self.tracer.wait()?;
        parse::calls(BufReader::new(File::open(&self.output)?))
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // SIGKILL would stop the watched processes for good: a tracer lets go on SIGTERM.
        if let Ok(None) = self.tracer.try_wait()
            && let Some(pid) = i32::try_from(self.tracer.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = self.tracer.wait();
        }
    }
}

/// The PostgreSQL server behind a URL: its postmaster, its backends and its WAL writer, on this machine.
///
/// # Errors
/// When it does not answer, or `/proc` cannot be read.
pub async fn postgres_processes(url: &str) -> anyhow::Result<Vec<u32>> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let backend = u32::try_from(backend)?;
    let server = parent_of(backend).context("the server does not run on this machine")?;
    drop(client);
    connection.await??;
    let mut processes = vec![server];
    for entry in std::fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        processes.extend(pid.filter(|&pid| pid != backend && parent_of(pid) == Some(server)));
    }
    Ok(processes)
}

/// The parent of a process; none where it is gone.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; after it come the state and the parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
