//! Rules on repositories, by name.

use twinport_access::{Rule, RuleName};

use super::{RecordKind, change::Write, find};
use crate::{Actor, Error, Metadata, Result};

impl Metadata {
    /// Every rule, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rules(&self) -> Result<Vec<Rule>> {
        self.all_of(RecordKind::Rule).await
    }

    /// Makes a rule.
    ///
    /// # Errors
    /// [`Error::Refused`] for a rule that asks for nothing, or for what cannot be; [`Error::Exists`] when the name is
    /// taken; [`Error::NotPrimary`], [`Error::Halted`].
    pub async fn create_rule(&self, rule: &Rule, actor: &Actor) -> Result<()> {
        rule.check().map_err(|error| Error::Refused(error.to_string()))?;
        let write = Write::put(RecordKind::Rule, rule.name.as_str(), rule, None)?;
        let name = rule.name.clone();
        self.change_access(actor, move |tx, changing| {
            let (write, name) = (write.clone(), name.clone());
            Box::pin(async move {
                if find(tx, RecordKind::Rule, name.as_str()).await?.is_some() {
                    return Err(Error::Exists(format!(
                        "a rule called {name} exists already: delete it first"
                    )));
                }
                changing.write(tx, vec![write]).await.map(drop)
            })
        })
        .await
    }

    /// Deletes a rule; `false` where there is none of that name.
    ///
    /// # Errors
    /// [`Error::NotPrimary`], [`Error::Halted`]; those of the database.
    pub async fn delete_rule(&self, name: &RuleName, actor: &Actor) -> Result<bool> {
        self.write_one(Write::delete(RecordKind::Rule, name.as_str()), actor).await
    }
}
