//! Flat files as trees of content, and the commands that change them.

use std::collections::BTreeMap;

use bytes::Bytes;
use helix_objects::{NewObject, ObjectStore};
use helix_protocol::{Change, ChangeKind, Failure, FileMode, ObjectId};
use helix_versions::{Tree, TreeEntry};

/// A folder without folders.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files of a tree.
pub fn load(store: &dyn ObjectStore, tree: ObjectId) -> Result<Files, Failure> {
    let tree = Tree::load(store, tree)?;
    let mut files = Files::new();
    for entry in tree.entries() {
        let name = String::from_utf8(entry.name.clone()).expect("the simulation uses plain names");
        files.insert(name, store.read(entry.id)?.to_vec());
    }
    Ok(files)
}

/// The tree of the files, with everything in it.
pub fn encode(files: &Files) -> Result<(ObjectId, Vec<NewObject>), Failure> {
    let (mut objects, mut entries) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let object = NewObject::new(Bytes::from(bytes.clone()));
        let (name, size, id) = (name.clone().into_bytes(), bytes.len() as u64, object.id());
        entries.push(TreeEntry { name, mode: FileMode::Regular, size, id });
        objects.push(object);
    }
    let tree = Tree::new(entries)?.encode();
    let id = tree.id();
    objects.push(tree);
    Ok((id, objects))
}

/// What became of the files.
pub fn changes(before: &Files, after: &Files) -> Vec<Change> {
    let change = |path: &String, kind, size| Change { path: path.clone(), kind, size };
    let written = after.iter().filter(|(path, bytes)| before.get(*path) != Some(*bytes)).map(|(path, bytes)| {
        let kind = if before.contains_key(path) { ChangeKind::Modified } else { ChangeKind::Added };
        change(path, kind, bytes.len() as u64)
    });
    let removed = before.keys().filter(|path| !after.contains_key(*path)).map(|path| change(path, ChangeKind::Removed, 0));
    written.chain(removed).collect()
}

/// One thing a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// `append FILE TEXT`
    Append(String, String),
    /// `sleep MS`
    Sleep(u64),
}

/// The parts of a command, which are separated by `;`.
pub fn parse(command: &str) -> Vec<Part> {
    let part = |text: &str| match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["append", file, text] => Part::Append((*file).to_owned(), (*text).to_owned()),
        ["sleep", ms] => Part::Sleep(ms.parse().expect("milliseconds")),
        other => panic!("the simulation has no command {other:?}"),
    };
    command.split(';').map(part).collect()
}
