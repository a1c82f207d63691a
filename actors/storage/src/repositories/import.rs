//! A git repository comes in.

use std::sync::Arc;

use helix_config::ProjectFile;
use helix_messages::{ImportGit, Imported};
use helix_objects::ObjectStore;
use helix_protocol::{Code, Failure, FileMode, ObjectId, SkipReason, SkippedFile, bytes_in_words};
use helix_versions::git::{self, IncludeUncommitted};

/// Reads the repository into the store, syncs it, and reads its project file. Refused where a tracked file has changed and cannot
/// be taken as it is: a task would work on an older version than the person sees.
pub(super) fn import(objects: &Arc<dyn ObjectStore>, what: &ImportGit, file_cap_bytes: u64) -> Result<Imported, Failure> {
    let uncommitted = if what.clean { IncludeUncommitted::No } else { IncludeUncommitted::Yes { file_cap_bytes } };
    let found = git::import(&**objects, &what.path, uncommitted)?;
    if let Some(first) = found.unread.first() {
        return Err(cannot_take(first, found.unread.len() - 1, file_cap_bytes));
    }
    objects.sync(found.mark)?;
    let project = project_file(&**objects, found.tree)?;
    Ok(Imported {
        repository: found.root,
        git_commit: found.commit,
        branch: found.branch,
        snapshot: found.snapshot,
        tree: found.tree,
        files: found.counts.files,
        bytes: found.counts.bytes,
        uncommitted: found.counts.uncommitted,
        skipped: found.skipped,
        submodules: found.submodules,
        verify: project.verify.clone(),
        environment: project.into(),
    })
}

/// A tracked file, and how many more, that changed and cannot be taken.
fn cannot_take(file: &SkippedFile, more: usize, file_cap_bytes: u64) -> Failure {
    let others = if more == 0 { String::new() } else { format!(", and so with {more} more") };
    let (code, why, next) = match file.reason {
        SkipReason::TooLarge => {
            let (size, cap) = (bytes_in_words(file.size), bytes_in_words(file_cap_bytes));
            (Code::FileTooLarge, format!("with {size} it is over the limit of {cap}"), "raise `workspace.file_cap_bytes`")
        }
        SkipReason::Special => (Code::FileUnreadable, "it is no regular file any more".to_owned(), "put the file back"),
        SkipReason::Cache | SkipReason::Unreadable => {
            (Code::FileUnreadable, "the node may not read it".to_owned(), "let the node's user read it")
        }
    };
    Failure::new(code, format!("{} is tracked by git and has changed, and cannot be taken as it is: {why}{others}", file.path))
        .hint(format!("commit it, take the last commit alone with `--clean`, or {next}"))
}

fn project_file(objects: &dyn ObjectStore, tree: ObjectId) -> Result<ProjectFile, Failure> {
    match helix_versions::entry_at(objects, tree, ProjectFile::NAME.as_bytes())? {
        Some(entry) if matches!(entry.mode, FileMode::Regular | FileMode::Executable) => {
            let bytes = objects.read(entry.id)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| {
                Failure::new(Code::InvalidConfig, format!("{} is not UTF-8 text", ProjectFile::NAME)).hint("save it as UTF-8")
            })?;
            ProjectFile::parse(text)
        }
        _ => Ok(ProjectFile::default()),
    }
}
