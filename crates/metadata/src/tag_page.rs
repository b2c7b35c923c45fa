//! Pages of tags for the registry's list, put together by the database: one text instead of thousands of rows.

use twinport_oci::{RepositoryName, Tag};

use crate::{Metadata, Result, manifests::tag_of};

/// What stands between two names of [`TagPage::joined`]: nothing that a tag can hold needs an escape in JSON.
const BETWEEN: &str = "\",\"";

/// Both databases aggregate the rows of a limited, ordered subquery in its order.
pub(crate) const PAGE: &str = "SELECT string_agg(name, '\",\"'), COUNT(*), MAX(name) FROM (SELECT name FROM tags \
     WHERE repository_id = (SELECT id FROM repositories WHERE path = $1) AND name > $2 ORDER BY name LIMIT $3) page";
pub(crate) const MORE: &str = "SELECT 1 FROM tags \
     WHERE repository_id = (SELECT id FROM repositories WHERE path = $1) AND name > $2 ORDER BY name LIMIT 1";

/// Tags in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPage {
    /// The names with `","` between them, as they stand inside a JSON array of strings.
    pub joined: String,
    /// The last name, where others come after it.
    pub next_after: Option<Tag>,
}

impl TagPage {
    /// The names one by one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.joined.split(BETWEEN).filter(|name| !name.is_empty())
    }
}

impl Metadata {
    /// Up to `limit` tags after `after`, in byte order. `None`: there is no such repository.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tag_page(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<TagPage>> {
        let path = repository.as_str();
        let params = vec![path.into(), after.unwrap_or_default().into(), limit.into()];
        let rows = self.db.scan(PAGE, params).await?;
        let found = rows.first().filter(|row| row.int(1).is_ok_and(|count| count > 0));
        let Some(row) = found else {
            let known = self.repository(repository).await?.is_some();
            return Ok(known.then(|| TagPage { joined: String::new(), next_after: None }));
        };
        let last = row.text(2)?;
        let full = row.int(1)? >= i64::from(limit);
        let more = full && self.db.query_opt(MORE, vec![path.into(), last.as_str().into()]).await?.is_some();
        Ok(Some(TagPage { joined: row.text(0)?, next_after: more.then(|| tag_of(&last)).transpose()? }))
    }
}
