//! Carries out the tool calls of a turn, in order.

use helix_ports::StepHost;
use helix_protocol::{Block, Code, Failure, StopReason, ToolCall, ToolOutcome, WorkspaceTool};
use serde_json::Value;

use crate::arguments;
use crate::conversation::Conversation;
use crate::repetition::noticed;
use crate::summary;

/// What came of a turn's calls.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// An answer for every call, in order.
    pub results: Vec<Block>,
    /// Each call as a phrase for the timeline.
    pub phrases: Vec<String>,
    /// True where some call may have changed a file.
    pub touched: bool,
}

/// Carries out `blocks`' calls. The assistant's message is the conversation's last by now.
pub(crate) async fn carry_out(
    host: &mut dyn StepHost,
    conversation: &Conversation,
    blocks: &[Block],
    stop: &StopReason,
) -> Result<Carried, Failure> {
    let mut carried = Carried::default();
    let earlier = conversation.messages().split_last().map_or(&[][..], |(_, earlier)| earlier);
    let mut done: Vec<Block> = Vec::new();
    for block in blocks {
        let Block::ToolUse { id, name, input, .. } = block else { continue };
        let outcome = carry_out_one(host, name, input, stop, &mut carried.touched).await?;
        carried.phrases.push(summary::of_call(name, input, &outcome));
        let content = noticed(earlier, &done, name, input, outcome.content);
        let result = Block::ToolResult { id: id.clone(), content, images: Vec::new(), is_error: outcome.is_error, extra: None };
        done.extend([block.clone(), result.clone()]);
        carried.results.push(result);
    }
    Ok(carried)
}

async fn carry_out_one(
    host: &mut dyn StepHost,
    name: &str,
    input: &Value,
    stop: &StopReason,
    touched: &mut bool,
) -> Result<ToolOutcome, Failure> {
    // The key is taken for every call, so that a later call's key does not depend on how an earlier one was judged.
    let key = host.next_call();
    let tool = match arguments::check(name, input) {
        Ok(tool) => tool,
        Err(_) if *stop == StopReason::MaxTokens && input.is_string() => {
            let text = "this call was cut because your answer reached its limit of tokens, so nothing was run; \
                        do it in smaller parts, for example a large file with several edits";
            return Ok(ToolOutcome::error(text));
        }
        Err(reason) => return Ok(ToolOutcome::error(reason)),
    };
    *touched |= !matches!(tool, WorkspaceTool::Read | WorkspaceTool::Grep | WorkspaceTool::Glob | WorkspaceTool::ReadOutput);
    let call = ToolCall { key, name: name.to_owned(), input: input.clone() };
    match host.tool(call).await {
        Ok(outcome) => Ok(outcome),
        Err(failure) if is_for_the_model(failure.code) => Ok(ToolOutcome::error(told(&failure))),
        Err(failure) => Err(failure),
    }
}

/// A failure as the model reads it.
pub(crate) fn told(failure: &Failure) -> String {
    if failure.hint.is_empty() { failure.message.clone() } else { format!("{}; {}", failure.message, failure.hint) }
}

/// Failures that come of what the model asked for, and that it can mend.
pub(crate) fn is_for_the_model(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidToolCall
            | Code::InvalidRequest
            | Code::NotFound
            | Code::PathEscapes
            | Code::FileNotFound
            | Code::FileUnreadable
            | Code::FileTooLarge
            | Code::EditNotFound
            | Code::EditAmbiguous
            | Code::ProgramMissing
            | Code::CommandFailed
    )
}
