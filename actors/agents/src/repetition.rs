//! Notices a model that goes round in circles: the same call with the same answer, the same edit again and again, turns that
//! bring nothing new.
//!
//! All that was ever said counts, and not only what the model is still shown: a compaction must not begin the count anew. What it
//! kept stands twice in the record, under the same ids, and counts once, as it was answered first.

use std::collections::{HashMap, HashSet};

use helix_protocol::{Block, Message, Role, STILL_RUNS, WorkspaceTool};
use serde_json::Value;

use crate::calls::NOT_ALLOWED;

/// So many times the same call with the same answer, and the model is told.
const TIMES: usize = 3;
/// So many times, and the task ends: it was told three times by then.
const HOPELESS: usize = 6;
/// So many turns in a row without one new answer that is more than a refusal, and the task ends.
const STALE_TURNS: usize = 8;
/// What it is told, below the answer.
const NOTICE: &str = "\n\n[This is the third time that this very call has had this very answer, with no file edited in between. \
                      Calling it again will not help: do something else, or say what stands in the way.]";

/// A call with its answer.
struct Answered<'a> {
    id: &'a str,
    name: &'a str,
    input: &'a Value,
    content: &'a str,
    failed: bool,
}

impl Answered<'_> {
    /// Waiting for a command in the background is no circle, as long as it runs.
    fn waits(&self) -> bool {
        let reads = WorkspaceTool::by_name(self.name) == Some(WorkspaceTool::ReadOutput);
        reads && !self.failed && self.content.ends_with(STILL_RUNS)
    }

    fn edits(&self) -> bool {
        changes_files(self.name) && !self.failed
    }

    /// True of an answer that may tell something: what a command that failed has printed does, and so does a person's reason. Any
    /// other failure is a call that did nothing.
    fn tells(&self) -> bool {
        let is_command = WorkspaceTool::by_name(self.name) == Some(WorkspaceTool::Shell);
        let ran = is_command && self.input.get("command").is_some_and(Value::is_string);
        !self.failed || ran || self.content.starts_with(NOT_ALLOWED)
    }

    fn is_like(&self, name: &str, input: &Value, content: &str) -> bool {
        self.name == name && self.input == input && self.content == content
    }
}

/// The answer `content` of a call, with a notice below it where the same was asked and answered before, since the last
/// edit. `said` is everything that was said, `now` the calls already answered in this step.
pub(crate) fn noticed<'a>(
    said: impl Iterator<Item = &'a Message>,
    now: &'a [Block],
    name: &str,
    input: &Value,
    content: String,
) -> String {
    let all = answered(said.flat_map(|message| &message.blocks).chain(now));
    let since = all.iter().rev().take_while(|before| !before.edits());
    let same = 1 + since.filter(|before| before.is_like(name, input, &content)).count();
    if same >= TIMES { content + NOTICE } else { content }
}

/// Why it makes no sense to go on, if it makes none. `said` is everything that was said, and ends with the
/// answers of the last turn.
pub(crate) fn hopeless<'a>(said: impl Iterator<Item = &'a Message>) -> Option<String> {
    let said: Vec<&Message> = said.collect();
    let all = answered(said.iter().flat_map(|message| &message.blocks));
    let last = all.last()?;
    if last.waits() {
        return None;
    }
    let is = |other: &&Answered<'_>| other.is_like(last.name, last.input, last.content);
    let times = all.iter().filter(is).count();
    if changes_files(last.name) && times >= HOPELESS {
        return Some(format!("it has made the same edit {times} times, and undone it in between"));
    }
    let since = all.iter().rposition(Answered::edits).map_or(0, |at| at + 1);
    let times = all[since..].iter().filter(is).count();
    if times >= HOPELESS {
        return Some(format!("it has called {} {times} times with the same arguments and the same answer", last.name));
    }
    let turns = stale_turns(&said, all);
    (turns >= STALE_TURNS).then(|| format!("its last {turns} turns brought nothing but errors and what it had seen before"))
}

/// How many of the last turns brought no answer that was new then and told something.
fn stale_turns(said: &[&Message], all: Vec<Answered<'_>>) -> usize {
    let mut answers: HashMap<&str, Answered<'_>> = all.into_iter().map(|one| (one.id, one)).collect();
    let (mut seen, mut texts) = (HashSet::new(), HashSet::new());
    let mut stale = 0;
    for message in said.iter().filter(|message| message.role == Role::Assistant) {
        let asked: Vec<&str> = ids(message).collect();
        if asked.is_empty() {
            // One that stands there again was kept by a compaction.
            stale = if texts.insert(message.as_text()) { 0 } else { stale };
            continue;
        }
        let turn: Vec<Answered<'_>> = asked.iter().filter_map(|id| answers.remove(id)).collect();
        if turn.is_empty() {
            continue;
        }
        let moves = |one: &Answered<'_>| one.waits() || one.edits() || (one.tells() && !seen.contains(&key(one)));
        stale = if turn.iter().any(moves) { 0 } else { stale + 1 };
        seen.extend(turn.iter().map(key));
    }
    stale
}

fn key<'a>(one: &Answered<'a>) -> (&'a str, &'a Value, &'a str) {
    (one.name, one.input, one.content)
}

/// Every call that was answered, in order, each once.
fn answered<'a>(blocks: impl Iterator<Item = &'a Block>) -> Vec<Answered<'a>> {
    let (mut asked, mut results) = (Vec::new(), HashMap::new());
    let mut known = HashSet::new();
    for block in blocks {
        match block {
            Block::ToolUse { id, name, input, .. } if known.insert(id.as_str()) => asked.push((id, name, input)),
            Block::ToolResult { id, content, is_error, .. } => {
                let content = content.strip_suffix(NOTICE).unwrap_or(content);
                results.entry(id.as_str()).or_insert((content, *is_error));
            }
            _ => {}
        }
    }
    let of = |(id, name, input): (&'a String, &'a String, &'a Value)| {
        let (content, failed) = *results.get(id.as_str())?;
        Some(Answered { id, name, input, content, failed })
    };
    asked.into_iter().filter_map(of).collect()
}

fn ids(message: &Message) -> impl Iterator<Item = &str> {
    message.blocks.iter().filter_map(|block| match block {
        Block::ToolUse { id, .. } => Some(id.as_str()),
        _ => None,
    })
}

fn changes_files(name: &str) -> bool {
    WorkspaceTool::by_name(name).is_some_and(WorkspaceTool::writes_files)
}
