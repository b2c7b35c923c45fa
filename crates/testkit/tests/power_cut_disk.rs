//! The disk with a power cut: what it keeps, what it forgets, and that programs cannot tell it from another one.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use twinport_testkit::Stage;

/// What a test looks at on a stage.
trait Sight {
    fn at(&self, path: &str) -> PathBuf;
    /// All paths below the backing directory with what files hold, sorted.
    fn survivors(&self) -> Vec<(String, String)>;
}

impl Sight for Stage {
    fn at(&self, path: &str) -> PathBuf {
        self.mountpoint.join(path)
    }

    fn survivors(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        collect(&self.backing, &self.backing, &mut found);
        found.sort();
        found
    }
}

fn collect(root: &Path, directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.push((format!("{name}/"), String::new()));
            collect(root, &path, found);
        } else {
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

fn owned(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, content)| (name.to_string(), content.to_string())).collect()
}

fn sync_directory(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn write_synced(path: &Path, content: &str) {
    let mut file = File::create(path).unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn a_cut_forgets_data_and_entries_that_were_not_synced() {
    let stage = Stage::new().unwrap();
    let disk = stage.mount().unwrap();
    write_synced(&stage.at("kept"), "both synced");
    fs::write(stage.at("hollow"), "entry synced, data not").unwrap();
    sync_directory(&stage.mountpoint);
    write_synced(&stage.at("nameless"), "data synced, entry not");
    fs::create_dir(stage.at("directory")).unwrap();
    fs::remove_file(stage.at("kept")).unwrap();
    disk.cut().unwrap();
    assert_eq!(stage.survivors(), owned(&[("hollow", ""), ("kept", "both synced")]));
}

#[test]
fn a_cut_goes_back_to_the_last_sync_of_each_file() {
    let stage = Stage::new().unwrap();
    fs::write(stage.backing.join("old"), "from before").unwrap();
    let disk = stage.mount().unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(stage.at("old")).unwrap();
    file.write_all_at(b"FROM", 0).unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(b", and more").unwrap();
    file.set_len(2).unwrap();
    assert_eq!(fs::read_to_string(stage.at("old")).unwrap(), "FR");
    disk.cut().unwrap();
    assert_eq!(stage.survivors(), owned(&[("old", "FROM before")]));
}

#[test]
fn links_and_renames_count_per_directory() {
    let stage = Stage::new().unwrap();
    for directory in ["from", "to", "late"] {
        fs::create_dir(stage.backing.join(directory)).unwrap();
    }
    for name in ["linked", "moved", "swapped"] {
        fs::write(stage.backing.join("from").join(name), name).unwrap();
    }
    let disk = stage.mount().unwrap();
    fs::hard_link(stage.at("from/linked"), stage.at("to/linked")).unwrap();
    fs::rename(stage.at("from/moved"), stage.at("to/moved")).unwrap();
    sync_directory(&stage.at("to"));
    fs::rename(stage.at("from/swapped"), stage.at("late/swapped")).unwrap();
    fs::create_dir(stage.at("late/inner")).unwrap();
    assert_eq!(fs::metadata(stage.at("from/linked")).unwrap().nlink(), 2);
    disk.cut().unwrap();
    let expected = [
        ("from/", ""),
        ("from/linked", "linked"),
        ("from/moved", "moved"),
        ("from/swapped", "swapped"),
        ("late/", ""),
        ("to/", ""),
        ("to/linked", "linked"),
        ("to/moved", "moved"),
    ];
    assert_eq!(stage.survivors(), owned(&expected));
    let links = |path: &str| fs::metadata(stage.backing.join(path)).unwrap().nlink();
    assert_eq!((links("from/linked"), links("to/linked"), links("from/swapped")), (2, 2, 1));
}

#[test]
fn syncing_a_directory_saves_its_entries_and_not_its_parents() {
    let stage = Stage::new().unwrap();
    let disk = stage.mount().unwrap();
    fs::create_dir_all(stage.at("a/b")).unwrap();
    write_synced(&stage.at("a/b/lost"), "no parent was synced");
    sync_directory(&stage.at("a/b"));
    fs::create_dir_all(stage.at("c/d")).unwrap();
    write_synced(&stage.at("c/d/kept"), "all were synced");
    for directory in ["c/d", "c"] {
        sync_directory(&stage.at(directory));
    }
    sync_directory(&stage.mountpoint);
    disk.cut().unwrap();
    let expected = [("a/", ""), ("c/", ""), ("c/d/", ""), ("c/d/kept", "all were synced")];
    assert_eq!(stage.survivors(), owned(&expected));
}

#[test]
fn an_orderly_unmount_keeps_everything() {
    let stage = Stage::new().unwrap();
    let disk = stage.mount().unwrap();
    fs::create_dir_all(stage.at("a/b")).unwrap();
    fs::write(stage.at("a/b/file"), "not synced").unwrap();
    disk.unmount().unwrap();
    assert_eq!(stage.survivors(), owned(&[("a/", ""), ("a/b/", ""), ("a/b/file", "not synced")]));
}

#[test]
fn a_frozen_disk_answers_nothing_and_saves_nothing() {
    let stage = Stage::new().unwrap();
    let disk = stage.mount().unwrap();
    let mut file = File::create(stage.at("file")).unwrap();
    sync_directory(&stage.mountpoint);
    file.write_all(b"too late").unwrap();
    disk.freeze();
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
    assert!(fs::read_dir(&stage.mountpoint).is_err());
    disk.cut().unwrap();
    // The descriptor outlives the mount and must not reach the disk either.
    assert!(file.write_all(b"later still").and_then(|()| file.sync_all()).is_err());
    assert_eq!(stage.survivors(), owned(&[("file", "")]));
}

#[test]
fn what_survived_is_the_state_of_the_next_mount() {
    let stage = Stage::new().unwrap();
    for round in 0..5 {
        let disk = stage.mount().unwrap();
        assert_eq!(fs::read_dir(&stage.mountpoint).unwrap().count(), round);
        write_synced(&stage.at(&format!("round-{round}")), "kept");
        sync_directory(&stage.mountpoint);
        fs::write(stage.at("lost"), "lost").unwrap();
        disk.cut().unwrap();
    }
    assert_eq!(stage.survivors().len(), 5);
}

#[test]
fn programs_find_an_ordinary_file_system() {
    let stage = Stage::new().unwrap();
    let disk = stage.mount().unwrap();
    let (one, two) = (stage.at("one"), stage.at("two"));
    fs::write(&one, "1").unwrap();
    fs::write(&two, "2").unwrap();
    let refused = renameat_with(CWD, &one, CWD, &two, RenameFlags::NOREPLACE).unwrap_err();
    assert_eq!(refused, Errno::EXIST);
    renameat_with(CWD, &one, CWD, stage.at("three"), RenameFlags::NOREPLACE).unwrap();
    assert_eq!(fs::metadata(&one).unwrap_err().kind(), std::io::ErrorKind::NotFound);

    let (first, second) = (File::open(&two).unwrap(), File::open(&two).unwrap());
    flock(&first, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(flock(&second, FlockOperation::NonBlockingLockExclusive).unwrap_err(), Errno::AGAIN);

    fs::set_permissions(&two, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::metadata(&two).unwrap().mode() & 0o7777, 0o600);

    let open = File::open(&two).unwrap();
    fs::remove_file(&two).unwrap();
    let mut byte = [0];
    open.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!((byte, open.metadata().unwrap().nlink()), ([b'2'], 0));

    let socket = UnixListener::bind(stage.at("socket")).unwrap();
    let _client = UnixStream::connect(stage.at("socket")).unwrap();
    drop(socket);

    for number in 0..3000 {
        File::create(stage.at(&format!("many-{number}"))).unwrap();
    }
    let listed = fs::read_dir(&stage.mountpoint).unwrap().count();
    assert_eq!(listed, 3000 + ["three", "socket"].len());
    fs::create_dir(stage.at("full")).unwrap();
    fs::write(stage.at("full/file"), "").unwrap();
    assert_eq!(
        fs::remove_dir(stage.at("full")).unwrap_err().raw_os_error(),
        Some(Errno::NOTEMPTY.raw_os_error())
    );
    let big: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(stage.at("big"), &big).unwrap();
    assert!(fs::read(stage.at("big")).unwrap() == big);
    fs::copy(stage.at("big"), stage.at("copy")).unwrap();
    assert!(fs::read(stage.at("copy")).unwrap() == big);
    disk.cut().unwrap();
    assert_eq!(stage.survivors(), []);
}

#[test]
fn s5_the_disk_fails_as_it_is_told() {
    let stage = Stage::new().unwrap();
    fs::write(stage.backing.join("old"), "unread so far").unwrap();
    let disk = stage.mount().unwrap();
    let faults = disk.faults();
    let code = |error: std::io::Error| error.raw_os_error().unwrap();

    faults.fail_reads(true);
    assert_eq!(code(fs::read(stage.at("old")).unwrap_err()), Errno::IO.raw_os_error());
    faults.fail_reads(false);
    assert_eq!(fs::read(stage.at("old")).unwrap(), b"unread so far");

    let mut file = File::create(stage.at("file")).unwrap();
    file.write_all(b"data").unwrap();
    faults.fail_file_syncs(true);
    assert_eq!(code(file.sync_data().unwrap_err()), Errno::IO.raw_os_error());
    faults.fail_file_syncs(false);
    faults.fail_directory_syncs(true);
    let directory = File::open(&stage.mountpoint).unwrap();
    assert_eq!(code(directory.sync_all().unwrap_err()), Errno::IO.raw_os_error());
    faults.fail_directory_syncs(false);
    assert_eq!((faults.file_syncs(), faults.directory_syncs()), (0, 0));

    faults.limit_space(Some(100));
    assert_eq!(code(fs::write(stage.at("large"), [0; 200]).unwrap_err()), Errno::NOSPC.raw_os_error());
    fs::write(stage.at("small"), [0; 50]).unwrap();
    faults.limit_space(None);
    fs::write(stage.at("large"), [0; 200]).unwrap();

    faults.read_only(true);
    assert_eq!(code(fs::write(stage.at("new"), "").unwrap_err()), Errno::ROFS.raw_os_error());
    faults.read_only(false);
    file.sync_all().unwrap();
    directory.sync_all().unwrap();
    assert_eq!((faults.file_syncs(), faults.directory_syncs()), (1, 1));
    disk.cut().unwrap();
}

#[test]
fn sqlite_keeps_its_commits_where_it_syncs_and_loses_them_where_it_does_not() {
    for (synchronous, kept) in [("FULL", 50), ("OFF", 0)] {
        let stage = Stage::new().unwrap();
        fs::create_dir(stage.backing.join("data")).unwrap();
        let path = stage.at("data/metadata.db");
        let disk = stage.mount().unwrap();
        let writer = rusqlite::Connection::open(&path).unwrap();
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        writer.pragma_update(None, "synchronous", "FULL").unwrap();
        writer
            .execute_batch("CREATE TABLE t (n INTEGER, filler BLOB); PRAGMA wal_checkpoint(TRUNCATE)")
            .unwrap();
        sync_directory(&stage.at("data"));
        writer.pragma_update(None, "synchronous", synchronous).unwrap();
        let reader = rusqlite::Connection::open(&path).unwrap();
        for number in 0..50 {
            writer.execute("INSERT INTO t VALUES (?1, zeroblob(5000))", [number]).unwrap();
        }
        let count = |connection: &rusqlite::Connection| -> i64 {
            connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
        };
        assert_eq!(count(&reader), 50, "the shared memory of WAL works over the mount");
        disk.freeze();
        drop((writer, reader));
        disk.cut().unwrap();
        let after = rusqlite::Connection::open(stage.backing.join("data/metadata.db")).unwrap();
        assert_eq!(count(&after), kept, "synchronous={synchronous}");
        let whole: String = after.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
    }
}
