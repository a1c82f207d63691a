//! A git repository's files as a tree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice;
use helix_objects::{Durability, Mark, ObjectStore};
use helix_protocol::{ObjectId, SkippedFile, SnapshotId, Timestamp};

use super::convert::{Files, entries, file_mode};
use super::source::open_sha1;
use super::worktree::read_worktree;
use super::{failed, place};
use crate::{Signature, Snapshot, VersionError, show_path, write_snapshot};

/// Whether what is not committed comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeUncommitted {
    /// What HEAD names, and nothing else.
    No,
    /// The working folder: changed, deleted and added files, and untracked ones that git does not
    /// ignore. Larger files than the cap are listed; of tracked ones the index's version is taken, unless there is none.
    Yes {
        /// In bytes.
        file_cap_bytes: u64,
    },
}

/// How much was imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportCounts {
    /// Files and links in the tree.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Paths that differ from HEAD.
    pub uncommitted: u64,
}

/// An imported working state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The root folder.
    pub tree: ObjectId,
    /// A snapshot of it, without parents, with the commit's author, time and message.
    pub snapshot: SnapshotId,
    /// Sync up to here to have everything on disk.
    pub mark: Mark,
    /// HEAD's commit in hexadecimal; `None` before the first commit.
    pub commit: Option<String>,
    /// The branch that HEAD is on; `None` where it is detached.
    pub branch: Option<String>,
    /// The root of the working folder, or the repository's folder where it is bare.
    pub root: PathBuf,
    /// Submodules and repositories inside the working folder, which are not carried.
    pub submodules: Vec<String>,
    /// Untracked files that are not carried for another reason.
    pub skipped: Vec<SkippedFile>,
    /// Tracked files that are not carried as they are now, but as the index has them: too large, unreadable, or no files any more.
    pub unread: Vec<SkippedFile>,
    /// How much.
    pub counts: ImportCounts,
}

/// Reads the repository that `path` lies in, packs included, straight into `store`, unsynced.
/// Nothing is checked out and nothing of the repository is written. Content is taken as git keeps
/// it, without filters (line endings, large-file pointers), so that it can be committed again.
/// Refused where its ids are SHA-256.
pub fn import(store: &dyn ObjectStore, path: &Path, uncommitted: IncludeUncommitted) -> Result<Imported, VersionError> {
    let repository = open_sha1(path)?;
    let root = place(&repository);
    let git = |error: gix::Error| failed(&root, error);
    let head = repository.head().map_err(git)?;
    let branch = head.referent_name().map(|name| name.shorten().to_str_lossy().into_owned());
    let commit = head.id().map(|id| repository.find_commit(id)).transpose().map_err(git)?;
    let committed = match &commit {
        Some(commit) => entries(&repository, commit.tree_id().map_err(git)?.detach())?,
        None => Vec::new(),
    };

    let (mut files, mut submodules) = (Files::new(store), Vec::new());
    let (mut skipped, mut unread) = (Vec::new(), Vec::new());
    let mut at_head = BTreeMap::new();
    let with_worktree = match uncommitted {
        IncludeUncommitted::Yes { file_cap_bytes } if repository.workdir().is_some() => Some(file_cap_bytes),
        _ => None,
    };
    for entry in &committed {
        match file_mode(entry.kind) {
            Some(mode) if with_worktree.is_some() => drop(at_head.insert(entry.path.clone(), (mode, entry.id))),
            Some(mode) => files.add_blob(&repository, entry.path.clone(), mode, entry.id)?,
            None => submodules.push(show_path(&entry.path)),
        }
    }
    let mut differing = 0;
    if let Some(cap) = with_worktree {
        let found = read_worktree(&repository, cap, &at_head, &mut files)?;
        (submodules, skipped, unread, differing) = (found.submodules, found.skipped, found.unread, found.differing);
    }
    let counts = ImportCounts {
        files: files.by_path().len() as u64,
        bytes: files.by_path().values().map(|content| content.size).sum(),
        uncommitted: differing,
    };
    let (tree, mark) = files.finish()?;
    let commit_id = commit.as_ref().map(|commit| commit.id().to_string());
    let snapshot = describe(tree, commit.as_ref(), branch.as_deref(), differing, &root)?;
    let (snapshot, last) = write_snapshot(store, &snapshot, Durability::NoSync)?;
    submodules.sort();
    submodules.dedup();
    Ok(Imported { tree, snapshot, mark: mark.max(last), commit: commit_id, branch, root, submodules, skipped, unread, counts })
}

/// Reads the files of one commit, as [`import`] does with what HEAD names. `revision` is anything git understands; of an
/// unknown one the failure is `NoSuchCommit`.
pub fn import_commit(store: &dyn ObjectStore, path: &Path, revision: &str) -> Result<Imported, VersionError> {
    let repository = open_sha1(path)?;
    let root = place(&repository);
    let git = |error: gix::Error| failed(&root, error);
    let unknown = || VersionError::NoSuchCommit { repository: root.display().to_string(), revision: revision.to_owned() };
    let id = repository.rev_parse_single(revision).map_err(|_| unknown())?;
    let commit = id.object().map_err(|_| unknown())?.peel_to_commit().map_err(|_| unknown())?;
    let (mut files, mut submodules) = (Files::new(store), Vec::new());
    for entry in entries(&repository, commit.tree_id().map_err(git)?.detach())? {
        match file_mode(entry.kind) {
            Some(mode) => files.add_blob(&repository, entry.path, mode, entry.id)?,
            None => submodules.push(show_path(&entry.path)),
        }
    }
    let bytes = files.by_path().values().map(|content| content.size).sum();
    let counts = ImportCounts { files: files.by_path().len() as u64, bytes, uncommitted: 0 };
    let (tree, mark) = files.finish()?;
    let snapshot = describe(tree, Some(&commit), None, 0, &root)?;
    let (snapshot, last) = write_snapshot(store, &snapshot, Durability::NoSync)?;
    let commit = Some(commit.id().to_string());
    let (skipped, unread) = (Vec::new(), Vec::new());
    Ok(Imported { tree, snapshot, mark: mark.max(last), commit, branch: None, root, submodules, skipped, unread, counts })
}

fn describe(
    tree: ObjectId,
    commit: Option<&gix::Commit<'_>>,
    branch: Option<&str>,
    uncommitted: u64,
    root: &Path,
) -> Result<Snapshot, VersionError> {
    let mut metadata = BTreeMap::new();
    let helix = |time| Signature { name: "helix".into(), email: "helix@localhost".into(), time, offset_minutes: 0 };
    metadata.extend(branch.map(|branch| ("git.branch".to_owned(), branch.to_owned())));
    if uncommitted > 0 {
        metadata.insert("git.uncommitted".to_owned(), uncommitted.to_string());
    }
    let Some(commit) = commit else {
        let now = helix(Timestamp::now());
        let message = "working folder before the first commit".to_owned();
        return Ok(Snapshot { tree, parents: Vec::new(), author: now.clone(), committer: now, message, metadata });
    };
    metadata.insert("git.commit".to_owned(), commit.id().to_string());
    let commit = commit.decode().map_err(|error| failed(root, error))?;
    let author = signature(commit.author().map_err(|error| failed(root, error))?);
    let committer =
        if uncommitted > 0 { helix(Timestamp::now()) } else { signature(commit.committer().map_err(|error| failed(root, error))?) };
    let message = commit.message.to_str_lossy().into_owned();
    Ok(Snapshot { tree, parents: Vec::new(), author, committer, message, metadata })
}

fn signature(git: gix::actor::SignatureRef<'_>) -> Signature {
    let time = git.time().unwrap_or_default();
    Signature {
        name: git.name.trim().to_str_lossy().into_owned(),
        email: git.email.trim().to_str_lossy().into_owned(),
        time: Timestamp(time.seconds.saturating_mul(1_000_000)),
        offset_minutes: i16::try_from(time.offset / 60).unwrap_or(0),
    }
}
