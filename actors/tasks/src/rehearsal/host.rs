//! The surroundings of a step that is played again: everything it asks for is answered from what was recorded.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use helix_messages::{Difference, Differs};
use helix_ports::{ChildEnd, SnapshotNote, StepHost};
use helix_protocol::{
    AgentTurn, Block, CallKey, Code, ExitReport, Failure, Message, ModelReply, ModelRequest, ModelTraffic, Question, Role,
    SnapshotId, StepRecord, StopReason, TaskId, TaskRecord, TaskSpec, Timestamp, ToolCall, ToolOutcome, TurnReport, Usage,
    WorkspaceTool,
};

use super::{asked, difference, is_as_then, last_of_model, shown};
use crate::children;
use crate::host::call_key;
use crate::shared::Shared;

/// One step as it was recorded.
pub(super) struct Recorded {
    shared: Arc<Shared>,
    task: TaskRecord,
    head: Option<StepRecord>,
    pub step: StepRecord,
    /// When the last step before it was committed that asked a model.
    pub asked_at: Option<Timestamp>,
    /// What was said before it, what it heard included.
    before: Vec<Message>,
    /// What it added itself.
    own: Vec<Message>,
    questions: Vec<Question>,
    calls: u64,
    /// How often the model was asked today.
    turns: usize,
    /// Calls of tools that were answered, by their ids.
    answered: HashSet<String>,
    /// Commands that were answered.
    ran: usize,
    pub differences: Vec<Difference>,
    /// What cannot be compared, because it was not recorded.
    pub unknown: Vec<String>,
}

impl Recorded {
    pub fn new(
        shared: Arc<Shared>,
        task: TaskRecord,
        head: Option<StepRecord>,
        step: StepRecord,
        before: Vec<Message>,
        own: Vec<Message>,
        questions: Vec<Question>,
    ) -> Self {
        Self {
            shared,
            task,
            head,
            step,
            asked_at: None,
            before,
            own,
            questions,
            calls: 0,
            turns: 0,
            answered: HashSet::new(),
            ran: 0,
            differences: Vec::new(),
            unknown: Vec::new(),
        }
    }

    pub fn differs(&mut self, what: Differs, then: impl Into<String>, today: impl Into<String>) {
        self.differences.push(difference(what, then, today));
    }

    /// What is added today against what was added then.
    pub fn compare_messages(&mut self, today: &[Message]) {
        let (then, mut found) = (self.own.clone(), Vec::new());
        for at in 0..then.len().max(today.len()) {
            match (then.get(at), today.get(at)) {
                (Some(then), Some(today)) if is_as_then(today, then) => {}
                (then, today) => {
                    let is_system = [then, today].iter().flatten().any(|message| message.role == Role::System);
                    let what = if is_system { Differs::SystemPrompt } else { Differs::Message };
                    found.push(difference(what, then.map(shown).unwrap_or_default(), today.map(shown).unwrap_or_default()));
                }
            }
        }
        self.differences.append(&mut found);
    }

    /// A model that was asked then and is not today.
    pub fn compare_unasked(&mut self) {
        let then = self.step.step.asked.len();
        if then > self.turns {
            self.differs(Differs::Call, format!("the model was asked {then} times"), format!("it is asked {} times", self.turns));
        }
    }

    /// The request with what the record has in place of what it does not hold.
    fn as_recorded(&self, request: &ModelRequest) -> ModelRequest {
        let known: Vec<&Message> = self.before.iter().chain(&self.own).collect();
        // Mostly it is what was shown last, message by message; only where it is not is the whole record looked through.
        let shown = self.before.iter().rposition(|message| message.role == Role::System).unwrap_or(0);
        let stands_for = |(at, message): (usize, &Message)| {
            let is_known = known.get(shown + at).is_some_and(|then| *then == message) || known.contains(&message);
            let then = if is_known { None } else { known.iter().copied().find(|then| is_as_then(message, then)) };
            then.unwrap_or(message).clone()
        };
        ModelRequest { messages: request.messages.iter().enumerate().map(stands_for).collect(), ..request.clone() }
    }

    fn compare_request(&mut self, request: &ModelRequest, at: usize) {
        let Some(then) = self.step.step.asked.get(at).cloned() else {
            if at == 0 {
                self.unknown.push("what the model was asked: the step was made before that was kept".to_owned());
            }
            return;
        };
        let reply = ModelReply { model: String::new(), blocks: Vec::new(), stop: StopReason::EndTurn, usage: Usage::default() };
        let today = asked(&self.as_recorded(request), &reply);
        // A system prompt that is another one is shown with its words where the step says it.
        for (what, then, today) in [
            (Differs::SystemPrompt, then.system, today.system),
            (Differs::Tools, then.tools, today.tools),
            (Differs::Conversation, then.messages, today.messages),
            (Differs::Settings, then.settings, today.settings),
        ] {
            let said_here = what == Differs::SystemPrompt && self.own.iter().any(|message| message.role == Role::System);
            if then != today && !said_here {
                self.differs(what, format!("request {then}"), format!("request {today}"));
            }
        }
    }

    /// The reply that was recorded for the `at`-th time the model was asked.
    fn reply(&self, at: usize) -> Option<ModelReply> {
        let last = || last_of_model(&self.own).map(<[Block]>::to_vec);
        let (blocks, stop) = match self.step.step.asked.get(at) {
            Some(asked) => (asked.reply.clone().or_else(last)?, asked.stop.clone()),
            None if at == 0 && self.step.step.asked.is_empty() => {
                let blocks = last()?;
                let calls = blocks.iter().any(|block| matches!(block, Block::ToolUse { .. }));
                (blocks, if calls { StopReason::ToolUse } else { StopReason::EndTurn })
            }
            None => return None,
        };
        Some(ModelReply { model: String::new(), blocks, stop, usage: Usage::default() })
    }

    /// What the call was answered with then; `None` where it was not made.
    fn outcome(&mut self, call: &ToolCall) -> Option<ToolOutcome> {
        let turn = last_of_model(&self.own).or_else(|| last_of_model(&self.before))?;
        let id = turn.iter().find_map(|block| match block {
            Block::ToolUse { id, name, input, .. } if (name, input) == (&call.name, &call.input) && !self.answered.contains(id) => {
                Some(id.clone())
            }
            _ => None,
        })?;
        let mut results = self.own.iter().flat_map(|message| &message.blocks);
        let outcome = results.find_map(|block| match block {
            Block::ToolResult { id: of, content, images, is_error, .. } if *of == id => {
                Some(ToolOutcome { is_error: *is_error, images: images.clone(), ..ToolOutcome::ok(content.clone()) })
            }
            _ => None,
        })?;
        self.answered.insert(id);
        Some(outcome)
    }

    fn unmade(&mut self, what: String) -> Failure {
        self.differs(Differs::Call, "", what);
        Failure::new(Code::Internal, "this was not recorded")
    }
}

#[async_trait]
impl StepHost for Recorded {
    fn task(&self) -> &TaskRecord {
        &self.task
    }

    fn head(&self) -> Option<&StepRecord> {
        self.head.as_ref()
    }

    fn ordinal(&self) -> u64 {
        self.step.step.ordinal
    }

    async fn conversation(&mut self) -> Result<Vec<Message>, Failure> {
        Ok(self.before.clone())
    }

    async fn model(&mut self, request: ModelRequest) -> Result<ModelReply, Failure> {
        let at = self.turns;
        self.turns += 1;
        self.calls += 1;
        match self.reply(at) {
            Some(reply) => {
                self.compare_request(&request, at);
                Ok(reply)
            }
            None => Err(self.unmade(format!("the model is asked for the {}. time", at + 1))),
        }
    }

    async fn has_rested(&mut self, least: Duration) -> Result<bool, Failure> {
        // It was decided by the journal, which is gone; where it had an effect, the conversation began anew.
        let began_anew = self.own.iter().any(|message| message.role == Role::System);
        Ok(began_anew && self.asked_at.is_some_and(|at| self.step.step.started_at.since(at) >= least))
    }

    async fn tool(&mut self, call: ToolCall) -> Result<ToolOutcome, Failure> {
        if let Some(outcome) = self.outcome(&call) {
            return Ok(outcome);
        }
        // What an agent looks up by itself is instructions of the repository; what they said stands in the record.
        if [WorkspaceTool::Glob, WorkspaceTool::Read].iter().any(|tool| tool.name() == call.name) {
            return Ok(ToolOutcome::error("not recorded"));
        }
        Err(self.unmade(format!("{} {}", call.name, call.input)))
    }

    async fn run(&mut self, command: &str, _timeout_ms: Option<u64>) -> Result<ExitReport, Failure> {
        self.calls += 1;
        match self.step.step.exits.get(self.ran).filter(|exit| exit.command == command).cloned() {
            Some(exit) => {
                self.ran += 1;
                Ok(exit)
            }
            None => Err(self.unmade(format!("runs `{command}`"))),
        }
    }

    async fn turn(&mut self, turn: AgentTurn, _traffic: ModelTraffic) -> Result<(TurnReport, ExitReport), Failure> {
        Err(self.unmade(format!("has the agent {} take a turn", turn.agent)))
    }

    fn next_call(&mut self) -> CallKey {
        let key = call_key(&self.task, self.step.step.ordinal, self.calls);
        self.calls += 1;
        key
    }

    async fn effect(
        &mut self,
        call: &ToolCall,
        _work: BoxFuture<'static, Result<ToolOutcome, Failure>>,
    ) -> Result<ToolOutcome, Failure> {
        match self.outcome(call) {
            Some(outcome) => Ok(outcome),
            None => Err(self.unmade(format!("{} {}", call.name, call.input))),
        }
    }

    async fn questions(&mut self) -> Result<Vec<Question>, Failure> {
        Ok(self.questions.clone())
    }

    async fn child(&mut self, name: &str, spec: TaskSpec, _shares: u32) -> Result<TaskId, Failure> {
        let id = children::id(&self.task, name);
        let made = self.shared.read(|records| async move { records.read().task(id).await }).await?;
        match made {
            Some(_) => Ok(id),
            None => Err(self.unmade(format!("makes a task of its own: {}", spec.title))),
        }
    }

    async fn child_end(&mut self, task: TaskId) -> Result<Option<ChildEnd>, Failure> {
        let made = self.shared.read(|records| async move { records.read().task(task).await }).await?;
        let ended = made.and_then(|task| task.finished_at).is_some_and(|at| at < self.step.committed_at);
        if ended { children::end(&self.shared, task).await } else { Ok(None) }
    }

    async fn cancel_child(&mut self, _task: TaskId) -> Result<(), Failure> {
        Ok(())
    }

    async fn patches(&mut self, snapshot: SnapshotId) -> Result<String, Failure> {
        match self.head.as_ref().map(|head| head.step.tree) {
            Some(tree) => children::patches(&self.shared, &self.task, tree, snapshot).await,
            None => Ok(String::new()),
        }
    }

    async fn take_files(&mut self, _snapshot: SnapshotId) -> Result<(), Failure> {
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn note(&mut self, _note: SnapshotNote) {}
}
