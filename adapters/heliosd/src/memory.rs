//! What the allocator gives back to the system.
//!
//! Left alone, glibc raises its thresholds with the largest block that was ever freed, up to 64 MiB, and then keeps as much at the
//! end of every thread's heap: an engine that once read a large file would never be small again.

/// Blocks of so many bytes and more are the system's own, and go back when they are freed; no heap keeps more than this at its end.
#[cfg(target_env = "gnu")]
const MOST_KEPT: i32 = 4 << 20;

/// Says how much may be kept. To be called before there are threads.
#[cfg_attr(target_env = "gnu", allow(unsafe_code))]
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the calls have no preconditions; what they refuse stays as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MOST_KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MOST_KEPT);
    }
}

/// Gives back what is free between what is in use.
#[cfg_attr(target_env = "gnu", allow(unsafe_code))]
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no preconditions; it takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
