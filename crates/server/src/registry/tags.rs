//! `GET /v2/<name>/tags/list`: the tags of a repository, in byte order, a page at a time.

use http::header::LINK;
use serde::Serialize;
use twinport_oci::{ErrorCode, RepositoryName, Tag, next_link};

use super::{PAGE, Registry, check};
use crate::answer::{self, Answer};
use crate::error::Refusal;
use crate::grant::{Action, Grant};
use crate::query::{Page, Query};

#[derive(Serialize)]
struct TagList<'a> {
    name: &'a RepositoryName,
    tags: &'a [Tag],
}

/// OCI Distribution, "Listing Tags".
pub(crate) async fn list(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    query: &Query,
) -> Result<Answer, Refusal> {
    check(grant, name, Action::Pull)?;
    let page = Page::parse(query, PAGE)?;
    // One more than asked for tells whether there is another page.
    let mut tags = registry
        .metadata
        .tags(name, page.last.as_deref(), page.limit.saturating_add(1))
        .await?
        .ok_or_else(|| Refusal::not_found(ErrorCode::NameUnknown))?;
    let limit = page.limit as usize;
    let more = tags.len() > limit;
    tags.truncate(limit);
    let body = serde_json::to_vec(&TagList { name, tags: &tags })
        .map_err(|error| Refusal::internal("writing a list of tags", &error))?;
    let mut answer = answer::json(body, answer::JSON);
    if let Some(last) = tags.last().filter(|_| more) {
        let next = registry.location(name, format_args!("tags/list?n={limit}&last={last}"));
        answer.headers_mut().insert(LINK, answer::visible(next_link(&next).into()));
    }
    Ok(answer)
}
