//! `GET /v2/_catalog`: the repositories of this site, in byte order, a page at a time (Docker's registry API).

use http::header::LINK;
use serde::Serialize;
use twinport_access::Action;
use twinport_oci::{RepositoryName, next_link};

use super::{PAGE, Registry};
use crate::answer::{self, Answer};
use crate::error::Refusal;
use crate::grant::{Catalog, Grant};
use crate::query::{Page, Query};

#[derive(Serialize)]
struct Body<'a> {
    repositories: &'a [RepositoryName],
}

/// Names that one request looks at, at most, for those that its caller may pull from. A page may be short, or empty, and name the next.
const LOOKED_AT: usize = 50_000;

pub(crate) async fn list(registry: &Registry, grant: &Grant, query: &Query) -> Result<Answer, Refusal> {
    let catalog = grant.catalog();
    if catalog == Catalog::None {
        return Err(grant.catalog_refusal());
    }
    let page = Page::parse(query, PAGE)?;
    let limit = page.limit as usize;
    let mut names: Vec<RepositoryName> = Vec::new();
    let mut last = page.last;
    let mut looked_at = 0;
    let next = loop {
        // One more than asked for says whether there are more.
        let found = registry.metadata.repositories(last.as_deref(), page.limit.saturating_add(1)).await?;
        let ended = found.len() <= limit;
        looked_at += found.len();
        last = found.last().map(ToString::to_string).or(last);
        let visible = |name: &RepositoryName| catalog == Catalog::All || grant.allows(name, Action::Pull);
        names.extend(found.into_iter().filter(visible));
        if names.len() > limit {
            names.truncate(limit);
            break names.last().map(ToString::to_string);
        }
        if ended {
            break None;
        }
        if looked_at >= LOOKED_AT {
            break last;
        }
    };
    let body = serde_json::to_vec(&Body { repositories: &names })
        .map_err(|error| Refusal::internal("writing a list of repositories", &error))?;
    let mut answer = answer::json(body, answer::JSON);
    if let Some(last) = next {
        let next = format!("/v2/_catalog?n={limit}&last={last}");
        answer.headers_mut().insert(LINK, answer::visible(next_link(&next).into()));
    }
    Ok(answer)
}
