//! The third pass: trees from the leaves up.

use std::collections::HashMap;

use helix_objects::{NewObject, ObjectStore};
use helix_protocol::{FileMode, ObjectId};

use super::{Content, Node, Place};
use crate::VersionError;
use crate::tree::{Tree, TreeEntry, TreeSource};

/// Trees and links of this scan, in front of the store.
pub(super) struct Overlay<'a> {
    store: &'a dyn ObjectStore,
    trees: HashMap<ObjectId, Tree>,
    made: HashMap<ObjectId, NewObject>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(store: &'a dyn ObjectStore, links: HashMap<ObjectId, NewObject>) -> Self {
        Self { store, trees: HashMap::new(), made: links }
    }

    /// An object this scan made that is not a file's content.
    pub(super) fn made(&self, id: ObjectId) -> Option<NewObject> {
        self.made.get(&id).cloned()
    }

    /// The tree of a folder and the bytes beneath it.
    pub(super) fn assemble(
        &mut self,
        nodes: Vec<(Vec<u8>, Node)>,
        resolve: &impl Fn(Place) -> Result<Option<Content>, VersionError>,
    ) -> Result<(ObjectId, u64), VersionError> {
        let mut entries = Vec::with_capacity(nodes.len());
        for (name, node) in nodes {
            let content = match node {
                Node::File(place) => resolve(place)?,
                Node::Folder(nodes) => {
                    let (id, size) = self.assemble(nodes, resolve)?;
                    Some(Content { mode: FileMode::Directory, size, id })
                }
            };
            if let Some(Content { mode, size, id }) = content {
                entries.push(TreeEntry { name, mode, size, id });
            }
        }
        let tree = Tree::new(entries)?;
        let (object, size) = (tree.encode(), tree.size());
        let id = object.id();
        self.trees.insert(id, tree);
        self.made.insert(id, object);
        Ok((id, size))
    }
}

impl TreeSource for Overlay<'_> {
    fn tree(&self, id: ObjectId) -> Result<Tree, VersionError> {
        match self.trees.get(&id) {
            Some(tree) => Ok(tree.clone()),
            None => Tree::load(self.store, id),
        }
    }
}
