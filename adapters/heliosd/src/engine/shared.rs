//! A working folder that commands take turns in.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use helix_versions::WorkingFolder;
use parking_lot::Mutex;

use super::live::{Share, Total};

/// A folder with its one turn, and whether that is lent to a program which a command runs.
pub struct SharedFolder {
    folder: Mutex<WorkingFolder>,
    lent: AtomicBool,
    /// What its tree took at the end of the last turn, and when that was.
    share: Share,
    used: Mutex<Instant>,
}

/// A folder's files are a program's. Ends with the value.
pub struct Lent<'a>(&'a SharedFolder);

impl SharedFolder {
    /// A folder that nobody is in. What it has in memory is a part of `live`.
    pub fn new(folder: WorkingFolder, live: &Total) -> Self {
        let (share, used) = (Share::of(live), Mutex::new(Instant::now()));
        Self { folder: Mutex::new(folder), lent: AtomicBool::new(false), share, used }
    }

    /// Notes, at the end of a turn, what the folder has in memory.
    pub fn used_by(&self, turn: &WorkingFolder) {
        self.share.set(turn.memory_bytes());
        *self.used.lock() = Instant::now();
    }

    /// When the last turn ended.
    pub fn used(&self) -> Instant {
        *self.used.lock()
    }

    /// Memory that it took at the end of the last turn, in bytes.
    pub fn bytes(&self) -> usize {
        self.share.bytes()
    }

    /// Lets its tree go, unless somebody has the turn.
    pub fn let_go(&self) {
        if let Some(mut folder) = self.folder.try_lock() {
            folder.let_go();
            self.share.set(folder.memory_bytes());
        }
    }

    /// Who has the turn leaves the files to a program until the value is dropped. Whoever asks for the turn meanwhile is refused:
    /// that may be the program itself, which would wait for its own end.
    pub fn lend(&self) -> Lent<'_> {
        self.lent.store(true, Ordering::Release);
        Lent(self)
    }

    /// Whether a program has it.
    pub fn is_lent(&self) -> bool {
        self.lent.load(Ordering::Acquire)
    }
}

impl Deref for SharedFolder {
    type Target = Mutex<WorkingFolder>;

    fn deref(&self) -> &Mutex<WorkingFolder> {
        &self.folder
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.lent.store(false, Ordering::Release);
    }
}
