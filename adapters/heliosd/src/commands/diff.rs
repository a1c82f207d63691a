//! `helios diff`: what differs between snapshots, or between one and the folder.

use std::ffi::OsString;

use clap::{Args, Parser};
use helix_objects::ObjectStore;
use helix_protocol::{Code, Failure, ObjectId};
use helix_versions::{EntryChange, diff_entries};

use super::Verb;
use super::words::{self, Words};
use crate::console::{NO, OK};
use crate::context::Context;
use crate::here::{Here, queue, text_of};
use crate::render::changes::{self, Renames, Shape};
use crate::render::path;

/// Shows what has changed
///
/// Without a snapshot: the folder against what is staged, or against the head. With one: the folder against it. With two, or A..B:
/// the second against the first; A...B takes the snapshot that both came from as the first. Paths need no -- before them where they
/// are there and nothing else has their names.
#[derive(Parser)]
#[command(
    name = "diff",
    after_help = "Examples:\n  helios diff\n  helios diff HEAD~3 --stat\n  helios diff main..agent-1 -- src\n  helios diff src/parser.rs\n\nExit codes: 0; with --exit-code or --quiet 1 where something differs"
)]
pub struct Diff {
    /// Two snapshots, branches or a range at most, and paths
    words: Vec<OsString>,
    /// What is staged against the head
    #[arg(long, alias = "cached")]
    staged: bool,
    #[command(flatten)]
    shape: ShapeArguments,
    /// Ends with 1 where something differs
    #[arg(long)]
    exit_code: bool,
    /// As --exit-code, without output
    #[arg(short, long)]
    quiet: bool,
    /// Only these paths
    #[arg(last = true)]
    paths: Vec<OsString>,
    #[arg(skip)]
    chosen: Vec<Vec<u8>>,
}

/// What is shown.
#[derive(Args)]
pub struct ShapeArguments {
    /// How many lines of each file
    #[arg(long, group = "shape")]
    stat: bool,
    /// The paths alone
    #[arg(long, group = "shape")]
    name_only: bool,
    /// The paths with a letter for what became of them
    #[arg(long, group = "shape")]
    name_status: bool,
    /// A file with another path is a removal and an addition
    #[arg(long)]
    no_renames: bool,
}

impl ShapeArguments {
    /// Whether renames are looked for.
    pub fn renames(&self) -> Renames {
        if self.no_renames { Renames::Ignored } else { Renames::Found }
    }

    /// Whether a shape was named.
    pub fn is_named(&self) -> bool {
        self.stat || self.name_only || self.name_status
    }

    /// As it was asked for.
    pub fn shape(&self, columns: u16) -> Shape {
        match self {
            Self { stat: true, .. } => Shape::Stat { columns },
            Self { name_only: true, .. } => Shape::Names,
            Self { name_status: true, .. } => Shape::NameStatus,
            _ => Shape::Patch,
        }
    }
}

impl Verb for Diff {
    fn run(mut self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let repository = here.repository();
        let Words { revisions, paths } = words::split(context, &here, &self.words, &self.paths)?;
        self.chosen = paths.iter().map(|typed| here.path(&cwd, typed)).collect::<Result<_, _>>()?;
        let tree = |revision: &str| here.resolve_tree(&cwd, if revision.is_empty() { "HEAD" } else { revision });
        let sides: Vec<&str> = revisions.iter().map(String::as_str).collect();
        match sides.as_slice() {
            [] if self.staged => {
                let workspace = here.workspace()?;
                let (head, index) = (repository.tree_of(&workspace.head)?, here.index(&workspace)?);
                self.between(context, &here, (head, index))
            }
            [one] if self.staged => {
                let index = here.index(&here.workspace()?)?;
                self.between(context, &here, (tree(one)?, index))
            }
            [] => self.folder(context, &here, None),
            [range] if range.contains("...") => {
                let (one, other) = range.split_once("...").unwrap_or_default();
                let (one, other) = (
                    here.resolve(if one.is_empty() { "HEAD" } else { one })?,
                    here.resolve(if other.is_empty() { "HEAD" } else { other })?,
                );
                let base = repository.merge_bases(one, other)?.first().map(|base| repository.tree(*base)).transpose()?;
                let base = base.unwrap_or_else(|| repository.empty_tree());
                let other = repository.tree(other)?;
                self.between(context, &here, (base, other))
            }
            [range] if range.contains("..") => {
                let (one, other) = range.split_once("..").unwrap_or_default();
                let sides = (tree(one)?, tree(other)?);
                self.between(context, &here, sides)
            }
            [one] => {
                let base = tree(one)?;
                self.folder(context, &here, Some(base))
            }
            [one, other] => {
                let sides = (tree(one)?, tree(other)?);
                self.between(context, &here, sides)
            }
            [_, _, third, ..] => {
                Err(Failure::new(Code::InvalidRequest, format!("diff takes two snapshots, and {third:?} is a third"))
                    .hint("`helios diff A B`"))
            }
        }
    }
}

impl Diff {
    /// The folder against a tree, or against what the next commit is made from.
    fn folder(&self, context: &mut Context<'_>, here: &Here, base: Option<ObjectId>) -> Result<u8, Failure> {
        let folder = here.folder()?;
        let mut folder = queue(&folder, &context.console)?;
        let _lease = here.lease();
        let index = here.index(&here.workspace()?)?;
        let refreshed = folder.refresh(here.store(), Some(index))?;
        drop(folder);
        let fresh = here.with_fresh(refreshed.objects);
        let mut changes = match base {
            Some(base) => diff_entries(&fresh, Some(base), refreshed.tree)?,
            None => refreshed.changes,
        };
        // A file that no commit has is not a difference before it is added, as in git.
        let untracked = diff_entries(&fresh, Some(index), refreshed.tree)?.into_iter().filter(|change| change.before.is_none());
        let untracked: std::collections::HashSet<Vec<u8>> = untracked.map(|change| change.path).collect();
        changes.retain(|change| change.before.is_some() || !untracked.contains(&change.path));
        self.show(context, changes, &fresh)
    }

    fn between(&self, context: &mut Context<'_>, here: &Here, (older, newer): (ObjectId, ObjectId)) -> Result<u8, Failure> {
        let changes = diff_entries(here.store(), Some(older), newer)?;
        self.show(context, changes, here.store())
    }

    fn show(&self, context: &mut Context<'_>, mut changes: Vec<EntryChange>, store: &dyn ObjectStore) -> Result<u8, Failure> {
        if !self.chosen.is_empty() {
            changes.retain(|change| self.chosen.iter().any(|path| path::is_beneath(&change.path, path)));
        }
        if self.quiet {
            return Ok(if changes.is_empty() { OK } else { NO });
        }
        let changes = self.shape.renames().of(changes, &|id| text_of(store, id))?;
        if context.is_json() {
            context.console.json(&changes::to_json(&changes))?;
        } else {
            let shape = self.shape.shape(context.caller.columns);
            context.console.write(changes::render(&changes, shape, context.caller.colour, &|id| text_of(store, id))?.as_bytes())?;
        }
        Ok(if self.exit_code && !changes.is_empty() { NO } else { OK })
    }
}
