//! The marker that says which incarnation of a site the bucket belongs to.
//! Guards: of many sites that claim a bucket at one time, one has it.

use bytes::Bytes;
use uuid::Uuid;

use super::BucketBlobs;
use crate::{Error, Result};

impl BucketBlobs {
    pub(crate) async fn incarnation(&self) -> Result<Option<Uuid>> {
        let key = self.keys.incarnation();
        let Some(bytes) = self.read_small(&key).await? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let unreadable = |_| Error::Marker { path: format!("{}/{key}", self.place).into() };
        text.trim().parse().map(Some).map_err(unreadable)
    }

    pub(crate) async fn set_incarnation(&self, incarnation: Uuid) -> Result<()> {
        self.put(&self.keys.incarnation(), vec![content(incarnation)]).await
    }

    /// One conditional write (If-None-Match: *). A server that does not know it refuses, and says so: a bucket that two
    /// sites could both take for their own is not used.
    pub(crate) async fn claim_store(&self, incarnation: Uuid) -> Result<Uuid> {
        const ATTEMPTS: usize = 5;
        let key = self.keys.incarnation();
        for _ in 0..ATTEMPTS {
            if let Some(owner) = self.incarnation().await? {
                return Ok(owner);
            }
            // Done again where its answer was lost: what it wrote the first time is not written over.
            self.persist(|| self.put_new(&key, content(incarnation))).await?;
            // Read back: a server may answer 409 to both of two writers that met, and either may have won.
        }
        Err(Error::Bucket {
            doing: "claiming",
            place: format!("{}/{key}", self.place),
            reason: "the marker cannot be read after it was written: does this storage know If-None-Match?"
                .to_owned(),
        })
    }
}

fn content(incarnation: Uuid) -> Bytes {
    Bytes::from(format!("{incarnation}\n"))
}
