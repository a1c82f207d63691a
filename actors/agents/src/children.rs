//! Tasks that an agent makes: parts of its work, or approaches to it.
//!
//! Each is a task like any other, with its own steps, worker and share of the budget. The parent makes them in one step and waits
//! in the next without holding a worker; names that follow from the conversation make a step that is made again find the same
//! tasks.

use std::collections::{BTreeMap, HashSet};

use helix_ports::{ChildEnd, StepHost};
use helix_protocol::{AgentSpec, Block, Failure, Reasoning, TaskId, TaskSpec, TaskStatus, TaskWork, ToolOutcome};
use serde_json::Value;

use crate::arguments;
use crate::conversation::Conversation;
use crate::toolset::{OwnTool, Tool, Toolset};

/// How a turn's sub-agents stand.
#[derive(Debug)]
pub(crate) enum Gathered {
    /// Every one has ended; by the id of the call.
    Ended(BTreeMap<String, ChildEnd>),
    /// These have not.
    Waiting(Vec<TaskId>),
}

/// Makes the tasks that a turn's calls ask for, and looks how they stand. Calls that are refused make none.
pub(crate) async fn gather(
    host: &mut dyn StepHost,
    spec: &AgentSpec,
    tools: &Toolset,
    conversation: &Conversation,
    place: usize,
    blocks: &[Block],
) -> Result<Gathered, Failure> {
    let mut ended = BTreeMap::new();
    let mut waiting = Vec::new();
    let mut left = (spec.sub_agents as usize).saturating_sub(made_before(conversation, blocks));
    for block in blocks {
        let Block::ToolUse { id, name, input, .. } = block else { continue };
        if arguments::check(tools, name, input) != Ok(Tool::Own(OwnTool::SubAgent)) || left == 0 {
            continue;
        }
        let child = sub_agent(&host.task().spec, spec, input, host.head().map(|head| head.step.snapshot));
        // One for each that may still be made, and one for the agent itself.
        let shares = u32::try_from(left + 1).unwrap_or(u32::MAX);
        let task = host.child(&format!("{place}:{id}"), child, shares).await?;
        left -= 1;
        match host.child_end(task).await? {
            Some(end) => drop(ended.insert(id.clone(), end)),
            None => waiting.push(task),
        }
    }
    Ok(if waiting.is_empty() { Gathered::Ended(ended) } else { Gathered::Waiting(waiting) })
}

/// Whether a turn's calls ask for any.
pub(crate) fn are_asked_for(tools: &Toolset, blocks: &[Block]) -> bool {
    blocks.iter().any(|block| match block {
        Block::ToolUse { name, input, .. } => arguments::check(tools, name, input) == Ok(Tool::Own(OwnTool::SubAgent)),
        _ => false,
    })
}

/// How many were made in turns before this one.
fn made_before(conversation: &Conversation, now: &[Block]) -> usize {
    let id = |block: &Block| match block {
        Block::ToolUse { id, name, .. } if name == OwnTool::SubAgent.name() => Some(id.clone()),
        _ => None,
    };
    let now: HashSet<String> = now.iter().filter_map(id).collect();
    let all: HashSet<String> = conversation.everything().flat_map(|message| &message.blocks).filter_map(id).collect();
    all.difference(&now).count()
}

fn sub_agent(parent: &TaskSpec, agent: &AgentSpec, input: &Value, files: Option<helix_protocol::SnapshotId>) -> TaskSpec {
    let text = |key: &str| input.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let work = AgentSpec { prompt: text("prompt"), verify: None, reasoning: Reasoning::Direct, sub_agents: 0, ..agent.clone() };
    let base = match files {
        Some(snapshot) => helix_protocol::Base::Snapshot { snapshot, git_commit: None, repository: None },
        None => parent.base.clone(),
    };
    TaskSpec { base, fork_of: None, ..belonging(parent, text("title"), TaskWork::Agent(work)) }
}

/// A task of an agent's own. What it may spend is its host's to say.
pub(crate) fn belonging(parent: &TaskSpec, title: String, work: TaskWork) -> TaskSpec {
    TaskSpec { title, work, depends_on: Vec::new(), fork_files: None, group: None, ..parent.clone() }
}

/// What a sub-agent's call is answered with.
pub(crate) fn outcome(end: &ChildEnd) -> ToolOutcome {
    let changed = match end.changed.as_slice() {
        [] => "It changed no file.".to_owned(),
        files => format!("It changed: {}", files.join(", ")),
    };
    match end.status {
        TaskStatus::Completed => ToolOutcome::ok(format!("{}\n\n[{changed}]", end.answer)),
        status => ToolOutcome::error(format!("the sub-agent is {status}: {}\n{}\n\n[{changed}]", end.reason, end.answer)),
    }
}
