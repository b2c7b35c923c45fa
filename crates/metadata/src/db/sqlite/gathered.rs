//! Writes of a file that follow one another, on their way to it as one.

/// Bytes gathered at most: they are in the processor's cache still when they are written.
const MOST: usize = 64 << 10;
/// Before each page in SQLite's write-ahead log: <https://www.sqlite.org/fileformat2.html#walformat>.
const FRAME_HEADER: usize = 24;

/// Bytes that belong to a file from an offset on.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
    start: i64,
    /// The header of a commit's last page was added, and not yet the page.
    commit_begun: bool,
}

/// What a write that was added asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Gather,
    /// A commit is complete: others may read it as soon as this is in the file.
    Write,
}

impl Gathered {
    /// Whether a write continues what is there, and there is room for it.
    pub(super) fn takes(&self, piece: &[u8], offset: i64) -> bool {
        let follows = self.bytes.is_empty() || offset == self.start + self.bytes.len() as i64;
        follows && self.bytes.len() + piece.len() <= MOST
    }

    /// Adds a write that [`Self::takes`].
    pub(super) fn add(&mut self, piece: &[u8], offset: i64) -> Next {
        let is_first = self.bytes.is_empty();
        if is_first {
            self.start = offset;
        }
        self.bytes.extend_from_slice(piece);
        let ends_commit = std::mem::replace(&mut self.commit_begun, begins_commit(piece));
        // Where pages were written before their transaction ended, headers are written anew, without the pages.
        let may_be_anew = is_first && self.commit_begun;
        if ends_commit || may_be_anew { Next::Write } else { Next::Gather }
    }

    /// What is to be written, and where; it is forgotten, written or not.
    pub(super) fn take(&mut self, write: impl FnOnce(&[u8], i64) -> i32) -> i32 {
        if self.bytes.is_empty() {
            return 0;
        }
        let written = write(&self.bytes, self.start);
        self.bytes.clear();
        written
    }
}

/// A frame's header says in its second number how many pages the database has after the commit that the frame ends; zero in
/// any other frame.
fn begins_commit(piece: &[u8]) -> bool {
    piece.len() == FRAME_HEADER && piece[4..8] != [0; 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: [u8; 512] = [7; 512];

    fn header(pages_after_commit: u8) -> [u8; FRAME_HEADER] {
        let mut header = [1; FRAME_HEADER];
        header[4..8].copy_from_slice(&[0, 0, 0, pages_after_commit]);
        header
    }

    fn taken(gathered: &mut Gathered) -> Option<(Vec<u8>, i64)> {
        let mut all = None;
        gathered.take(|bytes, start| {
            all = Some((bytes.to_vec(), start));
            0
        });
        all
    }

    #[test]
    fn writes_that_follow_one_another_become_one_and_a_commit_ends_it() {
        let mut gathered = Gathered::default();
        let mut offset = 32;
        for (piece, next) in [
            (&header(0)[..], Next::Gather),
            (&PAGE, Next::Gather),
            (&header(9), Next::Gather),
            (&PAGE, Next::Write),
        ] {
            assert!(gathered.takes(piece, offset));
            assert_eq!(gathered.add(piece, offset), next);
            offset += piece.len() as i64;
        }
        let whole = [&header(0)[..], &PAGE, &header(9), &PAGE].concat();
        assert_eq!(taken(&mut gathered), Some((whole, 32)));
        assert_eq!(taken(&mut gathered), None);
    }

    #[test]
    fn the_header_of_a_commit_that_is_written_anew_does_not_wait_for_a_page() {
        let mut gathered = Gathered::default();
        assert_eq!(gathered.add(&header(0), 32), Next::Gather);
        taken(&mut gathered);
        assert_eq!(gathered.add(&header(9), 568), Next::Write);
        taken(&mut gathered);
        assert_eq!(gathered.add(&PAGE, 568 + 24), Next::Write);
    }

    #[test]
    fn a_write_elsewhere_or_too_long_is_not_taken() {
        let mut gathered = Gathered::default();
        assert!(gathered.takes(&PAGE, 99));
        gathered.add(&PAGE, 99);
        assert!(gathered.takes(&PAGE, 99 + 512));
        for elsewhere in [0, 99, 99 + 511, 99 + 513] {
            assert!(!gathered.takes(&PAGE, elsewhere), "{elsewhere}");
        }
        assert!(gathered.takes(&vec![0; MOST - 512], 99 + 512));
        assert!(!gathered.takes(&vec![0; MOST - 511], 99 + 512));
    }

    #[test]
    fn what_could_not_be_written_is_not_written_later() {
        let mut gathered = Gathered::default();
        gathered.add(&PAGE, 0);
        assert_eq!(gathered.take(|_, _| 13), 13);
        assert_eq!(taken(&mut gathered), None);
    }
}
