//! The program's first instructions, in a build that is linked statically at a fixed place: see `build.rs`.
//!
//! Before `main` the C library asks the processor what it can do, some sixty times over. In a virtual machine each answer takes the
//! hypervisor four microseconds, and so the start of any program takes several times as long as everything `helios` does. So the
//! common case is done before the C library begins; whatever is left over begins as every program does.

use std::arch::{asm, naked_asm};
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use crate::quick::{Quick, Rest, ask};
use crate::system;

/// What was begun before the C library was set up.
static BEGUN: AtomicBool = AtomicBool::new(false);
static SOCKET: AtomicUsize = AtomicUsize::new(0);
static UNREAD: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static LENGTH: AtomicUsize = AtomicUsize::new(0);
static GREETED: AtomicBool = AtomicBool::new(false);

/// Where the kernel starts this program: the stack holds the count of the arguments, the arguments, the variables. When the common
/// case is not all of it, the C library's own beginning finds stack and registers as the kernel left them.
///
/// # Safety
///
/// It is the program's entry, and nothing else may call it.
#[allow(unsafe_code)]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn helios_begin() -> ! {
    naked_asm!(
        "mov rbx, rsp",
        "mov r12, rdx",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {early}",
        "mov rsp, rbx",
        "mov rdx, r12",
        "xor ebp, ebp",
        "jmp _start",
        early = sym early,
    )
}

#[allow(unsafe_code)]
extern "C" fn early(stack: *const *const c_char) {
    // SAFETY: the kernel put the count there, so many arguments, a null, the variables, and another null.
    let (arguments, variables) = unsafe {
        let count = stack.cast::<usize>().read();
        (Words { next: stack.add(1 + usize::from(count > 0)) }, Words { next: stack.add(count + 2) })
    };
    match ask(arguments, variables) {
        Quick::Done(code) => system::exit(code),
        Quick::NotAsked => {}
        Quick::Open(rest) => {
            SOCKET.store(rest.socket, Ordering::Relaxed);
            UNREAD.store(rest.unread.as_ptr().cast_mut(), Ordering::Relaxed);
            LENGTH.store(rest.unread.len(), Ordering::Relaxed);
            GREETED.store(rest.greeted, Ordering::Relaxed);
            BEGUN.store(true, Ordering::Relaxed);
        }
    }
}

/// What is left of a command that was taken; once.
#[allow(unsafe_code)]
pub(crate) fn left_over() -> Option<Rest> {
    BEGUN.swap(false, Ordering::Relaxed).then(|| {
        // SAFETY: `early` took pointer and length from one slice, which nobody changes any more.
        let unread = unsafe { std::slice::from_raw_parts(UNREAD.load(Ordering::Relaxed), LENGTH.load(Ordering::Relaxed)) };
        Rest { socket: SOCKET.load(Ordering::Relaxed), unread, greeted: GREETED.load(Ordering::Relaxed) }
    })
}

/// Words on the stack, up to a null.
#[derive(Clone)]
struct Words {
    next: *const *const c_char,
}

impl Iterator for Words {
    type Item = &'static [u8];

    #[allow(unsafe_code)]
    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: the kernel ends the list with a null, beyond which this does not go, and each word with a NUL; both stay there.
        unsafe {
            let word = *self.next;
            if word.is_null() {
                return None;
            }
            self.next = self.next.add(1);
            Some(CStr::from_ptr(word).to_bytes())
        }
    }
}

// The compiler calls these for copies and comparisons. The C library chooses among several of each when it is set up, so before
// that they cannot be called; these have its names and take their place.

/// # Safety
///
/// As in C.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller says that both are so long.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags))
    };
    to
}

/// # Safety
///
/// As in C.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= count {
        // SAFETY: forwards nothing is overwritten that is still to be read.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: the caller says that both are so long; backwards nothing is overwritten that is still to be read.
    unsafe {
        asm!(
            "std", "rep movsb", "cld",
            inout("rcx") count => _, inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _, options(nostack),
        );
    }
    to
}

/// # Safety
///
/// As in C.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller says that it is so long.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8, options(nostack, preserves_flags))
    };
    to
}

/// # Safety
///
/// As in C.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    for place in 0..count {
        // SAFETY: the caller says that both are so long. Volatile, so that the compiler does not make a call of this loop.
        let (a, b) = unsafe { (a.add(place).read_volatile(), b.add(place).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// # Safety
///
/// As in C.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    // SAFETY: as the caller says.
    unsafe { memcmp(a, b, count) }
}

/// # Safety
///
/// As in C.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    let mut length = 0;
    // SAFETY: the caller says that a NUL ends it.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
