//! From what a pass saw to the index.
//!
//! Only what differs is changed, so that only folders with changes are put together again.

use std::collections::{BTreeMap, HashSet};

use helix_protocol::SkipReason;

use super::events::Watcher;
use super::index::{Entry, Folder, FolderKey, HeldFile, Index, Known};
use super::notes::Notes;
use super::visit::{Opened, Seen, Sight, Tie};
use crate::read::push_name;
use crate::tree::TreeEntry;

/// What takes part in it.
pub(super) struct Merge<'a> {
    index: &'a mut Index,
    notes: &'a mut Notes,
    watcher: Option<&'a mut Watcher>,
    seen: &'a mut [Seen],
    /// Watches that folders of this pass have.
    claimed: HashSet<i32>,
    /// Files of which something new is known.
    changed: usize,
}

impl<'a> Merge<'a> {
    pub(super) fn new(index: &'a mut Index, notes: &'a mut Notes, watcher: Option<&'a mut Watcher>, seen: &'a mut [Seen]) -> Self {
        let claimed = seen.iter().filter_map(|seen| seen.watch).collect();
        Self { index, notes, watcher, seen, claimed, changed: 0 }
    }

    /// Takes in what was seen of these folders, each under its place as its ticket, and of what lies in them. Answers with how many
    /// files something new is known of.
    pub(super) fn run(mut self, folders: &[FolderKey]) -> usize {
        for (ticket, key) in folders.iter().enumerate() {
            self.folder(*key, ticket);
        }
        self.changed
    }

    fn folder(&mut self, key: FolderKey, ticket: usize) {
        let seen = std::mem::take(&mut self.seen[ticket]);
        if !matches!(seen.opened, Opened::Yes) {
            return;
        }
        if seen.whole {
            self.adopt(key, &seen);
            self.drop_unseen(key, &seen);
        }
        let mut path = seen.path;
        for (name, sight) in seen.sights {
            let length = push_name(&mut path, name.to_bytes());
            self.name(key, name.to_bytes(), sight, &path);
            path.truncate(length);
        }
    }

    /// What is known of the folder itself.
    fn adopt(&mut self, key: FolderKey, seen: &Seen) {
        let folder = self.index.folder_mut(key);
        (folder.ignored, folder.inode) = (seen.ignored, seen.inode);
        folder.chain.clone_from(&seen.chain);
        let before = std::mem::replace(&mut folder.watch, seen.watch);
        if let Some(watcher) = &mut self.watcher {
            if let Some(before) = before.filter(|before| seen.watch != Some(*before)) {
                watcher.release(before, key, &|watch| self.claimed.contains(&watch));
            }
            if let Some(watch) = seen.watch {
                watcher.assign(watch, key);
            }
        }
    }

    fn drop_unseen(&mut self, key: FolderKey, seen: &Seen) {
        let entries = &self.index.folder(key).entries;
        if entries.is_empty() && self.notes.skipped.is_empty() {
            return;
        }
        let known = seen.sights.iter().filter(|(name, _)| entries.contains_key(name.to_bytes())).count();
        if known == entries.len() && self.notes.skipped.is_empty() {
            return;
        }
        let there: HashSet<&[u8]> = seen.sights.iter().map(|(name, _)| name.to_bytes()).collect();
        let gone: Vec<Box<[u8]>> = entries.keys().filter(|name| !there.contains(&***name)).cloned().collect();
        let mut path = seen.path.clone();
        for name in gone {
            let length = push_name(&mut path, &name);
            self.name(key, &name, Sight::Absent, &path);
            path.truncate(length);
        }
        self.notes.forget_absent(&seen.path, &there);
    }

    fn name(&mut self, key: FolderKey, name: &[u8], sight: Sight, path: &[u8]) {
        let was_folder = match self.index.folder(key).entries.get(name) {
            Some(Entry::Folder(inner)) => Some(*inner),
            _ => None,
        };
        match sight {
            Sight::Folder { ticket, tie } => self.inner(key, name, path, ticket, tie, was_folder),
            Sight::Absent => self.set(key, name, path, None, was_folder.is_some()),
            Sight::Skipped { reason, size, base } => {
                self.set(key, name, path, base.map(kept), was_folder.is_some());
                self.notes.skipped.insert(path.to_owned(), (reason, size));
            }
            Sight::Link { size, id, tie } => {
                let same = matches!(self.index.folder(key).entries.get(name), Some(Entry::Link { id: same, .. }) if *same == id);
                if same {
                    self.notes.forget(path, false);
                } else {
                    self.set(key, name, path, Some(Entry::Link { size, id }), was_folder.is_some());
                }
                self.tie(path, tie);
            }
            Sight::File { file, torn, tie } => {
                self.file(key, name, path, file, was_folder.is_some());
                self.tie(path, tie);
                if torn {
                    self.notes.torn.insert(path.to_owned());
                }
                if file.linked {
                    self.notes.linked.insert(path.to_owned());
                }
            }
        }
    }

    fn file(&mut self, key: FolderKey, name: &[u8], path: &[u8], file: HeldFile, was_folder: bool) {
        match self.index.folder(key).entries.get(name) {
            Some(Entry::File(before))
                if before.id == file.id && before.mode() == file.mode() && before.stat.size == file.stat.size =>
            {
                if *before != file {
                    self.changed += 1;
                    self.index.touch(key, name, file);
                }
                self.notes.forget(path, false);
            }
            _ => {
                self.changed += 1;
                self.set(key, name, path, Some(Entry::File(file)), was_folder);
            }
        }
    }

    fn inner(&mut self, parent: FolderKey, name: &[u8], path: &[u8], ticket: usize, tie: Tie, was: Option<FolderKey>) {
        match &mut self.seen[ticket].opened {
            Opened::Gone => self.set(parent, name, path, None, was.is_some()),
            Opened::Refused(base) => {
                let base = base.take();
                self.set(parent, name, path, base.map(kept), was.is_some());
                self.notes.skipped.insert(path.to_owned(), (SkipReason::Unreadable, 0));
            }
            Opened::Yes => {
                self.notes.forget(path, false);
                let key = was.unwrap_or_else(|| {
                    let folder = Folder {
                        parent: Some(parent),
                        name: name.into(),
                        entries: BTreeMap::new(),
                        known: Known::Changed,
                        inode: 0,
                        watch: None,
                        ignored: false,
                        chain: None,
                    };
                    let mut gone = Vec::new();
                    let key = self.index.add_folder(folder, &mut gone);
                    self.release(gone);
                    key
                });
                self.folder(key, ticket);
            }
        }
        self.tie(path, tie);
    }

    fn tie(&mut self, path: &[u8], tie: Tie) {
        if tie == Tie::ToBase {
            self.notes.tied.insert(path.to_owned());
        }
    }

    fn set(&mut self, key: FolderKey, name: &[u8], path: &[u8], entry: Option<Entry>, was_folder: bool) {
        self.notes.forget(path, was_folder);
        let mut gone = Vec::new();
        self.index.set(key, name, entry, &mut gone);
        self.release(gone);
    }

    fn release(&mut self, gone: Vec<(FolderKey, Folder)>) {
        let Some(watcher) = &mut self.watcher else { return };
        for (key, folder) in gone {
            if let Some(watch) = folder.watch {
                watcher.release(watch, key, &|watch| self.claimed.contains(&watch));
            }
        }
    }
}

fn kept(entry: TreeEntry) -> Entry {
    Entry::Kept { mode: entry.mode, size: entry.size, id: entry.id }
}
