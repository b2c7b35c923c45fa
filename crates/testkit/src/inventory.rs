//! Whether every file below a data directory has an owner, read past the product's own code.
//! Guards: a crash leaves nothing behind that neither metadata nor its name accounts for, and nothing damaged.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use twinport_oci::Digest;

use crate::SiteProcess;

/// What was found below a data directory.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Files that were looked at.
    pub files: u64,
    /// Blobs whose bytes were hashed.
    pub blobs: u64,
    /// Every blob that is known and has no file, or whose bytes are not its own.
    pub damaged: Vec<String>,
    /// Every file without an owner.
    pub unowned: Vec<String>,
}

/// How long files may be on their way: an acknowledged blob to its place, a spool to its end.
const ON_THE_WAY: Duration = Duration::from_secs(10);

impl Inventory {
    fn is_in_order(&self) -> bool {
        self.damaged.is_empty() && self.unowned.is_empty()
    }
}

/// [`take_inventory`] of a site that nobody asks anything of any more, once what was on its way has arrived.
///
/// # Errors
/// Those of [`take_inventory`].
pub async fn take_settled_inventory(site: &SiteProcess) -> anyhow::Result<Inventory> {
    let deadline = Instant::now() + ON_THE_WAY;
    loop {
        let inventory = take_inventory(site).await?;
        if inventory.is_in_order() || Instant::now() >= deadline {
            return Ok(inventory);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Looks at every file of a site that is at rest.
///
/// # Errors
/// When the directory or the database cannot be read.
pub async fn take_inventory(site: &SiteProcess) -> anyhow::Result<Inventory> {
    let mut owned = digests(site).await?;
    let uploads = uploads(site).await?;
    let mut inventory = Inventory::default();
    for path in files_below(site.data())? {
        inventory.files += 1;
        let name = path.strip_prefix(site.data())?.to_string_lossy().into_owned();
        if let Some(digest) = blob_of(&name) {
            let Ok(bytes) = fs::read(&path) else {
                inventory.damaged.push(format!("{name} cannot be read"));
                continue;
            };
            inventory.blobs += 1;
            if Digest::of(digest.algorithm(), &bytes) != digest {
                inventory.damaged.push(format!("{name} is altered ({} bytes)", bytes.len()));
            }
            if !owned.remove(&digest) {
                inventory.unowned.push(format!("{name} is not known to metadata"));
            }
        } else if !is_owned_by_name(&name) && !is_an_upload(&name, &uploads) {
            inventory.unowned.push(format!("{name} is owned by nobody"));
        }
    }
    inventory.damaged.extend(owned.iter().map(|digest| format!("{digest} is known and has no file")));
    Ok(inventory)
}

async fn digests(site: &SiteProcess) -> anyhow::Result<BTreeSet<Digest>> {
    let rows = site.rows("SELECT digest FROM blobs").await?;
    rows.iter().map(|row| Ok(Digest::from_key(row[0].bytes()?)?)).collect()
}

async fn uploads(site: &SiteProcess) -> anyhow::Result<BTreeSet<String>> {
    let rows = site.rows("SELECT id FROM uploads").await?;
    rows.iter().map(|row| Ok(hex::encode(row[0].bytes()?))).collect()
}

fn is_owned_by_name(name: &str) -> bool {
    matches!(
        name,
        "metadata.db"
            | "metadata.db-wal"
            | "metadata.db-shm"
            | "lock"
            | "node"
            | "twinport.sock"
            | "database-seen.json"
            | "database-seen.new"
            | "blobs/twinport/incarnation"
    ) || (name.starts_with("blobs/twinport/journal/") && name.ends_with(".journal"))
}

fn is_an_upload(name: &str, uploads: &BTreeSet<String>) -> bool {
    name.strip_prefix("blobs/twinport/spool/upload-").is_some_and(|id| uploads.contains(&id.replace('-', "")))
}

/// `blobs/docker/registry/v2/blobs/<algorithm>/<2 digits>/<hex>/data`
fn blob_of(name: &str) -> Option<Digest> {
    let rest = name.strip_prefix("blobs/docker/registry/v2/blobs/")?.strip_suffix("/data")?;
    let [algorithm, prefix, hex] = rest.split('/').collect::<Vec<_>>().try_into().ok()?;
    hex.starts_with(prefix).then(|| format!("{algorithm}:{hex}").parse().ok()).flatten()
}

fn files_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_blob_in_its_own_place_is_one() {
        let digest = Digest::sha256(b"");
        let hex = digest.hex();
        let place = |prefix: &str| format!("blobs/docker/registry/v2/blobs/sha256/{prefix}/{hex}/data");
        assert_eq!(blob_of(&place("e3")), Some(digest));
        assert_eq!(blob_of(&place("e4")), None);
        assert_eq!(blob_of("blobs/docker/registry/v2/blobs/sha256/probe"), None);
        assert!(!is_owned_by_name("blobs/twinport/spool/probe"));
    }
}
