//! The scripted model's answer to one request.

use helix_adapter_models::{request_tokens, text_tokens};
use helix_protocol::{Block, ModelReply, ModelRequest, StopReason, Usage};

use super::transcript::{Next, RECOVERY, Scenario, ScriptedCall, ScriptedUsage, Transcript};

/// What a picture counts.
const IMAGE: u64 = 1_600;

/// An answer, with where it stands in the transcript.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub reply: ModelReply,
    pub turn: usize,
    pub recovery: bool,
    pub delay_ms: u64,
}

impl Answer {
    /// What `scenario` says to `request`.
    pub fn to(transcript: &Transcript, scenario: &Scenario, request: &ModelRequest) -> Self {
        let build = |text: &str, calls: &[ScriptedCall], prefix: &str, usage: Option<ScriptedUsage>| {
            let mut blocks: Vec<Block> = Vec::new();
            if !text.is_empty() {
                blocks.push(Block::Text { text: text.to_owned(), extra: None });
            }
            blocks.extend(calls.iter().enumerate().map(|(at, call)| Block::ToolUse {
                id: format!("{prefix}_{at}"),
                name: call.tool.clone(),
                input: call.arguments.clone(),
                extra: None,
            }));
            let stop = if calls.is_empty() { StopReason::EndTurn } else { StopReason::ToolUse };
            let usage = usage.map_or_else(|| estimate(request, &blocks), counted);
            ModelReply { model: transcript.model.clone(), blocks, stop, usage }
        };
        match scenario.next(request) {
            Next::Turn(turn, said) => Self {
                reply: build(&said.text, &said.calls, &format!("call_{turn}"), said.usage),
                turn,
                recovery: false,
                delay_ms: said.delay_ms,
            },
            Next::Recovery(turn, said, times) => Self {
                reply: build(&said.text, &said.calls, &format!("{RECOVERY}{turn}_{times}"), None),
                turn,
                recovery: true,
                delay_ms: 0,
            },
            Next::Over(turn) => {
                let last = scenario.turns.last().map_or("", |turn| turn.text.as_str());
                Self { reply: build(last, &[], "call", None), turn, recovery: false, delay_ms: 0 }
            }
        }
    }
}

fn counted(usage: ScriptedUsage) -> Usage {
    let ScriptedUsage { input_tokens, cached_tokens, output_tokens } = usage;
    Usage { input_tokens, cached_tokens, output_tokens, ..Usage::default() }
}

/// Counts as a provider with a prompt cache would: everything before the last message was read before.
fn estimate(request: &ModelRequest, blocks: &[Block]) -> Usage {
    let of = |request: &ModelRequest| request_tokens(request, IMAGE);
    let input_tokens = of(request);
    let mut before = request.clone();
    before.messages.pop();
    let cached_tokens = if request.messages.len() > 2 { of(&before).min(input_tokens) } else { 0 };
    let written = |block: &Block| match block {
        Block::Text { text, .. } => text_tokens(text),
        Block::ToolUse { name, input, .. } => text_tokens(name) + text_tokens(&input.to_string()),
        _ => 0,
    };
    Usage { input_tokens, cached_tokens, output_tokens: blocks.iter().map(written).sum(), ..Usage::default() }
}
