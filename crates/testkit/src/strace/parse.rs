//! strace's lines, read into calls.

use std::{collections::HashMap, io::BufRead};

use anyhow::Context as _;

use super::Call;

/// A call whose return has not been seen yet.
struct Unfinished {
    name: String,
    arguments: String,
    began: usize,
}

/// Every call that returned, by the time of its return.
pub(super) fn calls(trace: impl BufRead) -> anyhow::Result<Vec<Call>> {
    let mut unfinished: HashMap<u32, Unfinished> = HashMap::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let line = line?;
        let (pid, rest) = line.split_once(char::is_whitespace).context("a line without a process")?;
        let pid = pid.parse().with_context(|| format!("no process: {line}"))?;
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some(call) = unfinished.remove(&pid) else { continue };
            let Some((_, rest)) = resumed.split_once(" resumed>") else { continue };
            calls.extend(returned(pid, call, rest, at));
        } else if let Some((name, arguments)) = rest.split_once('(') {
            let call = Unfinished { name: name.to_owned(), arguments: String::new(), began: at };
            match arguments.strip_suffix("<unfinished ...>") {
                Some(begun) => {
                    unfinished.insert(pid, Unfinished { arguments: begun.to_owned(), ..call });
                }
                None => calls.extend(returned(pid, call, arguments, at)),
            }
        }
    }
    Ok(calls)
}

fn returned(pid: u32, call: Unfinished, rest: &str, at: usize) -> Option<Call> {
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| {
        // Short calls are padded: `fsync(3</x>)   = 0`.
        let (arguments, result) = rest.rsplit_once(" = ")?;
        Some((arguments.trim_end().strip_suffix(')')?, result))
    })?;
    Some(Call {
        pid,
        name: call.name,
        arguments: call.arguments + arguments,
        succeeded: !result.starts_with('-') && !result.starts_with('?'),
        began: call.began,
        ended: at,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TRACE: &str = r#"7  pwrite64(12</d/metadata.db-wal>, "\0\1"..., 4096, 32) = 4096
8  fdatasync(12</d/metadata.db-wal> <unfinished ...>
7  mkdirat(9</d/blobs>, "sha256/ab/cd", 0777) = -1 EEXIST (File exists)
8  <... fdatasync resumed>)          = 0
7  fsync(14</d/blobs/sha256/ab>)        = 0
7  writev(11<socket:[42]>, [{iov_base="HTTP/1.1 201 Created\r\n", iov_len=99}], 1) = 99
7  +++ exited with 0 +++
"#;

    #[test]
    fn calls_are_read_with_their_paths_and_ends() {
        let calls = calls(TRACE.as_bytes()).unwrap();
        let names: Vec<_> = calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["pwrite64", "mkdirat", "fdatasync", "fsync", "writev"]);
        assert_eq!((calls[2].began, calls[2].ended, calls[2].pid), (1, 3, 8));
        assert_eq!(calls[2].path(), Some(Path::new("/d/metadata.db-wal")));
        assert!(calls[2].is_sync() && calls[3].is_sync() && !calls[1].succeeded);
        assert_eq!(calls[3].path(), Some(Path::new("/d/blobs/sha256/ab")));
        assert!(calls[4].arguments.contains("HTTP/1.1 201"));
    }
}
