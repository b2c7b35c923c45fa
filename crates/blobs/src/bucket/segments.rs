//! The segments that a spool is made of: immutable objects, each named by where it begins and ends and by what came
//! before those points. The [`Progress`](crate::Progress) that a session row holds decides which of them count.
//! Guards: whoever reads a chain of segments reads exactly the bytes whose hash state the row holds; a writer that
//! lost, one that finishes late and one that was dropped leave only segments that are in nobody's chain (hazard S9).

use std::collections::{HashMap, HashSet};
use std::fmt;

use twinport_oci::{Digest, Hasher};
use uuid::Uuid;

const SHOWN: usize = 32;

/// Stands for all bytes before an offset: the beginning (128 bits) of their digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fingerprint(String);

impl Fingerprint {
    pub(crate) fn of(hasher: &Hasher) -> Self {
        Self::of_digest(&hasher.clone().finish())
    }

    pub(crate) fn of_digest(digest: &Digest) -> Self {
        let mut hex = digest.hex().to_string();
        hex.truncate(SHOWN);
        Self(hex)
    }

    fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == SHOWN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_hex.then(|| Self(text.to_owned()))
    }
}

/// A place in an upload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) offset: u64,
    pub(crate) fingerprint: Fingerprint,
}

impl Mark {
    pub(crate) fn of(progress: &crate::Progress) -> Self {
        Self { offset: progress.offset, fingerprint: Fingerprint::of(&progress.hasher) }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.offset, self.fingerprint.0)
    }
}

/// A stretch of an upload. Its name begins with its end, so that one listing of one key tells whether a place exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) start: Mark,
    pub(crate) end: Mark,
    /// Where the bytes are when they came in parts, whose key had to be known before their end was.
    pub(crate) long: Option<Uuid>,
    /// When it was written, in µs since the epoch by the bucket's clock.
    pub(crate) written_us: i64,
}

impl Segment {
    pub(crate) fn name(&self) -> String {
        let Self { start, end, long, .. } = self;
        match long {
            None => format!("{end}-{start}"),
            Some(long) => format!("{end}-{start}-{}", long.simple()),
        }
    }

    pub(crate) fn parse(name: &str, written_us: i64) -> Option<Self> {
        let mut words = name.split('-');
        let mut mark = || {
            let offset = u64::from_str_radix(words.next()?, 16).ok()?;
            Some(Mark { offset, fingerprint: Fingerprint::parse(words.next()?)? })
        };
        let (end, start) = (mark()?, mark()?);
        let long = words.next().map(Uuid::try_parse).transpose().ok()?;
        let segment = Self { start, end, long, written_us };
        (segment.start.offset <= segment.end.offset && segment.name() == name).then_some(segment)
    }

    /// Where its bytes are, as a name in the spool.
    pub(crate) fn data_name(&self) -> String {
        self.long.map_or_else(|| self.name(), |long| long_name(&long))
    }

    pub(crate) fn len(&self) -> u64 {
        self.end.offset - self.start.offset
    }
}

/// The name of the object that takes the parts of a long segment.
pub(crate) fn long_name(long: &Uuid) -> String {
    format!("long-{}", long.simple())
}

/// All segments of one spool.
#[derive(Debug, Default)]
pub(crate) struct Segments(pub(crate) Vec<Segment>);

impl Segments {
    /// The segments that lead from the beginning to `end`, in order; none where some are missing.
    pub(crate) fn chain_to(&self, end: &Mark) -> Option<Vec<&Segment>> {
        let mut by_end: HashMap<&Mark, Vec<&Segment>> = HashMap::new();
        for segment in &self.0 {
            by_end.entry(&segment.end).or_default().push(segment);
        }
        // Depth first from the end; of the segments that end at one place, each leads through the same bytes.
        let mut seen = HashSet::from([end]);
        let mut path: Vec<&Segment> = Vec::new();
        let mut untried = vec![by_end.get(end).cloned().unwrap_or_default()];
        while let Some(candidates) = untried.last_mut() {
            let Some(segment) = candidates.pop() else {
                untried.pop();
                path.pop();
                continue;
            };
            if segment.start.offset == 0 {
                path.push(segment);
                path.reverse();
                return Some(path);
            }
            if seen.insert(&segment.start) {
                path.push(segment);
                untried.push(by_end.get(&segment.start).cloned().unwrap_or_default());
            }
        }
        None
    }

    /// Every place that some chain reaches, and when its last segment was written.
    pub(crate) fn ends(&self) -> Vec<(&Mark, i64)> {
        let mut sorted: Vec<&Segment> = self.0.iter().collect();
        sorted.sort_unstable_by_key(|segment| (segment.start.offset, segment.end.offset));
        let mut reached: HashMap<&Mark, i64> = HashMap::new();
        // Twice: two bridges at one offset may come in the wrong order.
        for segment in sorted.iter().chain(&sorted) {
            if segment.start.offset == 0 || reached.contains_key(&segment.start) {
                let written = reached.entry(&segment.end).or_insert(segment.written_us);
                *written = segment.written_us.max(*written);
            }
        }
        reached.into_iter().collect()
    }

    /// The furthest offset that a chain reaches; none where there is no chain.
    pub(crate) fn reach(&self) -> Option<u64> {
        self.ends().into_iter().map(|(mark, _)| mark.offset).max()
    }
}

#[cfg(test)]
mod tests {
    use twinport_oci::Algorithm;

    use super::*;

    fn mark(bytes: &str) -> Mark {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes.as_bytes());
        Mark { offset: bytes.len() as u64, fingerprint: Fingerprint::of(&hasher) }
    }

    fn segment(from: &str, to: &str) -> Segment {
        Segment { start: mark(from), end: mark(to), long: None, written_us: 0 }
    }

    #[test]
    fn a_name_is_read_back_and_nothing_else_is() {
        let short = segment("a", "abc");
        let long = Segment { long: Some(Uuid::from_u128(5)), ..short.clone() };
        for segment in [short, long] {
            assert_eq!(Segment::parse(&segment.name(), 0), Some(segment));
        }
        let backwards = Segment { start: mark("abc"), end: mark("a"), long: None, written_us: 0 }.name();
        for stranger in ["", "long-0", "0-0-0-0", &backwards] {
            assert_eq!(Segment::parse(stranger, 0), None, "{stranger}");
        }
    }

    #[test]
    fn s9_segments_of_writers_that_lost_are_in_no_chain() {
        let all = Segments(vec![
            segment("", "first "),
            segment("first ", "first, a longer second"),
            segment("first ", "first third"),
            segment("first third", "first third and fourth"),
            // What follows a segment that never came.
            segment("first, a longer second and", "first, a longer second and more"),
        ]);
        let chain = all.chain_to(&mark("first third and fourth")).unwrap();
        assert_eq!(chain.iter().map(|s| s.len()).collect::<Vec<_>>(), [6, 5, 11]);
        assert_eq!(all.chain_to(&mark("first, a longer second and more")), None);
        assert_eq!(all.chain_to(&mark("other third and fourth")), None);
        assert_eq!(all.reach(), Some(22));
    }

    #[test]
    fn a_bridge_leads_from_one_algorithm_to_the_other_and_an_empty_spool_is_a_chain() {
        let mut other = Hasher::new(Algorithm::Sha512);
        other.update(b"abc");
        let far = Mark { offset: 3, fingerprint: Fingerprint::of(&other) };
        let bridge = Segment { start: mark("abc"), end: far.clone(), long: None, written_us: 0 };
        let all = Segments(vec![bridge, segment("", "abc"), segment("abc", "abc")]);
        assert_eq!(all.chain_to(&far).unwrap().iter().map(|s| s.len()).sum::<u64>(), 3);
        let empty = Segments(vec![segment("", "")]);
        assert_eq!((empty.reach(), empty.chain_to(&mark("")).map(|c| c.len())), (Some(0), Some(1)));
        assert_eq!(Segments::default().reach(), None);
    }
}
