//! `GET /v2/<name>/tags/list`: the tags of a repository, in byte order, a page at a time.

use http::header::LINK;
use twinport_access::Action;
use twinport_metadata::TagPage;
use twinport_oci::{ErrorCode, RepositoryName, next_link};

use super::{PAGE, Registry, check};
use crate::answer::{self, Answer};
use crate::error::Refusal;
use crate::grant::Grant;
use crate::query::{Page, Query};

/// OCI Distribution, "Listing Tags".
pub(crate) async fn list(
    registry: &Registry,
    grant: &Grant,
    name: &RepositoryName,
    query: &Query,
) -> Result<Answer, Refusal> {
    check(grant, name, Action::Pull)?;
    let page = Page::parse(query, PAGE)?;
    let (tags, limit) =
        (registry.metadata.tag_page(name, page.last.as_deref(), page.limit).await?, page.limit);
    let tags = tags.ok_or_else(|| Refusal::not_found(ErrorCode::NameUnknown))?;
    let mut answer = answer::json(body(name, &tags), answer::JSON);
    if let Some(last) = tags.next_after {
        let next = registry.location(name, format_args!("tags/list?n={limit}&last={last}"));
        answer.headers_mut().insert(LINK, answer::visible(next_link(&next).into()));
    }
    Ok(answer)
}

/// Neither names nor tags can hold anything that JSON escapes.
fn body(name: &RepositoryName, tags: &TagPage) -> Vec<u8> {
    let (before, after) = if tags.joined.is_empty() { ("[", "]") } else { ("[\"", "\"]") };
    format!("{{\"name\":\"{name}\",\"tags\":{before}{}{after}}}", tags.joined).into_bytes()
}
