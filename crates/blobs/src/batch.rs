//! Bytes gathered from a body until writing and hashing them is worth a hop to the blocking pool.
//! Guards: what one upload holds in memory shrinks as more uploads run, so the process stays bounded.

use bytes::{Bytes, BytesMut};

/// Bytes that all uploads together may gather; each holds at most two batches of its share.
const BUDGET: usize = 32 << 20;
/// With half as much, and half the read buffer, 4 uploads of 256 MiB take a seventh more processor time and a third less memory.
const LARGEST: usize = 512 << 10;
const SMALLEST: usize = 16 << 10;
/// Pieces below this size are copied together, so that a body of tiny frames does not become a list of them.
const PIECE: usize = 4 << 10;

/// The size in bytes at which a batch is handed over while `uploads` are running; a power of two.
pub(crate) fn target(uploads: usize) -> usize {
    let share = (BUDGET / 2 / uploads.max(1)).clamp(SMALLEST, LARGEST);
    1 << share.ilog2()
}

/// Consecutive bytes of a body, as the pieces they came in.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pieces: Vec<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if piece.len() < PIECE {
            self.tail.extend_from_slice(&piece);
            return;
        }
        self.seal();
        self.pieces.push(piece);
    }

    /// Keeps the first `len` bytes, which it has; the rest begins another batch.
    pub(crate) fn split_off(&mut self, len: usize) -> Self {
        self.seal();
        let (mut kept, mut at) = (Vec::with_capacity(self.pieces.len()), 0);
        let mut rest = Self::default();
        for mut piece in self.pieces.drain(..) {
            let room = len - at;
            if piece.len() > room {
                let more = piece.split_off(room);
                rest.len += more.len();
                rest.pieces.push(more);
            }
            at += piece.len();
            if !piece.is_empty() {
                kept.push(piece);
            }
        }
        (self.pieces, self.len) = (kept, at);
        rest
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }

    /// The pieces in order. Sealing first keeps a reader from needing mutable access.
    pub(crate) fn into_pieces(mut self) -> Pieces {
        self.seal();
        Pieces { pieces: self.pieces, len: self.len }
    }
}

/// A batch that is complete.
#[derive(Debug)]
pub(crate) struct Pieces {
    pieces: Vec<Bytes>,
    len: usize,
}

impl Pieces {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_their_order_and_small_ones_are_joined() {
        let mut batch = Batch::default();
        let large = vec![7u8; PIECE];
        for piece in [&b"a"[..], b"b", &large, b"c"] {
            batch.push(Bytes::copy_from_slice(piece));
        }
        assert_eq!(batch.len(), PIECE + 3);
        let pieces = batch.into_pieces();
        let lens: Vec<_> = pieces.iter().map(Bytes::len).collect();
        assert_eq!(lens, [2, PIECE, 1]);
        assert_eq!(pieces.iter().flatten().count(), pieces.len());
    }

    #[test]
    fn a_batch_is_cut_within_a_piece_and_between_pieces() {
        let whole: Vec<u8> = (0..=255).cycle().take(4 * PIECE).collect();
        for cut in [0, 1, PIECE, PIECE + 1, 4 * PIECE - 1, 4 * PIECE] {
            let mut first = Batch::default();
            whole.chunks(PIECE).for_each(|piece| first.push(Bytes::copy_from_slice(piece)));
            let mut rest = first.split_off(cut);
            assert_eq!((first.len(), rest.len()), (cut, whole.len() - cut));
            rest.push(Bytes::from_static(b"more"));
            let bytes = |batch: Batch| batch.into_pieces().iter().flatten().copied().collect::<Vec<u8>>();
            assert_eq!([bytes(first), bytes(rest)].concat(), [&whole[..], b"more"].concat());
        }
    }

    #[test]
    fn all_uploads_together_stay_within_the_budget() {
        for uploads in [1, 2, 64, 500] {
            assert!(2 * target(uploads) * uploads <= BUDGET.max(2 * SMALLEST * uploads), "{uploads}");
        }
        assert_eq!(target(0), LARGEST);
    }
}
