//! The task kind `agent`: one model turn with its tool calls is one step.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use helix_ports::{SnapshotNote, StepHost, StepResult, TaskKind, TurnEnd, WebAccess};
use helix_protocol::{
    AgentSpec, Approval, Block, Code, Failure, Message, ModelReply, ModelRequest, Role, StopReason, Subject, TaskWork, Thinking,
    ToolChoice,
};

use crate::approvals::{self, Decision};
use crate::calls::{Turn, carry_out};
use crate::children::{self, Gathered};
use crate::compaction::{self, Need, Room};
use crate::conversation::{Conversation, calls_of};
use crate::endings::{Ending, step_limit, without_calls};
use crate::families::Family;
use crate::prompt::opening;
use crate::reasoning::Phase;
use crate::toolset::{Toolset, Web};
use crate::{AgentLimits, ModelLimits, arguments, instructions, reasoning, repetition, summary, tree};

/// How often a model is asked for a summary before the conversation goes on without one.
const SUMMARIES: usize = 3;

/// Makes the steps of agent tasks. Holds nothing but limits and the way to the web, so one serves every task.
pub struct AgentKind {
    limits: AgentLimits,
    web: Option<Arc<dyn WebAccess>>,
}

/// What one step is made with.
struct Step<'a> {
    kind: &'a AgentKind,
    spec: AgentSpec,
    limits: ModelLimits,
    pictures: bool,
    family: &'static Family,
    tools: Toolset,
    session: String,
}

impl AgentKind {
    /// The kind over models of these sizes.
    pub fn new(limits: AgentLimits) -> Self {
        Self { limits, web: None }
    }

    /// The same with a way to the web, for tasks that are granted hosts.
    pub fn with_web(self, web: Arc<dyn WebAccess>) -> Self {
        Self { web: Some(web), ..self }
    }
}

#[async_trait]
impl TaskKind for AgentKind {
    fn name(&self) -> &str {
        "agent"
    }

    fn hears(&self) -> bool {
        true
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
        let family = Family::of(self.limits.model(spec.provider.as_deref(), spec.model.as_deref()));
        let web = Web { fetch: self.web.is_some(), search: self.web.as_ref().is_some_and(|web| web.can_search()) };
        let step = Step {
            kind: self,
            limits: self.limits.of(spec.provider.as_deref(), spec.model.as_deref()),
            pictures: self.limits.takes_pictures(spec.provider.as_deref(), spec.model.as_deref()),
            tools: Toolset::new(&spec, family, web),
            family,
            session: host.task().id.to_string(),
            spec,
        };
        step.make(host, ordinal).await
    }
}

/// A turn's end with what it did to the files.
struct Made {
    ending: Ending,
    touched: bool,
}

impl From<Ending> for Made {
    fn from(ending: Ending) -> Self {
        Self { ending, touched: false }
    }
}

impl Step<'_> {
    async fn make(&self, host: &mut dyn StepHost, ordinal: u64) -> Result<StepResult, Failure> {
        let mut conversation = self.opened(host).await?;
        let Made { ending, touched } = match conversation.unanswered() {
            Some((at, blocks)) => self.answer(host, &mut conversation, at, &blocks, None, ordinal).await?,
            None => match tree::carry_on(host, &self.spec, self.limits, &mut conversation).await? {
                // Files that were taken over are the step's without a look at the workspace.
                Some(ending) => ending.into(),
                None => self.turn(host, &mut conversation, ordinal).await?,
            },
        };
        let ending = ending.within(ordinal, self.spec.max_steps);
        // The first step's snapshot also holds what the setup command made. What runs on since an earlier
        // turn is the host's to know.
        if ordinal > 1 && !touched && ending.exits.is_empty() {
            host.note(SnapshotNote::NoFiles);
        }
        Ok(StepResult { summary: ending.summary, messages: conversation.into_added(), exits: ending.exits, end: ending.end })
    }

    /// Asks the model, and does what it asks for.
    async fn turn(&self, host: &mut dyn StepHost, conversation: &mut Conversation, ordinal: u64) -> Result<Made, Failure> {
        let phase = reasoning::next(&self.spec, conversation);
        let made_room = self.make_room(host, conversation, Need::Due).await?;
        if let Some(phase) = &phase {
            conversation.say(&phase.say);
        }
        let reply = self.ask(host, conversation, phase.as_ref()).await?;
        let (blocks, text) = accepted(&reply, conversation, &self.tools);
        conversation.push(Message { role: Role::Assistant, blocks: blocks.clone() });
        let mut made = match conversation.unanswered() {
            Some((at, blocks)) => self.answer(host, conversation, at, &blocks, Some(&reply.stop), ordinal).await?,
            None => match phase.filter(|_| !text.trim().is_empty() && reply.stop != StopReason::Refusal) {
                Some(phase) => reasoning::thought(&phase, conversation, &text).into(),
                None => without_calls(host, conversation, &self.spec, &text, &reply.stop).await?.into(),
            },
        };
        if made_room {
            made.ending.summary = format!("made room in the conversation · {}", made.ending.summary);
        }
        Ok(made)
    }

    /// Answers the calls of the turn at `at`, unless they have to wait for a person or for other tasks.
    async fn answer(
        &self,
        host: &mut dyn StepHost,
        conversation: &mut Conversation,
        at: usize,
        blocks: &[Block],
        stop: Option<&StopReason>,
        ordinal: u64,
    ) -> Result<Made, Failure> {
        let place = conversation.place(at);
        let questions = if self.spec.approval == Approval::Full { Vec::new() } else { host.questions().await? };
        let decision = approvals::decide(self.spec.approval, &self.tools, blocks, &questions, ordinal, place);
        if let Decision::Ask { subject, question } = decision {
            let choices = approvals::CHOICES.map(str::to_owned).to_vec();
            let summary = format!("asks for approval of {}", summary::of_calls(&named(blocks)));
            return Ok(Ending::new(summary, TurnEnd::Ask { subject, question, choices }).into());
        }
        let mut ended = Default::default();
        if decision == Decision::Go {
            if ordinal >= u64::from(self.spec.max_steps) && children::are_asked_for(&self.tools, blocks) {
                let end = TurnEnd::Failed(step_limit(self.spec.max_steps));
                return Ok(Ending::new("no step is left for what sub-agents answer", end).into());
            }
            match children::gather(host, &self.spec, &self.tools, conversation, place, blocks).await? {
                Gathered::Ended(ends) => ended = ends,
                Gathered::Waiting(tasks) => {
                    let summary = format!("{} sub-agents at work", tasks.len());
                    return Ok(Ending::new(summary, TurnEnd::Await { tasks }).into());
                }
            }
        }
        let web = self.kind.web.clone();
        let turn = Turn { spec: &self.spec, tools: &self.tools, web, stop, decision, children: ended };
        let carried = carry_out(host, &turn, conversation, at, blocks).await?;
        conversation.answer(at, carried.results);
        let end = match (carried.question, repetition::hopeless(conversation.everything())) {
            (Some((question, choices)), _) => TurnEnd::Ask { subject: Subject::Conversation, question, choices },
            (None, Some(why)) => TurnEnd::Failed(
                Failure::new(Code::TaskFailed, format!("the agent goes round in circles: {why}"))
                    .hint("`helix task fork` with another prompt goes on from any step before that"),
            ),
            (None, None) => TurnEnd::Continue,
        };
        Ok(Made { ending: Ending::new(summary::of_calls(&carried.phrases), end), touched: carried.touched })
    }

    /// Makes room in a conversation that has become too long. True where it did.
    async fn make_room(&self, host: &mut dyn StepHost, conversation: &mut Conversation, need: Need) -> Result<bool, Failure> {
        match compaction::look(conversation, self.limits, need) {
            Room::Enough => match compaction::lighter(conversation, self.limits).filter(|_| need == Need::Due) {
                Some(kept) if host.has_rested(compaction::FORGOTTEN).await? => {
                    conversation.restart(kept);
                    Ok(true)
                }
                _ => Ok(false),
            },
            Room::Pruned(kept) => {
                conversation.restart(kept);
                Ok(true)
            }
            Room::Summarise(messages) => {
                let kept = self.summarised(host, conversation, messages).await?;
                conversation.restart(kept);
                Ok(true)
            }
        }
    }

    /// What the conversation goes on as, by the model's summary of `messages`. Where it gives none it is asked once more without
    /// thinking, and about less where these are too long for it; then old answers alone go.
    async fn summarised(
        &self,
        host: &mut dyn StepHost,
        conversation: &Conversation,
        mut messages: Vec<Message>,
    ) -> Result<Vec<Message>, Failure> {
        let mut thinking = self.spec.thinking;
        for _ in 0..SUMMARIES {
            let request = self.request(compaction::request(messages.clone()));
            match host.model(ModelRequest { tool_choice: ToolChoice::None, thinking, ..request }).await {
                Ok(reply) if compaction::is_summary(&reply) => {
                    return Ok(compaction::restarted(conversation, &reply, &self.spec.prompt, self.limits));
                }
                Ok(_) => thinking = Thinking::Off,
                Err(failure) if failure.code == Code::ContextOverflow => messages = compaction::halved(&messages),
                Err(failure) => return Err(failure),
            }
        }
        compaction::without_summary(conversation, self.limits).ok_or_else(|| {
            Failure::new(Code::ModelFailed, "the conversation is too long for the model, and it gave no summary of it")
                .hint("name a model with a larger context, or fork an earlier step with a narrower prompt")
        })
    }

    /// One reply. A conversation that the model refuses as too long is shortened and asked about once more.
    async fn ask(
        &self,
        host: &mut dyn StepHost,
        conversation: &mut Conversation,
        phase: Option<&Phase>,
    ) -> Result<ModelReply, Failure> {
        let request = |conversation: &Conversation| {
            conversation.check_length(self.limits)?;
            let tool_choice = if phase.is_some() { ToolChoice::None } else { ToolChoice::Auto };
            Ok::<_, Failure>(ModelRequest { tool_choice, ..self.request(conversation.messages().to_vec()) })
        };
        let first = match request(conversation) {
            Ok(request) => host.model(request).await,
            Err(failure) => Err(failure),
        };
        let full = match &first {
            Ok(reply) => reply.stop == StopReason::ContextFull && !has_calls(&reply.blocks),
            Err(failure) => failure.code == Code::ContextOverflow,
        };
        if !full {
            return first;
        }
        if !self.make_room(host, conversation, Need::Refused).await? {
            return first.map_err(from_the_first_on);
        }
        if let Some(phase) = phase
            && conversation.messages().last().is_none_or(|message| message.as_text() != phase.say)
        {
            conversation.say(&phase.say);
        }
        host.model(request(conversation)?).await
    }

    fn request(&self, messages: Vec<Message>) -> ModelRequest {
        ModelRequest {
            provider: self.spec.provider.clone(),
            model: self.spec.model.clone(),
            // The conversation keeps them, for a fork with another model.
            messages: if self.pictures { messages } else { messages.into_iter().map(Message::without_pictures).collect() },
            tools: self.tools.schemas(),
            max_tokens: self.limits.max_tokens,
            thinking: self.spec.thinking,
            show_thinking: !matches!(self.spec.thinking, Thinking::Default | Thinking::Off),
            session: Some(self.session.clone()),
            ..ModelRequest::default()
        }
    }

    /// The conversation with whatever the person says next: the prompt at its start, a fork's prompt after its ancestors.
    async fn opened(&self, host: &mut dyn StepHost) -> Result<Conversation, Failure> {
        let mut conversation = Conversation::new(host.conversation().await?);
        let task = host.task().id;
        if conversation.messages().is_empty() {
            let instructions = instructions::at_the_beginning(host).await?;
            for message in opening(self.family, &self.spec.prompt, instructions.as_deref()) {
                conversation.push(message);
            }
        } else if host.head().is_some_and(|head| head.step.task != task) && !conversation.has_prompt(&self.spec.prompt) {
            conversation.say(&self.spec.prompt);
        }
        Ok(conversation)
    }
}

/// The failure of a conversation that is too long before the model has said anything.
fn from_the_first_on(failure: Failure) -> Failure {
    let message = format!("{}; nothing of a first request can be made shorter", failure.message);
    Failure::new(failure.code, message).hint("give a shorter prompt, or name a model with a larger context (`--model`)")
}

fn has_calls(blocks: &[Block]) -> bool {
    blocks.iter().any(|block| matches!(block, Block::ToolUse { .. }))
}

fn named(blocks: &[Block]) -> Vec<String> {
    let phrase = |block: &Block| match block {
        Block::ToolUse { name, input, .. } => Some(summary::shortened(&summary::asked_for(name, input))),
        _ => None,
    };
    blocks.iter().filter_map(phrase).collect()
}

/// The reply's blocks as the conversation may hold them, and their text: names that every provider takes back, ids that
/// no earlier call has (some servers begin anew in each reply), arguments as they are meant, and something to show
/// where the model said nothing.
fn accepted(reply: &ModelReply, conversation: &Conversation, tools: &Toolset) -> (Vec<Block>, String) {
    let mut blocks = reply.blocks.clone();
    let place = conversation.place(conversation.messages().len());
    let mut known: HashSet<String> = conversation.everything().flat_map(calls_of).map(str::to_owned).collect();
    for block in &mut blocks {
        if let Block::ToolUse { id, name, input, .. } = block {
            while !known.insert(id.clone()) {
                *id = format!("{id}_{place}");
            }
            let right = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            *name = name.chars().take(64).map(|c| if right(c) { c } else { '_' }).collect();
            if name.is_empty() {
                *name = "unnamed".to_owned();
            }
            *input = arguments::as_meant(tools, name, input);
        }
    }
    let text = Message { role: Role::Assistant, blocks: blocks.clone() }.as_text();
    if !has_calls(&blocks) && text.trim().is_empty() {
        blocks.retain(|block| !matches!(block, Block::Text { .. }));
        blocks.push(Block::Text { text: "(no answer)".to_owned(), extra: None });
    }
    (blocks, text)
}
