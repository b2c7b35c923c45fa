//! Reading the JSON of a token so that it means one thing only.
//! Invariant: no object has a field twice at any depth, and nesting is bounded before it costs anything.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, Deserialize as _, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::refusal::{Part, Refusal};
use crate::error::shown;

/// Deepest nesting of a token's JSON. GitLab's tokens take six levels.
const MAX_DEPTH: usize = 16;

/// The object that these bytes are.
pub(super) fn object(bytes: &[u8], part: Part) -> Result<Map<String, Value>, Refusal> {
    let fault = Cell::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Strict { depth: 0, fault: &fault }.deserialize(&mut deserializer);
    let read = read.and_then(|value| deserializer.end().map(|()| value));
    match (read, fault.into_inner()) {
        (Ok(Value::Object(fields)), _) => Ok(fields),
        (_, Some(Fault::Twice(field))) => Err(Refusal::Duplicate { part, field: shown(&field) }),
        (_, Some(Fault::TooDeep)) => Err(Refusal::TooDeep(part)),
        _ => Err(Refusal::Json(part)),
    }
}

enum Fault {
    Twice(String),
    TooDeep,
}

struct Strict<'a> {
    depth: usize,
    fault: &'a Cell<Option<Fault>>,
}

impl Strict<'_> {
    fn inside<E: de::Error>(&self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            self.fault.set(Some(Fault::TooDeep));
            return Err(E::custom("nested too deep"));
        }
        Ok(Self { depth: self.depth + 1, fault: self.fault })
    }

    fn again(&self) -> Self {
        Self { depth: self.depth, fault: self.fault }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inside.again())? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut fields = Map::new();
        while let Some(field) = map.next_key_seed(Key)? {
            if fields.contains_key(&field) {
                self.fault.set(Some(Fault::Twice(field)));
                return Err(de::Error::custom("a field occurs twice"));
            }
            let value = map.next_value_seed(inside.again())?;
            fields.insert(field, value);
        }
        Ok(Value::Object(fields))
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_reads_as_serde_json_reads_it() {
        let text = r#"{"a":[1,-2,3.5,"x\u0041",true,null,{"b":{}}],"":18446744073709551615}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(object(text.as_bytes(), Part::Claims).unwrap()), expected);
    }

    #[test]
    fn a_field_that_occurs_twice_is_refused_at_any_depth_however_it_is_written() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"b":[{"a":1,"\u0061":2}]}"#, r#"{"c":{"d":{"a":{},"a":[]}}}"#] {
            let refused = Refusal::Duplicate { part: Part::Claims, field: "a".to_owned() };
            assert_eq!(object(text.as_bytes(), Part::Claims), Err(refused), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(object(nested(MAX_DEPTH - 1).as_bytes(), Part::Header).is_ok());
        for depth in [MAX_DEPTH, 10_000] {
            assert_eq!(object(nested(depth).as_bytes(), Part::Header), Err(Refusal::TooDeep(Part::Header)));
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "1", "[]", "null", "{", "{}x", "{} {}", "\u{feff}{}", "{'a':1}", "{\"a\":NaN}"] {
            assert_eq!(object(text.as_bytes(), Part::Header), Err(Refusal::Json(Part::Header)), "{text:?}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}", Part::Header), Err(Refusal::Json(Part::Header)));
    }
}
