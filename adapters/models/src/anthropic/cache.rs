//! Where the markers of the prompt cache stand.
//!
//! A marker asks the provider to keep the prompt up to there, and to look for what it kept up to about twenty blocks before it. The
//! order of a prompt is tools, system, conversation, and each changes less often than the next. So one marker ends the tools, one
//! the system, and the others the user's last messages: the last of them is where the next request will find this one, the one
//! before is exactly where this request finds the last one, however many blocks the turn between them had.

use helix_protocol::{Block, Extra, ModelRequest, Role, WireFormat, extra_of};
use serde_json::{Map, Value, json};

use crate::estimate::{block_tokens, tool_tokens};
use crate::format::Turn;

/// The most that the provider takes.
const MARKERS: usize = 4;

/// Kinds of blocks that can bear a marker.
const BEARERS: [&str; 5] = ["text", "image", "document", "tool_use", "tool_result"];

/// Puts the markers into an encoded request. None where the model has no use for them, and none where the client set its own, here
/// or for the whole request: it knows better, and all of them together must not exceed the limit.
pub(super) fn place(turn: &Turn<'_>, body: &mut Map<String, Value>) {
    let capabilities = turn.capabilities;
    if !capabilities.cache_markers || has_markers(turn.request) {
        return;
    }
    let (tools, system, all) = prefixes(turn.request, u64::from(capabilities.cache_least));
    let mut left = MARKERS;
    if tools && mark(body.get_mut("tools").and_then(last)) {
        left -= 1;
    }
    if system && mark(body.get_mut("system").and_then(last)) {
        left -= 1;
    }
    if !all {
        return;
    }
    let messages = body.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten().rev();
    for message in messages.filter(|message| message.get("role").is_some_and(|role| role == "user")) {
        if left == 0 {
            return;
        }
        if mark(message.get_mut("content").and_then(last)) {
            left -= 1;
        }
    }
}

/// Whether tools, tools and system, and all of it are long enough to be kept. An estimate; too short a prefix only is not kept.
fn prefixes(request: &ModelRequest, least: u64) -> (bool, bool, bool) {
    let tools: u64 = request.tools.iter().map(tool_tokens).sum();
    let blocks = |role: fn(Role) -> bool| {
        let messages = request.messages.iter().filter(move |message| role(message.role));
        messages.flat_map(|message| &message.blocks).map(block_tokens)
    };
    let system = tools + blocks(|role| role == Role::System).sum::<u64>();
    let mut all = system;
    // A long conversation need not be counted to its end.
    let enough = blocks(|role| role != Role::System).any(|tokens| {
        all += tokens;
        all >= least
    });
    (tools >= least, system >= least, system >= least || enough)
}

fn last(list: &mut Value) -> Option<&mut Value> {
    list.as_array_mut()?.last_mut()
}

/// Marks a tool or a block; false where it cannot bear it.
fn mark(place: Option<&mut Value>) -> bool {
    let Some(place) = place.and_then(Value::as_object_mut) else { return false };
    let bears = match place.get("type").and_then(Value::as_str) {
        Some(kind) => place.contains_key("name") || BEARERS.contains(&kind),
        None => true,
    };
    if bears {
        place.insert("cache_control".to_owned(), json!({"type": "ephemeral"}));
    }
    bears
}

fn has_markers(request: &ModelRequest) -> bool {
    let marks = |extra: &Option<Box<Extra>>| {
        extra_of(extra, WireFormat::Anthropic).is_some_and(|fields| fields.contains_key("cache_control"))
    };
    let in_block = |block: &Block| match block {
        Block::Text { extra, .. }
        | Block::Image { extra, .. }
        | Block::Document { extra, .. }
        | Block::Thinking { extra, .. }
        | Block::ToolUse { extra, .. }
        | Block::ToolResult { extra, .. } => marks(extra),
        Block::Unknown { block, .. } => block.get("cache_control").is_some_and(|marker| !marker.is_null()),
    };
    marks(&request.extra)
        || request.tools.iter().any(|tool| marks(&tool.extra))
        || request.messages.iter().flat_map(|message| &message.blocks).any(in_block)
}
