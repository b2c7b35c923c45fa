//! What keeps tags where they are: the rules of a repository, the caller's role, the patterns of its token.
//! Invariant: nothing more is refused than what holds a tag says. A tag that is set to what it names already is not moved.

use std::fmt;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use twinport_oci::Tag;

use crate::error::{Error, Result, shown};
use crate::pattern::TagPattern;
use crate::rule::RuleName;

/// What a request would do to a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagChange {
    /// It is not there yet.
    Set,
    /// It names another manifest.
    Move,
    Delete,
}

/// What holds the tags of one repository for one request; asked inside the transaction that would change them. The default
/// holds none. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct TagGuard {
    holds: Vec<Arc<Hold>>,
}

/// Tags, what may not be done to them, and by whose word.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) tags: HeldTags,
    pub(crate) refused: &'static [TagChange],
    pub(crate) by: Holder,
}

#[derive(Debug)]
pub(crate) enum HeldTags {
    All,
    Matching { tags: Vec<TagPattern>, except: Vec<TagPattern> },
    Found(Vec<Regex>),
}

/// Whose word holds a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    ImmutableTags(RuleName),
    CreateOnly(RuleName),
    /// The caller may create and no more.
    Caller,
    /// The caller's token protects tags by patterns of its own.
    Token,
}

/// Why a tag may not be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tag {tag} may not be {}: {by}", .change.done())]
pub struct TagRefusal {
    pub tag: Tag,
    pub change: TagChange,
    pub by: Holder,
}

/// The patterns by which a foreign token service protects tags (GitLab's `meta`): regular expressions that are found
/// anywhere in a tag.
#[derive(Debug, Clone, Default)]
pub struct TokenTagPatterns {
    holds: Vec<Arc<Hold>>,
}

/// A compiled pattern may take this much memory (bytes); the texts are at most 100 characters long.
const PATTERN_SIZE: usize = 1 << 20;
/// GitLab gives five of a kind at most.
const MOST_PATTERNS: usize = 32;

impl TagGuard {
    pub(crate) fn of(holds: Vec<Arc<Hold>>) -> Self {
        Self { holds }
    }

    /// For a caller that may create tags but not move them.
    #[must_use]
    pub fn creating_only(mut self) -> Self {
        self.holds.push(Arc::new(Hold {
            tags: HeldTags::All,
            refused: &[TagChange::Move],
            by: Holder::Caller,
        }));
        self
    }

    /// For a caller whose token protects tags.
    #[must_use]
    pub fn with_token(mut self, patterns: &TokenTagPatterns) -> Self {
        self.holds.extend(patterns.holds.iter().cloned());
        self
    }

    /// Whether every change is allowed, so that nothing needs to be looked at.
    pub fn is_open(&self) -> bool {
        self.holds.is_empty()
    }

    /// Whether some tag may be kept from deletion, and with it what it names.
    pub fn keeps_from_deletion(&self) -> bool {
        self.holds.iter().any(|hold| hold.refused.contains(&TagChange::Delete))
    }

    pub fn may_set(&self, tag: &Tag) -> Result<(), TagRefusal> {
        self.may(tag, TagChange::Set)
    }

    pub fn may_move(&self, tag: &Tag) -> Result<(), TagRefusal> {
        self.may(tag, TagChange::Move)
    }

    pub fn may_delete(&self, tag: &Tag) -> Result<(), TagRefusal> {
        self.may(tag, TagChange::Delete)
    }

    pub fn may(&self, tag: &Tag, change: TagChange) -> Result<(), TagRefusal> {
        let holds = |hold: &&Arc<Hold>| hold.refused.contains(&change) && hold.tags.contain(tag);
        match self.holds.iter().find(holds) {
            None => Ok(()),
            Some(hold) => Err(TagRefusal { tag: tag.clone(), change, by: hold.by.clone() }),
        }
    }
}

impl TokenTagPatterns {
    /// `immutable`: tags that are set once and for all; `no_push`: neither set nor moved; `no_delete`: not deleted.
    ///
    /// # Errors
    /// [`Error::Pattern`] for a text that is no regular expression: then nobody knows what it would hold, and the token
    /// that bears it cannot be taken.
    pub fn parse(immutable: &[String], no_push: &[String], no_delete: &[String]) -> Result<Self> {
        const IMMUTABLE: &[TagChange] = &[TagChange::Move, TagChange::Delete];
        const NO_PUSH: &[TagChange] = &[TagChange::Set, TagChange::Move];
        let mut holds = Vec::new();
        for (texts, refused) in
            [(immutable, IMMUTABLE), (no_push, NO_PUSH), (no_delete, &[TagChange::Delete])]
        {
            if let Some(text) = texts.get(MOST_PATTERNS) {
                return Err(Error::Pattern {
                    pattern: shown(text),
                    reason: "it is one of more than 32 of its kind",
                });
            }
            if !texts.is_empty() {
                let found = texts.iter().map(|text| compile(text)).collect::<Result<_>>()?;
                holds.push(Arc::new(Hold { tags: HeldTags::Found(found), refused, by: Holder::Token }));
            }
        }
        Ok(Self { holds })
    }
}

fn compile(text: &str) -> Result<Regex> {
    let compiled = RegexBuilder::new(text).size_limit(PATTERN_SIZE).build();
    compiled.map_err(|_| Error::Pattern {
        pattern: shown(text),
        reason: "it is no regular expression, or one that is too large",
    })
}

impl HeldTags {
    pub(crate) fn contain(&self, tag: &Tag) -> bool {
        match self {
            Self::All => true,
            Self::Matching { tags, except } => matching(tags, except, tag),
            Self::Found(patterns) => patterns.iter().any(|pattern| pattern.is_match(tag.as_str())),
        }
    }
}

/// Whether a tag is one of `tags` and none of `except`.
pub(crate) fn matching(tags: &[TagPattern], except: &[TagPattern], tag: &Tag) -> bool {
    tags.iter().any(|pattern| pattern.matches(tag)) && !except.iter().any(|pattern| pattern.matches(tag))
}

impl TagChange {
    fn done(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Move => "moved",
            Self::Delete => "deleted",
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ImmutableTags(rule) => write!(f, "the rule {rule} makes it immutable"),
            Self::CreateOnly(rule) => write!(f, "by the rule {rule} such tags are created and not moved"),
            Self::Caller => f.write_str("this credential may create tags and not move them"),
            Self::Token => f.write_str("the token that was shown protects it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_a_hold_everything_is_allowed() {
        let guard = TagGuard::default();
        assert!(guard.is_open() && !guard.keeps_from_deletion());
        for change in [TagChange::Set, TagChange::Move, TagChange::Delete] {
            assert!(guard.may(&tag("v1"), change).is_ok());
        }
    }

    #[test]
    fn a7_who_may_only_create_moves_nothing_and_sets_what_is_new() {
        let guard = TagGuard::default().creating_only();
        assert!(guard.may_set(&tag("v1")).is_ok());
        let refusal = guard.may_move(&tag("v1")).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "the tag v1 may not be moved: this credential may create tags and not move them"
        );
        assert!(!guard.keeps_from_deletion());
    }

    #[test]
    fn the_patterns_of_a_token_are_found_anywhere_and_each_refuses_its_own() {
        let patterns =
            TokenTagPatterns::parse(&texts(&["^v\\d+"]), &texts(&["^prod"]), &texts(&["keep"])).unwrap();
        let guard = TagGuard::default().with_token(&patterns);
        assert!(guard.may_set(&tag("v1")).is_ok());
        assert!(guard.may_move(&tag("v1.2")).is_err() && guard.may_delete(&tag("v1.2")).is_err());
        assert!(guard.may_move(&tag("av1")).is_ok());
        assert!(guard.may_set(&tag("production")).is_err() && guard.may_move(&tag("prod")).is_err());
        assert!(guard.may_delete(&tag("prod")).is_ok());
        assert!(guard.may_delete(&tag("to-keep-it")).is_err() && guard.may_move(&tag("to-keep-it")).is_ok());
    }

    #[test]
    fn a_pattern_that_cannot_be_read_is_an_error_and_no_open_door() {
        for pattern in ["(", "a{1000}{1000}{1000}"] {
            assert!(TokenTagPatterns::parse(&texts(&[pattern]), &[], &[]).is_err(), "{pattern}");
        }
        let many = vec!["v".to_owned(); 33];
        assert!(TokenTagPatterns::parse(&[], &many, &[]).is_err());
    }
}
