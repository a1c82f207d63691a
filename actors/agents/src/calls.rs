//! Carries out the tool calls of a turn, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use helix_ports::{ChildEnd, StepHost, WebAccess};
use helix_protocol::{AgentSpec, Block, Code, Failure, StopReason, ToolCall, ToolOutcome};
use serde_json::Value;

use crate::approvals::{self, Decision};
use crate::children;
use crate::conversation::Conversation;
use crate::instructions::Instructions;
use crate::repetition::noticed;
use crate::summary;
use crate::toolset::{OwnTool, Tool, Toolset};
use crate::{arguments, web};

/// How the answer begins to a call that a person did not allow.
pub(crate) const NOT_ALLOWED: &str = "the person did not allow this call";

/// What calls are carried out with.
pub(crate) struct Turn<'a> {
    pub spec: &'a AgentSpec,
    pub tools: &'a Toolset,
    pub web: Option<Arc<dyn WebAccess>>,
    /// Why the model stopped; `None` where an earlier step has asked it.
    pub stop: Option<&'a StopReason>,
    pub decision: Decision,
    /// The turn's sub-agents, by the ids of their calls.
    pub children: BTreeMap<String, ChildEnd>,
}

/// What came of a turn's calls.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// An answer for every call, in order.
    pub results: Vec<Block>,
    /// Each call as a phrase for the timeline.
    pub phrases: Vec<String>,
    /// True where some call may have changed a file.
    pub touched: bool,
    /// What the person is asked, with what they may answer.
    pub question: Option<(String, Vec<String>)>,
}

/// Carries out `blocks`' calls, which are those of the turn at `at`.
pub(crate) async fn carry_out(
    host: &mut dyn StepHost,
    turn: &Turn<'_>,
    conversation: &Conversation,
    at: usize,
    blocks: &[Block],
) -> Result<Carried, Failure> {
    let mut carried = Carried::default();
    let mut instructions = Instructions::known(&conversation.messages()[..at]);
    let mut done: Vec<Block> = Vec::new();
    for block in blocks {
        let Block::ToolUse { id, name, input, .. } = block else { continue };
        let outcome = carry_out_one(host, turn, id, name, input, &mut carried).await?;
        carried.phrases.push(summary::of_call(name, input, &outcome));
        let mut content = noticed(conversation.everything(), &done, name, input, outcome.content);
        if let Some(more) = instructions.of_call(host, name, input).await? {
            content.push_str(&more);
        }
        let result = Block::ToolResult { id: id.clone(), content, images: outcome.images, is_error: outcome.is_error, extra: None };
        done.extend([block.clone(), result.clone()]);
        carried.results.push(result);
    }
    Ok(carried)
}

async fn carry_out_one(
    host: &mut dyn StepHost,
    turn: &Turn<'_>,
    id: &str,
    name: &str,
    input: &Value,
    carried: &mut Carried,
) -> Result<ToolOutcome, Failure> {
    // The key is taken for every call, so that a later call's key does not depend on how an earlier one was judged.
    let call = ToolCall { key: host.next_call(), name: name.to_owned(), input: input.clone() };
    let tool = match arguments::check(turn.tools, name, input) {
        Ok(tool) => tool,
        Err(_) if turn.stop == Some(&StopReason::MaxTokens) && input.is_string() => {
            let text = "this call was cut because your answer reached its limit of tokens, so nothing was run; \
                        do it in smaller parts, for example a large file with several edits";
            return Ok(ToolOutcome::error(text));
        }
        Err(reason) => return Ok(ToolOutcome::error(reason)),
    };
    if let Decision::Refused { answer } = &turn.decision
        && approvals::needs(turn.spec.approval, turn.tools, name)
    {
        return Ok(ToolOutcome::error(format!("{NOT_ALLOWED}, and nothing was done. They said: {answer}")));
    }
    carried.touched |= tool.may_change_files();
    let answer = match tool {
        Tool::Workspace(_) => host.tool(call).await,
        Tool::Own(OwnTool::Ask) => Ok(ask(input, &mut carried.question)),
        Tool::Own(OwnTool::SubAgent) => sub_agent(host, turn, id, input).await,
        Tool::Own(OwnTool::WebFetch) => web::fetch(host, turn.web.clone(), &turn.spec.web_hosts, &call).await,
        Tool::Own(OwnTool::WebSearch) => web::search(host, turn.web.clone(), &call).await,
    };
    match answer {
        Ok(outcome) => Ok(outcome),
        Err(failure) if is_for_the_model(failure.code) => Ok(ToolOutcome::error(told(&failure))),
        Err(failure) => Err(failure),
    }
}

/// A model's question, which people are shown as one: it may read like one of ours.
fn ask(input: &Value, question: &mut Option<(String, Vec<String>)>) -> ToolOutcome {
    let text = format!("The agent asks: {}", input.get("question").and_then(Value::as_str).unwrap_or_default());
    let choices = input.get("choices").and_then(Value::as_array).into_iter().flatten();
    let choices = choices.filter_map(Value::as_str).map(str::to_owned).collect();
    if question.is_some() {
        return ToolOutcome::error("only one question at a time is put to the person; ask this one again when they have answered");
    }
    *question = Some((text, choices));
    ToolOutcome::ok("The question was put to the person. Their answer is the next message.")
}

async fn sub_agent(host: &mut dyn StepHost, turn: &Turn<'_>, id: &str, input: &Value) -> Result<ToolOutcome, Failure> {
    let Some(end) = turn.children.get(id) else {
        let text = format!("this task may make {} of its own, and has; do the rest yourself", turn.spec.sub_agents);
        return Ok(ToolOutcome::error(text));
    };
    let mut outcome = children::outcome(end);
    if input.get("take_files") == Some(&Value::Bool(true)) && !outcome.is_error {
        if turn.children.len() > 1 {
            outcome
                .content
                .push_str("\n[Its files were not taken: several sub-agents ran in this turn, and one's would undo another's.]");
        } else if let Some(snapshot) = end.snapshot {
            host.take_files(snapshot).await?;
            outcome.content.push_str("\n[Its files are yours now.]");
        }
    }
    Ok(outcome)
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
