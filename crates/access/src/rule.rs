//! Rules on repositories: what nobody may do there, whatever their role.

use serde::{Deserialize, Serialize};

use crate::account::AccountName;
use crate::pattern::{RepositoryPattern, TagPattern};

/// What a rule is called, by the grammar of account names.
pub type RuleName = AccountName;

/// A rule on the repositories of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub name: RuleName,
    pub repositories: RepositoryPattern,
    #[serde(flatten)]
    pub what: RuleKind,
}

/// What a rule asks for. Of several rules on a repository each holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum RuleKind {
    /// Tags that are set once and for all: they can neither be moved nor deleted.
    ImmutableTags {
        tags: Vec<TagPattern>,
        #[serde(default)]
        except: Vec<TagPattern>,
    },
    /// Tags that are not moved; they may be deleted.
    CreateOnly {
        tags: Vec<TagPattern>,
        #[serde(default)]
        except: Vec<TagPattern>,
    },
    /// The largest manifest and blob, in bytes.
    MaximumSize {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        manifest_bytes: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blob_bytes: Option<u64>,
    },
    /// What all repositories of the pattern may hold together.
    Quota {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        /// Under a name of its own, because a rule's `repositories` is its pattern.
        #[serde(default, rename = "most_repositories", skip_serializing_if = "Option::is_none")]
        repositories: Option<u64>,
    },
    /// Which tags go by themselves: those of `tags` but not of `except`, beyond the newest `keep`, older than `older_than_s`.
    Retention {
        tags: Vec<TagPattern>,
        #[serde(default)]
        except: Vec<TagPattern>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep: Option<u32>,
        /// Seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        older_than_s: Option<u64>,
    },
    /// Hosts that layers may be fetched from by clients; a manifest that names another is refused.
    ForeignUrls { allow: Vec<String> },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_as_it_is_written() {
        let rule = |what| Rule { name: "r".parse().unwrap(), repositories: "team/**".parse().unwrap(), what };
        let tags = || vec!["v*".parse().unwrap()];
        for what in [
            RuleKind::ImmutableTags { tags: tags(), except: vec![] },
            RuleKind::CreateOnly { tags: tags(), except: tags() },
            RuleKind::MaximumSize { manifest_bytes: Some(1), blob_bytes: None },
            RuleKind::Quota { bytes: Some(1 << 40), repositories: Some(3) },
            RuleKind::Retention { tags: tags(), except: vec![], keep: Some(3), older_than_s: Some(60) },
            RuleKind::ForeignUrls { allow: vec!["mcr.example.com".to_owned()] },
        ] {
            let rule = rule(what);
            let text = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<Rule>(&text).unwrap(), rule, "{text}");
        }
    }
}
