//! What keeps tags where they are: the rules of a repository, the caller's role, the patterns of its token.
//! Invariant: nothing more is refused than what holds a tag says. A tag that is set to what it names already is not moved.

use std::fmt;
use std::sync::Arc;

use twinport_oci::Tag;

use crate::jwt::{self, TagLimits};
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
    tokens: Vec<TagLimits>,
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
}

/// Whose word holds a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    ImmutableTags(RuleName),
    CreateOnly(RuleName),
    /// The caller may create and no more.
    Caller,
    /// The caller's token protects tags by patterns of its own; in its words.
    Token(jwt::TagRefusal),
}

/// Why a tag may not be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tag {tag} may not be {}: {by}", .change.done())]
pub struct TagRefusal {
    pub tag: Tag,
    pub change: TagChange,
    pub by: Holder,
}

impl TagGuard {
    pub(crate) fn of(holds: Vec<Arc<Hold>>) -> Self {
        Self { holds, tokens: Vec::new() }
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
    pub fn with_token(mut self, limits: &TagLimits) -> Self {
        self.tokens.push(limits.clone());
        self
    }

    /// Whether every change is allowed, so that nothing needs to be looked at.
    pub fn is_open(&self) -> bool {
        self.holds.is_empty() && self.tokens.is_empty()
    }

    /// Whether some tag may be kept from deletion, and with it what it names.
    pub fn keeps_from_deletion(&self) -> bool {
        let by_rule = self.holds.iter().any(|hold| hold.refused.contains(&TagChange::Delete));
        by_rule || self.tokens.iter().any(|limits| limits.may_delete_manifests().is_err())
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
        let refusal = |by| TagRefusal { tag: tag.clone(), change, by };
        if let Some(hold) = self.holds.iter().find(holds) {
            return Err(refusal(hold.by.clone()));
        }
        let token = |limits: &TagLimits| match change {
            TagChange::Set => limits.may_push(tag),
            TagChange::Move if limits.is_immutable(tag)? => Err(jwt::TagRefusal::Immutable(tag.to_string())),
            TagChange::Move => limits.may_push(tag),
            TagChange::Delete => limits.may_delete(tag),
        };
        self.tokens.iter().try_for_each(token).map_err(|said| refusal(Holder::Token(said)))
    }
}

impl HeldTags {
    pub(crate) fn contain(&self, tag: &Tag) -> bool {
        match self {
            Self::All => true,
            Self::Matching { tags, except } => matching(tags, except, tag),
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
            Self::Token(said) => said.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn limits(meta: serde_json::Value) -> TagLimits {
        TagLimits::read(meta.as_object().unwrap()).unwrap()
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
    fn a7_the_patterns_of_a_token_hold_beside_the_rules() {
        let guard = TagGuard::default().with_token(&limits(serde_json::json!({
            "tag_deny_access_patterns": {"push": ["^prod"], "delete": ["keep"]},
            "tag_immutable_patterns": ["^v\\d+"],
        })));
        assert!(!guard.is_open() && guard.keeps_from_deletion());
        assert!(guard.may_set(&tag("v1")).is_ok());
        assert!(guard.may_move(&tag("v1.2")).is_err() && guard.may_delete(&tag("v1.2")).is_err());
        assert!(guard.may_set(&tag("production")).is_err() && guard.may_move(&tag("prod")).is_err());
        assert!(guard.may_delete(&tag("prod")).is_ok());
        assert!(guard.may_delete(&tag("to-keep-it")).is_err() && guard.may_move(&tag("to-keep-it")).is_ok());
        let unreadable = serde_json::json!({"tag_immutable_patterns": ["("]});
        let guard = TagGuard::default().with_token(&limits(unreadable));
        assert!(guard.may_move(&tag("x")).is_err() && guard.may_delete(&tag("x")).is_err());
    }
}
