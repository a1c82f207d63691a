//! The commands: each is one file with its arguments and what it does; rendering is in `render`.
//!
//! Only the command that was asked for is built: the parsers of all of them would take longer than most commands do.

mod add;
mod backup;
mod bisect;
mod blame;
mod branch;
mod cat_file;
mod checkout;
mod cherry_pick;
mod commit;
mod completions;
mod config;
mod diff;
mod engine;
mod experiment;
mod follow;
mod fsck;
mod gc;
mod git;
mod help;
mod init;
mod keep;
mod log;
mod loss;
mod ls_files;
mod merge;
mod purge;
mod reset;
mod restore;
mod rev_parse;
mod show;
mod stats;
mod status;
mod tag;
mod undo;
pub mod unfinished;
pub mod watch;
mod words;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use helios_client::Run;
use helix_protocol::{Code, Failure, SkippedFile};
use helix_versions::{Conflict, ConflictKind, LocalChanges};
use serde_json::json;

use crate::author;
use crate::console::{Console, NO, OK, Sink, USAGE};
use crate::context::{Caller, Context, Format};
use crate::engine::{Engine, SharedFolder};
use crate::here::{Here, Turn, queue};
use crate::render::path;

/// A command.
pub trait Verb: Parser {
    /// Whether what it makes has the date of `GIT_AUTHOR_DATE` and `GIT_COMMITTER_DATE`, where it is given.
    const IS_DATED: bool = false;

    /// What the parser is given for what was typed.
    fn spell(arguments: Vec<OsString>) -> Vec<OsString> {
        arguments
    }

    /// Does it, and gives the exit code.
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure>;
}

/// A line of the table of commands.
struct Entry {
    name: &'static str,
    command: fn() -> clap::Command,
    run: fn(&mut Context<'_>, Vec<OsString>) -> Result<u8, Failure>,
}

const fn entry<V: Verb>(name: &'static str) -> Entry {
    Entry { name, command: command::<V>, run: parse_and_run::<V> }
}

fn command<V: Verb>() -> clap::Command {
    help::with_json(V::command())
}

/// Commands under the headings of `helios help`.
const GROUPS: &[(&str, &[Entry])] = &[
    (
        "A repository and its files",
        &[
            entry::<init::Init>("init"),
            entry::<add::Add>("add"),
            entry::<status::Status>("status"),
            entry::<commit::Commit>("commit"),
            entry::<restore::Restore>("restore"),
            entry::<ls_files::LsFiles>("ls-files"),
        ],
    ),
    (
        "History",
        &[
            entry::<log::Log>("log"),
            entry::<show::Show>("show"),
            entry::<diff::Diff>("diff"),
            entry::<blame::Blame>("blame"),
            entry::<bisect::Bisect>("bisect"),
            entry::<rev_parse::RevParse>("rev-parse"),
            entry::<cat_file::CatFile>("cat-file"),
            entry::<undo::Oplog>("oplog"),
            entry::<undo::UndoCommand>("undo"),
        ],
    ),
    (
        "Lines of work",
        &[
            entry::<branch::Branch>("branch"),
            entry::<checkout::Checkout>("checkout"),
            entry::<checkout::Switch>("switch"),
            entry::<reset::Reset>("reset"),
            entry::<merge::Merge>("merge"),
            entry::<cherry_pick::CherryPick>("cherry-pick"),
            entry::<cherry_pick::Revert>("revert"),
            entry::<tag::Tag>("tag"),
            entry::<experiment::ExperimentCommand>("experiment"),
            entry::<workspace::WorkspaceCommand>("workspace"),
        ],
    ),
    ("git", &[entry::<git::Import>("import"), entry::<git::Export>("export"), entry::<git::Sync>("sync")]),
    (
        "The store",
        &[
            entry::<stats::Stats>("stats"),
            entry::<gc::Gc>("gc"),
            entry::<fsck::Fsck>("fsck"),
            entry::<purge::Purge>("purge"),
            entry::<backup::BackupCommand>("backup"),
            entry::<watch::Watch>("watch"),
        ],
    ),
    (
        "The engine",
        &[
            entry::<config::Config>("config"),
            entry::<engine::EngineCommand>("engine"),
            entry::<completions::Completions>("completions"),
        ],
    ),
];

/// What people who know git ask for, and what does it here.
const GITS_WORDS: &[(&str, &str)] = &[
    (
        "stash",
        "`helios reset --hard` keeps what no commit has in a snapshot, which it names; `helios restore --source ID .` brings it back",
    ),
    ("clone", "`helios import --from-git PATH` takes a git repository; `helios workspace add FOLDER` makes a further folder"),
    ("fetch", "`helios sync` takes what is new in the git repository beside this one"),
    ("pull", "`helios sync` takes what is new in the git repository beside this one"),
    ("push", "`helios export --to-git PATH` writes to a git repository, `helios sync` to the one beside this one"),
    ("remote", "`helios sync --git PATH` works with a git repository; there are no other remotes"),
    ("rebase", "`helios cherry-pick` repeats what snapshots changed on the current branch"),
    ("worktree", "`helios workspace` makes further folders"),
    ("reflog", "`helios oplog` lists what was done, `helios undo` takes it back"),
    ("rm", "remove the file: the next commit is without it"),
    ("mv", "move the file: the next commit has it so"),
    ("clean", "remove the files: `helios status --porcelain` lists untracked ones with ??"),
];

/// Does what a client asks, and gives the exit code. Never panics for what the client sent.
pub fn run(engine: &Engine, run: Run, sink: &mut dyn Sink) -> u8 {
    let (caller, argv) = Caller::new(run);
    let mut context = Context::new(engine, Console::new(sink), caller);
    let ended = dispatch(&mut context, argv);
    let ended = ended.and_then(|code| context.console.warn().map(|()| code));
    let code = ended.unwrap_or_else(|failure| context.tell(failure));
    match context.console.end() {
        Ok(()) => code,
        Err(failure) => context.tell(failure),
    }
}

fn dispatch(context: &mut Context<'_>, argv: Vec<OsString>) -> Result<u8, Failure> {
    let mut argv = argv.into_iter();
    let verb = loop {
        let Some(argument) = argv.next() else {
            return help::show(context, &[]).map(|_| NO);
        };
        match argument.to_str() {
            Some("-C") => {
                let folder = argv.next().ok_or_else(|| usage("-C needs a folder"));
                context.caller.cwd.push(PathBuf::from(context.console.failing_with(USAGE, folder)?));
            }
            Some("--json") => context.format = Format::Json,
            Some("--version" | "-V" | "version") => {
                if context.is_json() || argv.any(|argument| argument == "--json") {
                    context.console.json(&json!({"version": helios_client::RELEASE}))?;
                } else {
                    context.console.line(format!("helios version {}", helios_client::RELEASE))?;
                }
                return Ok(OK);
            }
            Some("--help" | "-h" | "help") => {
                let mut names: Vec<OsString> = argv.collect();
                take_json(context, &mut names);
                let names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
                return help::show(context, &names);
            }
            Some(option) if option.starts_with('-') => {
                let failure = usage(format!("helios has no option {option}"));
                return context.console.failing_with(USAGE, Err(failure));
            }
            _ => break argument,
        }
    };
    let entry = context.console.failing_with(NO, find(&verb.to_string_lossy()))?;
    let mut arguments: Vec<OsString> = argv.collect();
    take_json(context, &mut arguments);
    context.has_dashes = arguments.iter().any(|argument| argument == "--");
    (entry.run)(context, arguments)
}

/// Behind a `--` the word is another program's, or a path.
fn take_json(context: &mut Context<'_>, arguments: &mut Vec<OsString>) {
    let end = arguments.iter().position(|argument| argument == "--");
    let own = &arguments[..end.unwrap_or(arguments.len())];
    if let Some(place) = own.iter().position(|argument| argument == "--json") {
        arguments.remove(place);
        context.format = Format::Json;
    }
}

fn parse_and_run<V: Verb>(context: &mut Context<'_>, arguments: Vec<OsString>) -> Result<u8, Failure> {
    if V::IS_DATED {
        author::check_dates(&context.caller)?;
    }
    let arguments = V::spell(arguments);
    let command = command::<V>();
    let name = command.get_name().to_owned();
    let command =
        command.bin_name(format!("{} {name}", help::PROGRAM)).no_binary_name(true).term_width(context.caller.columns.into());
    let parsed = command.try_get_matches_from(arguments).and_then(|mut matches| V::from_arg_matches_mut(&mut matches));
    match parsed {
        Ok(verb) => verb.run(context),
        Err(error) if error.use_stderr() && context.is_json() => {
            let text = error.render().to_string();
            let message = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let failure = Failure::new(Code::InvalidRequest, message).hint(format!("`helios {name} --help` shows how it is used"));
            context.console.failing_with(USAGE, Err(failure))
        }
        Err(error) if error.use_stderr() => {
            context.console.note(error.render().to_string().trim_end())?;
            Ok(USAGE)
        }
        Err(help) => {
            let text = help.render();
            let text = if context.caller.colour { text.ansi().to_string() } else { text.to_string() };
            context.console.write(text.as_bytes())?;
            Ok(OK)
        }
    }
}

fn find(name: &str) -> Result<&'static Entry, Failure> {
    entries().find(|entry| entry.name == name).ok_or_else(|| unknown(name))
}

fn entries() -> impl Iterator<Item = &'static Entry> {
    GROUPS.iter().flat_map(|(_, entries)| entries.iter())
}

/// Names files that were left out, on standard error.
fn tell_skipped(context: &mut Context<'_>, skipped: &[SkippedFile], torn: &[String]) -> Result<(), Failure> {
    for file in skipped {
        let reason =
            serde_json::to_value(file.reason).ok().and_then(|reason| Some(reason.as_str()?.replace('_', " "))).unwrap_or_default();
        context.console.note(format!("warning: not carried: {} ({reason}, {} bytes)", file.path, file.size))?;
    }
    for path in torn {
        context.console.note(format!("warning: {path} changed while it was read; what was read last is carried"))?;
    }
    Ok(())
}

/// A folder's turn, for a command that moves its head, with the files at the head that it has now. Who had
/// to wait learns how not to.
fn take_turn<'f>(
    context: &mut Context<'_>,
    here: &Here,
    folder: &'f SharedFolder,
    changes: LocalChanges,
) -> Result<Turn<'f>, Failure> {
    let mut turn = wait_for_turn(context, here, folder)?;
    unfinished::settle(context, here, here.name(), &mut turn, changes)?;
    Ok(turn)
}

fn wait_for_turn<'f>(context: &mut Context<'_>, here: &Here, folder: &'f SharedFolder) -> Result<Turn<'f>, Failure> {
    if let Some(turn) = Turn::now(folder, &context.console) {
        return Ok(turn);
    }
    let turn = queue(folder, &context.console)?;
    let name = here.name();
    context.console.note(format!("hint: several commands work in workspace {name} at once and move its one head\nhint: `helios workspace add ../NAME` gives each agent a folder and a head of its own"))?;
    Ok(turn)
}

/// Changes that no commit has would be lost.
fn in_the_way(conflicts: &[Conflict], verb: &str) -> Failure {
    let of = |kind: ConflictKind| {
        conflicts
            .iter()
            .filter(move |conflict| conflict.kind == kind)
            .map(|conflict| format!("\n\t{}", path::plain(&conflict.path)))
            .collect::<String>()
    };
    let parts = [
        (of(ConflictKind::LocalChange), "your local changes to these files would be overwritten by"),
        (of(ConflictKind::Untracked), "these untracked files would be overwritten by"),
        (of(ConflictKind::Repository), "these repositories, of which nothing is kept here, would be removed by"),
    ];
    let told = parts.iter().filter(|(paths, _)| !paths.is_empty());
    let message = told.map(|(paths, text)| format!("{text} {verb}:{paths}")).collect::<Vec<_>>().join("\n");
    let hint = match verb {
        _ if conflicts.iter().any(|conflict| conflict.kind == ConflictKind::Repository) => {
            "move the folders with repositories away"
        }
        "checkout" | "undo" => "commit them, or move them away; --force takes their place, and keeps them in a snapshot first",
        _ => "commit them, or move them away",
    };
    Failure::new(Code::InvalidState, message).hint(hint)
}

fn unknown(name: &str) -> Failure {
    let nearest = entries().map(|entry| (strsim::jaro_winkler(entry.name, name), entry.name)).max_by(|a, b| a.0.total_cmp(&b.0));
    let gits = GITS_WORDS.iter().find(|(word, _)| *word == name);
    let hint = match (gits, nearest) {
        (Some((_, hint)), _) => (*hint).to_owned(),
        (None, Some((likeness, nearest))) if likeness > 0.7 => format!("the most similar command is `helios {nearest}`"),
        (None, _) => "`helios help` lists the commands".to_owned(),
    };
    Failure::new(Code::InvalidRequest, format!("{name:?} is not a command of helios")).hint(hint)
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidRequest, message).hint("`helios help` shows how it is used")
}

#[cfg(test)]
mod tests {
    use super::{GITS_WORDS, find, unknown};

    #[test]
    fn what_is_a_command_needs_no_other_way() {
        assert!(GITS_WORDS.iter().all(|(word, _)| find(word).is_err()));
    }

    #[test]
    fn an_unknown_command_names_the_nearest() {
        assert_eq!(unknown("comit").hint, "the most similar command is `helios commit`");
        assert!(unknown("stash").hint.starts_with("`helios reset --hard`"), "not what is spelt nearly like it");
        assert_eq!(unknown("xyzzy").hint, "`helios help` lists the commands");
    }
}
