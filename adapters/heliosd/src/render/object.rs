//! An object of the store: its kind, and what is in it for a program.

use helios_client::Text;
use helix_protocol::{FileMode, ObjectId, SnapshotId};
use helix_versions::{Snapshot, Tree};
use serde_json::{Value, json};

use super::{changes, history, path};

/// An object by what its bytes are.
pub enum Object {
    /// A commit.
    Snapshot(Box<Snapshot>),
    /// A folder.
    Tree(Tree),
    /// A file's content.
    File,
}

impl Object {
    /// What the bytes under an id are.
    pub fn of(id: ObjectId, bytes: &[u8]) -> Self {
        match bytes.first_chunk::<3>() {
            Some(b"HXS") => {
                Snapshot::decode(SnapshotId(id), bytes).map_or(Self::File, |snapshot| Self::Snapshot(Box::new(snapshot)))
            }
            Some(b"HXT") => Tree::decode(id, bytes).map_or(Self::File, Self::Tree),
            _ => Self::File,
        }
    }

    /// git's word for it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Snapshot(_) => "commit",
            Self::Tree(_) => "tree",
            Self::File => "blob",
        }
    }

    /// Its id, kind and size in bytes.
    pub fn summary(&self, id: ObjectId, bytes: &[u8]) -> Value {
        json!({"id": id, "kind": self.kind(), "size": bytes.len()})
    }

    /// The same with what is in it: a commit's fields, a tree's entries, or a file's content, which is
    /// `{"base64": …}` where it is no text.
    pub fn to_json(&self, id: ObjectId, bytes: &[u8]) -> Value {
        let mut value = self.summary(id, bytes);
        match self {
            Self::Snapshot(snapshot) => value["commit"] = history::to_json(SnapshotId(id), snapshot),
            Self::Tree(tree) => value["entries"] = tree.entries().iter().map(entry_to_json).collect(),
            Self::File => value["content"] = json!(Text::new(bytes)),
        }
        value
    }
}

/// git's word for what an entry of a tree is.
pub fn kind(mode: FileMode) -> &'static str {
    if mode == FileMode::Directory { "tree" } else { "blob" }
}

fn entry_to_json(entry: &helix_versions::TreeEntry) -> Value {
    json!({"name": path::to_json(&entry.name), "mode": changes::mode(entry.mode), "kind": kind(entry.mode), "id": entry.id, "size": entry.size})
}
