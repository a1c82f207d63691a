//! Making room in a conversation that nears what its model takes.
//!
//! Looked at before every turn of the model, so in the middle of its work too. First old answers of tools go; where that is not
//! enough the model summarises. Old answers also go where the conversation has rested for so long that the provider's prompt cache
//! has forgotten it: all of it is read at the full price then, and cached anew, so what goes is paid for neither now nor in later
//! turns. The task's list of what is to be done is kept beside the conversation and stated anew. What results is recorded with the
//! step, from a new system message on (see [`conversation`](crate::conversation)).

use std::time::Duration;

use helix_protocol::{Block, Message, ModelReply, Role, StopReason};
use serde_json::Value;

use crate::ModelLimits;
use crate::conversation::{Conversation, tokens};

/// Room is made above this share of what the model takes, in percent.
const FULL: u64 = 80;
/// Taking out old answers is enough where they bring it below this share.
const ENOUGH: u64 = 55;
/// The latest answers of tools, up to so many tokens, stay as they are; less where the model takes little.
const PROTECTED_TOKENS: u64 = 40_000;
/// The last turns stay as they are.
const PROTECTED_TURNS: usize = 2;
/// Answers below this size are not worth taking out.
const SMALL: usize = 400;

/// No provider keeps a prompt longer than this without being paid for it.
pub(crate) const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// What the model is asked for its summary.
const SUMMARISE: &str = "\
This conversation nears the limit of what you can be shown, so it will go on from a summary that you write now. Whoever goes on \
sees nothing but the task's first message, your summary and the last turns. Write it under these headings, with exact names, \
paths, commands and numbers, and call no tool:

Goal: what the person wants, and every later wish of theirs.
Instructions: rules of the person or the repository that still hold.
Discoveries: what you found out about the code and the tools, and what did not work.
Done: what is finished, and how you know.
Left: what remains, in order, beginning with the very next thing.
Files: each file that matters, with what was changed in it or why it matters.";

/// What stands above the summary.
pub(crate) const COMPACTED: &str = "[The conversation up to here was compacted to make room. Your own summary of it:]";

/// What is to be done about a conversation's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is enough.
    Enough,
    /// It goes on as these messages, with old answers taken out.
    Pruned(Vec<Message>),
    /// These are to be summarised by the model.
    Summarise(Vec<Message>),
}

/// How urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Where it is nearly full.
    Due,
    /// The model has refused it as too long.
    Refused,
}

/// Looks at a conversation. Only what was recorded counts, so that a step that is made again decides the same.
pub(crate) fn look(conversation: &Conversation, limits: ModelLimits, need: Need) -> Room {
    let messages = conversation.messages();
    let recorded = settled(messages);
    let room = limits.room();
    let turns = messages.iter().filter(|message| message.role == Role::Assistant).count();
    if turns == 0 || (need == Need::Due && tokens(recorded) * 100 < room * FULL) {
        return Room::Enough;
    }
    let protected = PROTECTED_TOKENS.min(room / 3);
    let pruned = prune(messages, protected);
    if need == Need::Due && tokens(&pruned) * 100 <= room * ENOUGH {
        return Room::Pruned(pruned);
    }
    // What is summarised must fit itself.
    if need == Need::Due && fits(&pruned, limits) {
        return Room::Summarise(pruned);
    }
    let pruned = prune(messages, 0);
    Room::Summarise(if fits(&pruned, limits) { pruned } else { cut(&pruned, room * FULL / 100) })
}

fn fits(messages: &[Message], limits: ModelLimits) -> bool {
    tokens(messages) * 100 < limits.room() * FULL
}

/// The messages of half the length, as far as answers of tools can be cut.
pub(crate) fn halved(messages: &[Message]) -> Vec<Message> {
    cut(messages, tokens(messages) / 2)
}

/// What the conversation goes on as where no summary of it can be had: everything but most of what tools answered. `None`
/// where that is too long too.
pub(crate) fn without_summary(conversation: &Conversation, limits: ModelLimits) -> Option<Vec<Message>> {
    Some(cut(&prune(conversation.messages(), 0), limits.room() * ENOUGH / 100)).filter(|kept| fits(kept, limits))
}

/// True of a reply that says something, to its end.
pub(crate) fn is_summary(reply: &ModelReply) -> bool {
    let text = Message { role: Role::Assistant, blocks: reply.blocks.clone() }.as_text();
    let is_whole = !matches!(reply.stop, StopReason::Refusal | StopReason::MaxTokens | StopReason::ContextFull);
    is_whole && !text.trim().is_empty()
}

/// The conversation without old answers of tools, where that is at least a fifth less.
pub(crate) fn lighter(conversation: &Conversation, limits: ModelLimits) -> Option<Vec<Message>> {
    let messages = conversation.messages();
    let pruned = prune(messages, PROTECTED_TOKENS.min(limits.room() / 3));
    (tokens(&pruned) * 5 <= tokens(messages) * 4).then_some(pruned)
}

/// The messages up to the last turn with its answers; what a person said since is left out.
fn settled(messages: &[Message]) -> &[Message] {
    let said = |message: &Message| {
        message.role == Role::User && message.blocks.iter().all(|block| !matches!(block, Block::ToolResult { .. }))
    };
    let end = messages.iter().rposition(|message| !said(message)).map_or(0, |at| at + 1);
    &messages[..end]
}

/// The messages with old answers of tools taken out: those before the last turns and beyond the latest `protected` tokens.
fn prune(messages: &[Message], protected: u64) -> Vec<Message> {
    let from = last_turns(messages, PROTECTED_TURNS);
    let mut kept = messages.to_vec();
    let mut seen = 0;
    for (at, message) in kept.iter_mut().enumerate().rev() {
        for block in message.blocks.iter_mut().rev() {
            let Block::ToolResult { content, images, .. } = block else { continue };
            let size = content.len() as u64 / 4 + images.len() as u64 * 1_600;
            seen += size;
            if at >= from || seen <= protected || (content.len() < SMALL && images.is_empty()) {
                continue;
            }
            *content = format!("[{} bytes of this answer were taken out to make room; call again if you need them]", content.len());
            images.clear();
        }
    }
    kept
}

/// The messages with the longest answers of tools cut to one length, so that all of it is about `most` tokens.
/// What is cut away is said.
fn cut(messages: &[Message], most: u64) -> Vec<Message> {
    let mut kept = messages.to_vec();
    let mut lengths: Vec<usize> = kept.iter().flat_map(|message| &message.blocks).filter_map(answered).map(str::len).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let mut excess = 4 * tokens(messages).saturating_sub(most);
    let mut length = lengths.first().copied().unwrap_or_default();
    // The longest are cut to the next one's length, those to the one's behind it, until enough is gone.
    for (count, next) in (1..).zip(lengths.iter().skip(1).copied().chain([SMALL])) {
        let step = (length.saturating_sub(next) as u64).min(excess.div_ceil(count));
        length -= step as usize;
        excess = excess.saturating_sub(step * count);
    }
    for block in kept.iter_mut().flat_map(|message| &mut message.blocks) {
        if let Block::ToolResult { content, images, .. } = block
            && content.len() > length.max(SMALL)
        {
            let end = content.floor_char_boundary(length.max(SMALL));
            let gone = content.len() - end;
            content.truncate(end);
            content.push_str(&format!(
                "\n[{gone} more bytes of this answer were taken out to make room; ask for that part if you need it]"
            ));
            images.clear();
        }
    }
    kept
}

fn answered(block: &Block) -> Option<&str> {
    match block {
        Block::ToolResult { content, .. } => Some(content),
        _ => None,
    }
}

/// Where the last `count` turns of the model begin.
fn last_turns(messages: &[Message], count: usize) -> usize {
    let turns = messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant).map(|(at, _)| at);
    turns.rev().take(count).last().unwrap_or(messages.len())
}

/// The request for a summary, below the conversation it is of.
pub(crate) fn request(messages: Vec<Message>) -> Vec<Message> {
    [messages, vec![Message::text(Role::User, SUMMARISE)]].concat()
}

/// What the conversation goes on as.
pub(crate) fn restarted(conversation: &Conversation, summary: &ModelReply, prompt: &str, limits: ModelLimits) -> Vec<Message> {
    let messages = conversation.messages();
    let opening = messages.iter().take(2).filter(|message| message.role != Role::Assistant);
    let mut kept: Vec<Message> = opening.cloned().collect();
    let text = Message { role: Role::Assistant, blocks: summary.blocks.clone() }.as_text();
    let mut said = format!("{COMPACTED}\n\n{}", text.trim());
    if let Some(list) = todo(conversation) {
        said.push_str(&format!("\n\nYour list of what is to be done:\n{list}"));
    }
    if !kept.iter().any(|message| message.as_text().starts_with(prompt)) {
        said.push_str(&format!("\n\nThe task now: {prompt}"));
    }
    kept.push(Message::text(Role::User, said));
    kept.extend_from_slice(tail(messages, limits.room() / 4));
    kept
}

/// The last turns whole, as many as fit; at least what was said since.
fn tail(messages: &[Message], room: u64) -> &[Message] {
    for turns in (1..=PROTECTED_TURNS).rev() {
        let tail = &messages[last_turns(messages, turns)..];
        if tokens(tail) <= room {
            return tail;
        }
    }
    &messages[settled(messages).len()..]
}

/// The list as the model wrote it last, in the whole history of the task: it outlives every compaction.
fn todo(conversation: &Conversation) -> Option<String> {
    let calls = conversation.everything().rev().flat_map(|message| message.blocks.iter().rev());
    let input = calls.filter_map(|block| match block {
        Block::ToolUse { name, input, .. } if name == "todo" => input.get("items").and_then(Value::as_array),
        _ => None,
    });
    let items = input.into_iter().next()?;
    let line = |item: &Value| {
        let word = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mark = match word("state").as_str() {
            "done" => "[x]",
            "doing" => "[~]",
            _ => "[ ]",
        };
        format!("{mark} {}", word("text"))
    };
    let lines: Vec<String> = items.iter().map(line).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
