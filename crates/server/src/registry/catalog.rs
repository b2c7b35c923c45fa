//! `GET /v2/_catalog`: the repositories of this site, in byte order, a page at a time (Docker's registry API).

use http::header::LINK;
use serde::Serialize;
use twinport_oci::{RepositoryName, next_link};

use super::{PAGE, Registry};
use crate::answer::{self, Answer};
use crate::error::Refusal;
use crate::grant::Grant;
use crate::query::{Page, Query};

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: &'a [RepositoryName],
}

pub(crate) async fn list(registry: &Registry, grant: &Grant, query: &Query) -> Result<Answer, Refusal> {
    if !grant.allows_catalog() {
        return Err(Refusal::denied("this credential does not allow to list repositories"));
    }
    let page = Page::parse(query, PAGE)?;
    let mut names =
        registry.metadata.repositories(page.last.as_deref(), page.limit.saturating_add(1)).await?;
    let limit = page.limit as usize;
    let more = names.len() > limit;
    names.truncate(limit);
    let body = serde_json::to_vec(&Catalog { repositories: &names })
        .map_err(|error| Refusal::internal("writing a list of repositories", &error))?;
    let mut answer = answer::json(body, answer::JSON);
    if let Some(last) = names.last().filter(|_| more) {
        let next = format!("/v2/_catalog?n={limit}&last={last}");
        answer.headers_mut().insert(LINK, answer::visible(next_link(&next).into()));
    }
    Ok(answer)
}
