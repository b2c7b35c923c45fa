//! Reading JSON objects that others will read too, with other parsers.
//! Invariant: what is accepted means the same to a reader that takes the first of two equal keys, the last of them,
//! or folds their case as Go does.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most fields of one JSON object.
pub const MAX_FIELDS: usize = 1_000;

/// Deepest nesting of arrays and objects. serde_json's own limit of 128 stays on, but does not count inside values
/// that are skipped.
pub const MAX_JSON_DEPTH: usize = 64;

/// Whether brackets nest at most [`MAX_JSON_DEPTH`] deep. Malformed JSON may pass; it fails in the parser.
pub(crate) fn is_shallow(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_JSON_DEPTH {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// The keys of one object as they come in, held against the names that have a meaning.
pub(crate) struct Keys {
    known: &'static [&'static str],
    seen: HashSet<String>,
}

impl Keys {
    pub(crate) fn new(known: &'static [&'static str]) -> Self {
        Keys { known, seen: HashSet::new() }
    }

    /// The next key, as its known name or as `""` when it has no meaning here.
    pub(crate) fn next<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
    ) -> Result<Option<&'static str>, A::Error> {
        let Some(key) = map.next_key::<String>()? else { return Ok(None) };
        let known = self.known.iter().copied().find(|known| folds_to(&key, known));
        if let Some(known) = known.filter(|known| *known != key) {
            return Err(de::Error::custom(format_args!("a field must be written `{known}`, in that case")));
        }
        if self.seen.len() == MAX_FIELDS {
            return Err(de::Error::custom(format_args!("an object has more than {MAX_FIELDS} fields")));
        }
        if let Some(twice) = self.seen.replace(key) {
            let shown = crate::text::quoted(&twice);
            return Err(de::Error::custom(format_args!("the field `{shown}` occurs twice")));
        }
        Ok(Some(known.unwrap_or("")))
    }
}

/// Go's encoding/json matches names ASCII case-insensitively, with the Kelvin sign as `k` and the long s as `s`.
fn folds_to(key: &str, known: &str) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(known);
    }
    let folded = key.chars().map(|letter| match letter {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(known.chars().map(|letter| letter.to_ascii_lowercase()))
}

/// A string without NUL, which PostgreSQL's text cannot hold.
#[derive(Default)]
pub(crate) struct Text(pub(crate) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.contains('\0') {
            return Err(de::Error::custom("a string contains a NUL character"));
        }
        Ok(Text(text))
    }
}

/// A map of strings to strings without duplicate keys.
#[derive(Default)]
pub(crate) struct TextMap(pub(crate) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for TextMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = TextMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TextMap, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((Text(key), Text(value))) = map.next_entry()? {
                    if entries.insert(key, value).is_some() {
                        return Err(de::Error::custom("a key of a map of strings occurs twice"));
                    }
                }
                Ok(TextMap(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// A list of which at most `LIMIT` items are kept; `overflowed` says that there were more.
pub(crate) struct Bounded<T, const LIMIT: usize> {
    pub(crate) items: Vec<T>,
    pub(crate) overflowed: bool,
}

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Deserialize<'de> for Bounded<T, LIMIT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const LIMIT: usize>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const LIMIT: usize> Visitor<'de> for Items<T, LIMIT> {
            type Value = Bounded<T, LIMIT>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            /// Go writes an empty list that was never touched as null.
            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Bounded { items: Vec::new(), overflowed: false })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() < LIMIT {
                    let Some(item) = seq.next_element()? else {
                        return Ok(Bounded { items, overflowed: false });
                    };
                    items.push(item);
                }
                let mut overflowed = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    overflowed = true;
                }
                Ok(Bounded { items, overflowed })
            }
        }

        deserializer.deserialize_any(Items(std::marker::PhantomData))
    }
}
