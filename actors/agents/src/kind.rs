//! The task kind `agent`: one model turn with its tool calls is one step.

use async_trait::async_trait;
use helix_ports::{SnapshotNote, StepHost, StepResult, TaskKind, TurnEnd};
use helix_protocol::{AgentSpec, Block, Code, Failure, Message, ModelReply, ModelRequest, Role, TaskWork, ToolCall, WorkspaceTool};
use serde_json::json;

use crate::AgentLimits;
use crate::calls::{carry_out, is_for_the_model};
use crate::conversation::Conversation;
use crate::endings::{Ending, without_calls};
use crate::prompt::{INSTRUCTIONS, opening, without_numbers};
use crate::summary;

/// Makes the steps of agent tasks. Holds nothing but limits, so one serves every task.
#[derive(Debug)]
pub struct AgentKind {
    limits: AgentLimits,
}

impl AgentKind {
    /// The kind over models of these sizes.
    pub fn new(limits: AgentLimits) -> Self {
        Self { limits }
    }

    fn request(&self, spec: &AgentSpec, conversation: &Conversation) -> Result<ModelRequest, Failure> {
        let limits = self.limits.of(spec.provider.as_deref());
        conversation.check_length(limits)?;
        Ok(ModelRequest {
            provider: spec.provider.clone(),
            model: spec.model.clone(),
            messages: conversation.messages().to_vec(),
            tools: WorkspaceTool::ALL.into_iter().map(WorkspaceTool::schema).collect(),
            max_tokens: limits.max_tokens,
            ..ModelRequest::default()
        })
    }
}

#[async_trait]
impl TaskKind for AgentKind {
    fn name(&self) -> &str {
        "agent"
    }

    async fn step(&self, host: &mut dyn StepHost) -> Result<StepResult, Failure> {
        let spec = match &host.task().spec.work {
            TaskWork::Agent(spec) => spec.clone(),
            other => return Err(Failure::new(Code::Internal, format!("a task of the kind {} reached the agent", other.kind()))),
        };
        let ordinal = host.ordinal();
        if ordinal > u64::from(spec.max_steps) {
            return Err(step_limit(spec.max_steps));
        }
        let mut conversation = opened(host, &spec).await?;
        let reply = host.model(self.request(&spec, &conversation)?).await?;
        let (blocks, text) = accepted(&reply);
        conversation.push(Message { role: Role::Assistant, blocks: blocks.clone() });

        let carried = carry_out(host, &conversation, &blocks, &reply.stop).await?;
        let mut ending = if carried.results.is_empty() {
            without_calls(host, &mut conversation, &spec, &text, &reply.stop).await?
        } else {
            conversation.push(Message { role: Role::User, blocks: carried.results });
            Ending { summary: summary::of_calls(&carried.phrases), end: TurnEnd::Continue, exits: Vec::new() }
        };
        if ending.end == TurnEnd::Continue && ordinal == u64::from(spec.max_steps) {
            ending.end = TurnEnd::Failed(step_limit(spec.max_steps));
        }
        // The first step's snapshot also holds what the setup command made.
        if ordinal > 1 && !carried.touched && ending.exits.is_empty() {
            host.note(SnapshotNote::NoFiles);
        }
        Ok(StepResult { summary: ending.summary, messages: conversation.into_added(), exits: ending.exits, end: ending.end })
    }
}

fn step_limit(max_steps: u32) -> Failure {
    Failure::new(Code::StepLimit, format!("the agent had not finished after {max_steps} steps, which is its limit"))
        .hint("`helix task retry --max-steps N` goes on from here")
}

/// The conversation with whatever the person says next: the prompt at its start, a fork's prompt after its ancestors.
async fn opened(host: &mut dyn StepHost, spec: &AgentSpec) -> Result<Conversation, Failure> {
    let mut conversation = Conversation::new(host.conversation().await?);
    let task = host.task().id;
    if conversation.messages().is_empty() {
        let instructions = instructions(host).await?;
        for message in opening(&spec.prompt, instructions.as_deref()) {
            conversation.push(message);
        }
    } else if host.head().is_some_and(|head| head.step.task != task) && !conversation.has_prompt(&spec.prompt) {
        conversation.say(&spec.prompt);
    }
    Ok(conversation)
}

/// The repository's instructions, where it has any.
async fn instructions(host: &mut dyn StepHost) -> Result<Option<String>, Failure> {
    let call =
        ToolCall { key: host.next_call(), name: WorkspaceTool::Read.name().to_owned(), input: json!({ "path": INSTRUCTIONS }) };
    match host.tool(call).await {
        Ok(outcome) if outcome.is_error => Ok(None),
        Ok(outcome) => Ok(Some(without_numbers(&outcome.content))),
        Err(failure) if is_for_the_model(failure.code) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The reply's blocks as the conversation may hold them, and their text: names that every provider takes back, and
/// something to show where the model said nothing.
fn accepted(reply: &ModelReply) -> (Vec<Block>, String) {
    let mut blocks = reply.blocks.clone();
    for block in &mut blocks {
        if let Block::ToolUse { name, .. } = block {
            let right = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            *name = name.chars().take(64).map(|c| if right(c) { c } else { '_' }).collect();
            if name.is_empty() {
                *name = "unnamed".to_owned();
            }
        }
    }
    let text = Message { role: Role::Assistant, blocks: blocks.clone() }.as_text();
    let calls = blocks.iter().any(|block| matches!(block, Block::ToolUse { .. }));
    if !calls && text.trim().is_empty() {
        blocks.retain(|block| !matches!(block, Block::Text { .. }));
        blocks.push(Block::Text { text: "(no answer)".to_owned(), extra: None });
    }
    (blocks, text)
}
