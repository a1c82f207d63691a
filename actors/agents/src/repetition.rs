//! Notices a model that goes round in circles: the same call with the same answer, the same edit again and again, turns that
//! bring nothing new.

use std::collections::HashSet;

use helix_protocol::{Block, Message, Role, WorkspaceTool};
use serde_json::Value;

/// So many times the same call with the same answer, and the model is told.
const TIMES: usize = 3;
/// So many times, and the task ends: it was told three times by then.
const HOPELESS: usize = 6;
/// So many turns in a row without one new answer, and the task ends.
const STALE_TURNS: usize = 8;
/// What it is told, below the answer.
const NOTICE: &str = "\n\n[This is the third time that this very call has had this very answer, with no file edited in between. \
                      Calling it again will not help: do something else, or say what stands in the way.]";

/// A call with its answer.
struct Answered<'a> {
    name: &'a str,
    input: &'a Value,
    content: &'a str,
    failed: bool,
}

/// The answer `content` of a call, with a notice below it where the same was asked and answered before, since the last
/// edit. `earlier` are the messages before this one, `now` the calls already answered in this step.
pub(crate) fn noticed(earlier: &[Message], now: &[Block], name: &str, input: &Value, content: String) -> String {
    let blocks: Vec<&Block> = earlier.iter().flat_map(|message| &message.blocks).chain(now).collect();
    let mut same = 1;
    for answered in answered(&blocks).into_iter().rev() {
        if changes_files(answered.name) && !answered.failed {
            break;
        }
        if answered.name == name && answered.input == input && answered.content == content {
            same += 1;
        }
    }
    if same >= TIMES { content + NOTICE } else { content }
}

/// Why it makes no sense to go on, if it makes none. `messages` end with the answers of the last turn.
pub(crate) fn hopeless(messages: &[Message]) -> Option<String> {
    let blocks: Vec<&Block> = messages.iter().flat_map(|message| &message.blocks).collect();
    let all = answered(&blocks);
    let last = all.last()?;
    if waits(last.name) {
        return None;
    }
    let is = |other: &&Answered<'_>| other.name == last.name && other.input == last.input && other.content == last.content;
    let times = all.iter().filter(is).count();
    if changes_files(last.name) && times >= HOPELESS {
        return Some(format!("it has made the same edit {times} times, and undone it in between"));
    }
    let since = all.iter().rposition(|other| changes_files(other.name) && !other.failed).map_or(0, |at| at + 1);
    let times = all[since..].iter().filter(is).count();
    if times >= HOPELESS {
        return Some(format!("it has called {} {times} times with the same arguments and the same answer", last.name));
    }
    let turns = stale_turns(messages);
    (turns >= STALE_TURNS).then(|| format!("its last {turns} turns brought nothing that it had not seen before"))
}

/// How many of the last turns brought no answer that was new then.
fn stale_turns(messages: &[Message]) -> usize {
    let mut seen: HashSet<(String, String)> = HashSet::new();
    let mut stale = 0;
    for (at, message) in messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant) {
        let answers = messages.get(at + 1).map_or(&[][..], |message| &message.blocks);
        let blocks: Vec<&Block> = message.blocks.iter().chain(answers).collect();
        let turn = answered(&blocks);
        let fresh = |one: &Answered<'_>| !seen.contains(&key(one));
        let moved =
            turn.is_empty() || turn.iter().any(|one| fresh(one) || waits(one.name) || (changes_files(one.name) && !one.failed));
        stale = if moved { 0 } else { stale + 1 };
        seen.extend(turn.iter().map(key));
    }
    stale
}

fn key(one: &Answered<'_>) -> (String, String) {
    (format!("{} {}", one.name, one.input), one.content.to_owned())
}

fn answered<'a>(blocks: &[&'a Block]) -> Vec<Answered<'a>> {
    let of = |(at, block): (usize, &&'a Block)| {
        let Block::ToolUse { id, name, input, .. } = *block else { return None };
        blocks[at..].iter().find_map(|block| match *block {
            Block::ToolResult { id: of, content, is_error, .. } if of == id => {
                let content = content.strip_suffix(NOTICE).unwrap_or(content);
                Some(Answered { name, input, content, failed: *is_error })
            }
            _ => None,
        })
    };
    blocks.iter().enumerate().filter_map(of).collect()
}

/// Waiting for a command in the background is no circle.
fn waits(name: &str) -> bool {
    WorkspaceTool::by_name(name) == Some(WorkspaceTool::ReadOutput)
}

fn changes_files(name: &str) -> bool {
    WorkspaceTool::by_name(name).is_some_and(WorkspaceTool::writes_files)
}
