//! What a GitLab token forbids on some tags: `tag_deny_access_patterns` and `tag_immutable_patterns` of an entry's `meta`.
//!
//! Invariant: patterns that cannot be read forbid every write of a tag and every deletion: a rule is never lost because it
//! is malformed. Pulls go on. As GitLab's registry has it, patterns match anywhere in a tag unless they are anchored, at most
//! five apply to one operation, and each has at most 100 characters.

use regex::bytes::{RegexSet, RegexSetBuilder};
use serde_json::{Map, Value};
use twinport_oci::Tag;

use super::refusal::Refusal;
use crate::error::shown;

const MAX_PATTERNS: usize = 5;
const MAX_PATTERN_CHARS: usize = 100;
/// A hundred characters need a few KiB, but for repetitions of repetitions.
const MAX_COMPILED_BYTES: usize = 256 << 10;

/// The patterns of one entry. They are compiled for each tag that is held against them: tags are written seldom, and tokens
/// are kept by the thousand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagLimits {
    push: Patterns,
    delete: Patterns,
    immutable: Patterns,
}

/// Why a token does not let its bearer touch a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagRefusal {
    #[error("the token does not let you push or delete the tag `{0}`: it is protected")]
    Protected(String),
    #[error("the tag `{0}` is immutable for this token: push another tag")]
    Immutable(String),
    #[error(
        "the token protects tags of this repository, so manifests cannot be deleted by digest: delete tags instead"
    )]
    ProtectedManifest,
    #[error("the token has over 5 tag patterns for this operation, so no tag can be written with it")]
    TooMany,
    #[error("the token's tag pattern `{0}` cannot be used, so no tag can be written with it")]
    Pattern(String),
}

impl TagLimits {
    pub(crate) fn read(meta: &Map<String, Value>) -> Result<Self, Refusal> {
        let deny = match meta.get("tag_deny_access_patterns") {
            None | Some(Value::Null) => None,
            Some(Value::Object(deny)) => Some(deny),
            Some(_) => return Err(Refusal::Claim("access")),
        };
        let denied = |action| {
            deny.map_or(Ok(Patterns::default()), |deny: &Map<_, _>| Patterns::read(deny.get(action)))
        };
        Ok(Self {
            push: denied("push")?,
            delete: denied("delete")?,
            immutable: Patterns::read(meta.get("tag_immutable_patterns"))?,
        })
    }

    /// Whether the entry forbids nothing on any tag.
    pub fn is_empty(&self) -> bool {
        self.push.is_empty() && self.delete.is_empty() && self.immutable.is_empty()
    }

    /// Whether a tag may be created or moved. One that [`TagLimits::is_immutable`] may only be created.
    ///
    /// # Errors
    /// The [`TagRefusal`].
    pub fn may_push(&self, tag: &Tag) -> Result<(), TagRefusal> {
        at_most_five(&self.push, &self.immutable)?;
        if self.push.matches(tag)? {
            return Err(TagRefusal::Protected(tag.to_string()));
        }
        Ok(())
    }

    /// Whether a tag that is there may neither be moved nor deleted.
    ///
    /// # Errors
    /// The [`TagRefusal`] of patterns that cannot be used.
    pub fn is_immutable(&self, tag: &Tag) -> Result<bool, TagRefusal> {
        self.immutable.matches(tag)
    }

    /// Whether a tag may be deleted.
    ///
    /// # Errors
    /// The [`TagRefusal`].
    pub fn may_delete(&self, tag: &Tag) -> Result<(), TagRefusal> {
        at_most_five(&self.delete, &self.immutable)?;
        if self.delete.matches(tag)? {
            return Err(TagRefusal::Protected(tag.to_string()));
        }
        if self.immutable.matches(tag)? {
            return Err(TagRefusal::Immutable(tag.to_string()));
        }
        Ok(())
    }

    /// Whether a manifest may be deleted by digest, which takes its tags along, whichever they are.
    ///
    /// # Errors
    /// The [`TagRefusal`] wherever a pattern forbids the deletion of any tag.
    pub fn may_delete_manifests(&self) -> Result<(), TagRefusal> {
        if self.delete.is_empty() && self.immutable.is_empty() {
            return Ok(());
        }
        Err(TagRefusal::ProtectedManifest)
    }
}

fn at_most_five(one: &Patterns, other: &Patterns) -> Result<(), TagRefusal> {
    if one.texts.len() + other.texts.len() > MAX_PATTERNS {
        return Err(TagRefusal::TooMany);
    }
    Ok(())
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Patterns {
    texts: Vec<String>,
}

impl Patterns {
    fn read(value: Option<&Value>) -> Result<Self, Refusal> {
        let texts = match value {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(texts)) => {
                let texts = texts.iter().map(|text| text.as_str().map(str::to_owned));
                texts.collect::<Option<Vec<_>>>().ok_or(Refusal::Claim("access"))?
            }
            Some(_) => return Err(Refusal::Claim("access")),
        };
        Ok(Self { texts })
    }

    fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    fn matches(&self, tag: &Tag) -> Result<bool, TagRefusal> {
        if self.is_empty() {
            return Ok(false);
        }
        Ok(self.compiled()?.is_match(tag.as_str().as_bytes()))
    }

    fn compiled(&self) -> Result<RegexSet, TagRefusal> {
        if self.texts.len() > MAX_PATTERNS {
            return Err(TagRefusal::TooMany);
        }
        let usable = |text: &String| text.chars().count() <= MAX_PATTERN_CHARS && !is_ambiguous(text);
        if let Some(text) = self.texts.iter().find(|text| !usable(text)) {
            return Err(TagRefusal::Pattern(shown(text)));
        }
        // Tags are ASCII, and on ASCII this reads as the RE2 syntax does that GitLab checks patterns by.
        let mut builder = RegexSetBuilder::new(&self.texts);
        builder.unicode(false).size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES);
        builder.build().map_err(|_| TagRefusal::Pattern(shown(&self.texts.join(" "))))
    }
}

/// Whether a class in brackets holds `&&`, `--`, `~~` or another bracket: for this matcher they combine classes, for RE2 they are
/// characters.
fn is_ambiguous(pattern: &str) -> bool {
    let (mut in_class, mut before) = (false, ' ');
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '[' if in_class && characters.as_str().starts_with(':') => {
                // `[:alpha:]` is the same for both; its own bracket does not close the class.
                while characters.next().is_some_and(|next| next != ']') {}
            }
            '[' if in_class => return true,
            '&' | '-' | '~' if in_class && before == character => return true,
            '[' => in_class = true,
            ']' => in_class = false,
            _ => {}
        }
        before = character;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(push: &[&str], delete: &[&str], immutable: &[&str]) -> TagLimits {
        let meta = serde_json::json!({
            "tag_deny_access_patterns": {"push": push, "delete": delete},
            "tag_immutable_patterns": immutable,
        });
        TagLimits::read(meta.as_object().unwrap()).unwrap()
    }

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_is_forbidden_where_there_are_no_patterns() {
        let none = limits(&[], &[], &[]);
        assert!(none.is_empty() && TagLimits::default().is_empty());
        assert!(none.may_push(&tag("v1")).is_ok() && none.may_delete(&tag("v1")).is_ok());
        assert!(none.may_delete_manifests().is_ok() && !none.is_immutable(&tag("v1")).unwrap());
    }

    #[test]
    fn each_list_forbids_its_own_action_and_no_more() {
        let push = limits(&["^v\\d"], &[], &[]);
        assert_eq!(push.may_push(&tag("v1")), Err(TagRefusal::Protected("v1".to_owned())));
        assert!(push.may_push(&tag("latest")).is_ok() && push.may_delete(&tag("v1")).is_ok());
        assert!(push.may_delete_manifests().is_ok());
        let delete = limits(&[], &["^v\\d"], &[]);
        assert!(delete.may_push(&tag("v1")).is_ok() && delete.may_delete(&tag("v1")).is_err());
        assert!(delete.may_delete(&tag("latest")).is_ok());
        assert_eq!(delete.may_delete_manifests(), Err(TagRefusal::ProtectedManifest));
        let immutable = limits(&[], &[], &["^v\\d"]);
        assert!(immutable.may_push(&tag("v1")).is_ok(), "it may be created");
        assert!(immutable.is_immutable(&tag("v1")).unwrap() && !immutable.is_immutable(&tag("dev")).unwrap());
        assert_eq!(immutable.may_delete(&tag("v1")), Err(TagRefusal::Immutable("v1".to_owned())));
        assert_eq!(immutable.may_delete_manifests(), Err(TagRefusal::ProtectedManifest));
    }

    #[test]
    fn a_pattern_matches_anywhere_unless_it_is_anchored() {
        let denies = |pattern: &str, name: &str| limits(&[pattern], &[], &[]).may_push(&tag(name)).is_err();
        assert!(denies("rc", "v1-rc2") && !denies("^rc", "v1-rc2") && !denies("rc$", "v1-rc2"));
        assert!(denies("^(stable|latest)$", "latest") && !denies("^(stable|latest)$", "latest2"));
        assert!(denies("(?i)^RELEASE", "release-1") && denies(".*", "x") && denies("", "x"));
        assert!(denies("^[[:alpha:]]+$", "abc") && !denies("^[[:alpha:]]+$", "abc1"));
        assert!(denies("^[a-z.-]+$", "a-b.c") && denies("a--b", "a--b"));
    }

    #[test]
    fn five_patterns_of_a_hundred_characters_count_and_no_more() {
        let long = "a".repeat(100);
        assert!(limits(&["a", "b", "c", "d"], &[], &[&long]).may_push(&tag("z")).is_ok());
        let six = limits(&["a", "b", "c"], &[], &["d", "e", "f"]);
        assert_eq!(six.may_push(&tag("z")), Err(TagRefusal::TooMany));
        assert!(six.may_delete(&tag("z")).is_ok(), "only what applies to the operation counts");
        let six = limits(&["a", "b", "c", "d", "e", "f"], &[], &[]);
        assert_eq!(six.may_push(&tag("z")), Err(TagRefusal::TooMany));
        let longer = "a".repeat(101);
        assert_eq!(
            limits(&[&longer], &[], &[]).may_push(&tag("z")),
            Err(TagRefusal::Pattern(shown(&longer)))
        );
    }

    #[test]
    fn a_pattern_that_cannot_be_used_forbids_all() {
        let bombs = ["(((a{99}){99}){99}){99}", "(?:\\w{99}){99}{99}"];
        for pattern in
            ["^[a-z", "(", "(?=x)", "\\1", "[a&&b]", "[a--b]", "[[a]]", "\\p{L}"].into_iter().chain(bombs)
        {
            let one = limits(&[pattern], &[pattern], &[pattern]);
            assert!(one.may_push(&tag("z")).is_err(), "{pattern}");
            assert!(one.may_delete(&tag("z")).is_err(), "{pattern}");
            assert!(one.is_immutable(&tag("z")).is_err(), "{pattern}");
        }
    }

    #[test]
    fn meta_of_another_shape_is_refused() {
        for meta in [
            r#"{"tag_deny_access_patterns":[]}"#,
            r#"{"tag_deny_access_patterns":{"push":"^v"}}"#,
            r#"{"tag_deny_access_patterns":{"delete":[1]}}"#,
            r#"{"tag_immutable_patterns":{}}"#,
        ] {
            let meta: Value = serde_json::from_str(meta).unwrap();
            assert_eq!(
                TagLimits::read(meta.as_object().unwrap()).unwrap_err(),
                Refusal::Claim("access"),
                "{meta}"
            );
        }
    }
}
