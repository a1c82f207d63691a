//! A working folder that commands take turns in.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use helix_versions::WorkingFolder;
use parking_lot::{Mutex, MutexGuard};

use super::live::{Share, Total};

/// What letting go of a tree takes at most, where the disk is well.
const LONG: Duration = Duration::from_secs(1);

/// A folder with its one turn, and whether that is lent to a program which a command runs.
pub struct SharedFolder {
    folder: Mutex<WorkingFolder>,
    lent: AtomicBool,
    /// Its tree is being let go.
    goes: AtomicBool,
    /// It was opened with settings that are no more.
    outdated: AtomicBool,
    /// What its tree took at the end of the last turn, and when that was.
    share: Share,
    used: Mutex<Instant>,
}

/// A folder's files are a program's. Ends with the value.
pub struct Lent<'a>(&'a SharedFolder);

impl SharedFolder {
    /// A folder that nobody is in. What it has in memory is a part of `live`.
    pub fn new(folder: WorkingFolder, live: &Total) -> Self {
        Self {
            folder: Mutex::new(folder),
            lent: AtomicBool::new(false),
            goes: AtomicBool::new(false),
            outdated: AtomicBool::new(false),
            share: Share::of(live),
            used: Mutex::new(Instant::now()),
        }
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

    /// The turn, where no command has it: a tree that is being let go is waited for.
    pub fn try_turn(&self) -> Option<MutexGuard<'_, WorkingFolder>> {
        // Letting go may have ended between the two looks.
        self.try_lock().or_else(|| if self.goes.load(Ordering::Acquire) { self.try_lock_for(LONG) } else { self.try_lock() })
    }

    /// Lets its tree go, unless somebody has the turn.
    pub fn let_go(&self) {
        if let Some(mut folder) = self.folder.try_lock() {
            self.goes.store(true, Ordering::Release);
            folder.let_go();
            self.share.set(folder.memory_bytes());
            self.goes.store(false, Ordering::Release);
        }
    }

    /// Says that it is to be opened anew once nobody holds it.
    pub fn outdate(&self) {
        self.outdated.store(true, Ordering::Release);
    }

    /// Whether it is to be.
    pub fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Acquire)
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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use helix_versions::FolderRules;

    use super::*;

    #[test]
    fn a_tree_that_is_being_let_go_is_waited_for_and_a_command_is_not() {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = WorkingFolder::open(root.path(), state.path(), FolderRules::default()).unwrap();
        let (shared, held) = (SharedFolder::new(folder, &Total::default()), Barrier::new(2));
        thread::scope(|scope| {
            for goes in [true, false] {
                shared.goes.store(goes, Ordering::Release);
                scope.spawn(|| {
                    let _turn = shared.lock();
                    held.wait();
                    thread::sleep(Duration::from_millis(50));
                });
                held.wait();
                assert_eq!(shared.try_turn().is_some(), goes);
            }
        });
        assert!(shared.try_turn().is_some());
    }
}
