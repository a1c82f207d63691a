//! As which worker of which node a folder serves. It is kept in the folder: a machine that its node reaches under two addresses is
//! one worker all the same, and whoever takes it for another would end what it runs.

use std::path::{Path, PathBuf};

use helix_protocol::link::Hello;
use helix_protocol::{Code, Failure, NodeId, WorkerId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The file in the folder.
const FILE: &str = "served.json";
/// The same and its next version while that is written.
pub(crate) const FILES: [&str; 2] = [FILE, "served.new"];

/// Whom the folder serves.
pub(crate) struct Served {
    file: PathBuf,
    last: Mutex<Last>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Last {
    entry: Option<Entry>,
    kept: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    node: NodeId,
    worker: WorkerId,
}

impl Served {
    /// As the folder has it. A file that cannot be read says nothing: whoever comes next is noted.
    pub fn read(folder: &Path) -> Self {
        let file = folder.join(FILE);
        let entry = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self { file, last: Mutex::new(Last { entry, kept: entry.is_some() }) }
    }

    /// Whether the node calls this worker by another id than before.
    pub fn is_called_otherwise(&self, hello: &Hello) -> bool {
        self.last.lock().entry.is_some_and(|last| last.node == hello.node && last.worker != hello.worker)
    }

    /// Refuses with `another_worker` a node that calls this worker by another id although it has the one that it served as.
    pub fn check(&self, hello: &Hello) -> Result<(), Failure> {
        if !self.is_called_otherwise(hello) {
            return Ok(());
        }
        let last = self.last.lock().entry;
        match hello.others.iter().find(|other| last.is_some_and(|last| last.worker == other.worker)) {
            Some(other) => Err(another(&format!("worker {} of this node", other.name))),
            None => Ok(()),
        }
    }

    /// Notes whom it serves from now on. [`keep`](Self::keep) writes it down.
    pub fn note(&self, hello: &Hello) {
        let entry = Some(Entry { node: hello.node, worker: hello.worker });
        let mut last = self.last.lock();
        if last.entry != entry {
            *last = Last { entry, kept: false };
        }
    }

    /// Writes down what was noted. It blocks.
    pub fn keep(&self) -> Result<(), Failure> {
        let Last { entry: Some(entry), kept: false } = *self.last.lock() else { return Ok(()) };
        let temporary = self.file.with_extension("new");
        let text = serde_json::to_vec(&entry).expect("ids can be written as JSON");
        let written = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &self.file));
        written.map_err(|error| Failure::io(self.file.display(), &error))?;
        let mut last = self.last.lock();
        last.kept = last.entry == Some(entry);
        Ok(())
    }

    /// Forgets it, in the folder too.
    pub fn wipe(&self) {
        *self.last.lock() = Last::default();
        // That there is none is what is wanted.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// The refusal of a node that takes this machine for another worker.
pub(crate) fn another(whose: &str) -> Failure {
    Failure::new(Code::AnotherWorker, format!("this machine is {whose} already"))
        .hint("`helix worker list` shows it; to reach it under another address, remove it first")
}

#[cfg(test)]
mod tests {
    use helix_protocol::link::{LeaseTimes, OtherWorker};

    use super::*;

    fn hello(node: NodeId, worker: WorkerId, others: &[(WorkerId, &str)]) -> Hello {
        let others = others.iter().map(|(worker, name)| OtherWorker { worker: *worker, name: (*name).to_owned() }).collect();
        Hello { oldest: 1, newest: 1, node, worker, connection: 1, lease: LeaseTimes::default(), others }
    }

    #[test]
    fn a_machine_is_one_worker_of_its_node_across_its_starts_until_the_node_has_it_no_more() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (node, worker, second) = (NodeId::new(), WorkerId::new(), WorkerId::new());
        let served = Served::read(folder.path());
        let first = hello(node, worker, &[(second, "b")]);
        served.check(&first).expect("it is that worker");
        served.note(&first);
        served.keep().expect("the folder is writable");
        for served in [served, Served::read(folder.path())] {
            served.check(&first).expect("it is that worker");
            let refused = served.check(&hello(node, second, &[(worker, "a")])).expect_err("it is another");
            assert_eq!(
                (refused.code, refused.message.as_str()),
                (Code::AnotherWorker, "this machine is worker a of this node already")
            );
            served.check(&hello(node, second, &[])).expect("the node has no other");
            served.check(&hello(NodeId::new(), second, &[(worker, "a")])).expect("another node's ids say nothing");
        }
        Served::read(folder.path()).wipe();
        Served::read(folder.path()).check(&hello(node, second, &[(worker, "a")])).expect("nothing is kept");
    }
}
