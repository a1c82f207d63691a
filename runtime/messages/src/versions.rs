//! The node's repositories: git in and out, and what differs between snapshots.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use helix_kernel::{Address, Reply};
use helix_protocol::{Change, Environment, Failure, FileMode, ObjectId, SkippedFile, SnapshotId, StepId};
use serde::{Deserialize, Serialize};

/// A git repository to be taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportGit {
    /// A folder inside it, on the node's machine.
    pub path: PathBuf,
    /// Takes the commit only, without uncommitted changes.
    #[serde(default)]
    pub clean: bool,
}

/// What was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The repository's root.
    pub repository: PathBuf,
    /// The commit; `None` where the repository has none yet.
    pub git_commit: Option<String>,
    /// The branch; `None` on a detached head.
    pub branch: Option<String>,
    /// The snapshot, synced.
    pub snapshot: SnapshotId,
    /// Its tree.
    pub tree: ObjectId,
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many files differ from the commit.
    pub uncommitted: u64,
    /// Untracked files that were left out: too large, unreadable, or no regular files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedFile>,
    /// Submodules and repositories inside the working folder, which are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub submodules: Vec<String>,
    /// What the project file asks for; defaults where there is none.
    pub environment: Environment,
    /// The project file's command that must pass before an agent's "done" is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<String>,
}

/// A line of steps to be written as git commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportGit {
    /// The repository, on the node's machine.
    pub repository: PathBuf,
    /// The branch to make or move forward.
    pub branch: String,
    /// The last step of the line.
    pub head: StepId,
    /// The commit the line starts on.
    pub parent: Option<String>,
    /// Work that was carried onto `parent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
}

/// Work that begins, on another commit than its steps were made on, as one commit of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The last step that the commit stands for: only later ones become commits themselves.
    pub after: StepId,
    /// Its files.
    pub files: SnapshotId,
    /// Its message.
    pub title: String,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The branch.
    pub branch: String,
    /// Its last commit.
    pub git_commit: String,
    /// How many commits were written.
    pub commits: u64,
}

/// Work to be carried onto a newer commit of its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebaseGit {
    /// The repository, on the node's machine.
    pub repository: PathBuf,
    /// The commit the work began on; its files are what both sides are compared with.
    pub from: Option<String>,
    /// The snapshot the work began with: stands in where `from` is not known, or not in the repository any more.
    pub base: Option<SnapshotId>,
    /// The work's files.
    pub ours: ObjectId,
    /// The commit to carry it onto, as git understands it; `None` for HEAD.
    pub onto: Option<String>,
    /// How the work is called at conflict markers.
    pub label: String,
}

/// Work on a newer commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebased {
    /// The commit.
    pub git_commit: String,
    /// The commit's files alone, synced.
    pub onto: SnapshotId,
    /// Both together, synced.
    pub merged: SnapshotId,
    /// Paths that hold conflict markers, or that could not be merged.
    pub conflicts: Vec<String>,
    /// Paths that changed from the old commit to the new one.
    pub moved: u64,
}

/// How one file differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDiff {
    /// The path and what happened.
    #[serde(flatten)]
    pub change: Change,
    /// As `git diff --binary` writes it: `git apply` takes it whole. Empty for folders without files, which git does not know.
    pub patch: String,
    /// An export leaves the file out: git ignores or forbids it. Its patch is empty where it was not asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_out: bool,
}

impl FileDiff {
    /// What the patch says before the bytes of a file that is no text; `None` where all of it is text. Lines of a text begin with a
    /// sign, so none of them is taken for git's word.
    pub fn before_bytes(&self) -> Option<&str> {
        self.patch.split_once("\nGIT binary patch\n").map(|(head, _)| head)
    }
}

/// What two trees are compared as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffTrees {
    /// The older; `None` for the empty tree. A snapshot's id stands for its tree.
    pub from: Option<ObjectId>,
    /// The newer.
    pub to: ObjectId,
    /// The export whose last tree the newer is, so that both agree about what git ignores.
    pub export: LineToExport,
    /// Patches of what is left out too.
    pub all: bool,
}

/// A line of steps, and what its export would stand on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineToExport {
    /// The repository; `None` where the task was made from none.
    pub repository: Option<PathBuf>,
    /// The commit that the first step stands on.
    pub parent: Option<String>,
    /// The last step; `None` where there is none.
    pub head: Option<StepId>,
    /// Where the line was carried onto the parent.
    pub carried: Option<Carried>,
}

/// A file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// From the tree's root.
    pub path: String,
    /// What it is.
    pub mode: FileMode,
    /// Its bytes, or those of a link's target.
    pub size: u64,
    /// Its content.
    pub object: ObjectId,
}

/// What the repositories can be asked.
pub enum VersionsMsg {
    /// Takes a git repository in, without touching it. Sent by the HTTP face. Refused with `not_a_repository`, `git_failed`.
    ImportGit {
        /// Which.
        import: ImportGit,
        /// The answer.
        reply: Reply<Imported>,
    },
    /// Writes a line of steps as commits of a branch, without touching index or working folder. Sent by the HTTP face.
    /// Refused with `invalid_state` where the branch is checked out or has moved.
    ExportGit {
        /// What.
        export: Box<ExportGit>,
        /// The answer.
        reply: Reply<Exported>,
    },
    /// Merges a task's files with a newer commit of the repository they came from, which is only read. Sent by the HTTP face.
    /// Refused with `invalid_state` where the commit is the one the work is on, with `invalid_request` where there is none such.
    RebaseGit {
        /// What.
        rebase: Box<RebaseGit>,
        /// The answer.
        reply: Reply<Rebased>,
    },
    /// What differs between two trees. Sent by the HTTP face.
    Diff {
        /// Which.
        trees: Box<DiffTrees>,
        /// The answer.
        reply: Reply<Vec<FileDiff>>,
    },
    /// The bytes of one stored object: a command's whole output, an artifact. Sent by the HTTP face. Refused with
    /// `not_found`, and with `file_too_large` above `limit`.
    ReadObject {
        /// Which.
        object: ObjectId,
        /// Most bytes.
        limit: u64,
        /// The answer.
        reply: Reply<Bytes>,
    },
    /// The files of a tree at these paths; what is none is left out. Sent by the HTTP face.
    FindFiles {
        /// The tree.
        tree: ObjectId,
        /// From its root.
        paths: Vec<String>,
        /// The answer.
        reply: Reply<Vec<FoundFile>>,
    },
    /// Something that was started has been answered. Sent by the actor's own work.
    Answered,
}

/// The node's repositories.
#[derive(Clone, Debug)]
pub struct Versions {
    address: Address<VersionsMsg>,
}

/// A large repository on a slow disk.
const SLOW: Duration = Duration::from_secs(1800);

impl Versions {
    /// A handle.
    pub fn new(address: Address<VersionsMsg>) -> Self {
        Self { address }
    }

    /// Takes a git repository in.
    pub async fn import_git(&self, import: ImportGit) -> Result<Imported, Failure> {
        self.address.ask(SLOW, |reply| VersionsMsg::ImportGit { import, reply }).await
    }

    /// Writes a git branch.
    pub async fn export_git(&self, export: ExportGit) -> Result<Exported, Failure> {
        self.address.ask(SLOW, |reply| VersionsMsg::ExportGit { export: Box::new(export), reply }).await
    }

    /// Carries work onto a newer commit.
    pub async fn rebase_git(&self, rebase: RebaseGit) -> Result<Rebased, Failure> {
        self.address.ask(SLOW, |reply| VersionsMsg::RebaseGit { rebase: Box::new(rebase), reply }).await
    }

    /// Compares two trees.
    pub async fn diff(&self, trees: DiffTrees) -> Result<Vec<FileDiff>, Failure> {
        self.address.ask(SLOW, |reply| VersionsMsg::Diff { trees: Box::new(trees), reply }).await
    }

    /// The files of a tree at these paths.
    pub async fn find_files(&self, tree: ObjectId, paths: Vec<String>) -> Result<Vec<FoundFile>, Failure> {
        self.address.ask(Duration::from_secs(60), |reply| VersionsMsg::FindFiles { tree, paths, reply }).await
    }

    /// Reads one object.
    pub async fn read_object(&self, object: ObjectId, limit: u64) -> Result<Bytes, Failure> {
        self.address.ask(Duration::from_secs(60), |reply| VersionsMsg::ReadObject { object, limit, reply }).await
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::ChangeKind;

    use super::*;

    #[test]
    fn a_text_that_speaks_of_binary_patches_is_a_text() {
        let of = |patch: &str| {
            let change = Change { path: "x".to_owned(), kind: ChangeKind::Modified, size: 1 };
            FileDiff { change, patch: patch.to_owned(), left_out: false }
        };
        let text = of("diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+GIT binary patch\n");
        assert_eq!(text.before_bytes(), None);
        let bytes = of("diff --git a/x b/x\nindex 0..1\nGIT binary patch\nliteral 1\nIcmZQz00IC2\n\n");
        assert_eq!(bytes.before_bytes(), Some("diff --git a/x b/x\nindex 0..1"));
    }
}
