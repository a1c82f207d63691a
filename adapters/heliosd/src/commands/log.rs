//! `helios log`: history.

use std::ffi::OsString;
use std::path::Path;

use clap::Parser;
use helix_protocol::{Code, Failure, Timestamp};
use helix_versions::{Graph, GraphRow, LogEntry, LogQuery, Order, Snapshot, diff_entries};

use super::words::{self, Words};
use super::{Verb, diff::ShapeArguments};
use crate::console::OK;
use crate::context::Context;
use crate::here::{Here, text_of};
use crate::pathspec::Pathspec;
use crate::render::history::{self, Names};
use crate::render::{changes, path};

/// Shows the history of a snapshot
///
/// Paths need no -- before them where they are there and nothing else has their names. -5 is short for -n 5.
#[derive(Parser)]
#[command(
    name = "log",
    after_help = "Examples:\n  helios log --oneline -n 10\n  helios log --graph main agent-1\n  helios log main..agent-1 -- src\n  helios log --stat -3\n  helios log src/parser.rs\n  helios log --where model=gpt-4 --json"
)]
pub struct Log {
    /// Snapshots, branches, and ranges such as main..agent-1; the head where none is given. Then paths
    words: Vec<OsString>,
    /// One line each
    #[arg(long)]
    oneline: bool,
    /// At most this many
    #[arg(short = 'n', long = "max-count", value_name = "NUMBER")]
    count: Option<usize>,
    /// Lines of work drawn beside it
    #[arg(long)]
    graph: bool,
    /// Only snapshots whose metadata has this key, with this value where one is given
    #[arg(long = "where", value_name = "KEY[=VALUE]")]
    metadata: Vec<String>,
    /// Only those whose author's name or address has this in it
    #[arg(long, value_name = "TEXT")]
    author: Option<String>,
    /// Only those whose message has this in it
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Only those committed in the last so long, as in 48h
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// The oldest first
    #[arg(long)]
    reverse: bool,
    /// Only the first parent of each is followed
    #[arg(long)]
    first_parent: bool,
    /// With branches and tags beside the ids, also where there is no terminal
    #[arg(long)]
    decorate: bool,
    /// Of every branch and tag
    #[arg(long)]
    all: bool,
    /// With what each changed, line by line
    #[arg(short, long, group = "shape")]
    patch: bool,
    #[command(flatten)]
    shape: ShapeArguments,
    /// Only snapshots that changed these paths
    #[arg(last = true)]
    paths: Vec<OsString>,
    #[arg(skip)]
    revisions: Vec<String>,
}

impl Verb for Log {
    /// Makes `-n5` of `-5`, as git does.
    fn spell(arguments: Vec<OsString>) -> Vec<OsString> {
        let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
        let count = |(place, argument): (usize, OsString)| match argument.to_str().and_then(|text| text.strip_prefix('-')) {
            Some(digits) if place < end && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("-n{digits}").into()
            }
            _ => argument,
        };
        arguments.into_iter().enumerate().map(count).collect()
    }

    fn run(mut self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let repository = here.repository();
        let head = repository.head(here.name())?;
        Words { revisions: self.revisions, paths: self.paths } = words::split(context, &here, &self.words, &self.paths)?;
        if head.snapshot.is_none() && self.revisions.is_empty() && !self.all {
            let message = "the current branch has no commits yet";
            return Err(Failure::new(Code::NotFound, message).hint("`helios commit` makes the first"));
        }
        let query = self.query(&here, &cwd)?;
        let decorated = self.decorate || context.caller.colour;
        let names = if decorated { Names::read(repository, &head)? } else { Names::default() };
        let mut graph = self.graph.then(Graph::default);
        let mut first = true;
        for entry in repository.log(&query)? {
            let LogEntry { id, snapshot, parents } = entry?;
            if context.is_json() {
                context.console.json(&history::to_json(id, &snapshot))?;
                continue;
            }
            let mut text = if self.oneline {
                history::line(id, &snapshot, &names, context.caller.colour)
            } else {
                history::entry(id, &snapshot, &names, context.caller.colour)
            };
            if self.patch || self.shape.is_named() {
                text.push_str(&self.changes(context, &here, &snapshot)?);
            }
            match &mut graph {
                Some(graph) => {
                    let gap = if self.oneline { "" } else { "\n" };
                    context.console.write(draw(&graph.row(id, &parents), &format!("{text}{gap}")).as_bytes())?;
                }
                None => {
                    if !self.oneline && !first {
                        context.console.line("")?;
                    }
                    context.console.line(text.trim_end_matches('\n'))?;
                }
            }
            first = false;
        }
        Ok(OK)
    }
}

impl Log {
    /// What a snapshot changed, beneath its entry. As in git, what a merge brought is not its own change.
    fn changes(&self, context: &Context<'_>, here: &Here, snapshot: &Snapshot) -> Result<String, Failure> {
        let repository = here.repository();
        if snapshot.parents.len() > 1 {
            return Ok(String::new());
        }
        let before = snapshot.parents.first().map(|parent| repository.tree(*parent)).transpose()?;
        let before = before.unwrap_or_else(|| repository.empty_tree());
        let mut changes = diff_entries(here.store(), Some(before), snapshot.tree)?;
        let paths = self.followed(here, &context.caller.cwd)?;
        changes.retain(|change| paths.is_empty() || paths.iter().any(|path| path::is_beneath(&change.path, path)));
        let read = |id| text_of(here.store(), id);
        let changes = self.shape.renames().of(changes, &read)?;
        let text = changes::render(&changes, self.shape.shape(context.caller.columns), context.caller.colour, &read)?;
        Ok(if text.is_empty() { text } else { format!("\n{text}") })
    }

    fn followed(&self, here: &Here, cwd: &Path) -> Result<Vec<Vec<u8>>, Failure> {
        self.paths.iter().map(|typed| Pathspec::plain(here, cwd, typed, "log")).collect()
    }

    fn query(&self, here: &Here, cwd: &Path) -> Result<LogQuery, Failure> {
        let repository = here.repository();
        let mut query = LogQuery {
            order: match (self.reverse, self.graph) {
                (true, _) => Order::Reverse,
                (_, true) => Order::Topological,
                _ => Order::Date,
            },
            first_parent: self.first_parent,
            paths: self.followed(here, cwd)?,
            author: self.author.clone(),
            grep: self.grep.clone(),
            limit: self.count,
            ..LogQuery::default()
        };
        if self.all {
            query.include = ["refs/heads/", "refs/tags/"]
                .into_iter()
                .map(|prefix| repository.refs(prefix))
                .collect::<Result<Vec<_>, _>>()?
                .concat()
                .into_iter()
                .map(|(_, target)| target)
                .collect();
        }
        if !self.all || !self.revisions.is_empty() {
            let revisions: Vec<&str> = self.revisions.iter().map(String::as_str).collect();
            let range = repository.resolve_range(here.name(), &revisions)?;
            query.include.extend(range.include);
            query.exclude = range.exclude;
        }
        for wanted in &self.metadata {
            let (key, value) = wanted.split_once('=').map_or((wanted.as_str(), None), |(key, value)| (key, Some(value.to_owned())));
            query.metadata.push((key.to_owned(), value));
        }
        if let Some(text) = &self.since {
            let since = crate::context::duration(text).ok_or_else(|| {
                Failure::new(Code::InvalidRequest, format!("{text:?} is not a duration"))
                    .hint("write a number and s, m, h, d or w, as in 48h")
            })?;
            let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
            query.since = Some(Timestamp(Timestamp::now().0.saturating_sub(micros)));
        }
        Ok(query)
    }
}

/// An entry's lines beside its part of the drawing.
fn draw(row: &GraphRow, text: &str) -> String {
    let mut drawn = String::new();
    for (number, line) in text.lines().enumerate() {
        let left = if number == 0 { &row.node } else { &row.beside };
        drawn.push_str(format!("{left}{line}").trim_end());
        drawn.push('\n');
    }
    row.after.iter().for_each(|line| drawn.push_str(&format!("{}\n", line.trim_end())));
    drawn
}
