//! One entry of a journal, as bytes: what was stored or removed, and by its checks whether all of it arrived.
//! Guards: what a crash cut off, and what an earlier filling of the same file left behind, are never read as entries.
//!
//! ```text
//! magic 8 · epoch 8 · kind 1 · key length 1 · zero 2 · byte length 4 · put's id 16 · check 8 · digest's key · bytes
//! ```
//! Numbers are little-endian. The check is the beginning of the SHA-256 of everything before it and of the key; the bytes
//! are checked by their own digest.

use bytes::Bytes;
use twinport_oci::Digest;
use uuid::Uuid;

const MAGIC: [u8; 8] = *b"twpjrnl1";
const CHECKED: usize = 40;
/// Bytes before the key.
pub(super) const HEADER: usize = 48;

const STORED: u8 = 1;
const REMOVED: u8 = 2;

/// What happened to a blob.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// A put, under the id in its spool's name.
    Stored { digest: Digest, id: Uuid, bytes: Bytes },
    /// What earlier entries stored is not to come back.
    Removed { digest: Digest },
}

/// An entry found in a journal; the bytes of a stored blob are `HEADER` and the key further on, and already checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) digest: Digest,
    /// The put's id and where its bytes are; none for a removal.
    pub(super) stored: Option<(Uuid, std::ops::Range<usize>)>,
}

/// Bytes of an entry with this many bytes of a blob.
pub(super) fn length(digest: &Digest, bytes: usize) -> usize {
    HEADER + digest.to_key().len() + bytes
}

impl Entry {
    fn digest(&self) -> &Digest {
        match self {
            Self::Stored { digest, .. } | Self::Removed { digest } => digest,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Stored { bytes, .. } => bytes,
            Self::Removed { .. } => &[],
        }
    }

    /// What [`Entry::write`] adds.
    pub(super) fn len(&self) -> usize {
        length(self.digest(), self.bytes().len())
    }

    /// Appends the entry to `out`, for a journal that is being filled for the `epoch`th time.
    pub(super) fn write(&self, epoch: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let key = self.digest().to_key();
        let (kind, id) = match self {
            Self::Stored { id, .. } => (STORED, *id),
            Self::Removed { .. } => (REMOVED, Uuid::nil()),
        };
        // A key is at most 65 bytes long, and what is journaled far shorter than 4 GiB.
        let (key_len, len) = (key.len() as u8, self.bytes().len() as u32);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&epoch.to_le_bytes());
        out.extend_from_slice(&[kind, key_len, 0, 0]);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(id.as_bytes());
        let check = check(&out[start..], &key);
        out.extend_from_slice(&check);
        out.extend_from_slice(&key);
        out.extend_from_slice(self.bytes());
    }
}

fn check(header: &[u8], key: &[u8]) -> [u8; 8] {
    let digest = Digest::sha256(&[header, key].concat());
    let mut check = [0; 8];
    check.copy_from_slice(&digest.as_bytes()[..8]);
    check
}

/// All entries of a journal's content, in order. One whose bytes are not its digest's was cut off, or has rotted since:
/// it is left out, and those after it still count.
pub(super) fn read(content: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut epoch = None;
    while let Some(header) = Header::read(&content[at..]) {
        if *epoch.get_or_insert(header.epoch) != header.epoch {
            break;
        }
        let start = at + HEADER + header.key_len;
        let range = start..start + header.len;
        let Some(bytes) = content.get(range.clone()) else { break };
        at = range.end;
        match header.stored {
            None => found.push(Found { digest: header.digest, stored: None }),
            Some(id) if Digest::of(header.digest.algorithm(), bytes) == header.digest => {
                found.push(Found { digest: header.digest, stored: Some((id, range)) });
            }
            Some(_) => {}
        }
    }
    found
}

struct Header {
    epoch: u64,
    digest: Digest,
    key_len: usize,
    len: usize,
    stored: Option<Uuid>,
}

impl Header {
    fn read(content: &[u8]) -> Option<Self> {
        let (header, rest) = content.split_at_checked(HEADER)?;
        let (checked, sum) = header.split_at(CHECKED);
        let (magic, checked_rest) = checked.split_first_chunk::<8>()?;
        let (epoch, checked_rest) = checked_rest.split_first_chunk::<8>()?;
        let (&[kind, key_len, _, _], checked_rest) = checked_rest.split_first_chunk::<4>()?;
        let (len, id) = checked_rest.split_first_chunk::<4>()?;
        let key = rest.get(..usize::from(key_len))?;
        if *magic != MAGIC || check(checked, key) != *sum {
            return None;
        }
        let stored = match kind {
            STORED => Some(Uuid::from_slice(id).ok()?),
            REMOVED => None,
            _ => return None,
        };
        Some(Self {
            epoch: u64::from_le_bytes(*epoch),
            digest: Digest::from_key(key).ok()?,
            key_len: key.len(),
            len: usize::try_from(u32::from_le_bytes(*len)).ok()?,
            stored,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(text: &'static str, id: u128) -> Entry {
        let bytes = Bytes::from_static(text.as_bytes());
        Entry::Stored { digest: Digest::sha256(&bytes), id: Uuid::from_u128(id), bytes }
    }

    fn filled(epoch: u64, entries: &[Entry]) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in entries {
            let before = out.len();
            entry.write(epoch, &mut out);
            assert_eq!(out.len() - before, entry.len());
        }
        out
    }

    fn texts(content: &[u8]) -> Vec<String> {
        let text = |found: Found| match found.stored {
            Some((_, range)) => String::from_utf8(content[range].to_vec()).unwrap(),
            None => format!("-{}", &found.digest.hex()[..4]),
        };
        read(content).into_iter().map(text).collect()
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        let gone = Entry::Removed { digest: Digest::sha256(b"gone") };
        let content = filled(7, &[stored("one", 1), gone, stored("", 2), stored("three", 3)]);
        let gone = format!("-{}", &Digest::sha256(b"gone").hex()[..4]);
        assert_eq!(texts(&content), ["one", &gone, "", "three"]);
        let Some((id, _)) = read(&content)[0].stored.clone() else { panic!("a put") };
        assert_eq!(id, Uuid::from_u128(1));
    }

    #[test]
    fn what_was_cut_off_and_what_an_earlier_filling_left_count_for_nothing() {
        let whole = filled(8, &[stored("first", 1), stored("second", 2)]);
        for cut in 0..whole.len() {
            let mut content = filled(7, &[stored("an older one", 3), stored("another older one", 4)]);
            content[..cut].copy_from_slice(&whole[..cut]);
            let first = filled(8, &[stored("first", 1)]).len();
            let expected: &[&str] = match cut {
                // Both begin with the same magic.
                0..=8 => &["an older one", "another older one"],
                cut if cut < first => &[],
                _ => &["first"],
            };
            assert_eq!(texts(&content), expected, "cut after {cut} bytes");
        }
    }

    #[test]
    fn an_entry_that_rotted_does_not_take_those_after_it_along() {
        let mut content = filled(1, &[stored("rotten", 1), stored("sound", 2)]);
        content[HEADER + Digest::sha256(b"").to_key().len()] ^= 1;
        assert_eq!(texts(&content), ["sound"]);
    }

    #[test]
    fn an_empty_journal_has_no_entries() {
        assert_eq!(read(&[]), []);
        assert_eq!(read(&[0; 4096]), []);
    }
}
