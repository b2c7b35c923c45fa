//! Join tokens: expiring, single-use, bound to a site name.
//! Guards: the database never holds a token's secret, only its SHA-256; the admission that uses a token marks it.

use uuid::Uuid;

use crate::{Error, Metadata, Result};

/// What is kept of a join token.
#[derive(Clone, Debug)]
pub struct JoinTokenRecord {
    pub id: Uuid,
    /// SHA-256 of the secret; compare it in constant time.
    pub secret_hash: [u8; 32],
    /// The only name it can be used for.
    pub site: String,
    /// µs since the epoch, UTC, by this site's clock.
    pub expires_at_us: i64,
    /// When it was used; it is good for one admission.
    pub used_at_us: Option<i64>,
}

/// A token that expired this long ago is forgotten (µs): one day.
const FORGOTTEN_AFTER_US: i64 = 24 * 3_600 * 1_000_000;

impl Metadata {
    /// Keeps a fresh token.
    ///
    /// # Errors
    /// [`Error::NotPrimary`] where this is not the primary; [`Error::Refused`] where a site of that name is joined.
    pub async fn create_join_token(&self, token: JoinTokenRecord) -> Result<()> {
        const TAKEN: &str = "SELECT name FROM sites WHERE name = $1 AND state = 'joined' \
             UNION ALL SELECT name FROM site WHERE name = $1";
        self.db
            .write(move |tx| {
                let token = token.clone();
                Box::pin(async move {
                    tx.guard_origin().await?;
                    let now = tx.now_us();
                    if tx.query_opt(TAKEN, vec![(&token.site).into()]).await?.is_some() {
                        return Err(Error::Refused(format!(
                            "a site called {0} is part of the federation already: choose another name, or remove it \
                             with `twinport site remove {0}`",
                            token.site
                        )));
                    }
                    tx.execute(
                        "DELETE FROM join_tokens WHERE expires_at_us < $1",
                        vec![now.saturating_sub(FORGOTTEN_AFTER_US).into()],
                    )
                    .await?;
                    tx.execute(
                        "INSERT INTO join_tokens (id, secret_hash, site_name, created_at_us, expires_at_us) \
                         VALUES ($1, $2, $3, $4, $5)",
                        vec![
                            token.id.into(),
                            token.secret_hash.into(),
                            (&token.site).into(),
                            now.into(),
                            token.expires_at_us.into(),
                        ],
                    )
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    /// The token with this id, whatever its state.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn join_token(&self, id: Uuid) -> Result<Option<JoinTokenRecord>> {
        const TOKEN: &str =
            "SELECT id, secret_hash, site_name, expires_at_us, used_at_us FROM join_tokens WHERE id = $1";
        let Some(row) = self.db.query_opt(TOKEN, vec![id.into()]).await? else {
            return Ok(None);
        };
        Ok(Some(JoinTokenRecord {
            id: row.uuid(0)?,
            secret_hash: row.hash(1)?,
            site: row.text(2)?,
            expires_at_us: row.int(3)?,
            used_at_us: row.opt_int(4)?,
        }))
    }
}
