//! The embedded database's write-ahead log, written a commit at a time. SQLite alone makes two system calls of every changed
//! page, which are forty for a small image: a tenth of the processor time of its push.
//!
//! **Guards:** what was gathered is in the file before the file is synced, read, measured or cut; a commit is in it before
//! SQLite tells other connections that there is one. Where the write fails, one of these calls fails in its place, and the
//! commit with it.
//!
//! The only `unsafe` of this crate. It stands between SQLite and the file layer that SQLite brings (`unix`), and hands
//! everything on but the opening of a log and the calls on that log. What it relies on:
//! - SQLite gives `xOpen` at least `szOsFile` bytes, aligned for any of its structures, that stay where they are until `xClose`,
//!   and calls a file's methods between the two only, one at a time (<https://www.sqlite.org/c3ref/vfs.html>).
//! - A log's room holds a [`WalFile`], and behind it what the inner layer asked for, which [`WalFile`]'s size keeps aligned.
//! - Every other file is the inner layer's alone: it is opened in the same room, and has the inner layer's methods.
//! - The inner layer's functions take no notice of which layer they are called through, so its table may be copied; where it
//!   is handed itself, in `xOpen`, it gets itself.
#![expect(unsafe_code, reason = "SQLite's file layers are tables of C functions; the proof is above")]

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use rusqlite::ffi;

use super::gathered::{Gathered, Next};
use crate::{Error, Result};

const NAME: &CStr = c"twinport";

/// What the room of an open log begins with; the inner layer's file follows.
#[repr(C, align(8))]
struct WalFile {
    base: ffi::sqlite3_file,
    gathered: *mut Gathered,
}

/// A layer's table, which SQLite keeps for as long as the process lives.
struct Layer(*mut ffi::sqlite3_vfs);

// SAFETY: both tables are never written after they were registered, and SQLite itself reads them from every thread.
unsafe impl Send for Layer {}
// SAFETY: as above.
unsafe impl Sync for Layer {}

/// The layer that SQLite brings.
static INNER: OnceLock<Layer> = OnceLock::new();
static REGISTERED: OnceLock<bool> = OnceLock::new();

/// The name of the layer, for a connection that is opened to write.
pub(super) fn name() -> Result<&'static CStr> {
    if *REGISTERED.get_or_init(register) {
        return Ok(NAME);
    }
    Err(Error::Bug("SQLite took no file layer".to_owned()))
}

fn register() -> bool {
    // SAFETY: asks for the default layer, which lives as long as the process.
    let inner = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
    if inner.is_null() {
        return false;
    }
    let Layer(inner) = INNER.get_or_init(|| Layer(inner));
    // SAFETY: `inner` is such a table; the copy is given away for good.
    unsafe {
        let mut outer = **inner;
        outer.szOsFile += size_of::<WalFile>() as c_int;
        outer.pNext = ptr::null_mut();
        outer.zName = NAME.as_ptr();
        outer.xOpen = Some(open);
        ffi::sqlite3_vfs_register(Box::into_raw(Box::new(outer)), 0) == ffi::SQLITE_OK
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    opened: *mut c_int,
) -> c_int {
    let Some(&Layer(layer)) = INNER.get() else { return ffi::SQLITE_ERROR };
    // SAFETY: `file` has room for a `WalFile` and an inner file. A file without methods is not closed by SQLite, so one that
    // could not be opened is left without.
    unsafe {
        let Some(open) = (*layer).xOpen else { return ffi::SQLITE_ERROR };
        if flags & ffi::SQLITE_OPEN_WAL == 0 {
            return open(layer, path, file, flags, opened);
        }
        let wal = file.cast::<WalFile>();
        (*wal).base.pMethods = ptr::null();
        let status = open(layer, path, inner(file), flags, opened);
        if status == ffi::SQLITE_OK {
            (*wal).gathered = Box::into_raw(Box::default());
            (*wal).base.pMethods = &raw const METHODS;
        }
        status
    }
}

/// The inner layer's file of a log.
///
/// # Safety
/// `file` is the room of a log.
unsafe fn inner(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: the room goes on behind the `WalFile`.
    unsafe { file.cast::<WalFile>().add(1).cast() }
}

/// Calls a method of the inner file.
macro_rules! inner_call {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let inner = inner($file);
        match (*(*inner).pMethods).$method {
            Some(method) => method(inner $(, $argument)*),
            None => ffi::SQLITE_ERROR,
        }
    }};
}

/// Writes what was gathered.
///
/// # Safety
/// `file` is an open log.
unsafe fn write_out(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: an open log's gathered writes are its own until it is closed.
    unsafe { (*(*file.cast::<WalFile>()).gathered).take(|bytes, start| write_inner(file, bytes, start)) }
}

/// # Safety
/// `file` is an open log.
unsafe fn write_inner(file: *mut ffi::sqlite3_file, bytes: &[u8], start: i64) -> c_int {
    let Ok(length) = c_int::try_from(bytes.len()) else { return ffi::SQLITE_IOERR_WRITE };
    // SAFETY: the inner file is open, and the bytes are there for the call.
    unsafe { inner_call!(file, xWrite, bytes.as_ptr().cast(), length, start) }
}

/// Calls a method of the inner file once it has everything that was written to the log.
macro_rules! after_writing {
    ($file:expr, $method:ident $(, $argument:expr)*) => {
        // SAFETY: SQLite calls the methods of a log between its opening and its end.
        unsafe {
            match write_out($file) {
                ffi::SQLITE_OK => inner_call!($file, $method $(, $argument)*),
                failed => failed,
            }
        }
    };
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: an open log, and `length` bytes that stay for the call.
    unsafe {
        let piece = std::slice::from_raw_parts(bytes.cast::<u8>(), usize::try_from(length).unwrap_or(0));
        let gathered = (*file.cast::<WalFile>()).gathered;
        if !(*gathered).takes(piece, offset) {
            let failed = write_out(file);
            if failed != ffi::SQLITE_OK {
                return failed;
            }
            if !(*gathered).takes(piece, offset) {
                return write_inner(file, piece, offset);
            }
        }
        match (*gathered).add(piece, offset) {
            Next::Gather => ffi::SQLITE_OK,
            Next::Write => write_out(file),
        }
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: the last call on an open log; nobody else has what it gathered.
    unsafe {
        let written = write_out(file);
        drop(Box::from_raw((*file.cast::<WalFile>()).gathered));
        let closed = inner_call!(file, xClose);
        if written == ffi::SQLITE_OK { closed } else { written }
    }
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    after_writing!(file, xRead, into, length, offset)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    after_writing!(file, xTruncate, size)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    after_writing!(file, xSync, flags)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    after_writing!(file, xFileSize, size)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    after_writing!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    after_writing!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, held: *mut c_int) -> c_int {
    after_writing!(file, xCheckReservedLock, held)
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, what: c_int, with: *mut c_void) -> c_int {
    after_writing!(file, xFileControl, what, with)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: an open log.
    unsafe { inner_call!(file, xSectorSize) }
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: an open log.
    unsafe { inner_call!(file, xDeviceCharacteristics) }
}

/// A log is neither shared nor mapped, so the first version of the table is all that it needs.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};
