//! Roles that were given. A binding's name is its text, so that giving the same role twice is one record.

use twinport_access::Binding;

use super::{RecordKind, change::Write};
use crate::{Actor, Metadata, Result};

impl Metadata {
    /// Every role that was given, by its text.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn bindings(&self) -> Result<Vec<Binding>> {
        self.all_of(RecordKind::Binding).await
    }

    /// Gives a role; `false` where it was given already.
    ///
    /// # Errors
    /// [`crate::Error::NotPrimary`], [`crate::Error::Halted`]; [`crate::Error::Refused`] for one that is too long.
    pub async fn grant_role(&self, binding: &Binding, actor: &Actor) -> Result<bool> {
        self.write_one(Write::put(RecordKind::Binding, &binding.to_string(), binding, None)?, actor).await
    }

    /// Takes a role away; `false` where it was not given.
    ///
    /// # Errors
    /// [`crate::Error::NotPrimary`], [`crate::Error::Halted`]; those of the database.
    pub async fn revoke_role(&self, binding: &Binding, actor: &Actor) -> Result<bool> {
        self.write_one(Write::delete(RecordKind::Binding, &binding.to_string()), actor).await
    }

    /// Writes one record; whether it was something else before.
    pub(super) async fn write_one(&self, write: Write, actor: &Actor) -> Result<bool> {
        self.change_access(actor, move |tx, changing| {
            let write = write.clone();
            Box::pin(async move { Ok(changing.write(tx, vec![write]).await? > 0) })
        })
        .await
    }
}
