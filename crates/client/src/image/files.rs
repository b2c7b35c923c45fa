//! Names to bytes, in a directory or in a tar archive that is indexed once and never unpacked.

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    path::{Component, Path, PathBuf},
};

use crate::{Error, Result, Slice};

/// Where an image's files are.
pub(crate) enum Files {
    Directory(PathBuf),
    Archive { path: PathBuf, members: HashMap<String, Slice> },
}

impl Files {
    /// Opens a directory, or reads the headers of a tar archive.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |doing| move |source| Error::Io { doing, path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(io("find the image"))?.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        refuse_compressed(path)?;
        Ok(Self::Archive { path: path.to_owned(), members: index(path)? })
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Archive { path, .. } => path,
        }
    }

    /// The bytes of a file by its name inside the image, with `/` between its parts.
    pub(crate) fn locate(&self, name: &str) -> Option<Slice> {
        match self {
            Self::Archive { members, .. } => members.get(name).cloned(),
            Self::Directory(root) => {
                let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
                let path = plain.then(|| root.join(name))?;
                let metadata = std::fs::metadata(&path).ok()?;
                metadata.is_file().then_some(Slice { path, offset: 0, len: metadata.len() })
            }
        }
    }

    /// A whole small document.
    pub(crate) fn document(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let missing = || Error::NotAnImage {
            path: self.path().to_owned(),
            reason: format!("its file {name} is missing"),
        };
        self.locate(name).ok_or_else(missing)?.read_all(limit)
    }
}

fn refuse_compressed(path: &Path) -> Result<()> {
    let mut magic = Vec::new();
    let io = |source| Error::Io { doing: "read", path: path.to_owned(), source };
    File::open(path).map_err(io)?.take(4).read_to_end(&mut magic).map_err(io)?;
    let tool = match magic.as_slice() {
        [0x1f, 0x8b, ..] => "gunzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "unzstd",
        _ => return Ok(()),
    };
    let reason = format!("it is compressed: decompress it with {tool} first");
    Err(Error::NotAnImage { path: path.to_owned(), reason })
}

fn index(path: &Path) -> Result<HashMap<String, Slice>> {
    let file =
        File::open(path).map_err(|source| Error::Io { doing: "open", path: path.to_owned(), source })?;
    let length = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
    let unreadable = |error: std::io::Error| Error::NotAnImage {
        path: path.to_owned(),
        reason: format!("it cannot be read as a tar archive ({error})"),
    };
    let mut members = HashMap::new();
    let mut links = Vec::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.path().map_err(unreadable)?;
        let Some(name) = normal(&name) else { continue };
        let kind = entry.header().entry_type();
        if kind.is_file() || kind.is_contiguous() {
            let slice = Slice { path: path.to_owned(), offset: entry.raw_file_position(), len: entry.size() };
            if slice.offset.saturating_add(slice.len) > length {
                let reason = format!("it ends inside its member {name}: it was cut short");
                return Err(Error::NotAnImage { path: path.to_owned(), reason });
            }
            members.insert(name, slice);
        } else if kind.is_symlink() || kind.is_hard_link() {
            let Some(target) = entry.link_name().map_err(unreadable)? else { continue };
            // `docker save` links a repeated layer to its first copy, relative to the link's directory.
            let base = if kind.is_symlink() { Path::new(&name).parent() } else { None };
            if let Some(target) = normal(&base.unwrap_or(Path::new("")).join(target)) {
                links.push((name, target));
            }
        }
    }
    for (name, target) in links {
        if let Some(slice) = members.get(&target).cloned() {
            members.insert(name, slice);
        }
    }
    Ok(members)
}

/// A member's name without `.` and `..`; nothing where it leaves the archive.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_the_archive() {
        assert_eq!(normal(Path::new("./a/../b/c")).as_deref(), Some("b/c"));
        assert_eq!(normal(Path::new("../a")), None);
        assert_eq!(normal(Path::new("/etc/passwd")), None);
    }
}
