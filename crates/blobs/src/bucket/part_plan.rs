//! Of which parts a blob is put together: copies on the server's side, and small neighbours read and joined.
//! Guards: S3's limits (hazard S7): every part but the last has at least 5 MiB, none more than 5 GiB, at most 10,000.

use std::ops::Range;

/// The least that S3 takes for a part that is not the last.
pub(crate) const SMALLEST_PART: u64 = 5 << 20;
/// The most that S3 copies in one request.
pub(crate) const LARGEST_COPY: u64 = 5 << 30;
/// The most parts of an upload.
pub(crate) const MOST_PARTS: u64 = 10_000;
/// Parts that a plan aims at, so that what is rounded up stays below [`MOST_PARTS`].
const PLANNED_PARTS: u64 = 9_900;

/// A range of one of the sources, by its place in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) source: usize,
    pub(crate) range: Range<u64>,
}

/// One part of the blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// The server copies it.
    Copied(Stretch),
    /// It is read, joined and sent.
    Joined(Vec<Stretch>),
}

/// Plans the parts of sources of these lengths (bytes), copying at most `copy` bytes at a time. What is joined holds less
/// than twice the smallest part in memory: 10 MiB, and more than that only for blobs above 48 GiB.
pub(crate) fn plan(sources: &[u64], copy: u64) -> Vec<Part> {
    let total: u64 = sources.iter().sum();
    let least = SMALLEST_PART.max(total.div_ceil(PLANNED_PARTS));
    let copy = copy.clamp(2 * least, LARGEST_COPY);
    let mut planner = Planner { least, copy, parts: Vec::new(), joined: Vec::new(), held: 0 };
    for (source, &len) in sources.iter().enumerate() {
        planner.add(source, len);
    }
    planner.finish()
}

struct Planner {
    least: u64,
    copy: u64,
    parts: Vec<Part>,
    joined: Vec<Stretch>,
    held: u64,
}

impl Planner {
    fn add(&mut self, source: usize, len: u64) {
        let mut start = 0;
        if self.held > 0 || len < self.least {
            // What is held needs this much to be a part; a rest that could not be one comes along.
            let missing = self.least - self.held;
            let taken = if len < missing + self.least { len } else { missing };
            self.join(source, 0..taken);
            start = taken;
        }
        while start < len {
            let left = len - start;
            // The last two share, so that the rest is no part too small.
            let taken = if left <= self.copy { left } else { self.copy.min(left - self.least) };
            self.parts.push(Part::Copied(Stretch { source, range: start..start + taken }));
            start += taken;
        }
    }

    fn join(&mut self, source: usize, range: Range<u64>) {
        self.held += range.end - range.start;
        if range.end > range.start {
            self.joined.push(Stretch { source, range });
        }
        if self.held >= self.least {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.held = 0;
        self.parts.push(Part::Joined(std::mem::take(&mut self.joined)));
    }

    fn finish(mut self) -> Vec<Part> {
        if self.held > 0 {
            self.flush();
        }
        self.parts
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn stretches(part: &Part) -> &[Stretch] {
        match part {
            Part::Copied(stretch) => std::slice::from_ref(stretch),
            Part::Joined(stretches) => stretches,
        }
    }

    fn len(part: &Part) -> u64 {
        stretches(part).iter().map(|s| s.range.end - s.range.start).sum()
    }

    /// Every byte once and in order, within every limit.
    fn check(sources: &[u64], copy: u64) -> Vec<Part> {
        let parts = plan(sources, copy);
        assert!(parts.len() as u64 <= MOST_PARTS, "{} parts", parts.len());
        let (mut source, mut at) = (0, 0);
        for (number, part) in parts.iter().enumerate() {
            let len = len(part);
            assert!(len <= LARGEST_COPY && len > 0);
            assert!(len >= SMALLEST_PART || number + 1 == parts.len(), "part {number} has {len} bytes");
            for stretch in stretches(part) {
                while at == sources[source] {
                    (source, at) = (source + 1, 0);
                }
                assert_eq!((stretch.source, stretch.range.start), (source, at));
                at = stretch.range.end;
            }
        }
        let covered: u64 = parts.iter().map(len).sum();
        assert_eq!(covered, sources.iter().sum::<u64>());
        parts
    }

    #[test]
    fn s7_more_than_10_000_small_chunks_become_parts_that_s3_takes() {
        let parts = check(&vec![300_000; 12_345], 32 * MIB);
        assert!(parts.iter().all(|part| matches!(part, Part::Joined(_)) && len(part) < 10 * MIB));
        // So many of 6 MiB are more than 10,000 parts, if each were one.
        check(&vec![6 * MIB; 20_000], 32 * MIB);
        check(&vec![1; 70_000], 32 * MIB);
    }

    #[test]
    fn s7_what_is_larger_than_one_copy_may_be_is_copied_in_parts() {
        for size in [5 * MIB, 33 * MIB, 64 * MIB + 1, (5 << 30) + 1, 12 << 30, 5 << 40] {
            let parts = check(&[size], 32 * MIB);
            assert!(parts.iter().all(|part| matches!(part, Part::Copied(_))));
        }
        assert_eq!(check(&[33 * MIB], 32 * MIB).len(), 2);
    }

    #[test]
    fn small_neighbours_of_large_segments_borrow_from_them() {
        let parts = check(&[100, 40 * MIB, 7, 3 * MIB, 6 * MIB, 1], 32 * MIB);
        assert!(parts.iter().any(|part| matches!(part, Part::Copied(_))));
        check(&[0, 10 * MIB, 0, 3, 0], 32 * MIB);
        assert_eq!(check(&[], 32 * MIB), []);
    }

    #[test]
    fn any_mixture_of_segments_is_within_the_limits() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        for _ in 0..500 {
            let mut sources = vec![0; rng.random_range(1..60)];
            for len in &mut sources {
                let most = 1u64 << rng.random_range(0..30);
                *len = rng.random_range(0..=most);
            }
            check(&sources, rng.random_range(5 * MIB..64 * MIB));
        }
    }
}
