//! Snapshots as git commits on a branch.
//!
//! What is exported is what `git add --all` would take: a file that the parent commit (or an earlier
//! exported one) tracks, or that no ignore rule fits. The rules are those of the exported tree's own
//! `.gitignore` files, of the repository's `info/exclude` and of the person's global excludes. So a
//! build folder that a step carries does not turn up in a branch. Empty folders do not either, nor
//! names that git forbids (`.git` in any case), nor `.helios`, which whoever checks the branch out would take for their own.

mod looking;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use gix::bstr::{BString, ByteSlice};
use gix::objs::tree::{Entry, EntryKind};
use gix::refs::Target;
use gix::refs::transaction::{PreviousValue, RefEdit};
use gix::worktree::stack::state::ignore::Source;
use helix_objects::ObjectStore;
use helix_protocol::{FileMode, ObjectId};

use super::convert::entries;
use super::{failed, open, place};
use crate::names::leads_into_a_repository;
use crate::read::push_name;
use crate::tree::{MAX_DEPTH, Tree, TreeEntry};
use crate::{BranchName, Signature, VersionError, show_path};

pub use looking::{Line, left_out};

/// Where a branch must be for an export to move it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BranchAt {
    /// It must not exist.
    Nowhere,
    /// It must name this commit, in hexadecimal.
    Commit(String),
    /// It may be anywhere: what it named is only in the reflog afterwards.
    Anywhere,
}

/// One commit to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportCommit {
    /// The files.
    pub tree: ObjectId,
    /// The message; a line end is added where there is none.
    pub message: String,
    /// Author and committer.
    pub author: Signature,
}

/// What to export where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export<'a> {
    /// A path in the repository.
    pub repository: &'a Path,
    /// The branch that is made or moved.
    pub branch: &'a BranchName,
    /// Where the branch must be.
    pub expected: BranchAt,
    /// The commit beneath the first one, in hexadecimal; `None` for a root commit.
    pub parent: Option<&'a str>,
    /// What the first commit was made from, as a commit of its own; not made where the parent has the same files.
    pub base: Option<&'a ExportCommit>,
    /// Oldest first.
    pub commits: &'a [ExportCommit],
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// What the branch names now.
    pub head: String,
    /// The commits made, oldest first.
    pub commits: Vec<String>,
    /// Paths of the last tree that git ignores or forbids; a whole folder is listed once.
    pub left_out: Vec<String>,
}

/// Writes blobs, trees and commits into the repository and points the branch to the last one.
/// Neither the index nor a working folder is touched. Refused with `BranchCheckedOut` where some
/// worktree has the branch checked out, with `BranchMoved` where it is not as expected; commits that
/// no branch names then are left to git's own cleaning. The same export again is the same: a branch
/// that already names the last commit stays as it is.
pub fn export(store: &dyn ObjectStore, what: &Export<'_>) -> Result<Exported, VersionError> {
    let repository = open(what.repository)?;
    let root = place(&repository);
    let git = |error: gix::Error| failed(&root, error);
    let full_name = format!("refs/heads/{}", what.branch);
    refuse_checked_out(&repository, what.branch, &full_name)?;
    let mut parent = what.parent.map(|hex| parse(&root, hex)).transpose()?;
    let expected = match &what.expected {
        BranchAt::Nowhere => PreviousValue::MustNotExist,
        BranchAt::Commit(hex) => PreviousValue::MustExistAndMatch(Target::Object(parse(&root, hex)?)),
        BranchAt::Anywhere => PreviousValue::Any,
    };

    let mut writer = Writer::new(store, &repository, &root, Content::Written);
    if let Some(parent) = parent {
        writer.track(parent)?;
    }
    let beneath = match parent {
        Some(parent) => repository.find_commit(parent).and_then(|commit| Ok(commit.tree_id()?.detach())).map_err(git)?,
        None => gix::ObjectId::empty_tree(repository.object_hash()),
    };
    let (mut made, mut left_out) = (Vec::with_capacity(what.commits.len()), Vec::new());
    let commits = what.base.into_iter().map(|base| (base, true)).chain(what.commits.iter().map(|commit| (commit, false)));
    for (commit, is_base) in commits {
        let tree;
        (tree, left_out) = writer.root(commit.tree)?;
        if is_base && tree == beneath {
            continue;
        }
        let signature = git_signature(&commit.author);
        let object = gix::objs::Commit {
            tree,
            parents: parent.into_iter().collect(),
            author: signature.clone(),
            committer: signature,
            encoding: None,
            message: message(&commit.message),
            extra_headers: Vec::new(),
        };
        let id = repository.write_object(&object).map_err(git)?.detach();
        made.push(id.to_string());
        parent = Some(id);
    }
    let Some(head) = parent else {
        return Err(failed(&root, "there is neither a commit to export nor a parent to point to"));
    };
    move_branch(&repository, what, full_name, head, expected, &root)?;
    Ok(Exported { head: head.to_string(), commits: made, left_out })
}

fn parse(root: &Path, hex: &str) -> Result<gix::ObjectId, VersionError> {
    gix::ObjectId::from_hex(hex.as_bytes()).map_err(|error| failed(root, error))
}

fn refuse_checked_out(repository: &gix::Repository, branch: &BranchName, full_name: &str) -> Result<(), VersionError> {
    let root = place(repository);
    for worktree in repository.worktrees_including_main().map_err(|error| failed(&root, error))? {
        // A worktree whose administrative files cannot be read has nothing checked out that we could disturb.
        let Ok(worktree) = worktree else { continue };
        let on_branch = worktree.head_name().ok().flatten().is_some_and(|name| name.as_bstr() == full_name);
        if on_branch && let Some(folder) = worktree.workdir() {
            return Err(VersionError::BranchCheckedOut { branch: branch.to_string(), worktree: folder.display().to_string() });
        }
    }
    Ok(())
}

fn move_branch(
    repository: &gix::Repository,
    what: &Export<'_>,
    full_name: String,
    head: gix::ObjectId,
    expected: PreviousValue,
    root: &Path,
) -> Result<(), VersionError> {
    let name = full_name.clone().try_into().map_err(|_| VersionError::InvalidBranch(what.branch.to_string()))?;
    let now = || repository.try_find_reference(full_name.as_str()).map(|found| found.map(|branch| branch.target().into_owned()));
    if now().map_err(|error| failed(root, error))? == Some(Target::Object(head)) {
        return Ok(());
    }
    let edit = RefEdit::update(name, Target::Object(head), expected.clone(), "helix: export");
    let signature = what.commits.last().map(|commit| git_signature(&commit.author));
    let mut buffer = gix::date::parse::TimeBuf::default();
    let committer = signature.as_ref().map(|signature| signature.to_ref(&mut buffer));
    let Err(error) = repository.edit_references_as([edit], committer) else { return Ok(()) };
    let found = now().ok().flatten();
    let as_expected = match &expected {
        PreviousValue::MustNotExist => found.is_none(),
        PreviousValue::MustExistAndMatch(target) => found.as_ref() == Some(target),
        _ => true,
    };
    if as_expected { Err(failed(root, error)) } else { Err(VersionError::BranchMoved { branch: what.branch.to_string() }) }
}

/// What becomes of the content of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// It is written into the repository.
    Written,
    /// Nobody wants it: only which files are exported.
    Left,
}

/// The ignore files beneath a folder, by their paths in it.
type IgnoreFiles = Arc<Vec<(Vec<u8>, ObjectId)>>;

/// Turns trees into git trees, remembering what it turned already.
struct Writer<'a> {
    store: &'a dyn ObjectStore,
    repository: &'a gix::Repository,
    place: &'a Path,
    content: Content,
    blobs: HashMap<ObjectId, gix::ObjectId>,
    /// Folders by path and tree, as long as the ignore rules stay the same.
    folders: HashMap<(Vec<u8>, ObjectId), Turned>,
    rules: IgnoreFiles,
    /// The ignore files of every folder that was met: most folders are those of the tree before.
    ignore_files: HashMap<ObjectId, IgnoreFiles>,
    /// What git tracks by now, so that ignore rules do not apply to it.
    tracked: HashSet<Vec<u8>>,
}

/// A folder as git has it.
#[derive(Clone, Default)]
struct Turned {
    /// `None`: nothing in it is exported.
    tree: Option<gix::ObjectId>,
    left_out: Vec<String>,
}

impl<'a> Writer<'a> {
    fn new(store: &'a dyn ObjectStore, repository: &'a gix::Repository, place: &'a Path, content: Content) -> Self {
        Self {
            store,
            repository,
            place,
            content,
            blobs: HashMap::new(),
            folders: HashMap::new(),
            rules: IgnoreFiles::default(),
            ignore_files: HashMap::new(),
            tracked: HashSet::new(),
        }
    }

    fn git(&self) -> impl Fn(gix::Error) -> VersionError + use<'a> {
        let place = self.place;
        move |error| failed(place, error)
    }

    /// Takes everything in a commit for tracked.
    fn track(&mut self, commit: gix::ObjectId) -> Result<(), VersionError> {
        let tree = self.repository.find_commit(commit).and_then(|commit| Ok(commit.tree_id()?.detach())).map_err(self.git())?;
        self.tracked.extend(entries(self.repository, tree)?.into_iter().map(|entry| entry.path));
        Ok(())
    }

    /// A commit's tree, and what is left out of it.
    fn root(&mut self, tree: ObjectId) -> Result<(gix::ObjectId, Vec<String>), VersionError> {
        let rules = self.ignore_files(tree, 0)?;
        if rules != self.rules {
            self.folders.clear();
            self.rules = rules;
        }
        let index = self.index_of_rules()?;
        let mut ignores = self.repository.excludes(&index, None, Source::IdMapping).map_err(self.git())?;
        let turned = self.folder(tree, &mut Vec::new(), 0, false, &mut ignores)?;
        match turned.tree {
            Some(root) => Ok((root, turned.left_out)),
            None => {
                let empty = self.repository.write_object(gix::objs::Tree::empty()).map_err(self.git())?;
                Ok((empty.detach(), turned.left_out))
            }
        }
    }

    /// The ignore files of a tree.
    fn ignore_files(&mut self, tree: ObjectId, depth: usize) -> Result<IgnoreFiles, VersionError> {
        if let Some(known) = self.ignore_files.get(&tree) {
            return Ok(Arc::clone(known));
        }
        let mut found = Vec::new();
        for entry in Tree::load(self.store, tree)?.entries() {
            match entry.mode {
                FileMode::Regular | FileMode::Executable if entry.name == b".gitignore" => {
                    found.push((entry.name.clone(), entry.id))
                }
                // What lies deeper is refused when it is turned.
                FileMode::Directory if depth < MAX_DEPTH => {
                    for (path, id) in self.ignore_files(entry.id, depth + 1)?.iter() {
                        found.push(([&entry.name[..], b"/", path].concat(), *id));
                    }
                }
                _ => {}
            }
        }
        let found = Arc::new(found);
        self.ignore_files.insert(tree, Arc::clone(&found));
        Ok(found)
    }

    /// An index in memory of the ignore files, which is where gix looks for them without a working folder.
    fn index_of_rules(&mut self) -> Result<gix::index::File, VersionError> {
        let mut editor = self.repository.empty_tree().edit().map_err(self.git())?;
        for (path, id) in Arc::clone(&self.rules).iter() {
            let blob = self.blob(*id)?;
            editor.upsert(path.as_bstr(), EntryKind::Blob, blob).map_err(self.git())?;
        }
        let tree = editor.write().map_err(self.git())?;
        self.repository.index_from_tree(&tree).map_err(self.git())
    }

    fn blob(&mut self, id: ObjectId) -> Result<gix::ObjectId, VersionError> {
        if let Some(blob) = self.blobs.get(&id) {
            return Ok(*blob);
        }
        let blob = self.repository.write_blob(self.store.read(id)?).map_err(self.git())?.detach();
        self.blobs.insert(id, blob);
        Ok(blob)
    }

    fn folder(
        &mut self,
        id: ObjectId,
        path: &mut Vec<u8>,
        depth: usize,
        ignored: bool,
        ignores: &mut gix::AttributeStack<'_>,
    ) -> Result<Turned, VersionError> {
        if depth >= MAX_DEPTH {
            return Err(VersionError::InvalidPath(show_path(path)));
        }
        let key = (path.clone(), id);
        if let Some(known) = self.folders.get(&key) {
            return Ok(known.clone());
        }
        let (mut entries, mut turned) = (Vec::new(), Turned::default());
        for entry in Tree::load(self.store, id)?.entries() {
            let length = push_name(path, &entry.name);
            if leads_into_a_repository(&entry.name) {
                turned.left_out.push(show_path(path));
            } else if let Some((kind, oid)) = self.entry(entry, path, depth, ignored, ignores, &mut turned.left_out)? {
                entries.push(Entry { mode: kind.into(), filename: BString::from(entry.name.clone()), oid });
            }
            path.truncate(length);
        }
        entries.sort_unstable();
        if !entries.is_empty() {
            let written = self.repository.write_object(&gix::objs::Tree { entries }).map_err(self.git())?;
            turned.tree = Some(written.detach());
        }
        self.folders.insert(key, turned.clone());
        Ok(turned)
    }

    fn entry(
        &mut self,
        entry: &TreeEntry,
        path: &mut Vec<u8>,
        depth: usize,
        ignored: bool,
        ignores: &mut gix::AttributeStack<'_>,
        left_out: &mut Vec<String>,
    ) -> Result<Option<(EntryKind, gix::ObjectId)>, VersionError> {
        use gix::index::entry::Mode;
        let is_folder = entry.mode == FileMode::Directory;
        let mode = if is_folder { Mode::DIR } else { Mode::FILE };
        let ignored = ignored || ignores.at_entry(path.as_bstr(), Some(mode)).map_err(self.git())?.is_excluded();
        if is_folder {
            if ignored && !self.tracks_beneath(path) {
                left_out.push(show_path(path) + "/");
                return Ok(None);
            }
            let turned = self.folder(entry.id, path, depth + 1, ignored, ignores)?;
            left_out.extend(turned.left_out);
            return Ok(turned.tree.map(|id| (EntryKind::Tree, id)));
        }
        if ignored && !self.tracked.contains(path) {
            left_out.push(show_path(path));
            return Ok(None);
        }
        self.tracked.insert(path.clone());
        let kind = match entry.mode {
            FileMode::Executable => EntryKind::BlobExecutable,
            FileMode::Symlink => EntryKind::Link,
            _ => EntryKind::Blob,
        };
        let blob = match self.content {
            Content::Written => self.blob(entry.id)?,
            Content::Left => gix::ObjectId::empty_blob(self.repository.object_hash()),
        };
        Ok(Some((kind, blob)))
    }

    fn tracks_beneath(&self, folder: &[u8]) -> bool {
        let beneath = |path: &Vec<u8>| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/"));
        self.tracked.iter().any(beneath)
    }
}

/// Git's headers are lines with `<` and `>` in them.
fn git_signature(signature: &Signature) -> gix::actor::Signature {
    let clean = |text: &str| BString::from(text.replace(['<', '>', '\n', '\0'], " ").trim());
    gix::actor::Signature {
        name: clean(&signature.name),
        email: clean(&signature.email),
        time: gix::date::Time {
            seconds: signature.time.0.div_euclid(1_000_000).max(0),
            offset: i32::from(signature.offset_minutes) * 60,
        },
    }
}

fn message(text: &str) -> BString {
    let text = text.replace('\0', " ");
    BString::from(if text.ends_with('\n') { text } else { text + "\n" })
}
