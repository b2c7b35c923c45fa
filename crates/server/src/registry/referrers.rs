//! `GET /v2/<name>/referrers/<digest>`: the manifests that name a subject, as an image index, a page at a time.
//! Invariant: a page is bounded in entries and in bytes, however many referrers or annotations there are (A1).

use http::HeaderValue;
use http::header::LINK;
use serde::Serialize;
use serde_json::value::RawValue;
use twinport_access::Action;
use twinport_metadata::Referrer;
use twinport_oci::{Digest, RepositoryName, next_link};

use super::{Registry, check};
use crate::answer::{self, Answer, OCI_FILTERS_APPLIED};
use crate::error::Refusal;
use crate::grant::Grant;
use crate::query::{Page, Query};

/// Entries of a page at most.
const PAGE: u32 = 100;
/// Entries read at a time: each may carry annotations as large as a manifest.
const CHUNK: u32 = 25;
/// A page ends once it has grown past this many bytes; clients take indexes of 4 MiB.
const PAGE_BYTES: usize = 3 << 20;
const INDEX: HeaderValue = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
const APPLIED: HeaderValue = HeaderValue::from_static("artifactType");

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a RawValue>,
}

/// OCI Distribution, "Listing Referrers". A repository or subject that is not known has none: never 404.
pub(crate) async fn list(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    subject: &Digest,
    query: &Query,
) -> Result<Answer, Refusal> {
    check(grant, name, Action::Pull)?;
    let page = Page::parse(query, PAGE)?;
    let after = page.last.as_deref().map(str::parse::<Digest>).transpose()?;
    // No media type holds a space: it is a `+` that the client did not encode.
    let artifact_type = query.get("artifactType").map(|text| text.replace(' ', "+"));
    let found = gather(registry, name, subject, artifact_type.as_deref(), after, page.limit).await?;

    let index = Index {
        schema_version: 2,
        media_type: "application/vnd.oci.image.index.v1+json",
        manifests: found.entries,
    };
    let body = serde_json::to_vec(&index).map_err(|error| Refusal::internal("writing referrers", &error))?;
    let mut answer = answer::json(body, INDEX);
    if artifact_type.is_some() {
        answer.headers_mut().insert(OCI_FILTERS_APPLIED, APPLIED);
    }
    if let Some(last) = found.next {
        let limit = page.limit;
        let filter = artifact_type.map(|kind| format!("&artifactType={}", encode(&kind))).unwrap_or_default();
        let next = registry.location(name, format_args!("referrers/{subject}?n={limit}&last={last}{filter}"));
        answer.headers_mut().insert(LINK, answer::visible(next_link(&next).into()));
    }
    Ok(answer)
}

#[derive(Default)]
struct Found {
    entries: Vec<Box<RawValue>>,
    /// The last entry, where more follow.
    next: Option<Digest>,
}

async fn gather(
    registry: &Registry,
    name: &RepositoryName,
    subject: &Digest,
    artifact_type: Option<&str>,
    mut after: Option<Digest>,
    limit: u32,
) -> Result<Found, Refusal> {
    let mut found = Found::default();
    let mut bytes = 0;
    let limit = limit as usize;
    if limit == 0 {
        return Ok(found);
    }
    loop {
        // One more than fits tells whether anything follows.
        let wanted = CHUNK.min(u32::try_from(limit - found.entries.len()).unwrap_or(CHUNK)) + 1;
        let chunk = registry.metadata.referrers(name, subject, artifact_type, after.as_ref(), wanted).await?;
        let more = chunk.len() == wanted as usize;
        for referrer in chunk.iter().take(wanted as usize - 1) {
            if !found.entries.is_empty() && bytes >= PAGE_BYTES {
                found.next = after;
                return Ok(found);
            }
            let entry = entry(referrer)?;
            bytes += entry.get().len();
            found.entries.push(entry);
            after = Some(referrer.digest);
        }
        if !more {
            break;
        }
        if found.entries.len() == limit {
            found.next = after;
            break;
        }
    }
    Ok(found)
}

fn entry(referrer: &Referrer) -> Result<Box<RawValue>, Refusal> {
    let failed = |error: serde_json::Error| Refusal::internal("reading a referrer's annotations", &error);
    let annotations: Option<&RawValue> = match referrer.annotations.as_str() {
        "" | "{}" => None,
        text => Some(serde_json::from_str(text).map_err(failed)?),
    };
    let entry = Entry {
        media_type: &referrer.media_type,
        digest: &referrer.digest,
        size: referrer.size,
        artifact_type: referrer.artifact_type.as_deref().filter(|kind| !kind.is_empty()),
        annotations,
    };
    serde_json::value::to_raw_value(&entry).map_err(failed)
}

/// Percent-encodes a filter for the query of the next page.
fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
