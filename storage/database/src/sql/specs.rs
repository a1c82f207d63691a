//! Task specs kept in memory, so that a write does not read them again.

use std::collections::HashMap;
use std::sync::Arc;

use helix_protocol::{TaskId, TaskSpec};
use parking_lot::Mutex;

/// How many are kept; at this many all are forgotten and the live ones are read again.
const LIMIT: usize = 4096;

/// Specs as they were asked for. They never change, so nothing has to be invalidated.
#[derive(Debug, Default)]
pub(crate) struct Specs(Mutex<HashMap<TaskId, Arc<TaskSpec>>>);

impl Specs {
    /// The spec, where it is known.
    pub fn get(&self, task: TaskId) -> Option<Arc<TaskSpec>> {
        self.0.lock().get(&task).cloned()
    }

    /// Keeps specs that were read in a transaction which has been committed.
    pub fn keep(&self, read: Vec<(TaskId, Arc<TaskSpec>)>) {
        let mut specs = self.0.lock();
        if specs.len() + read.len() > LIMIT {
            specs.clear();
        }
        specs.extend(read);
    }
}
