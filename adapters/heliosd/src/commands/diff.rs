//! `helios diff`: what differs between snapshots, or between one and the folder.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::{Args, Parser};
use helix_objects::ObjectStore;
use helix_protocol::{Code, Failure, FileMode, ObjectId};
use helix_versions::{EntryChange, diff_entries};

use super::Verb;
use super::status::undecided;
use super::words::{self, Words};
use crate::console::{NO, OK};
use crate::context::Context;
use crate::here::{Here, queue, text_of};
use crate::pathspec::Pathspec;
use crate::render::changes::{self, Renames, Shape};

/// Shows what has changed
///
/// Without a snapshot: the folder against what is staged, or against the head; what a merge could not decide is named, and shown
/// against our side. With one: the folder against it. With two, or A..B: the second against the first; A...B takes the snapshot
/// that both came from as the first. Paths need no -- before them where they are there and nothing else has their names.
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
    /// Only these paths, and what fits these patterns
    #[arg(last = true)]
    paths: Vec<OsString>,
    #[arg(skip)]
    chosen: Vec<Pathspec>,
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
        self.chosen = Pathspec::all(&here, &cwd, &paths)?;
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
        let workspace = here.workspace()?;
        let index = here.index(&workspace)?;
        let refreshed = folder.refresh(here.store(), Some(index))?;
        drop(folder);
        let fresh = here.with_fresh(refreshed.objects);
        let is_new = |change: &&EntryChange| change.before.is_none();
        // A file that no commit has is not a difference before it is added, as in git; one that is staged as removed is so.
        let untracked: BTreeSet<Vec<u8>> = refreshed.changes.iter().filter(is_new).map(|change| change.path.clone()).collect();
        let Some(base) = base else {
            let mut changes: Vec<EntryChange> = refreshed.changes.iter().filter(|change| !is_new(change)).cloned().collect();
            let undecided = undecided(here, &workspace, index)?;
            let undecided: Vec<Vec<u8>> = undecided.into_iter().map(|path| path.path.clone()).collect();
            let head = here.repository().tree_of(&workspace.head)?;
            for path in &undecided {
                changes.retain(|change| change.path != *path);
                let (before, after) = (fresh.entry(head, path)?, fresh.entry(refreshed.tree, path)?);
                changes.extend((before != after).then(|| EntryChange { path: path.clone(), before, after }));
            }
            changes.sort_by(|one, other| one.path.cmp(&other.path));
            return self.show(context, changes, undecided, &fresh);
        };
        let mut changes = diff_entries(&fresh, Some(base), refreshed.tree)?;
        changes.retain(|change| !untracked.contains(&change.path));
        for path in untracked {
            let before = fresh.entry(base, &path)?.filter(|entry| entry.mode != FileMode::Directory);
            changes.extend(before.map(|before| EntryChange { path, before: Some(before), after: None }));
        }
        changes.sort_by(|one, other| one.path.cmp(&other.path));
        self.show(context, changes, Vec::new(), &fresh)
    }

    fn between(&self, context: &mut Context<'_>, here: &Here, (older, newer): (ObjectId, ObjectId)) -> Result<u8, Failure> {
        let changes = diff_entries(here.store(), Some(older), newer)?;
        self.show(context, changes, Vec::new(), here.store())
    }

    /// Shows changes; before them, which paths of a merge are undecided.
    fn show(
        &self,
        context: &mut Context<'_>,
        mut changes: Vec<EntryChange>,
        mut undecided: Vec<Vec<u8>>,
        store: &dyn ObjectStore,
    ) -> Result<u8, Failure> {
        let is_chosen = |path: &[u8]| self.chosen.is_empty() || self.chosen.iter().any(|pathspec| pathspec.matches(path));
        changes.retain(|change| is_chosen(&change.path));
        undecided.retain(|path| is_chosen(path));
        let code = if changes.is_empty() && undecided.is_empty() { OK } else { NO };
        if self.quiet {
            return Ok(code);
        }
        let changes = self.shape.renames().of(changes, &|id| text_of(store, id))?;
        if context.is_json() {
            let mut told = changes::to_json(&changes);
            for (change, told) in changes.iter().zip(told.as_array_mut().into_iter().flatten()) {
                if undecided.contains(&change.change.path) {
                    told["undecided"] = true.into();
                }
            }
            context.console.json(&told)?;
        } else {
            let shape = self.shape.shape(context.caller.columns);
            undecided.iter().try_for_each(|path| context.console.write(changes::unmerged(path, shape).as_bytes()))?;
            context.console.write(changes::render(&changes, shape, context.caller.colour, &|id| text_of(store, id))?.as_bytes())?;
        }
        Ok(if self.exit_code { code } else { OK })
    }
}
