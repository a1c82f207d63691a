//! `helios ls-files`: the files of a snapshot.

use std::ffi::OsString;

use clap::Parser;
use helix_protocol::{Failure, FileMode};
use helix_versions::walk;
use serde_json::json;

use super::Verb;
use crate::console::OK;
use crate::context::Context;
use crate::here::Here;
use crate::pathspec::Pathspec;
use crate::render::changes;
use crate::render::path::{self, Quote};

/// Lists the files that the next commit is made from, or those of a snapshot
///
/// In a subfolder those beneath it, with paths as they are written there. With --json paths are from the workspace's root.
#[derive(Parser)]
#[command(
    name = "ls-files",
    after_help = "Examples:\n  helios ls-files\n  helios ls-files --stage src\n  helios ls-files '*.py'\n  helios ls-files --at HEAD~3"
)]
pub struct LsFiles {
    /// Only these files and folders, and what fits these patterns
    paths: Vec<OsString>,
    /// With modes and ids
    #[arg(short, long)]
    stage: bool,
    /// Of this snapshot
    #[arg(long, value_name = "SNAPSHOT")]
    at: Option<String>,
    /// NUL behind each instead of a line's end, and no quotes
    #[arg(short = 'z')]
    nul: bool,
}

impl Verb for LsFiles {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let tree = match &self.at {
            Some(revision) => here.resolve_tree(&cwd, revision)?,
            None => here.index(&here.workspace()?)?,
        };
        let folder = here.folder_of(&cwd)?;
        let typed = if self.paths.is_empty() { vec![OsString::from(".")] } else { self.paths.clone() };
        let pathspecs = Pathspec::all(&here, &cwd, &typed)?;
        let chosen = |path: &[u8]| pathspecs.iter().any(|pathspec| pathspec.matches(path));
        for entry in walk(here.store(), tree)?.into_iter().filter(|entry| entry.mode != FileMode::Directory && chosen(&entry.path))
        {
            if context.is_json() {
                let mode = changes::mode(entry.mode);
                context
                    .console
                    .json(&json!({"path": path::to_json(&entry.path), "mode": mode, "id": entry.id, "size": entry.size}))?;
                continue;
            }
            if self.stage {
                context.console.write(format!("{} {} 0\t", changes::mode(entry.mode), entry.id).as_bytes())?;
            }
            let written = path::from_folder(&entry.path, &folder);
            if self.nul {
                context.console.write(&written)?;
                context.console.write(b"\0")?;
            } else {
                context.console.line(path::show(&written, Quote::Unusual))?;
            }
        }
        Ok(OK)
    }
}
