//! A working folder that commands take turns in.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};

use helix_versions::WorkingFolder;
use parking_lot::Mutex;

/// A folder with its one turn, and whether that is lent to a program which a command runs.
pub struct SharedFolder {
    folder: Mutex<WorkingFolder>,
    lent: AtomicBool,
}

/// A folder's files are a program's. Ends with the value.
pub struct Lent<'a>(&'a SharedFolder);

impl SharedFolder {
    /// A folder that nobody is in.
    pub fn new(folder: WorkingFolder) -> Self {
        Self { folder: Mutex::new(folder), lent: AtomicBool::new(false) }
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
