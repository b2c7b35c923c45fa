//! Fetches what is wanted and decides, item by item, what may become visible.
//! Invariant: a manifest whose blob or child is missing fails with it, and so does its tag, whose old target stays;
//! a neighbour never does (hazards R5, R14).

mod fetch;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use twinport_metadata::{
    ApplyChunk, HeldManifest, ItemKind, LinkRow, LinkedBlob, ManifestRow, Removed, RepositoryUuid, TagRow,
    Unsettled,
};
use twinport_oci::{Digest, Tag};

use self::fetch::{Fetched, Parsed};
use super::{
    Stop, UNSETTLED,
    reduce::{At, Wanted, WantedManifest},
};
use crate::{
    secondary::Engine,
    transfer::{Failure, FailureKind},
    upstream::Upstream,
};

/// Attempts that an absence, or a wait, may take before it counts as a failure.
const PATIENT_ATTEMPTS: i64 = 5;
/// When to look again at a transfer that is under way; its end makes the item due anyway (µs).
const UNDER_WAY_US: i64 = 30_000_000;

/// Where the wanted things come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode<'m> {
    Events,
    Retries,
    Listing(Ahead<'m>),
}

/// Which manifests of a listing are still to come, so that an index waits for them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ahead<'m> {
    Anything,
    Only(&'m BTreeSet<Digest>),
}

impl Ahead<'_> {
    fn may_bring(self, digest: &Digest) -> bool {
        match self {
            Self::Anything => true,
            Self::Only(ahead) => ahead.contains(digest),
        }
    }
}

/// What a chunk comes to.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) chunk: ApplyChunk,
    /// Blobs that the chunk did not wait for.
    pub(super) under_way: Vec<Digest>,
    /// Manifests that wait for later ones of the same listing.
    pub(super) deferred: BTreeMap<Digest, WantedManifest>,
    /// Something is missing that neither an event nor a failure explains.
    pub(super) relist: bool,
}

/// What is known of the repository beside what is wanted of it.
struct Known {
    before: HashMap<(ItemKind, String), Unsettled>,
    blobs: HashMap<Digest, LinkedBlob>,
    unlinked: HashSet<Digest>,
    manifests: HashMap<Digest, HeldManifest>,
}

/// Why an item does not become visible.
#[derive(Clone, Debug)]
enum No {
    Failed(Failure),
    /// Nothing that this site was told explains what is missing.
    Unexplained(Failure),
    /// Its event is on its way and will say.
    NotYet,
    /// Its children come later in the listing.
    Later,
}

/// `unsettled`: something of the repository is pending or failed, so what that is has to be looked at.
pub(super) async fn resolve<U: Upstream>(
    engine: &Engine<U>,
    uuid: RepositoryUuid,
    wanted: Wanted,
    mode: Mode<'_>,
    unsettled: bool,
) -> Result<Resolved, Stop> {
    let before = if unsettled { engine.metadata.unsettled_items(uuid, UNSETTLED).await? } else { Vec::new() };
    let before: HashMap<_, _> =
        before.into_iter().map(|item| ((item.kind, item.key.clone()), item)).collect();
    let fetched = fetch::fetch(engine, uuid, &wanted, mode).await?;
    if !engine.is_connected()
        && let Some(failure) = fetched.failures().find(|failure| failure.kind == FailureKind::Unreachable)
    {
        return Err(Stop::Away(failure.text.clone()));
    }
    let known = look_up(engine, uuid, &wanted, &fetched, before).await?;
    let mut decision =
        Decision { wanted: &wanted, fetched: &fetched, known: &known, mode, manifests: BTreeMap::new() };
    let order: Vec<Digest> = fetched.parsed.keys().copied().collect();
    for digest in &order {
        // The verdict is kept in the decision.
        drop(decision.manifest(digest, &mut Vec::new()));
    }
    Ok(decision.into_resolved(engine))
}

/// Reads, in few statements, what the decisions below ask for.
async fn look_up<U: Upstream>(
    engine: &Engine<U>,
    uuid: RepositoryUuid,
    wanted: &Wanted,
    fetched: &Fetched,
    before: HashMap<(ItemKind, String), Unsettled>,
) -> Result<Known, Stop> {
    let metadata = &engine.metadata;
    let named: HashSet<Digest> = fetched
        .parsed
        .values()
        .flat_map(|parsed| &parsed.blobs)
        .filter(|digest| !wanted.links.contains_key(digest))
        .copied()
        .collect();
    let named: Vec<Digest> = named.into_iter().collect();
    let mut blobs = metadata.linked_blobs(uuid, &named).await?;
    for (digest, blob) in &mut blobs {
        // Bytes that were taken over without being read are read before anything resting on them is verified.
        if blob.linked && !blob.verified {
            blob.verified = engine.transfers.fetch(*digest, None).await.is_ok();
        }
    }
    let missing: Vec<Digest> =
        named.into_iter().filter(|digest| blobs.get(digest).is_none_or(|blob| !blob.linked)).collect();
    let mut unlinked = metadata.unlinked_blobs(uuid, &missing).await?;
    unlinked.extend(wanted.removals.iter().filter_map(|removal| match removal.what {
        Removed::BlobLink(digest) => Some(digest),
        Removed::Manifest(_) | Removed::Tag(_) => None,
    }));
    let children = fetched.parsed.values().flat_map(|parsed| parsed.children.iter().copied());
    let tagged = wanted.tags.values().map(|tag| tag.digest);
    let others: HashSet<Digest> =
        children.chain(tagged).filter(|digest| !wanted.manifests.contains_key(digest)).collect();
    let manifests = metadata.held_manifests(uuid, &others.into_iter().collect::<Vec<_>>()).await?;
    Ok(Known { before, blobs, unlinked, manifests })
}

struct Decision<'d> {
    wanted: &'d Wanted,
    fetched: &'d Fetched,
    known: &'d Known,
    mode: Mode<'d>,
    /// Decided so far: whether its closure is verified, or why it stays out.
    manifests: BTreeMap<Digest, Result<bool, No>>,
}

impl Decision<'_> {
    /// Decides on a fetched manifest, its children first. `path` holds those being decided on: a digest cannot
    /// contain itself, so it only guards against a peer that says otherwise.
    fn manifest(&mut self, digest: &Digest, path: &mut Vec<Digest>) -> Result<bool, No> {
        if let Some(decided) = self.manifests.get(digest) {
            return decided.clone();
        }
        let (Some(parsed), Some(want)) = (self.fetched.parsed.get(digest), self.wanted.manifests.get(digest))
        else {
            return Err(No::NotYet);
        };
        if path.contains(digest) {
            return Err(No::Failed(Failure::failed(format!("{digest} is among its own children"))));
        }
        path.push(*digest);
        let decided = self.closure(parsed, want.at, path);
        path.pop();
        self.manifests.insert(*digest, decided.clone());
        decided
    }

    fn closure(&mut self, parsed: &Parsed, at: At, path: &mut Vec<Digest>) -> Result<bool, No> {
        let mut verified = true;
        for blob in &parsed.blobs {
            verified &= self.blob(blob, at)?;
        }
        for child in &parsed.children {
            verified &= self.child(child, path)?;
        }
        Ok(verified)
    }

    fn blob(&self, digest: &Digest, at: At) -> Result<bool, No> {
        if self.wanted.links.contains_key(digest) {
            return match self.fetched.links.get(digest) {
                None => Ok(true),
                Some(failure) => Err(No::Failed(depends("blob", digest, failure))),
            };
        }
        if let Some(blob) = self.known.blobs.get(digest).filter(|blob| blob.linked) {
            return Ok(blob.verified);
        }
        if self.known.unlinked.contains(digest) {
            return Ok(true);
        }
        if let Some(failure) = self.failed_before(ItemKind::BlobLink, &digest.to_string()) {
            return Err(No::Failed(depends("blob", digest, &failure)));
        }
        Err(self.missing(
            at,
            format!("blob {digest} is linked neither here nor, as far as it says, at the primary"),
        ))
    }

    fn child(&mut self, digest: &Digest, path: &mut Vec<Digest>) -> Result<bool, No> {
        if self.fetched.parsed.contains_key(digest) {
            return self.manifest(digest, path).map_err(|no| match no {
                No::Failed(failure) => No::Failed(depends("manifest", digest, &failure)),
                No::Unexplained(failure) => No::Failed(depends("manifest", digest, &failure)),
                no => no,
            });
        }
        if let Some(failure) = self.fetched.manifests.get(digest) {
            return Err(No::Failed(depends("manifest", digest, failure)));
        }
        if let Some(held) = self.known.manifests.get(digest) {
            return Ok(held.verified);
        }
        if let Some(failure) = self.failed_before(ItemKind::Manifest, &digest.to_string()) {
            return Err(No::Failed(depends("manifest", digest, &failure)));
        }
        match self.mode {
            Mode::Listing(ahead) if ahead.may_bring(digest) => Err(No::Later),
            // A sparse index: the primary does not have the child either.
            _ => Ok(true),
        }
    }

    fn tag(&self, digest: &Digest, at: At) -> Result<bool, No> {
        match self.manifests.get(digest) {
            Some(Ok(verified)) => return Ok(*verified),
            Some(Err(No::Failed(failure) | No::Unexplained(failure))) => {
                return Err(No::Failed(depends("manifest", digest, failure)));
            }
            Some(Err(no)) => return Err(no.clone()),
            None => {}
        }
        if let Some(failure) = self.fetched.manifests.get(digest) {
            return Err(No::Failed(depends("manifest", digest, failure)));
        }
        if let Some(held) = self.known.manifests.get(digest) {
            return Ok(held.verified);
        }
        if let Some(failure) = self.failed_before(ItemKind::Manifest, &digest.to_string()) {
            return Err(No::Failed(depends("manifest", digest, &failure)));
        }
        Err(self
            .missing(at, format!("manifest {digest} is neither here nor, as far as it says, at the primary")))
    }

    fn missing(&self, at: At, text: String) -> No {
        let absent = Failure { kind: FailureKind::Absent, text };
        match self.mode {
            Mode::Listing(_) if !at.certain => No::NotYet,
            // The primary changed while it was listed, and the event that says so is on its way; or it never comes.
            Mode::Listing(_) => No::Failed(absent),
            Mode::Events | Mode::Retries => No::Unexplained(absent),
        }
    }

    fn failed_before(&self, kind: ItemKind, key: &str) -> Option<Failure> {
        let item = self.known.before.get(&(kind, key.to_owned()))?;
        let kind = if item.failed { FailureKind::Failed } else { FailureKind::UnderWay };
        Some(Failure { kind, text: item.error.clone() })
    }

    fn into_resolved<U: Upstream>(self, engine: &Engine<U>) -> Resolved {
        let mut out =
            Outcome { resolved: Resolved::default(), known: self.known, engine, now_us: engine.now_us() };
        for (digest, link) in &self.wanted.links {
            match self.fetched.links.get(digest) {
                None => {
                    let row = LinkRow { digest: *digest, position: link.at.position, at_us: link.at.at_us };
                    out.resolved.chunk.links.push(row);
                    out.settle(ItemKind::BlobLink, digest.to_string());
                }
                Some(failure) => {
                    if failure.kind == FailureKind::UnderWay {
                        out.resolved.under_way.push(*digest);
                    }
                    out.unsettled(ItemKind::BlobLink, digest.to_string(), digest, link.at, failure);
                }
            }
        }
        self.manifests_into(&mut out);
        for (tag, want) in &self.wanted.tags {
            let verdict = self.tag(&want.digest, want.at);
            out.tag(tag, want.digest, want.at, verdict);
        }
        out.resolved.chunk.removals.clone_from(&self.wanted.removals);
        out.resolved.chunk.healed |= self.wanted.removals.iter().any(|removal| {
            let (kind, key) = match &removal.what {
                Removed::BlobLink(digest) => (ItemKind::BlobLink, digest.to_string()),
                Removed::Manifest(digest) => (ItemKind::Manifest, digest.to_string()),
                Removed::Tag(tag) => (ItemKind::Tag, tag.to_string()),
            };
            self.known.before.contains_key(&(kind, key))
        });
        out.resolved
    }

    fn manifests_into<U: Upstream>(&self, out: &mut Outcome<'_, U>) {
        for (digest, want) in &self.wanted.manifests {
            let key = digest.to_string();
            let verdict = match self.fetched.manifests.get(digest) {
                Some(failure) => Err(No::Failed(failure.clone())),
                None => self.manifests.get(digest).cloned().unwrap_or(Err(No::NotYet)),
            };
            match (verdict, self.fetched.parsed.get(digest)) {
                (Ok(verified), Some(parsed)) => {
                    out.resolved.chunk.manifests.push(row(parsed, want.at, verified));
                    out.heal(ItemKind::Manifest, &key);
                }
                (Err(No::Failed(failure)), _) => {
                    out.unsettled(ItemKind::Manifest, key, digest, want.at, &failure)
                }
                (Err(No::Unexplained(failure)), _) => {
                    out.resolved.relist = true;
                    out.unsettled(ItemKind::Manifest, key, digest, want.at, &failure);
                }
                (Err(No::Later), _) => {
                    out.resolved.deferred.insert(*digest, want.clone());
                }
                (Err(No::NotYet) | Ok(_), _) => out.settle(ItemKind::Manifest, key),
            }
        }
    }
}

/// The chunk as it comes together.
struct Outcome<'o, U> {
    resolved: Resolved,
    known: &'o Known,
    engine: &'o Engine<U>,
    now_us: i64,
}

impl<U: Upstream> Outcome<'_, U> {
    fn tag(&mut self, tag: &Tag, digest: Digest, at: At, verdict: Result<bool, No>) {
        let key = tag.to_string();
        match verdict {
            Ok(verified) => {
                let row =
                    TagRow { tag: tag.clone(), digest, position: at.position, at_us: at.at_us, verified };
                self.resolved.chunk.tags.push(row);
                self.heal(ItemKind::Tag, &key);
            }
            Err(No::Failed(failure)) => self.unsettled(ItemKind::Tag, key, &digest, at, &failure),
            Err(No::Unexplained(failure)) => {
                self.resolved.relist = true;
                self.unsettled(ItemKind::Tag, key, &digest, at, &failure);
            }
            Err(No::NotYet | No::Later) => self.settle(ItemKind::Tag, key),
        }
    }

    fn unsettled(&mut self, kind: ItemKind, key: String, digest: &Digest, at: At, failure: &Failure) {
        let position_seq = at.position.seq;
        let before =
            self.known.before.get(&(kind, key.clone())).filter(|item| item.position_seq == position_seq);
        let attempts = before.map_or(0, |item| item.attempts) + 1;
        let wait_us = match failure.kind {
            FailureKind::UnderWay => UNDER_WAY_US,
            _ => i64::try_from(self.engine.backoff(attempts).as_micros()).unwrap_or(i64::MAX),
        };
        let patient = failure.kind == FailureKind::UnderWay || attempts < PATIENT_ATTEMPTS;
        let failed = !(failure.may_pass() && patient);
        if failed && before.is_none_or(|item| !item.failed) {
            tracing::warn!(kind = kind.as_str(), %key, %failure, "an item could not be synced, trying again later");
        }
        self.resolved.chunk.unsettled.push(Unsettled {
            kind,
            key,
            digest: *digest,
            position_seq,
            attempts,
            next_attempt_us: self.now_us.saturating_add(wait_us),
            error: failure.text.clone(),
            failed,
        });
    }

    /// Forgets what was unsettled about an item that has no record of its own now.
    fn settle(&mut self, kind: ItemKind, key: String) {
        if self.known.before.contains_key(&(kind, key.clone())) {
            self.resolved.chunk.healed = true;
            self.resolved.chunk.settled.push((kind, key));
        }
    }

    fn heal(&mut self, kind: ItemKind, key: &str) {
        self.resolved.chunk.healed |= self.known.before.contains_key(&(kind, key.to_owned()));
    }
}

fn row(parsed: &Parsed, at: At, verified: bool) -> ManifestRow {
    ManifestRow {
        digest: parsed.digest,
        media_type: parsed.media_type.clone(),
        artifact_type: parsed.artifact_type.clone(),
        subject: parsed.subject,
        annotations: parsed.annotations.clone(),
        body: parsed.body.clone(),
        blobs: parsed.blobs.clone(),
        children: parsed.children.clone(),
        position: at.position,
        at_us: at.at_us,
        verified,
    }
}

fn depends(what: &str, digest: &Digest, failure: &Failure) -> Failure {
    let prefix = format!("{what} {digest} is not here: ");
    // A chain of dependents names the root of the trouble once, not every link of it.
    let text = if failure.text.starts_with("blob sha") || failure.text.starts_with("manifest sha") {
        failure.text.clone()
    } else {
        prefix + &failure.text
    };
    Failure { kind: failure.kind, text }
}
