//! File events, by Linux' inotify.
//!
//! The kernel queues an event before the system call that causes it returns, so nothing needs to listen while nobody asks: the
//! queue is read when a refresh begins. A byte written to a cookie file in the state folder, which the same
//! queue watches, is the barrier: once its event is seen, so is everything that was done before. Not seen by events, and
//! therefore looked at otherwise: files with several names (each refresh), and writes through a memory map that
//! is still open (seen when it is closed).

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use helix_objects::no_follow;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Stat, fstatfs};
use rustix::io::Errno;

use super::index::FolderKey;
use super::working_folder::ScanReason;
use crate::names::is_outside;

/// The cookie's name in the state folder.
const COOKIE: &str = "events";
/// The cookie's event is normally there at once.
const BARRIER: Duration = Duration::from_secs(1);

/// File systems that others can change without an event here, by what `statfs` calls them.
const SHARED: [(i64, &str); 15] = [
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "kafs"),
    (0x00c3_6400, "ceph"),
    (0x0116_1970, "gfs2"),
    (0x7461_636f, "ocfs2"),
    (0x0bd0_0bd0, "lustre"),
    (0x7375_7245, "coda"),
    (0x786f_4256, "vboxsf"),
    (0xbacb_acbc, "vmhgfs"),
];

/// The queue of events of one working folder.
#[derive(Debug)]
pub(super) struct Watcher {
    queue: OwnedFd,
    cookie: File,
    cookie_watch: i32,
    device: u64,
    folders: HashMap<i32, FolderKey>,
    /// Why events can no longer be trusted. Set by the threads of a pass.
    failed: Mutex<Option<ScanReason>>,
}

/// What the queue told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Names that may have changed.
    pub(super) names: BTreeSet<(FolderKey, Box<[u8]>)>,
    /// Events were lost: anything may have changed.
    pub(super) lost: bool,
}

impl Watcher {
    /// A queue that watches nothing but its cookie in `state`, for a folder that is open as `root`.
    pub(super) fn open(root: &OwnedFd, device: u64, state: &Path) -> Result<Self, ScanReason> {
        if let Some(name) = shared_file_system(root) {
            return Err(ScanReason::FileSystem(name));
        }
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|errno| match errno {
            Errno::MFILE | Errno::NFILE => ScanReason::WatchLimit,
            _ => ScanReason::NoEvents,
        })?;
        let cookie = no_follow().write(true).create(true).truncate(true).open(state.join(COOKIE));
        let cookie = cookie.map_err(|_| ScanReason::NoEvents)?;
        let cookie_watch = inotify::add_watch(&queue, state, WatchFlags::MODIFY | WatchFlags::ONLYDIR).map_err(reason)?;
        Ok(Self { queue, cookie, cookie_watch, device, folders: HashMap::new(), failed: Mutex::new(None) })
    }

    /// Watches a folder from now on. None where that fails; then [`failed`](Self::failed) says why.
    pub(super) fn watch(&self, folder: &OwnedFd, stat: &Stat) -> Option<i32> {
        if device(stat) != self.device
            && let Some(name) = shared_file_system(folder)
        {
            self.fail(ScanReason::FileSystem(name));
            return None;
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        // By descriptor: this folder, whatever its name means meanwhile.
        match inotify::add_watch(&self.queue, format!("/proc/self/fd/{}", folder.as_raw_fd()), flags) {
            Ok(watch) => Some(watch),
            Err(errno) => {
                self.fail(reason(errno));
                None
            }
        }
    }

    pub(super) fn fail(&self, reason: ScanReason) {
        self.failed.lock().get_or_insert(reason);
    }

    /// Why events cannot be trusted any more.
    pub(super) fn failed(&self) -> Option<ScanReason> {
        *self.failed.lock()
    }

    /// The folder that a watch is for.
    pub(super) fn folder_of(&self, watch: i32) -> Option<FolderKey> {
        self.folders.get(&watch).copied()
    }

    /// From now on the watch is for this folder.
    pub(super) fn assign(&mut self, watch: i32, folder: FolderKey) {
        self.folders.insert(watch, folder);
    }

    /// The folder is gone from the index; `elsewhere` where its watch is another's now.
    pub(super) fn release(&mut self, watch: i32, folder: FolderKey, elsewhere: &dyn Fn(i32) -> bool) {
        if self.folders.get(&watch) != Some(&folder) {
            return;
        }
        self.folders.remove(&watch);
        if !elsewhere(watch) {
            // It fails where the folder was deleted, which removed its watch.
            let _ = inotify::remove_watch(&self.queue, watch);
        }
    }

    /// Everything that was done before this call, and perhaps a little more.
    pub(super) fn listen(&mut self) -> Result<Told, ScanReason> {
        self.cookie.write_all_at(b".", 0).map_err(|_| ScanReason::NoEvents)?;
        let until = Instant::now() + BARRIER;
        let mut told = Told::default();
        let mut buffer = vec![MaybeUninit::uninit(); 64 << 10];
        loop {
            if self.read(&mut buffer, &mut told)? || told.lost {
                return Ok(told);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ScanReason::NoEvents);
            }
            let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&self.queue, PollFlags::IN)], Some(&timeout));
        }
    }

    /// What is in the queue now, so that it does not overflow.
    pub(super) fn absorb(&mut self) -> Result<Told, ScanReason> {
        let mut told = Told::default();
        self.read(&mut vec![MaybeUninit::uninit(); 64 << 10], &mut told)?;
        Ok(told)
    }

    /// Reads until the queue is empty; true where the cookie's event was there.
    fn read(&mut self, buffer: &mut [MaybeUninit<u8>], told: &mut Told) -> Result<bool, ScanReason> {
        let mut reader = inotify::Reader::new(self.queue.as_fd(), buffer);
        let mut cookie = false;
        let mut ended = Vec::new();
        let mut last: Option<(i32, Box<[u8]>)> = None;
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(_) => return Err(ScanReason::NoEvents),
            };
            let (watch, what) = (event.wd(), event.events());
            if what.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT) {
                told.lost = true;
                continue;
            }
            if watch == self.cookie_watch {
                if what.contains(ReadFlags::IGNORED) {
                    return Err(ScanReason::NoEvents);
                }
                cookie |= event.file_name().is_some_and(|name| name.to_bytes() == COOKIE.as_bytes());
                continue;
            }
            if what.contains(ReadFlags::IGNORED) {
                ended.push(watch);
                continue;
            }
            let (Some(folder), Some(name)) = (self.folders.get(&watch), event.file_name()) else { continue };
            let name = name.to_bytes();
            if is_outside(name) || last.as_ref().is_some_and(|(other, same)| *other == watch && **same == *name) {
                continue;
            }
            told.names.insert((*folder, name.into()));
            last = Some((watch, name.into()));
        }
        for watch in ended {
            self.folders.remove(&watch);
        }
        Ok(cookie)
    }
}

fn reason(errno: Errno) -> ScanReason {
    match errno {
        Errno::NOSPC | Errno::NOMEM => ScanReason::WatchLimit,
        _ => ScanReason::NoEvents,
    }
}

/// The device's number; its type differs between platforms.
#[allow(clippy::unnecessary_cast)]
pub(super) fn device(stat: &Stat) -> u64 {
    stat.st_dev as u64
}

#[allow(clippy::unnecessary_cast)]
fn shared_file_system(folder: &OwnedFd) -> Option<&'static str> {
    let kind = fstatfs(folder).ok()?.f_type as i64;
    // Some are negative where the field has 32 bits.
    SHARED.iter().find(|(magic, _)| *magic == kind || *magic == (kind & 0xffff_ffff)).map(|(_, name)| *name)
}
