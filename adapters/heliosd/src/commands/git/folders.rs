//! Folders beside git: which repository works in one, and how files follow the branches that an import moved.

use std::path::{Path, PathBuf};

use helix_protocol::{Code, Failure};
use helix_versions::git::{GitHead, ImportReport, working_folder};
use helix_versions::{BranchName, Elsewhere, LocalChanges, Start, Undo, VersionError, WorkspaceName};

use crate::commands::follow::go_back;
use crate::commands::in_the_way;
use crate::commands::unfinished::{self, Noted};
use crate::context::Context;
use crate::engine::location::Location;
use crate::here::{Here, queue};

/// The git repository that works in this folder, or in the main one. One of a folder above has more in its branches than is here.
pub(super) fn beside(location: &Location) -> Result<PathBuf, Failure> {
    let mut above = None;
    for root in [&location.root, &location.repository] {
        match working_folder(root) {
            Ok(Some(folder)) if folder == *root => return Ok(folder),
            Ok(folder) => above = folder,
            Err(VersionError::NotARepository(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let root = location.repository.display();
    let failure = Failure::new(Code::NotARepository, format!("{root} has no git repository of its own"));
    Err(match above {
        Some(above) => failure.hint(format!("`helios sync --git {}` takes the one of a folder above, whole", above.display())),
        None => failure.hint("name a folder of one with `--git`, or run `git init` there and commit once"),
    })
}

/// The folders of workspaces whose files follow what an import moves, with the trees that they came of: all but the one
/// that git itself works in, where they are right already. It is noted that they may be on their way, so that a head which
/// moved without them is seen.
pub(super) struct Folders(Vec<Noted>);

impl Folders {
    /// Looks at them before an import from a git repository that works in the folder `git`.
    pub fn look(here: &Here, git: Option<&Path>) -> Result<Self, Failure> {
        Noted::all(here, |_, root| git != Some(root)).map(Self)
    }

    /// Without one of them.
    pub fn without(mut self, name: &WorkspaceName) -> Self {
        self.0.retain(|before| before.workspace != *name);
        self
    }

    /// Lets their files follow their branches. Where changes that no commit has are in the way, no file is touched and
    /// the import is taken back.
    pub fn follow(&self, context: &mut Context<'_>, here: &Here, report: &ImportReport) -> Result<(), Failure> {
        let repository = here.repository();
        let (mut moved, mut blocked) = (Vec::new(), Vec::new());
        for before in &self.0 {
            let workspace = repository.workspace(&before.workspace)?;
            let to = repository.folder_tree(&workspace)?;
            if to == before.tree {
                before.end(here);
                continue;
            }
            let folder = here.open.folder(&here.place_of(&workspace))?;
            let mut files = match queue(&folder, &context.console) {
                // A search makes the files the head's when it ends.
                Err(_) if folder.is_lent() => continue,
                turn => turn?,
            };
            if before.is_anothers(here) {
                continue;
            }
            blocked.extend(files.foresee(here.store(), Some(before.tree), to, LocalChanges::Keep)?);
            drop(files);
            context.engine.make_room();
            moved.push((before, folder, to));
        }
        if !blocked.is_empty() {
            if let Some(number) = report.recorded.operation {
                repository.undo(&here.caller(context, None), Undo::Entry(number))?;
            }
            self.0.iter().for_each(|before| before.end(here));
            return Err(in_the_way(&blocked, "import"));
        }
        for (before, folder, to) in moved {
            let followed = queue(&folder, &context.console)?.switch(here.store(), Some(before.tree), to, LocalChanges::Keep);
            context.engine.make_room();
            let Err(error) = followed else {
                before.end(here);
                continue;
            };
            let text = format!("warning: the files of workspace {} stay as they are: {error}", before.workspace);
            context
                .console
                .note(format!("{text}\nhint: `helios reset --hard` there makes them the head's before anything is committed"))?;
        }
        Ok(())
    }
}

/// The folder that a git repository works in, where it has one.
pub(super) fn git_folder(git: &Path) -> Option<PathBuf> {
    working_folder(git).ok().flatten()
}

/// Puts the head where git's is, unless that is nowhere here; the branch that it stays on may have come all the same. Files that
/// are here already stay; those that are not are made, but in the folder that git itself works in: there they were deleted.
pub(super) fn arrive(context: &mut Context<'_>, here: &Here, head: &GitHead, git: Option<&Path>) -> Result<(), Failure> {
    let repository = here.repository();
    let start = match head {
        GitHead::Ref(name) => {
            let branch = name.strip_prefix("refs/heads/").and_then(|name| name.parse::<BranchName>().ok());
            match branch {
                Some(branch) if repository.branch(&branch)?.is_some() => Some(Start::Branch(branch)),
                _ => None,
            }
        }
        GitHead::Detached(id) => Some(Start::Detached(*id)),
        GitHead::Elsewhere(_) => None,
    };
    let folder = here.folder()?;
    let mut folder = queue(&folder, &context.console)?;
    let empty = repository.empty_tree();
    let has_files = !folder.status(here.store(), Some(empty))?.changes.is_empty();
    let to = match start {
        Some(start) => repository.switch(&here.caller(context, None), &start, Elsewhere::Refuse)?.to,
        None => repository.tree_of(&repository.head(here.name())?)?,
    };
    if !has_files || git != Some(&*here.location.root) {
        go_back(here, &mut folder, empty, to)?;
    }
    unfinished::end(here, here.name());
    Ok(())
}
