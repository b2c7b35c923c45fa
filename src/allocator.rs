//! How much freed memory the C library's allocator keeps: buffers of large uploads come and go by the thousand, and to give
//! each back to the kernel costs a page fault for every 4 KiB of the next.

#![expect(unsafe_code, reason = "mallopt(3) takes two numbers and keeps no pointer")]

use std::ffi::c_int;

/// Bytes at the end of a heap that are kept when they are free.
const TRIM_THRESHOLD: (c_int, c_int) = (-1, 4 << 20);
/// Bytes by which a heap grows beyond what is wanted.
const TOP_PAD: (c_int, c_int) = (-2, 256 << 10);
/// Smaller pieces come from a heap, not from mmap(2).
const MMAP_THRESHOLD: (c_int, c_int) = (-3, 4 << 20);

unsafe extern "C" {
    safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
}

/// Before other threads are there.
pub(crate) fn keep_freed_memory() {
    for (parameter, value) in [TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD] {
        // 0 for a parameter that it does not know: then it does as it always did.
        let _known = mallopt(parameter, value);
    }
}
