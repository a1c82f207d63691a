//! What content others name, with all beneath it, in a store whose names lie elsewhere: in the records of a node.

use std::collections::HashSet;

use helix_objects::{Kind, ObjectError, ObjectStore, PackHint, similarity};
use helix_protocol::{FileMode, ObjectId, SnapshotId};

use crate::{Snapshot, Tree};

/// Content that is named or lies beneath what is named.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    /// Every object of it that is there.
    pub live: HashSet<ObjectId>,
    /// The same as packing takes it.
    pub hints: Vec<PackHint>,
    /// How many objects are not there although a folder or a snapshot names them.
    pub missing: u64,
}

/// An object to be looked at: what it is where that is known, and its path beneath a root.
type Open = (ObjectId, Option<Kind>, Vec<u8>);

/// Everything that `roots` name. A root may be a snapshot, a tree, a file or nothing that the store has; what it is decides how it
/// is followed. Fails only where the store cannot be read, or holds bytes that are not what their id says.
pub fn reach(store: &dyn ObjectStore, roots: impl IntoIterator<Item = ObjectId>) -> Result<Reached, ObjectError> {
    let mut reached = Reached::default();
    for root in roots {
        let mut open: Vec<Open> = vec![(root, None, Vec::new())];
        while let Some((id, kind, path)) = open.pop() {
            if reached.live.contains(&id) {
                continue;
            }
            let kind = match kind {
                Some(Kind::File) if store.missing(&[id])?.is_empty() => Kind::File,
                _ => match store.get(id)? {
                    Some(bytes) => follow(id, kind, &path, &bytes, &mut open),
                    None => {
                        reached.missing += u64::from(kind.is_some());
                        continue;
                    }
                },
            };
            reached.live.insert(id);
            reached.hints.push(PackHint { id, kind, near: similarity(&path) });
        }
    }
    Ok(reached)
}

/// Puts what an object names on the pile, and says what it is. What is no snapshot and no tree is a file, whoever
/// called it something else.
fn follow(id: ObjectId, kind: Option<Kind>, path: &[u8], bytes: &[u8], open: &mut Vec<Open>) -> Kind {
    if kind != Some(Kind::Tree)
        && let Ok(snapshot) = Snapshot::decode(SnapshotId(id), bytes)
    {
        open.extend(snapshot.parents.iter().map(|parent| (parent.0, Some(Kind::Snapshot), Vec::new())));
        open.push((snapshot.tree, Some(Kind::Tree), Vec::new()));
        return Kind::Snapshot;
    }
    let Ok(tree) = Tree::decode(id, bytes) else { return Kind::File };
    for entry in tree.entries() {
        let kind = if entry.mode == FileMode::Directory { Kind::Tree } else { Kind::File };
        let path = if path.is_empty() { entry.name.clone() } else { [path, b"/", &entry.name].concat() };
        open.push((entry.id, Some(kind), path));
    }
    Kind::Tree
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use helix_objects::{Durability, MemoryStore, NewObject};
    use helix_protocol::Timestamp;

    use super::*;
    use crate::{Signature, TreeEntry};

    fn entry(name: &str, mode: FileMode, id: ObjectId) -> TreeEntry {
        TreeEntry { name: name.into(), mode, size: 0, id }
    }

    fn snapshot(tree: ObjectId, parents: Vec<SnapshotId>) -> NewObject {
        let who = Signature { name: "A".into(), email: "a@b".into(), time: Timestamp(0), offset_minutes: 0 };
        let (message, metadata) = (String::new(), Default::default());
        Snapshot { tree, parents, author: who.clone(), committer: who, message, metadata }.encode()
    }

    #[test]
    fn everything_beneath_a_name_is_reached_and_nothing_else() {
        let store = MemoryStore::new();
        let file = |text: &'static str| NewObject::new(Bytes::from_static(text.as_bytes()));
        let (shared, inner, output, dead) = (file("shared"), file("inner"), file("output"), file("dead"));
        let folder = Tree::new(vec![entry("inner.rs", FileMode::Regular, inner.id())]).unwrap().encode();
        let lost = file("lost");
        let root = Tree::new(vec![
            entry("folder", FileMode::Directory, folder.id()),
            entry("lost", FileMode::Regular, lost.id()),
            entry("shared", FileMode::Regular, shared.id()),
        ])
        .unwrap()
        .encode();
        let older_tree = Tree::new(vec![entry("shared", FileMode::Regular, shared.id())]).unwrap().encode();
        let older = snapshot(older_tree.id(), vec![]);
        let newer = snapshot(root.id(), vec![SnapshotId(older.id())]);
        let kept = [shared, inner, output.clone(), folder, root, older_tree, older, newer.clone()];
        store.put(&kept, Durability::NoSync).unwrap();
        store.put(&[dead], Durability::NoSync).unwrap();
        let unknown = ObjectId([9; 32]);
        let reached = reach(&store, [newer.id(), output.id(), unknown, newer.id()]).unwrap();
        assert_eq!(reached.live, kept.iter().map(NewObject::id).collect());
        assert_eq!((reached.hints.len(), reached.missing), (kept.len(), 1));
        let kinds = |kind| reached.hints.iter().filter(|hint| hint.kind == kind).count();
        assert_eq!((kinds(Kind::Snapshot), kinds(Kind::Tree), kinds(Kind::File)), (2, 3, 3));
    }

    #[test]
    fn a_file_that_looks_like_a_tree_is_followed_and_stops_nothing() {
        let store = MemoryStore::new();
        let absent = Tree::new(vec![entry("x", FileMode::Directory, ObjectId([1; 32]))]).unwrap().encode();
        let text = NewObject::new(Bytes::from_static(b"no tree"));
        let odd = Tree::new(vec![entry("x", FileMode::Directory, text.id())]).unwrap().encode();
        store.put(&[absent.clone(), text.clone(), odd.clone()], Durability::NoSync).unwrap();
        let reached = reach(&store, [absent.id(), odd.id()]).unwrap();
        assert_eq!(reached.live, HashSet::from([absent.id(), text.id(), odd.id()]));
    }
}
