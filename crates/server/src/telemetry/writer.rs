//! Log lines leave through a thread of their own, so that a slow terminal or a full pipe never holds a request.
//! Invariant: memory is bounded; lines that do not fit are counted, and the count is written.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Lines waiting at most.
const QUEUE: usize = 4096;
/// How long lines gather before they are written together: to wake this thread for each costs a busy site more than to
/// format it.
const GATHER: Duration = Duration::from_millis(5);

enum Message {
    Line(Vec<u8>),
    End,
}

/// Makes a writer per line.
#[derive(Clone)]
pub(super) struct LineWriter {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    mark: Option<Arc<Mark>>,
}

/// What every line says of where it comes from.
pub(super) enum Mark {
    /// A first member of each line's object.
    Json(String),
    /// A last field of each line.
    Text(String),
}

impl Mark {
    pub(super) fn json(node: &str) -> Self {
        Self::Json(format!("{{\"node\":{},", serde_json::Value::from(node)))
    }

    pub(super) fn text(node: &str) -> Self {
        Self::Text(format!(" node={}", node.escape_debug()))
    }

    fn put(&self, line: &mut Vec<u8>) {
        match self {
            Self::Json(mark) if line.starts_with(b"{") => drop(line.splice(..1, mark.bytes())),
            Self::Text(mark) if line.ends_with(b"\n") => {
                let end = line.len() - 1;
                drop(line.splice(end..end, mark.bytes()));
            }
            Self::Json(_) | Self::Text(_) => {}
        }
    }
}

/// Ends the thread, after everything queued was written.
pub(super) struct WriterGuard {
    queue: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl LineWriter {
    pub(super) fn start(output: impl Write + Send + 'static, mark: Option<Mark>) -> (Self, WriterGuard) {
        let (queue, lines) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = dropped.clone();
        let spawned =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || write(output, &lines, &counted));
        let guard = WriterGuard { queue: queue.clone(), thread: spawned.ok() };
        (Self { queue, dropped, mark: mark.map(Arc::new) }, guard)
    }
}

fn write(output: impl Write, lines: &Receiver<Message>, dropped: &AtomicU64) {
    let mut output = io::BufWriter::with_capacity(64 * 1024, output);
    while let Ok(message) = lines.recv() {
        if matches!(message, Message::Line(_)) {
            std::thread::sleep(GATHER);
        }
        let mut next = Some(message);
        while let Some(message) = next {
            match message {
                // Nowhere is left to report that standard error is gone.
                Message::Line(line) => drop(output.write_all(&line)),
                Message::End => return drop(output.flush()),
            }
            next = lines.try_recv().ok();
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            drop(writeln!(output, "{lost} log lines were dropped: standard error is slower than the log"));
        }
        drop(output.flush());
    }
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        drop(self.queue.send(Message::End));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { writer: self, bytes: Vec::new() }
    }
}

/// One line, sent when it is complete.
pub(super) struct Line<'a> {
    writer: &'a LineWriter,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let mut line = std::mem::take(&mut self.bytes);
        if let Some(mark) = &self.writer.mark {
            mark.put(&mut line);
        }
        let line = Message::Line(line);
        if let Err(TrySendError::Full(_)) = self.writer.queue.try_send(line) {
            self.writer.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<parking_lot::Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_queued_line_is_written_before_the_guard_is_gone() {
        let output = Shared::default();
        let (writer, guard) = LineWriter::start(output.clone(), None);
        for n in 0..100 {
            writeln!(writer.make_writer(), "line {n}").unwrap();
        }
        drop(guard);
        let text = String::from_utf8(output.0.lock().clone()).unwrap();
        assert_eq!(text.lines().count(), 100);
        assert!(text.ends_with("line 99\n"));
    }

    #[test]
    fn lines_name_their_node_in_either_form() {
        for (mark, line, marked) in [
            (
                Mark::json("a \"b\""),
                "{\"level\":\"INFO\"}\n",
                "{\"node\":\"a \\\"b\\\"\",\"level\":\"INFO\"}\n",
            ),
            (Mark::text("one"), "INFO serving\n", "INFO serving node=one\n"),
        ] {
            let output = Shared::default();
            let (writer, guard) = LineWriter::start(output.clone(), Some(mark));
            write!(writer.make_writer(), "{line}").unwrap();
            drop(guard);
            assert_eq!(String::from_utf8(output.0.lock().clone()).unwrap(), marked);
        }
    }
}
