//! `helios init`: makes a repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use helix_objects::{RecordStore, write_no_follow};
use helix_protocol::{Code, Failure};
use helix_versions::{BranchName, CreateOptions, Repository, VersionError};
use serde_json::json;

use super::Verb;
use crate::author::{Role, Who};
use crate::console::OK;
use crate::context::Context;
use crate::engine::PinnedStore;
use crate::engine::location::{Location, MARKER};
use crate::engine::settings::Settings;
use crate::engine::trust;

/// Makes a repository in a folder
///
/// The repository is the folder .helios in it. Making one where there is one changes nothing.
#[derive(Parser)]
#[command(name = "init", after_help = "Examples:\n  helios init\n  helios init project --initial-branch trunk")]
pub struct Init {
    /// The folder; made where it is missing
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The branch that the first commit makes
    #[arg(short = 'b', long, default_value = "main", value_name = "BRANCH")]
    initial_branch: String,
    /// Also in a home folder or the root of the file system
    #[arg(long)]
    force: bool,
    /// Says nothing
    #[arg(short, long)]
    quiet: bool,
}

impl Verb for Init {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let branch: BranchName = self.initial_branch.parse()?;
        let root = context.caller.cwd.join(&self.folder);
        fs::create_dir_all(&root)
            .and_then(|()| fs::canonicalize(&root))
            .map_err(|error| Failure::io(root.display(), &error))
            .and_then(|root| {
                let made = make(context, &root, branch, self.force)?;
                tell(context, &root, made, self.quiet)
            })
    }
}

/// Whether there was a repository already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    New,
    Existing,
}

/// Makes a repository whose main workspace is `root`, a path without symbolic links.
pub(super) fn make(context: &mut Context<'_>, root: &Path, branch: BranchName, force: bool) -> Result<Made, Failure> {
    let location = Location::main(root.to_owned());
    let own = location.own_folder();
    if own.is_file() {
        let message = format!("{} is a workspace of another repository", root.display());
        return Err(Failure::new(Code::InvalidState, message)
            .hint("remove it there with `helios workspace remove`, or choose another folder"));
    }
    let broad = root.parent().is_none() || context.caller.variable("HOME").is_some_and(|home| Path::new(home).starts_with(root));
    if broad && !force {
        let message = format!("{} is a home folder, or above one", root.display());
        return Err(Failure::new(Code::InvalidState, message).hint("choose a folder of one project, or say --force"));
    }
    let write =
        |path: PathBuf, text: &str| write_no_follow(&path, text.as_bytes()).map_err(|error| Failure::io(path.display(), &error));
    trust::admit(root)?;
    fs::create_dir_all(&own).map_err(|error| Failure::io(own.display(), &error))?;
    // git, where it looks after the same folder, leaves ours alone.
    write(own.join(".gitignore"), "*\n")?;
    if broad {
        write(own.join("broad"), "")?;
    }
    if location.store().is_dir() {
        match context.engine.repository(&location, &mut context.console) {
            Ok(_) => return Ok(Made::Existing),
            // Its making was interrupted, and is finished here.
            Err(failure) if failure.code == Code::InvalidState => {}
            Err(failure) => return Err(failure),
        }
    }
    fs::create_dir_all(location.store()).map_err(|error| Failure::io(location.store().display(), &error))?;
    let (engine, caller, console) = (context.engine, &context.caller, &mut context.console);
    engine.with_closed(root, || {
        let settings = Settings::read(&own)?;
        let PinnedStore { store, pin } = PinnedStore::open(&location, &settings, console)?;
        let who = Who::read(caller, &settings, root).signature(Role::Committer);
        let options = CreateOptions { branch, root: root.display().to_string(), durability: settings.durability(), who };
        let made = Repository::create(Arc::clone(&store) as Arc<dyn RecordStore>, options);
        helix_objects::ObjectStore::close(&*store).map_err(|error| pin.plain(error.into()))?;
        match made {
            Ok(_) => Ok(Made::New),
            Err(VersionError::Exists { .. }) => Ok(Made::Existing),
            Err(error) => Err(error.into()),
        }
    })
}

fn tell(context: &mut Context<'_>, root: &Path, made: Made, quiet: bool) -> Result<u8, Failure> {
    let own = root.join(MARKER);
    if context.is_json() {
        context.console.json(&json!({"repository": root.display().to_string(), "new": made == Made::New}))?;
    } else if !quiet {
        let word = if made == Made::New { "Initialized empty" } else { "Reinitialized existing" };
        context.console.line(format!("{word} Helios repository in {}/", own.display()))?;
    }
    Ok(OK)
}
