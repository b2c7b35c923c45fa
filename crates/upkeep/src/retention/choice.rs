//! Which tags of one repository a rule no longer keeps.
//! Invariant: the newest that the rule keeps are found first, in memory bounded by their number, and none of them is chosen.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use twinport_access::{Retention, Rules, TagGuard};
use twinport_metadata::{AgedTag, Metadata};
use twinport_oci::{Digest, Reference, RepositoryName, Tag};

use super::PAGE;
use crate::Result;

/// A tag's place among its neighbours: by age, then by name.
type Place = (i64, Tag);

/// A walk through the tags that may go.
pub(super) struct Choice<'r> {
    rule: &'r Retention,
    repository: RepositoryName,
    guard: TagGuard,
    considered: u64,
    /// The oldest of those that are kept for being the newest; none where all such are kept, or the rule keeps by age alone.
    oldest_kept: Oldest,
    /// Tags since then are too young (µs since the epoch).
    younger_than_us: i64,
    after: Option<Tag>,
    ended: bool,
}

enum Oldest {
    /// No number of tags is kept.
    Any,
    /// Everything before this place may go.
    Before(Place),
    /// There are no more tags than are kept.
    All,
}

impl<'r> Choice<'r> {
    /// Looks for the newest.
    pub(super) async fn begin(
        metadata: &Metadata,
        rules: &Rules,
        rule: &'r Retention,
        repository: RepositoryName,
    ) -> Result<Self> {
        let age_us = rule.older_than_s.and_then(|age| i64::try_from(age).ok()).map(|age| age * 1_000_000);
        let now_us = metadata.clock().now_us();
        let mut choice = Self {
            rule,
            guard: rules.tag_guard(&repository),
            repository,
            considered: 0,
            oldest_kept: Oldest::Any,
            younger_than_us: age_us.map_or(i64::MAX, |age| now_us.saturating_sub(age)),
            after: None,
            ended: false,
        };
        let keep = rule.keep.unwrap_or(0) as usize;
        let mut newest: BinaryHeap<Reverse<Place>> = BinaryHeap::with_capacity(keep.min(PAGE as usize) + 1);
        while let Some(page) = choice.page(metadata).await? {
            choice.considered += page.len() as u64;
            for aged in page.into_iter().filter(|_| keep > 0) {
                newest.push(Reverse((aged.tagged_at_us, aged.tag)));
                if newest.len() > keep {
                    newest.pop();
                }
            }
        }
        if keep > 0 {
            choice.oldest_kept = match newest.pop() {
                Some(Reverse(place)) if choice.considered > keep as u64 => Oldest::Before(place),
                _ => Oldest::All,
            };
        }
        (choice.after, choice.ended) = (None, matches!(choice.oldest_kept, Oldest::All));
        Ok(choice)
    }

    /// Tags that the rule is about and that nothing holds.
    pub(super) fn considered(&self) -> u64 {
        self.considered
    }

    /// The next of those that go; none when all have been seen.
    pub(super) async fn next(&mut self, metadata: &Metadata) -> Result<Option<Vec<AgedTag>>> {
        let Some(page) = self.page(metadata).await? else { return Ok(None) };
        Ok(Some(page.into_iter().filter(|aged| self.goes(aged)).collect()))
    }

    fn goes(&self, aged: &AgedTag) -> bool {
        let beyond_newest = match &self.oldest_kept {
            Oldest::Any => true,
            Oldest::Before((at_us, tag)) => (aged.tagged_at_us, &aged.tag) < (*at_us, tag),
            Oldest::All => false,
        };
        beyond_newest && aged.tagged_at_us < self.younger_than_us
    }

    /// The next tags that the rule is about and that nothing holds.
    async fn page(&mut self, metadata: &Metadata) -> Result<Option<Vec<AgedTag>>> {
        if self.ended {
            return Ok(None);
        }
        let mut page = metadata.aged_tags(&self.repository, self.after.as_ref(), PAGE).await?;
        self.ended = page.len() < PAGE as usize;
        self.after = page.last().map(|aged| aged.tag.clone());
        page.retain(|aged| self.rule.is_about(&aged.tag) && self.guard.may_delete(&aged.tag).is_ok());
        let mut free = Vec::with_capacity(page.len());
        for aged in page {
            if !self.belongs_to_what_is_here(metadata, &aged.tag).await? {
                free.push(aged);
            }
        }
        Ok(Some(free))
    }

    /// Whether a tag says by its name which manifest it belongs to, and that is here: the referrers tag schema (OCI
    /// Distribution, "Referrers Tag Schema") and the tags of signatures that follow it.
    async fn belongs_to_what_is_here(&self, metadata: &Metadata, tag: &Tag) -> Result<bool> {
        let Some(subject) = subject_of(tag) else { return Ok(false) };
        let reference = Reference::Digest(subject);
        Ok(metadata.manifest_head(&self.repository, &reference).await?.is_some())
    }
}

/// `sha256-<hex>`, with or without a suffix such as `.sig`.
fn subject_of(tag: &Tag) -> Option<Digest> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let hex = rest.split_once('.').map_or(rest, |(hex, _)| hex);
    format!("{algorithm}:{hex}").parse().ok()
}
