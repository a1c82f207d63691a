//! The workspace a command is about.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helix_objects::{Collect, Durability, Lease, NewObject, ObjectError, ObjectStore};
use helix_protocol::{Code, Failure, ObjectId, SnapshotId};
use helix_versions::{
    Annotation, BranchName, Caller, Repository, Resolved, Signature, Staged, Tag, VersionError, WorkingFolder, Workspace,
    WorkspaceName, diff_entries,
};
use parking_lot::MutexGuard;

use crate::author::{Role, Who};
use crate::compose::Fresh;
use crate::console::{Console, Warnings};
use crate::context::Context;
use crate::engine::location::Location;
use crate::engine::{OpenRepository, SharedFolder};
use crate::render::path;

/// A workspace with its repository, which stays open as long as this lives.
pub struct Here {
    /// Where it is.
    pub location: Location,
    /// What is open.
    pub open: Arc<OpenRepository>,
}

/// How often a queue is left to see whether its member is still there.
const LOOK_UP: Duration = Duration::from_millis(100);

impl Here {
    /// The workspace that a path lies in.
    pub fn find(context: &mut Context<'_>, path: &Path) -> Result<Self, Failure> {
        let location = Location::find(path)?;
        let open = context.engine.repository(&location, &mut context.console)?;
        open.refresh_settings()?;
        Ok(Self { location, open })
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.open.repository
    }

    /// Its content.
    pub fn store(&self) -> &dyn ObjectStore {
        &*self.open.store
    }

    /// Its content with objects that are not in it yet.
    pub fn with_fresh(&self, objects: Vec<NewObject>) -> Fresh {
        Fresh::new(Arc::clone(&self.open.store) as Arc<dyn ObjectStore>, objects)
    }

    /// Keeps a collection from dropping what is stored from now on and named only later.
    pub fn lease(&self) -> Lease {
        self.open.store.lease()
    }

    /// The workspace's name.
    pub fn name(&self) -> &WorkspaceName {
        &self.location.workspace
    }

    /// Where a workspace of this repository is. Where this one and the main one are is known; any other is where its record says,
    /// if the folder there says itself that it is this one. If not (it was made without one, or moved, or the repository is a copy
    /// and the folder is the original's) the root is empty, and no folder.
    pub fn place_of(&self, workspace: &Workspace) -> Location {
        let at = |root: PathBuf| Location { repository: self.location.repository.clone(), workspace: workspace.name.clone(), root };
        match &workspace.name {
            own if own == self.name() => self.location.clone(),
            main if *main == WorkspaceName::main() => at(self.location.repository.clone()),
            _ => {
                // By its real path, as it is found from within: what leads to it may have become a link.
                let recorded = Path::new(&workspace.root);
                let real = fs::canonicalize(recorded).ok().filter(|_| recorded.is_absolute());
                let says_so = |place: &Location| Location::at(&place.root).is_ok_and(|found| found.as_ref() == Some(place));
                real.map(at).filter(says_so).unwrap_or_else(|| at(PathBuf::new()))
            }
        }
    }

    /// The workspace as it is now. What is staged is that on the head as it is now: a head that was moved meanwhile, by an import
    /// or by somebody else's promotion, is not taken back by the next commit.
    pub fn workspace(&self) -> Result<Workspace, Failure> {
        let workspace = self.repository().workspace(self.name())?;
        let Some(before) = workspace.staged else { return Ok(workspace) };
        let head = self.repository().tree_of(&workspace.head)?;
        let Some(onto) = before.onto.filter(|onto| *onto != head) else { return Ok(workspace) };
        let _lease = self.lease();
        let mut fresh = self.with_fresh(Vec::new());
        let mut tree = head;
        for change in diff_entries(self.store(), Some(onto), before.tree)? {
            tree = fresh.splice(tree, before.tree, &change.path)?;
        }
        let staged = Some(Staged { tree, onto: Some(head) }).filter(|_| tree != head || workspace.merging.is_some());
        let staged = self.repository().restage(self.name(), before, staged, &fresh.into_objects())?;
        Ok(Workspace { staged, ..workspace })
    }

    /// The snapshot that a revision names.
    pub fn resolve(&self, revision: &str) -> Result<SnapshotId, Failure> {
        Ok(self.repository().resolve(self.name(), revision)?)
    }

    /// The folder that somebody is in, from the workspace's root; empty for the root itself.
    pub fn folder_of(&self, cwd: &Path) -> Result<Vec<u8>, Failure> {
        self.path(cwd, OsStr::new("."))
    }

    /// Whatever a revision stands for. `REVISION:./PATH` and `REVISION:../PATH` are read in the folder that somebody is in.
    pub fn resolve_object(&self, cwd: &Path, revision: &str) -> Result<Resolved, Failure> {
        Ok(self.repository().resolve_object(self.name(), &self.rooted(cwd, revision)?)?)
    }

    /// The annotated tag that somebody names.
    pub fn annotated(&self, named: &str) -> Result<Option<(Tag, Annotation)>, Failure> {
        let name = named.strip_prefix("refs/").unwrap_or(named);
        let Ok(name) = name.strip_prefix("tags/").unwrap_or(name).parse::<BranchName>() else { return Ok(None) };
        let tag = self.repository().tag(&name)?;
        Ok(tag.and_then(|tag| tag.annotation.clone().map(|annotation| (tag, annotation))))
    }

    /// The object that somebody names: by its whole id, by a revision as for [`resolve_object`](Self::resolve_object), or by the
    /// first digits of the id of a file or a folder.
    pub fn object(&self, cwd: &Path, named: &str) -> Result<ObjectId, Failure> {
        if let Ok(id) = named.parse::<ObjectId>()
            && self.store().missing(&[id])?.is_empty()
        {
            return Ok(id);
        }
        match self.resolve_object(cwd, named) {
            Ok(Resolved::Snapshot(id)) => Ok(id.0),
            Ok(Resolved::Entry(entry)) => Ok(entry.id),
            Err(failure) if failure.code == Code::NotFound => self.by_digits(named)?.ok_or(failure),
            Err(failure) => Err(failure),
        }
    }

    /// The file or the folder whose id begins so.
    fn by_digits(&self, named: &str) -> Result<Option<ObjectId>, Failure> {
        let digits = named.to_ascii_lowercase();
        if digits.len() < 4 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let found: Vec<ObjectId> = self.repository().objects_like(&digits)?.into_iter().collect();
        match found.as_slice() {
            [] => Ok(None),
            [id] => Ok(Some(*id)),
            several => {
                let candidates = several.iter().take(8).map(ToString::to_string).collect();
                Err(VersionError::Ambiguous { revision: named.to_owned(), candidates }.into())
            }
        }
    }

    /// The tree that a revision stands for: a snapshot's, or a folder's, which may be named as for
    /// [`resolve_object`](Self::resolve_object).
    pub fn resolve_tree(&self, cwd: &Path, revision: &str) -> Result<ObjectId, Failure> {
        Ok(self.repository().resolve_tree(self.name(), &self.rooted(cwd, revision)?)?)
    }

    /// A revision with the path behind its colon from the workspace's root.
    fn rooted<'r>(&self, cwd: &Path, revision: &'r str) -> Result<Cow<'r, str>, Failure> {
        let Some((name, typed)) = revision.split_once(':') else { return Ok(revision.into()) };
        if !(matches!(typed, "." | "..") || typed.starts_with("./") || typed.starts_with("../")) {
            return Ok(revision.into());
        }
        match String::from_utf8(self.path(cwd, OsStr::new(typed))?) {
            Ok(path) => Ok(format!("{name}:{path}").into()),
            Err(_) => Err(Failure::new(Code::InvalidRequest, format!("{revision}: the folder's path is no text"))
                .hint("write the path from the workspace's root")),
        }
    }

    /// Who asks, for what is changed.
    pub fn caller(&self, context: &Context<'_>, durability: Option<Durability>) -> Caller {
        let settings = self.open.settings();
        let who = Who::read(&context.caller, &settings, &self.location.repository);
        let durability = Some(durability.unwrap_or_else(|| settings.durability()));
        let (committer, workspace) = (who.dated(Role::Committer), self.location.workspace.clone());
        Caller { workspace, who: who.signature(Role::Committer), committer, durability }
    }

    /// As [`caller`](Self::caller), with the author of what is committed.
    pub fn caller_and_author(&self, context: &Context<'_>, durability: Option<Durability>) -> (Caller, Signature) {
        let caller = self.caller(context, durability);
        let settings = self.open.settings();
        let who = Who::read(&context.caller, &settings, &self.location.repository);
        let author = who.dated(Role::Author).unwrap_or_else(|| Signature { time: caller.who.time, ..who.signature(Role::Author) });
        (caller, author)
    }

    /// The tree that a commit is made against: what is staged, else what the files came of.
    pub fn index(&self, workspace: &Workspace) -> Result<ObjectId, Failure> {
        match workspace.staged {
            Some(staged) => Ok(staged.tree),
            None => Ok(self.repository().folder_tree(workspace)?),
        }
    }

    /// The working folder. It is to be locked with [`queue`].
    pub fn folder(&self) -> Result<Arc<SharedFolder>, Failure> {
        self.open.folder(&self.location)
    }

    /// A path that somebody typed, from the workspace's root; empty for the root itself.
    pub fn path(&self, cwd: &Path, typed: &OsStr) -> Result<Vec<u8>, Failure> {
        let refuse = |reason: &str| {
            let message = format!("{}: {reason}", typed.display());
            Err(Failure::new(Code::PathEscapes, message).hint(format!("give a path beneath {}", self.location.root.display())))
        };
        if typed.is_empty() || typed.as_bytes().contains(&0) {
            return refuse("this is no path");
        }
        let Some(whole) = normal(&cwd.join(typed)) else { return refuse("it goes up beyond the root of the file system") };
        let beneath = match whole.strip_prefix(&self.location.root) {
            Ok(beneath) => beneath.to_owned(),
            // The way there may lead through symbolic links.
            Err(_) => {
                let parent = whole.parent().and_then(|parent| fs::canonicalize(parent).ok());
                let whole = match (parent, whole.file_name()) {
                    (Some(parent), Some(name)) => parent.join(name),
                    _ => whole,
                };
                let found = whole.strip_prefix(&self.location.root).map(Path::to_owned);
                match found.or_else(|_| {
                    fs::canonicalize(&whole)
                        .map_err(|_| ())
                        .and_then(|whole| whole.strip_prefix(&self.location.root).map(Path::to_owned).map_err(|_| ()))
                }) {
                    Ok(beneath) => beneath,
                    Err(()) => return refuse("it is outside of the workspace"),
                }
            }
        };
        Ok(beneath.as_os_str().as_bytes().to_vec())
    }
}

impl Drop for Here {
    /// Whatever the command did, those who watch look.
    fn drop(&mut self) {
        self.open.note_memory();
        self.open.touch();
        self.open.changes.say();
    }
}

/// A folder's turn. At its end what the folder has in memory is noted, and the command is left a warning of what the folder's moves
/// left out.
pub struct Turn<'f> {
    shared: &'f SharedFolder,
    folder: MutexGuard<'f, WorkingFolder>,
    warnings: Warnings,
}

impl<'f> Turn<'f> {
    /// The turn, where nobody has it.
    pub fn now(shared: &'f SharedFolder, console: &Console<'_>) -> Option<Self> {
        Some(Self { shared, folder: shared.try_turn()?, warnings: console.warnings() })
    }

    /// The turn, where nobody has it after a while.
    fn soon(shared: &'f SharedFolder, console: &Console<'_>) -> Option<Self> {
        Some(Self { shared, folder: shared.try_lock_for(LOOK_UP)?, warnings: console.warnings() })
    }
}

impl Deref for Turn<'_> {
    type Target = WorkingFolder;

    fn deref(&self) -> &WorkingFolder {
        &self.folder
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut WorkingFolder {
        &mut self.folder
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.shared.used_by(&self.folder);
        for path in self.folder.take_left_out() {
            self.warnings.add(format!("{} is left out: its content was removed with `helios purge`", path::plain(&path)));
        }
    }
}

/// A folder's turn. Whoever waits is in a queue; who does not wait any more leaves it.
pub fn queue<'f>(folder: &'f SharedFolder, console: &Console<'_>) -> Result<Turn<'f>, Failure> {
    loop {
        if folder.is_lent() {
            return Err(bisecting());
        }
        if let Some(turn) = Turn::soon(folder, console) {
            return Ok(turn);
        }
        console.check()?;
    }
}

/// The refusal of who asks for files that are another snapshot's for a while. It ends with 128, so that a command under
/// `bisect run` which ends with it has answered nothing; 1 would mean that the snapshot is bad.
pub fn bisecting() -> Failure {
    let message = "`helios bisect run` has this folder: until it ends, its files are another snapshot's than the head's";
    Failure::new(Code::Overloaded, message).hint(
        "try again when it has ended, or work elsewhere: `helios workspace add ../NAME` makes a folder with a head of its own",
    )
}

/// A file's bytes for who shows them: what was purged is said to be, where it would have stood.
pub fn text_of(store: &dyn ObjectStore, id: ObjectId) -> Result<Bytes, ObjectError> {
    match store.get(id)? {
        Some(bytes) => Ok(bytes),
        None if store.purged()?.contains(&id) => Ok(Bytes::from_static(b"(removed with `helios purge`)\n")),
        None => Err(ObjectError::Missing(id)),
    }
}

/// A path without `.` and `..`, as it is written; `None` where it goes up too far.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            part => normal.push(part),
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain() {
        let plain = |path: &str| normal(Path::new(path));
        assert_eq!(plain("/a/./b/../c"), Some(PathBuf::from("/a/c")));
        assert_eq!(plain("/.."), None);
    }
}
