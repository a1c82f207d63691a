//! The word that something may have changed, for those who watch.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Counts words; whoever waits is woken by the next.
#[derive(Default)]
pub struct Changes {
    count: Mutex<u64>,
    said: Condvar,
}

impl Changes {
    /// Says that something may have changed.
    pub fn say(&self) {
        *self.count.lock() += 1;
        self.said.notify_all();
    }

    /// How many words there were.
    pub fn seen(&self) -> u64 {
        *self.count.lock()
    }

    /// Waits until there were more than `seen`, or for this long; gives how many there were.
    pub fn wait(&self, seen: u64, most: Duration) -> u64 {
        let mut count = self.count.lock();
        if *count == seen {
            // Whether it was said or time has passed, the count tells.
            let _ = self.said.wait_for(&mut count, most);
        }
        *count
    }
}
