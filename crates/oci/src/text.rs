//! How values are written into messages and into serde formats: as their one textual form.

use std::fmt;

/// Text from outside, shortened and escaped for an error message: no control characters, at most 64 characters.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 64;
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// A serde visitor that reads a string through `FromStr`.
pub(crate) struct TextVisitor<T>(pub(crate) &'static str, pub(crate) std::marker::PhantomData<T>);

impl<T> serde::de::Visitor<'_> for TextVisitor<T>
where
    T: std::str::FromStr,
    T::Err: fmt::Display,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Serialises a type as its `Display` form, reads it through `FromStr`, and adds `TryFrom<&str>` and
/// `TryFrom<String>` on the same rules.
macro_rules! textual {
    ($type:ty, $error:ty, $expecting:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let visitor = $crate::text::TextVisitor($expecting, std::marker::PhantomData);
                deserializer.deserialize_str(visitor)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = $error;

            fn try_from(text: &str) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl TryFrom<String> for $type {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }
    };
}

pub(crate) use textual;

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_quoted_text_is_short_and_has_no_control_characters() {
        let text = format!("a\0\r\n{}", "x".repeat(10_000));
        let shown = quoted(&text);
        assert!(shown.starts_with("a\\0\\r\\nxxx") && shown.ends_with('…'), "{shown}");
        assert!(shown.len() < 100 && !shown.chars().any(char::is_control));
    }
}
