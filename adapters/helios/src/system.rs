//! The few calls to the kernel that [`quick`](crate::quick) makes, without the C library: it may run before that is set up.

use std::arch::asm;

/// A file that is open, by its number.
pub(crate) type Descriptor = usize;

const READ: usize = 0;
const WRITE: usize = 1;
const CLOSE: usize = 3;
const SIGNAL_MASK: usize = 14;
const IOCTL: usize = 16;
const SOCKET: usize = 41;
const CONNECT: usize = 42;
const SEND: usize = 44;
const CURRENT_FOLDER: usize = 79;
const EFFECTIVE_USER: usize = 107;
#[cfg(before_libc)]
const EXIT: usize = 231;
const STATX: usize = 332;

/// An error's number.
pub(crate) const INTERRUPTED: usize = 4;

const PIPE_SIGNAL: u64 = 1 << (13 - 1);
const WINDOW_SIZE: usize = 0x5413;
const NO_SIGNAL: usize = 0x4000;

/// What `statx` answers with: the fields that are asked for, at the places the kernel has them.
#[repr(C)]
pub(crate) struct Found {
    mask: [u32; 5],
    pub(crate) user: u32,
    group: u32,
    pub(crate) mode: u16,
    rest: [u16; 113],
}

/// The address of a socket in the file system.
#[repr(C)]
pub(crate) struct Address {
    family: u16,
    path: [u8; 108],
}

impl Address {
    /// That of a path without a NUL; none where it does not fit.
    pub(crate) fn new(path: &[u8]) -> Option<Self> {
        let mut address = Self { family: 1, path: [0; 108] };
        // The last byte stays a NUL.
        if path.len() >= address.path.len() {
            return None;
        }
        address.path.iter_mut().zip(path).for_each(|(to, from)| *to = *from);
        Some(address)
    }
}

/// One system call; a failure is the error's number.
#[allow(unsafe_code)]
fn call(number: usize, arguments: [usize; 6]) -> Result<usize, usize> {
    let answer: isize;
    // SAFETY: every caller in this file gives addresses of values that live through the call and are as long as the call takes them
    // to be; the kernel changes no register but those named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") arguments[0], in("rsi") arguments[1], in("rdx") arguments[2],
            in("r10") arguments[3], in("r8") arguments[4], in("r9") arguments[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    if answer < 0 { Err(answer.unsigned_abs()) } else { Ok(answer.unsigned_abs()) }
}

pub(crate) fn read(from: Descriptor, buffer: &mut [u8]) -> Result<usize, usize> {
    loop {
        match call(READ, [from, buffer.as_mut_ptr().addr(), buffer.len(), 0, 0, 0]) {
            Err(INTERRUPTED) => {}
            done => return done,
        }
    }
}

/// Writes all of it.
pub(crate) fn write(to: Descriptor, bytes: &[u8]) -> Result<(), usize> {
    all(bytes, |rest| call(WRITE, [to, rest.as_ptr().addr(), rest.len(), 0, 0, 0]))
}

/// Writes all of it to a socket, without the signal that a closed one would raise.
pub(crate) fn send(to: Descriptor, bytes: &[u8]) -> Result<(), usize> {
    all(bytes, |rest| call(SEND, [to, rest.as_ptr().addr(), rest.len(), NO_SIGNAL, 0, 0]))
}

fn all(mut bytes: &[u8], write: impl Fn(&[u8]) -> Result<usize, usize>) -> Result<(), usize> {
    while !bytes.is_empty() {
        match write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(INTERRUPTED) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) fn close(descriptor: Descriptor) {
    // Nothing can be done about a failure, and it is closed nevertheless.
    let _ = call(CLOSE, [descriptor, 0, 0, 0, 0, 0]);
}

/// A stream socket that is connected to an address, and closed when this program becomes another.
pub(crate) fn connect(address: &Address) -> Result<Descriptor, usize> {
    const UNIX: usize = 1;
    const STREAM_CLOSED_ON_EXEC: usize = 0o2_000_001;
    let socket = call(SOCKET, [UNIX, STREAM_CLOSED_ON_EXEC, 0, 0, 0, 0])?;
    match call(CONNECT, [socket, std::ptr::from_ref(address).addr(), size_of::<Address>(), 0, 0, 0]) {
        Ok(_) => Ok(socket),
        Err(error) => {
            close(socket);
            Err(error)
        }
    }
}

/// What a path is, without following a link at its end. The path ends with a NUL.
pub(crate) fn look_at(path: &[u8]) -> Result<Found, usize> {
    const HERE: usize = -100_isize as usize;
    const DO_NOT_FOLLOW: usize = 0x100;
    const TYPE_MODE_USER: usize = 1 | 2 | 8;
    debug_assert_eq!(path.last(), Some(&0));
    let mut found = Found { mask: [0; 5], user: 0, group: 0, mode: 0, rest: [0; 113] };
    let place = std::ptr::from_mut(&mut found).addr();
    call(STATX, [HERE, path.as_ptr().addr(), DO_NOT_FOLLOW, TYPE_MODE_USER, place, 0])?;
    Ok(found)
}

/// The folder this process is in, without the NUL.
pub(crate) fn current_folder(buffer: &mut [u8]) -> Result<&[u8], usize> {
    let length = call(CURRENT_FOLDER, [buffer.as_mut_ptr().addr(), buffer.len(), 0, 0, 0, 0])?;
    Ok(buffer.get(..length.saturating_sub(1)).unwrap_or_default())
}

pub(crate) fn effective_user() -> u32 {
    call(EFFECTIVE_USER, [0; 6]).ok().and_then(|user| u32::try_from(user).ok()).unwrap_or(u32::MAX)
}

/// How many columns a terminal has; none where it is no terminal.
pub(crate) fn columns(of: Descriptor) -> Option<u16> {
    let mut size = [0_u16; 4];
    call(IOCTL, [of, WINDOW_SIZE, size.as_mut_ptr().addr(), 0, 0, 0]).ok().map(|_| size[1])
}

/// Lets a write to a closed pipe fail instead of ending this process, or no longer.
pub(crate) fn hold_pipe_signal(hold: Hold) {
    let how = match hold {
        Hold::Begin => 0,
        Hold::End => 1,
    };
    // It fails for wrong numbers only.
    let _ = call(SIGNAL_MASK, [how, std::ptr::from_ref(&PIPE_SIGNAL).addr(), 0, size_of::<u64>(), 0, 0]);
}

/// See [`hold_pipe_signal`].
pub(crate) enum Hold {
    Begin,
    End,
}

/// Ends this process at once.
#[cfg(before_libc)]
pub(crate) fn exit(code: u8) -> ! {
    loop {
        // It does not return.
        let _ = call(EXIT, [code.into(), 0, 0, 0, 0, 0]);
    }
}
