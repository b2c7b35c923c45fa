//! All rules of a site, compiled for the questions that are asked of a repository.
//! Invariant: of several rules on a repository each holds: the smallest limit counts, and every quota.

use std::sync::Arc;

use twinport_oci::{RepositoryName, Tag};

use crate::foreign_urls::{self, AllowedHost};
use crate::pattern::{RepositoryPattern, TagPattern};
use crate::rule::{Rule, RuleKind, RuleName};
use crate::tag_guard::{HeldTags, Hold, Holder, TagChange, TagGuard, matching};

/// The rules of a site. Without any, every question is answered at once.
#[derive(Debug, Default)]
pub struct Rules {
    holds: Vec<(RepositoryPattern, Arc<Hold>)>,
    sizes: Vec<MaximumSize>,
    quotas: Vec<Quota>,
    retentions: Vec<Retention>,
    foreign_urls: Vec<ForeignUrls>,
}

#[derive(Debug)]
struct MaximumSize {
    name: RuleName,
    repositories: RepositoryPattern,
    manifest_bytes: Option<u64>,
    blob_bytes: Option<u64>,
}

#[derive(Debug)]
struct ForeignUrls {
    name: RuleName,
    repositories: RepositoryPattern,
    allow: Vec<AllowedHost>,
}

/// A limit, and the rule that sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub bytes: u64,
    pub rule: RuleName,
}

/// What the repositories of a pattern may hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    pub name: RuleName,
    pub repositories: RepositoryPattern,
    /// Of the blobs that each repository links and of its manifests; a blob counts in every repository that links it.
    pub most_bytes: Option<u64>,
    pub most_repositories: Option<u64>,
}

/// Which tags go by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    pub name: RuleName,
    pub repositories: RepositoryPattern,
    tags: Vec<TagPattern>,
    except: Vec<TagPattern>,
    /// Of each repository, so many of the newest tags stay.
    pub keep: Option<u32>,
    /// Seconds: younger tags stay.
    pub older_than_s: Option<u64>,
}

/// Why a manifest may not name a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a layer may not be fetched from {url}: the rule {rule} allows other hosts only")]
pub struct ForeignUrlRefusal {
    pub url: String,
    pub rule: RuleName,
}

const IMMUTABLE: &[TagChange] = &[TagChange::Move, TagChange::Delete];

impl Rules {
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        let mut compiled = Self::default();
        for rule in rules {
            compiled.add(rule);
        }
        compiled
    }

    fn add(&mut self, Rule { name, repositories, what }: Rule) {
        let hold = |tags, except, refused, by| {
            Arc::new(Hold { tags: HeldTags::Matching { tags, except }, refused, by })
        };
        match what {
            RuleKind::ImmutableTags { tags, except } => {
                let by = Holder::ImmutableTags(name);
                self.holds.push((repositories, hold(tags, except, IMMUTABLE, by)));
            }
            RuleKind::CreateOnly { tags, except } => {
                let by = Holder::CreateOnly(name);
                self.holds.push((repositories, hold(tags, except, &[TagChange::Move], by)));
            }
            RuleKind::MaximumSize { manifest_bytes, blob_bytes } => {
                self.sizes.push(MaximumSize { name, repositories, manifest_bytes, blob_bytes });
            }
            RuleKind::Quota { bytes, repositories: most_repositories } => {
                self.quotas.push(Quota { name, repositories, most_bytes: bytes, most_repositories });
            }
            RuleKind::Retention { tags, except, keep, older_than_s } => {
                self.retentions.push(Retention { name, repositories, tags, except, keep, older_than_s });
            }
            RuleKind::ForeignUrls { allow } => {
                // An entry that cannot be read allows nothing; `Rule::check` tells whoever writes one.
                let allow = allow.iter().filter_map(|host| AllowedHost::parse(host).ok()).collect();
                self.foreign_urls.push(ForeignUrls { name, repositories, allow });
            }
        }
    }

    /// What holds the tags of a repository.
    pub fn tag_guard(&self, repository: &RepositoryName) -> TagGuard {
        let holds = self.holds.iter().filter(|(repositories, _)| repositories.matches(repository));
        TagGuard::of(holds.map(|(_, hold)| hold.clone()).collect())
    }

    /// The largest manifest that a repository takes.
    pub fn largest_manifest(&self, repository: &RepositoryName) -> Option<Limit> {
        self.smallest(repository, |size| size.manifest_bytes)
    }

    /// The largest blob that a repository takes.
    pub fn largest_blob(&self, repository: &RepositoryName) -> Option<Limit> {
        self.smallest(repository, |size| size.blob_bytes)
    }

    fn smallest(
        &self,
        repository: &RepositoryName,
        bytes: impl Fn(&MaximumSize) -> Option<u64>,
    ) -> Option<Limit> {
        let on = self.sizes.iter().filter(|size| size.repositories.matches(repository));
        on.filter_map(|size| Some(Limit { bytes: bytes(size)?, rule: size.name.clone() }))
            .min_by_key(|limit| limit.bytes)
    }

    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }

    /// The quotas that count a repository.
    pub fn quotas_on(&self, repository: &RepositoryName) -> impl Iterator<Item = &Quota> {
        self.quotas.iter().filter(|quota| quota.repositories.matches(repository))
    }

    pub fn retentions(&self) -> &[Retention] {
        &self.retentions
    }

    /// Whether clients may be sent to the URLs that a manifest's layers name.
    ///
    /// # Errors
    /// The first URL that some rule on the repository does not allow.
    pub fn check_foreign_urls<'u>(
        &self,
        repository: &RepositoryName,
        urls: impl Iterator<Item = &'u str> + Clone,
    ) -> Result<(), ForeignUrlRefusal> {
        for rule in self.foreign_urls.iter().filter(|rule| rule.repositories.matches(repository)) {
            if let Some(url) = urls.clone().find(|url| !foreign_urls::allowed(&rule.allow, url)) {
                let url = crate::error::shown(url);
                return Err(ForeignUrlRefusal { url, rule: rule.name.clone() });
            }
        }
        Ok(())
    }
}

impl Retention {
    /// Whether the rule is about this tag at all.
    pub fn is_about(&self, tag: &Tag) -> bool {
        matching(&self.tags, &self.except, tag)
    }
}

impl Rule {
    /// Whether the rule asks for something that can be done.
    ///
    /// # Errors
    /// [`crate::Error::Rule`] says what to write instead.
    pub fn check(&self) -> crate::Result<()> {
        let invalid = |reason| Err(crate::Error::Rule { name: self.name.to_string(), reason });
        match &self.what {
            RuleKind::ImmutableTags { tags, .. }
            | RuleKind::CreateOnly { tags, .. }
            | RuleKind::Retention { tags, .. }
                if tags.is_empty() =>
            {
                invalid("it names no tags: `*` stands for all")
            }
            RuleKind::MaximumSize { manifest_bytes: None, blob_bytes: None } => {
                invalid("it sets no size: give the largest manifest, the largest blob or both")
            }
            RuleKind::Quota { bytes: None, repositories: None } => {
                invalid("it sets no limit: give bytes, a number of repositories or both")
            }
            RuleKind::Retention { keep: None, older_than_s: None, .. } => {
                invalid("it would take every tag: say how many to keep, how old they must be, or both")
            }
            RuleKind::Retention { keep: Some(0), older_than_s: None, .. } => {
                invalid("it would take every tag: keep at least one, or say how old they must be")
            }
            RuleKind::Retention { keep, older_than_s, .. }
                if keep.is_some_and(|keep| keep > MOST_KEPT)
                    || older_than_s.is_some_and(|age| age > MOST_AGE_S) =>
            {
                invalid("it keeps more than 100000 tags, or waits for more than a hundred years")
            }
            RuleKind::ForeignUrls { allow } => allow.iter().try_for_each(|h| AllowedHost::parse(h).map(drop)),
            _ => Ok(()),
        }
    }
}

/// The names of what is kept are held in memory while a repository is looked at.
const MOST_KEPT: u32 = 100_000;
const MOST_AGE_S: u64 = 100 * 366 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, repositories: &str, what: &str) -> Rule {
        let text = format!(r#"{{"name":"{name}","repositories":"{repositories}",{what}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    #[test]
    fn a7_an_immutable_tag_is_set_once_and_its_exceptions_are_not_held() {
        let rules = Rules::new([
            rule("releases", "team/**", r#""rule":"immutable_tags","tags":["v*"],"except":["v*-rc*"]"#),
            rule("dated", "team/*", r#""rule":"create_only","tags":["20*"]"#),
        ]);
        let guard = rules.tag_guard(&name("team/app"));
        assert!(guard.may_set(&tag("v1")).is_ok());
        assert_eq!(
            guard.may_move(&tag("v1")).unwrap_err().to_string(),
            "the tag v1 may not be moved: the rule releases makes it immutable"
        );
        assert!(guard.may_delete(&tag("v1")).is_err());
        for free in ["v1-rc1", "latest"] {
            assert!(guard.may_move(&tag(free)).is_ok() && guard.may_delete(&tag(free)).is_ok(), "{free}");
        }
        assert!(guard.may_move(&tag("2026-01-01")).is_err() && guard.may_delete(&tag("2026-01-01")).is_ok());
        assert!(rules.tag_guard(&name("other/app")).is_open());
    }

    #[test]
    fn the_smallest_of_several_limits_counts_and_says_whose_it_is() {
        let rules = Rules::new([
            rule("all", "**", r#""rule":"maximum_size","manifest_bytes":5000,"blob_bytes":100"#),
            rule("team", "team/*", r#""rule":"maximum_size","blob_bytes":50"#),
        ]);
        let limit = rules.largest_blob(&name("team/app")).unwrap();
        assert_eq!((limit.bytes, limit.rule.as_str()), (50, "team"));
        assert_eq!(rules.largest_blob(&name("app")).unwrap().bytes, 100);
        assert_eq!(rules.largest_manifest(&name("team/app")).unwrap().bytes, 5000);
    }

    #[test]
    fn a8_a_url_has_to_be_allowed_by_every_rule() {
        let rules = Rules::new([
            rule("windows", "**", r#""rule":"foreign_urls","allow":["mcr.example.com","files.example.com"]"#),
            rule("strict", "secret/*", r#""rule":"foreign_urls","allow":["files.example.com"]"#),
            rule("typo", "odd", r#""rule":"foreign_urls","allow":["https://"]"#),
        ]);
        let urls = ["https://files.example.com/a", "https://mcr.example.com/b"];
        assert!(rules.check_foreign_urls(&name("app"), urls.into_iter()).is_ok());
        let refusal = rules.check_foreign_urls(&name("secret/app"), urls.into_iter()).unwrap_err();
        assert_eq!((refusal.url.as_str(), refusal.rule.as_str()), (urls[1], "strict"));
        assert!(rules.check_foreign_urls(&name("odd"), urls.into_iter()).is_err());
        assert!(Rules::default().check_foreign_urls(&name("odd"), urls.into_iter()).is_ok());
    }

    #[test]
    fn r30_a_rule_that_would_take_everything_is_no_rule() {
        for what in [
            r#""rule":"retention","tags":["*"]"#,
            r#""rule":"retention","tags":["*"],"keep":0"#,
            r#""rule":"retention","tags":[],"keep":3"#,
            r#""rule":"retention","tags":["*"],"keep":4000000000"#,
            r#""rule":"immutable_tags","tags":[]"#,
            r#""rule":"maximum_size""#,
            r#""rule":"quota""#,
            r#""rule":"foreign_urls","allow":["a/b"]"#,
        ] {
            assert!(rule("r", "**", what).check().is_err(), "{what}");
        }
        for what in [
            r#""rule":"retention","tags":["*"],"keep":3"#,
            r#""rule":"retention","tags":["*"],"keep":0,"older_than_s":86400"#,
            r#""rule":"foreign_urls","allow":[]"#,
            r#""rule":"quota","bytes":0"#,
        ] {
            rule("r", "**", what).check().unwrap();
        }
    }
}
