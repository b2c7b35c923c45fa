//! Getting what is wanted: blobs that this site lacks, and manifests, all at the same time.
//! Guards: a manifest's bytes are hashed before they are read, and nothing is kept that is not what was asked for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::{join, ready},
    stream::{self, FuturesUnordered},
};
use tokio::time::{Instant, timeout, timeout_at};
use twinport_metadata::RepositoryUuid;
use twinport_oci::{Digest, Manifest, MediaType, canonical_digest};

use super::{
    super::{PATIENCE, Stop, reduce::Wanted},
    Mode,
};
use crate::{
    pace::Turn,
    secondary::Engine,
    transfer::{Failure, FailureKind},
    upstream::Upstream,
};

/// Manifests of one chunk that are asked for at the same time.
const MANIFESTS_AT_ONCE: usize = 16;
/// How long one manifest may take.
const MANIFEST_ANSWER: Duration = Duration::from_secs(20);
/// Blobs up to this many bytes take a turn: their answers tell how busy the primary is, those of larger ones how long they
/// are.
const SMALL: u64 = 256 << 10;
/// Above this many transfers under way, a chunk waits for its own: what is begun stays bounded.
const BEGUN: usize = 64;

/// What a manifest says, as its row needs it.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) artifact_type: Option<String>,
    pub(super) subject: Option<Digest>,
    pub(super) annotations: String,
    pub(super) body: Bytes,
    pub(super) blobs: Vec<Digest>,
    pub(super) children: Vec<Digest>,
}

/// What came, and why the rest did not.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// Failed blobs; every other wanted one is stored here.
    pub(super) links: HashMap<Digest, Failure>,
    /// Failed manifests.
    pub(super) manifests: HashMap<Digest, Failure>,
    pub(super) parsed: BTreeMap<Digest, Parsed>,
}

impl Fetched {
    pub(super) fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.links.values().chain(self.manifests.values())
    }
}

pub(super) async fn fetch<U: Upstream>(
    engine: &Engine<U>,
    uuid: RepositoryUuid,
    wanted: &Wanted,
    mode: Mode<'_>,
) -> Result<Fetched, Stop> {
    let digests: Vec<Digest> = wanted.links.keys().copied().collect();
    let held = engine.metadata.linked_blobs(uuid, &digests).await?;
    // A listing waits for all: it holds no live event up, and what is begun stays bounded by its page.
    let is_listing = matches!(mode, Mode::Listing(_));
    let patient = is_listing || engine.transfers.begun() > BEGUN;
    let deadline = (!patient).then(|| Instant::now() + PATIENCE);
    let links = FuturesUnordered::new();
    for (digest, link) in &wanted.links {
        if held.get(digest).is_none_or(|blob| !blob.verified) {
            let paced = is_listing && link.size.is_some_and(|size| size <= SMALL);
            links.push(bring(engine, *digest, link.size, deadline, paced));
        }
    }
    let links = links.filter_map(|(digest, outcome)| ready(outcome.err().map(|failure| (digest, failure))));
    let asked: Vec<_> = wanted
        .manifests
        .iter()
        .map(|(digest, want)| manifest(engine, uuid, *digest, want.media_type.clone(), is_listing))
        .collect();
    let manifests = stream::iter(asked).buffer_unordered(MANIFESTS_AT_ONCE);
    let (links, manifests) = join(links.collect::<HashMap<_, _>>(), manifests.collect::<Vec<_>>()).await;
    let mut fetched = Fetched { links, ..Fetched::default() };
    for (digest, outcome) in manifests {
        match outcome {
            Ok(parsed) => drop(fetched.parsed.insert(digest, parsed)),
            Err(failure) => drop(fetched.manifests.insert(digest, failure)),
        }
    }
    Ok(fetched)
}

async fn bring<U: Upstream>(
    engine: &Engine<U>,
    digest: Digest,
    size: Option<u64>,
    deadline: Option<Instant>,
    paced: bool,
) -> (Digest, Result<(), Failure>) {
    let turn = turn(engine, paced).await;
    let fetch = engine.transfers.fetch(digest, size);
    let outcome = match deadline {
        None => fetch.await,
        Some(deadline) => timeout_at(deadline, fetch).await.unwrap_or_else(|_| {
            Err(Failure { kind: FailureKind::UnderWay, text: "its transfer is under way".to_owned() })
        }),
    };
    if let Some(turn) = turn {
        turn.answered();
    }
    (digest, outcome)
}

/// A turn, for what a listing wants: nobody waits for it.
async fn turn<U: Upstream>(engine: &Engine<U>, paced: bool) -> Option<Turn> {
    if paced { Some(engine.pace.turn().await) } else { None }
}

async fn manifest<U: Upstream>(
    engine: &Engine<U>,
    uuid: RepositoryUuid,
    digest: Digest,
    media_type: Option<String>,
    paced: bool,
) -> (Digest, Result<Parsed, Failure>) {
    let turn = turn(engine, paced).await;
    let outcome = match timeout(MANIFEST_ANSWER, engine.upstream.manifest(uuid, &digest)).await {
        Ok(Ok(answer)) => parse(&digest, media_type.or(answer.media_type), answer.bytes),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Failure {
            kind: FailureKind::Unreachable,
            text: format!("the primary did not send manifest {digest} in {MANIFEST_ANSWER:?}"),
        }),
    };
    if let Some(turn) = turn {
        turn.answered();
    }
    (digest, outcome)
}

fn parse(digest: &Digest, media_type: Option<String>, body: Bytes) -> Result<Parsed, Failure> {
    let unreadable = |reason: String| Failure::failed(format!("manifest {digest} cannot be read: {reason}"));
    let altered =
        || Failure::failed(format!("the primary sent other bytes where manifest {digest} was asked for"));
    let plain = Digest::of(digest.algorithm(), &body) == *digest;
    let content_type = media_type.as_deref().map(MediaType::parse).transpose();
    let content_type = content_type.map_err(|error| unreadable(error.to_string()))?;
    let manifest = match Manifest::parse(&body, content_type.as_ref()) {
        Ok(manifest) => manifest,
        Err(_) if !plain => return Err(altered()),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    if !plain && canonical_digest(&body, &manifest, digest.algorithm()) != *digest {
        return Err(altered());
    }
    let annotations =
        serde_json::to_string(&manifest.annotations).map_err(|error| unreadable(error.to_string()))?;
    let unique = |digests: BTreeSet<Digest>| digests.into_iter().collect::<Vec<_>>();
    Ok(Parsed {
        digest: *digest,
        media_type: media_type.unwrap_or_else(|| manifest.media_type.to_string()),
        artifact_type: manifest.artifact_type.clone(),
        subject: manifest.subject.as_ref().map(|subject| subject.digest),
        annotations,
        blobs: unique(manifest.blobs().filter(|blob| !blob.is_foreign()).map(|blob| blob.digest).collect()),
        children: unique(manifest.children().map(|child| child.digest).collect()),
        body,
    })
}
