//! `helios undo` and `helios oplog`: what was done to the repository, and taking it back.

use clap::Parser;
use helix_protocol::{Failure, ObjectId};
use helix_versions::{LocalChanges, MovedHead, Operation, OperationCause, Undo, Undone, WorkingFolder, Workspace};
use serde_json::{Value, json};

use super::Verb;
use super::follow::Moved;
use super::keep::{Doomed, Reach, keep};
use super::unfinished::{self, Move, Noted};
use crate::console::OK;
use crate::context::Context;
use crate::here::{Here, queue};
use crate::render::date;

/// Takes back the last thing that was done in this workspace to branches, heads or experiments
///
/// Again and again, it goes further back. What was done in other workspaces stays, unless it is named: `oplog` says of each
/// operation where it was done. An import, a sync and what is done to branches and experiments belong to the workspace they were
/// asked for in. The files of workspaces whose head moves follow it. Files that no commit has are not brought back: they were
/// never in the repository.
#[derive(Parser)]
#[command(name = "undo", after_help = "Examples:\n  helios undo\n  helios undo 41\n  helios undo --to 38\n  helios undo --redo")]
pub struct UndoCommand {
    /// One operation of `helios oplog`, alone, of whatever workspace
    operation: Option<u64>,
    /// Everything behind this operation, of every workspace
    #[arg(long, value_name = "OPERATION", conflicts_with = "operation")]
    to: Option<u64>,
    /// Does the last one that was taken back in this workspace again
    #[arg(long, conflicts_with_all = ["operation", "to"])]
    redo: bool,
    /// Also where changes that no commit has are overwritten, which are kept in a snapshot first
    #[arg(short, long)]
    force: bool,
}

/// Shows what was done to the repository
#[derive(Parser)]
#[command(name = "oplog", after_help = "Examples:\n  helios oplog\n  helios oplog -n 100 --json")]
pub struct Oplog {
    /// At most this many
    #[arg(short = 'n', default_value_t = 20, value_name = "NUMBER")]
    count: usize,
    /// With each name before and after
    #[arg(short, long)]
    verbose: bool,
}

impl Verb for UndoCommand {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let repository = here.repository();
        let caller = here.caller(context, None);
        let folder = here.folder()?;
        let changes = if self.force { LocalChanges::Discard } else { LocalChanges::Keep };
        let mut folder = super::take_turn(context, &here, &folder, changes)?;
        let before = here.workspace()?;
        Move { from: repository.folder_tree(&before)?, to: None }.begin(&here, here.name());
        let others = Noted::all(&here, |workspace, _| workspace != here.name())?;
        let undone = match (self.redo, self.operation, self.to) {
            (true, ..) => repository.redo(&caller)?,
            (_, Some(number), _) => repository.undo(&caller, Undo::Entry(number))?,
            (_, _, Some(number)) => repository.undo(&caller, Undo::To(number))?,
            _ => repository.undo(&caller, Undo::Last)?,
        };
        for moved in undone.moved.iter().filter(|moved| moved.workspace == *here.name()) {
            let ready = ready(context, &here, &mut folder, (&before, moved), changes);
            let back = match ready {
                Ok(back) => back,
                Err(failure) => {
                    // No file was touched and the operation stands; only its undoing is taken back.
                    if let Some(number) = undone.recorded.operation {
                        repository.undo(&caller, Undo::Entry(number))?;
                    }
                    return Err(failure);
                }
            };
            let (operation, from, to) = (undone.recorded.operation, moved.from, moved.to);
            Moved { here: &here, workspace: here.name(), verb: "undo", operation, from, to, back, changes }
                .follow(context, &mut folder)?;
        }
        unfinished::end(&here, here.name());
        drop(folder);
        move_others(context, &here, &undone, &others)?;
        tell(context, &here, &undone)
    }
}

/// Whether the files can follow; keeps what would be overwritten. Answers with the tree to go back to.
fn ready(
    context: &mut Context<'_>,
    here: &Here,
    folder: &mut WorkingFolder,
    (before, moved): (&Workspace, &MovedHead),
    changes: LocalChanges,
) -> Result<ObjectId, Failure> {
    let (base, to) = (moved.from, moved.to);
    let mut back = base;
    if changes == LocalChanges::Discard {
        let mut doomed = Doomed { here, workspace: before, verb: "undo", base, to, reach: Reach::All, seen: None };
        back = keep(context, folder, &mut doomed)?.tree;
    }
    let in_the_way = folder.foresee(here.store(), Some(base), to, changes)?;
    if in_the_way.is_empty() { Ok(back) } else { Err(super::in_the_way(&in_the_way, "undo")) }
}

/// Other workspaces follow their heads, where nothing of theirs is lost.
fn move_others(context: &mut Context<'_>, here: &Here, undone: &Undone, others: &[Noted]) -> Result<(), Failure> {
    for other in others {
        let Some(moved) = undone.moved.iter().find(|moved| moved.workspace == other.workspace) else {
            other.end(here);
            continue;
        };
        let follow = || -> Result<(), Failure> {
            let location = here.place_of(&here.repository().workspace(&other.workspace)?);
            let folder = here.open.folder(&location)?;
            let mut folder = queue(&folder, &context.console)?;
            if other.is_anothers(here) {
                return Ok(());
            }
            Move { from: moved.from, to: Some(moved.to) }.begin(here, &other.workspace);
            folder.switch(here.store(), Some(moved.from), moved.to, LocalChanges::Keep)?;
            unfinished::end(here, &other.workspace);
            Ok(())
        };
        if let Err(failure) = follow() {
            let message = failure.message;
            context.console.note(format!("warning: the files of workspace {} stay as they are: {message}", other.workspace))?;
        }
        context.engine.make_room();
    }
    Ok(())
}

fn tell(context: &mut Context<'_>, here: &Here, undone: &Undone) -> Result<u8, Failure> {
    if context.is_json() {
        let moved: Vec<_> = undone
            .moved
            .iter()
            .map(|moved| json!({"workspace": moved.workspace.to_string(), "snapshot": moved.head.snapshot}))
            .collect();
        let left = undone.left.as_ref().map(|operation| operation.number);
        context.console.json(
            &json!({"operations": undone.operations, "moved": moved, "operation": undone.recorded.operation, "left": left}),
        )?;
        return Ok(OK);
    }
    for number in &undone.operations {
        let operation = here.repository().operations(Some(number + 1), 1)?.pop();
        let what = operation.map_or_else(String::new, |operation| format!(": {} {}", operation.verb, operation.text));
        context.console.line(format!("took back {number}{what}"))?;
    }
    for moved in &undone.moved {
        let at = moved.head.snapshot.map_or_else(|| "no commit".to_owned(), |id| id.short());
        context.console.line(format!("workspace {} is now at {at}", moved.workspace))?;
    }
    if let Some(Operation { number, workspace, verb, text, .. }) = &undone.left {
        let text = format!("hint: the last operation, {number} ({verb} {text}), is that of workspace {workspace}");
        context.console.note(format!("{text}: `helios undo {number}` takes it back"))?;
    }
    Ok(OK)
}

impl Verb for Oplog {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        for operation in here.repository().operations(None, self.count)? {
            if context.is_json() {
                context.console.json(&operation_json(&operation))?;
                continue;
            }
            let time = date::short(operation.time, context.caller.offset_minutes);
            let cause = cause(&operation).map_or_else(String::new, |(word, number)| format!(" ({word} {number})"));
            context.console.line(format!(
                "{:>6} {time} {} {}: {} {}{cause}",
                operation.number, operation.workspace, operation.who, operation.verb, operation.text
            ))?;
            for change in operation.changes.iter().filter(|_| self.verbose) {
                let shown = |value: &Option<String>| {
                    value.as_deref().map_or("nothing".to_owned(), |value| value.chars().take(16).collect())
                };
                context.console.line(format!("         {}: {} -> {}", change.name, shown(&change.before), shown(&change.after)))?;
            }
        }
        Ok(OK)
    }
}

fn cause(operation: &Operation) -> Option<(&'static str, u64)> {
    match operation.cause {
        OperationCause::Itself => None,
        OperationCause::Undoes(number) => Some(("undoes", number)),
        OperationCause::Redoes(number) => Some(("redoes", number)),
    }
}

/// An operation for a program.
pub fn operation_json(operation: &Operation) -> Value {
    let changes: Vec<Value> = operation
        .changes
        .iter()
        .map(|change| json!({"name": change.name, "before": change.before, "after": change.after}))
        .collect();
    let mut value = json!({
        "operation": operation.number, "time": date::iso(operation.time, 0), "who": operation.who, "workspace": operation.workspace,
        "verb": operation.verb, "text": operation.text, "changes": changes,
    });
    if let Some((word, number)) = cause(operation) {
        value[word] = number.into();
    }
    value
}
