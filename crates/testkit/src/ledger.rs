//! What pushers were told, to be held against what a site says later.
//! Guards: all that was acknowledged has happened, and only what got no answer may have happened or not.

mod reading;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use rand::{Rng as _, rngs::StdRng};
use twinport_oci::Digest;

use self::reading::named;
use crate::pull_whole;

/// Requests that a comparison has under way at once.
const AT_ONCE: usize = 8;

/// A tag: its repository and its name.
pub type TagName = (String, String);
/// A manifest: its repository and its digest.
pub type ManifestName = (String, Digest);

/// What a request to delete names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The tag; the manifest stays.
    Tag(TagName),
    /// The manifest by digest, and with it its only tag.
    Manifest { manifest: ManifestName, tag: TagName },
}

/// Which entries a comparison looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that were touched since [`Ledger::forget_touched`].
    Touched,
    All,
}

/// Each tag belongs to one pusher, which never has two requests for it under way.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    tags: BTreeMap<TagName, Tag>,
    manifests: BTreeMap<ManifestName, Presence>,
    touched_tags: BTreeSet<TagName>,
    touched_manifests: BTreeSet<ManifestName>,
    pushes: u64,
    deletes: u64,
}

#[derive(Clone, Debug, Default)]
struct Tag {
    /// As acknowledged; `None` where it is deleted or was never pushed.
    names: Option<Digest>,
    /// What requests without an answer may have made of it since.
    perhaps: Vec<Option<Digest>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Stored,
    Deleted,
    /// A delete of it got no answer.
    Unknown,
}

impl Ledger {
    /// Before the request that tags `digest`.
    pub fn pushing(&self, tag: &TagName, digest: Digest) {
        self.0.lock().tag(tag).perhaps.push(Some(digest));
    }

    /// After its 201.
    pub fn pushed(&self, tag: &TagName, digest: Digest) {
        let mut entries = self.0.lock();
        entries.pushes += 1;
        *entries.tag(tag) = Tag { names: Some(digest), perhaps: Vec::new() };
        entries.manifest(&(tag.0.clone(), digest), Presence::Stored);
    }

    /// Before the request that deletes.
    pub fn deleting(&self, removal: &Removal) {
        let mut entries = self.0.lock();
        match removal {
            Removal::Tag(tag) => entries.tag(tag).perhaps.push(None),
            Removal::Manifest { manifest, tag } => {
                entries.tag(tag).perhaps.push(None);
                entries.manifest(manifest, Presence::Unknown);
            }
        }
    }

    /// After its 202, or after a 404 where an earlier one got no answer.
    pub fn deleted(&self, removal: &Removal) {
        let mut entries = self.0.lock();
        entries.deletes += 1;
        match removal {
            Removal::Tag(tag) => *entries.tag(tag) = Tag::default(),
            Removal::Manifest { manifest, tag } => {
                *entries.tag(tag) = Tag::default();
                entries.manifest(manifest, Presence::Deleted);
            }
        }
    }

    /// Something to delete among the tags whose state is known and whose name `is_mine`.
    pub fn removal(&self, random: &mut StdRng, is_mine: impl Fn(&str) -> bool) -> Option<Removal> {
        let entries = self.0.lock();
        let known: Vec<_> = entries
            .tags
            .iter()
            .filter(|(name, tag)| is_mine(&name.1) && tag.perhaps.is_empty())
            .filter_map(|(name, tag)| Some((name.clone(), tag.names?)))
            .collect();
        let (tag, digest) = known.get(random.random_range(0..known.len().max(1)))?.clone();
        Some(if random.random() {
            Removal::Manifest { manifest: (tag.0.clone(), digest), tag }
        } else {
            Removal::Tag(tag)
        })
    }

    /// Some tag, for a reader that looks at whatever there is.
    pub fn any_tag(&self, random: &mut StdRng) -> Option<TagName> {
        let entries = self.0.lock();
        entries.tags.keys().nth(random.random_range(0..entries.tags.len().max(1))).cloned()
    }

    /// How many pushes and deletes were acknowledged.
    pub fn acknowledged(&self) -> (u64, u64) {
        let entries = self.0.lock();
        (entries.pushes, entries.deletes)
    }

    /// [`Scope::Touched`] is empty afterwards.
    pub fn forget_touched(&self) {
        let mut entries = self.0.lock();
        entries.touched_tags.clear();
        entries.touched_manifests.clear();
    }

    /// Reads at the primary what became of the requests without an answer, while nobody writes. From then on that
    /// is what must stay.
    ///
    /// # Errors
    /// When a tag names neither what was acknowledged nor what was tried since.
    pub async fn settle(&self, http: &reqwest::Client, primary: &str) -> anyhow::Result<()> {
        let (tags, manifests) = self.entries(Scope::Touched);
        for (name, tag) in tags {
            let seen = named(http, primary, &name.0, &name.1).await?;
            ensure!(
                seen == tag.names || tag.perhaps.contains(&seen),
                "{}:{} was acknowledged as {:?} and is {seen:?}; without an answer: {:?}",
                name.0,
                name.1,
                tag.names,
                tag.perhaps
            );
            let mut entries = self.0.lock();
            if let Some(digest) = seen {
                entries.manifest(&(name.0.clone(), digest), Presence::Stored);
            }
            *entries.tag(&name) = Tag { names: seen, perhaps: Vec::new() };
        }
        for (name, presence) in manifests {
            if presence == Presence::Unknown {
                let stands = named(http, primary, &name.0, &name.1.to_string()).await?.is_some();
                let presence = if stands { Presence::Stored } else { Presence::Deleted };
                self.0.lock().manifest(&name, presence);
            }
        }
        Ok(())
    }

    /// Whether the site at `url` names the same digests and has none of what was deleted. Bodies are not read.
    ///
    /// # Errors
    /// The first difference, or a request that failed.
    pub async fn compare(&self, http: &reqwest::Client, url: &str, scope: Scope) -> anyhow::Result<()> {
        let (tags, manifests) = self.entries(scope);
        let tags = tags.map(|((repository, tag), is)| (repository, tag, is.names));
        let manifests = manifests.map(|((repository, digest), presence)| {
            (repository, digest.to_string(), (presence == Presence::Stored).then_some(digest))
        });
        stream::iter(tags.chain(manifests).map(Ok))
            .try_for_each_concurrent(AT_ONCE, async |(repository, reference, is)| {
                let seen = named(http, url, &repository, &reference).await?;
                ensure!(seen == is, "{repository} {reference} at {url} is {seen:?} and not {is:?}");
                Ok(())
            })
            .await
    }

    /// Pulls every image and hashes every byte of it. How many.
    ///
    /// # Errors
    /// When something is missing, altered, or named otherwise than acknowledged.
    pub async fn pull_all(&self, http: &reqwest::Client, url: &str, scope: Scope) -> anyhow::Result<usize> {
        let (tags, manifests) = self.entries(scope);
        let tags = tags.filter_map(|((repository, tag), is)| Some((repository, tag, is.names?)));
        let manifests = manifests
            .filter(|(_, presence)| *presence == Presence::Stored)
            .map(|((repository, digest), _)| (repository, digest.to_string(), digest));
        let pulled: Vec<anyhow::Result<()>> = stream::iter(tags.chain(manifests))
            .map(|(repository, reference, digest)| async move {
                let whole = pull_whole(http, url, &repository, &reference).await?;
                ensure!(whole == digest, "{repository} {reference} at {url} is {whole} and not {digest}");
                Ok(())
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let count = pulled.len();
        pulled.into_iter().collect::<anyhow::Result<()>>()?;
        Ok(count)
    }
}

impl Ledger {
    fn entries(
        &self,
        scope: Scope,
    ) -> (impl Iterator<Item = (TagName, Tag)>, impl Iterator<Item = (ManifestName, Presence)>) {
        let entries = self.0.lock();
        (entries.tags(scope).into_iter(), entries.manifests(scope).into_iter())
    }
}

impl Entries {
    fn tag(&mut self, name: &TagName) -> &mut Tag {
        self.touched_tags.insert(name.clone());
        self.tags.entry(name.clone()).or_default()
    }

    fn manifest(&mut self, name: &ManifestName, presence: Presence) {
        self.touched_manifests.insert(name.clone());
        self.manifests.insert(name.clone(), presence);
    }

    fn tags(&self, scope: Scope) -> Vec<(TagName, Tag)> {
        let tags = self.tags.iter();
        tags.filter(|(name, _)| scope == Scope::All || self.touched_tags.contains(*name))
            .map(|(name, tag)| (name.clone(), tag.clone()))
            .collect()
    }

    fn manifests(&self, scope: Scope) -> Vec<(ManifestName, Presence)> {
        let manifests = self.manifests.iter();
        manifests
            .filter(|(name, _)| scope == Scope::All || self.touched_manifests.contains(*name))
            .map(|(name, presence)| (name.clone(), *presence))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn only_requests_without_an_answer_leave_a_doubt() {
        let ledger = Ledger::default();
        let tag = ("a".to_owned(), "latest".to_owned());
        let (first, second) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        ledger.pushing(&tag, first);
        ledger.pushed(&tag, first);
        ledger.pushing(&tag, second);
        assert_eq!(ledger.removal(&mut StdRng::seed_from_u64(1), |_| true), None, "its state is not known");
        let tags = ledger.0.lock().tags(Scope::All);
        assert_eq!((tags[0].1.names, tags[0].1.perhaps.as_slice()), (Some(first), &[Some(second)][..]));
        ledger.pushed(&tag, second);
        assert!(ledger.removal(&mut StdRng::seed_from_u64(1), |_| true).is_some());
        assert_eq!(ledger.acknowledged(), (2, 0));
    }
}
