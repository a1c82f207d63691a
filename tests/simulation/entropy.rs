//! Nothing comes from outside: on a thread that was given a seed, the system's random bytes are drawn from the seed, and the
//! wall clock stands still.
//!
//! Hash maps, jitter and ids take their chance from `getrandom(2)`, wherever in the dependencies they are; ids take their time from
//! `clock_gettime(2)`. Both are symbols of the C library, and a program's own definition goes before a library's. So everything
//! that is real in this test runs unchanged, and the same seed makes the same run. (What a static of a dependency remembers from
//! one run to the next is left: so each seed is a process of its own.)

#![allow(unsafe_code)]

use std::cell::Cell;

/// 2026-01-01 00:00 UTC, in seconds.
pub const NEW_YEAR_2026: i64 = 1_767_225_600;

thread_local! {
    static DRAWN: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on this thread draws from the seed.
pub fn fix(seed: u64) {
    DRAWN.set(Some(seed));
}

/// splitmix64: enough for choices, and the same everywhere.
pub fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Stands in for the C library's function.
///
/// # Safety
/// As of `getrandom(2)`: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    let Some(mut state) = DRAWN.get() else {
        // SAFETY: the caller's promise, handed on.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) } as libc::ssize_t;
    };
    for at in 0..length {
        let byte = draw(&mut state) as u8;
        // SAFETY: `at` is below `length`, which the caller promises to be writable.
        unsafe { buffer.cast::<u8>().add(at).write(byte) };
    }
    DRAWN.set(Some(state));
    length as libc::ssize_t
}

/// Stands in for the C library's function.
///
/// # Safety
/// As of `clock_gettime(2)`: `now` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, now: *mut libc::timespec) -> libc::c_int {
    if clock == libc::CLOCK_REALTIME && DRAWN.get().is_some() {
        // SAFETY: the caller promises that it can be written to.
        unsafe { now.write(libc::timespec { tv_sec: NEW_YEAR_2026, tv_nsec: 0 }) };
        return 0;
    }
    // SAFETY: the caller's promise, handed on.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, now) as libc::c_int }
}
