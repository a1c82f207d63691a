//! A git repository comes in.

use std::sync::Arc;

use helix_config::ProjectFile;
use helix_messages::{ImportGit, Imported};
use helix_objects::ObjectStore;
use helix_protocol::{Code, Failure, FileMode, ObjectId};
use helix_versions::git::{self, IncludeUncommitted};

/// Larger files that are not committed are left where they are: a checkout's virtual machine image is not source.
const UNCOMMITTED_CAP: u64 = 64 * 1024 * 1024;

/// Reads the repository into the store, syncs it, and reads its project file.
pub(super) fn import(objects: &Arc<dyn ObjectStore>, what: &ImportGit) -> Result<Imported, Failure> {
    let uncommitted = if what.clean { IncludeUncommitted::No } else { IncludeUncommitted::Yes { file_cap_bytes: UNCOMMITTED_CAP } };
    let found = git::import(&**objects, &what.path, uncommitted)?;
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
        verify: project.verify.clone(),
        environment: project.into(),
    })
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
