//! `helios show`: one snapshot with what it changed, or one file of it.

use clap::Parser;
use helix_protocol::{Failure, FileMode, SnapshotId};
use helix_versions::{Annotation, Resolved, Tree, diff_entries};

use super::{Verb, diff::ShapeArguments};
use crate::console::OK;
use crate::context::Context;
use crate::here::{Here, text_of};
use crate::render::history::{self, Names};
use crate::render::object::Object;
use crate::render::{changes, date};

/// Shows a snapshot with its changes, or a file of one
#[derive(Parser)]
#[command(name = "show", after_help = "Examples:\n  helios show\n  helios show HEAD~2 --stat\n  helios show agent-1:src/parser.rs")]
pub struct Show {
    /// Snapshots, branches, tags, or SNAPSHOT:PATH
    #[arg(default_value = "HEAD")]
    revisions: Vec<String>,
    #[command(flatten)]
    shape: ShapeArguments,
}

impl Verb for Show {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        for revision in &self.revisions {
            let tag = here.annotated(revision)?.filter(|_| !context.is_json());
            if let Some((tag, Annotation { tagger, message })) = tag {
                let date = date::long(tagger.time, tagger.offset_minutes);
                let head = format!("tag {}\nTagger: {} <{}>\nDate:   {date}", tag.name, tagger.name, tagger.email);
                context.console.line(format!("{head}\n\n{}\n", message.trim_end()))?;
            }
            match here.resolve_object(&cwd, revision)? {
                Resolved::Snapshot(id) => self.snapshot(context, &here, id)?,
                Resolved::Entry(entry) if context.is_json() => {
                    let bytes = here.store().read(entry.id)?;
                    context.console.json(&Object::of(entry.id, &bytes).to_json(entry.id, &bytes))?;
                }
                Resolved::Entry(entry) if entry.mode == FileMode::Directory => {
                    let tree = Tree::load(here.store(), entry.id)?;
                    context.console.line(format!("tree {revision}\n"))?;
                    for entry in tree.entries() {
                        let slash = if entry.mode == FileMode::Directory { "/" } else { "" };
                        context.console.write(&entry.name)?;
                        context.console.line(slash)?;
                    }
                }
                Resolved::Entry(entry) => context.console.write(&here.store().read(entry.id)?)?,
            }
        }
        Ok(OK)
    }
}

impl Show {
    fn snapshot(&self, context: &mut Context<'_>, here: &Here, id: SnapshotId) -> Result<(), Failure> {
        let repository = here.repository();
        let snapshot = repository.snapshot(id)?;
        let before = snapshot.parents.first().map(|parent| repository.tree(*parent)).transpose()?;
        let changes = diff_entries(here.store(), Some(before.unwrap_or_else(|| repository.empty_tree())), snapshot.tree)?;
        let changes = self.shape.renames().of(changes, &|id| text_of(here.store(), id))?;
        if context.is_json() {
            let mut value = history::to_json(id, &snapshot);
            value["changes"] = changes::to_json(&changes);
            return context.console.json(&value);
        }
        let colour = context.caller.colour;
        let names = if colour { Names::read(repository, &repository.head(here.name())?)? } else { Names::default() };
        context.console.write(history::entry(id, &snapshot, &names, colour).as_bytes())?;
        // As in git, what a merge brought is not its own change.
        if snapshot.parents.len() < 2 && !changes.is_empty() {
            let shape = self.shape.shape(context.caller.columns);
            context.console.line("")?;
            context.console.write(changes::render(&changes, shape, colour, &|id| text_of(here.store(), id))?.as_bytes())?;
        }
        Ok(())
    }
}
