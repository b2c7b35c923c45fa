//! A YAML document as a tree whose every key and value remembers where it was written.
//! A scalar keeps its text as written (`0.1`, `0123`), so that a password of digits survives.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// Where a setting came from, for messages that send the reader there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A line of the file, counted from 1.
    Line(u64),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) origin: Origin,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) origin: Origin,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn empty() -> Self {
        Self { origin: Origin::Line(1), value: Value::Null }
    }

    pub(crate) fn scalar(text: &str, origin: Origin) -> Self {
        Self { origin, value: Value::Scalar(text.to_owned()) }
    }

    /// Reads a document. The error is the parser's own, which names line and column and shows the place.
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        if source.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::empty());
        }
        let parsed: Spanned<Parsed> = serde_saphyr::from_str(source).map_err(|error| error.to_string())?;
        Ok(settle(parsed, source))
    }

    /// The node at a dotted path; nothing where the path is absent or null.
    pub(crate) fn at(&self, path: &str) -> Option<&Self> {
        let mut node = self;
        for name in path.split('.') {
            let Value::Map(entries) = &node.value else { return None };
            node = &entries.iter().find(|entry| entry.key == name)?.node;
        }
        (node.value != Value::Null).then_some(node)
    }

    /// Gives a key of a section its other name. False, and nothing is done, where that is taken.
    pub(crate) fn rename(&mut self, section: &str, from: &str, to: &str) -> bool {
        let Value::Map(sections) = &mut self.value else { return true };
        let Some(section) = sections.iter_mut().find(|entry| entry.key == section) else { return true };
        let Value::Map(entries) = &mut section.node.value else { return true };
        let taken = entries.iter().any(|entry| entry.key == to);
        match entries.iter_mut().find(|entry| entry.key == from) {
            Some(_) if taken => false,
            Some(entry) => {
                entry.key = to.to_owned();
                true
            }
            None => true,
        }
    }

    /// Puts `node` at a dotted path, making the maps in between and replacing what was there.
    pub(crate) fn put(&mut self, path: &[&str], node: Self) {
        let Some((first, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.value, Value::Map(_)) {
            // `storage: filesystem` names a driver; what is set below it belongs to that driver's map.
            let driver = if let Value::Scalar(name) = &self.value { Some(name.clone()) } else { None };
            self.value = Value::Map(Vec::new());
            if let Some(name) = driver {
                let origin = self.origin.clone();
                self.put(&[&name], Self { origin, value: Value::Map(Vec::new()) });
            }
        }
        let Value::Map(entries) = &mut self.value else { return };
        if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *first) {
            entry.node.put(rest, node);
            return;
        }
        let origin = node.origin.clone();
        let mut made = Self { origin: origin.clone(), value: Value::Null };
        made.put(rest, node);
        entries.push(Entry { key: (*first).to_owned(), origin, node: made });
    }
}

/// What the parser hands over, before texts are taken from the source.
enum Parsed {
    Null,
    Text(String),
    /// A plain scalar that YAML reads as a boolean or a number, and a rendering in case its place is unknown.
    Plain(String),
    List(Vec<Spanned<Parsed>>),
    Map(Vec<(Spanned<String>, Spanned<Parsed>)>),
}

fn line(at: Location) -> Origin {
    Origin::Line(at.line().max(1))
}

fn settle(parsed: Spanned<Parsed>, source: &str) -> Node {
    let value = match parsed.value {
        Parsed::Null => Value::Null,
        Parsed::Text(text) => Value::Scalar(text),
        Parsed::Plain(rendering) => Value::Scalar(written(parsed.defined, source).unwrap_or(rendering)),
        Parsed::List(items) => Value::List(items.into_iter().map(|item| settle(item, source)).collect()),
        Parsed::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    key: key.value,
                    origin: line(key.referenced),
                    node: settle(value, source),
                })
                .collect(),
        ),
    };
    Node { origin: line(parsed.referenced), value }
}

fn written(at: Location, source: &str) -> Option<String> {
    let span = at.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
    let text = source.get(start..end)?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParsedVisitor)
    }
}

struct ParsedVisitor;

impl<'de> Visitor<'de> for ParsedVisitor {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting")
    }

    fn visit_unit<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_none<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parsed, E> {
        Ok(Parsed::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parsed, E> {
        Ok(Parsed::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Parsed, E> {
        Ok(Parsed::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Parsed, E> {
        Ok(Parsed::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Parsed, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Parsed::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Parsed::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_value_knows_its_line() {
        let tree = Node::parse("version: 0.1\nhttp:\n  addr: :5000\n  debug: {addr: ':5001'}\n").unwrap();
        assert_eq!(tree.at("version").unwrap().value, Value::Scalar("0.1".into()));
        assert_eq!(tree.at("http.addr").unwrap(), &Node::scalar(":5000", Origin::Line(3)));
        assert_eq!(tree.at("http.debug.addr").unwrap().origin, Origin::Line(4));
        assert!(tree.at("http.secret").is_none());
    }

    #[test]
    fn a_password_of_digits_keeps_its_leading_zero() {
        let tree = Node::parse("database:\n  password: 0123\n  user: yes\n").unwrap();
        assert_eq!(tree.at("database.password").unwrap().value, Value::Scalar("0123".into()));
        assert_eq!(tree.at("database.user").unwrap().value, Value::Scalar("yes".into()));
    }

    #[test]
    fn broken_yaml_names_its_line() {
        let error = Node::parse("version: 0.1\nhttp: [\n").unwrap_err();
        assert!(error.contains("line"), "{error}");
    }

    #[test]
    fn a_comment_only_file_is_empty() {
        assert_eq!(Node::parse("# nothing\n\n").unwrap(), Node::empty());
    }
}
