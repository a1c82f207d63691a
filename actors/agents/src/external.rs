//! The task kind `external`: an agent that people already have. One turn of it, from a prompt to why it stopped, is one step.
//!
//! The agent runs on the worker, in the workspace, and keeps its session there, so a step's files have the session that belongs to
//! them. Where it cannot take its session up, it is told what was said, which the steps have. A turn whose worker dies is not
//! committed: the next one makes it again from the files, and the session, of the step before.

mod questions;
mod telling;

use std::collections::BTreeMap;

use async_trait::async_trait;
use helix_config::{AgentsConfig, check_program};
use helix_ports::{StepHost, StepResult, TaskKind, TurnEnd};
use helix_protocol::{
    AgentEnd, AgentProgram, AgentSpec, AgentTurn, Approval, Began, Code, ExternalSpec, Failure, ModelTraffic, Permission, Speaks,
    Subject, TaskWork, TurnLimits, TurnReport,
};

use crate::AgentLimits;
use crate::conversation::Conversation;
use crate::endings::{Ending, step_limit, verified};
use crate::summary::shortened;

/// What an agent is told that has nothing else to be told.
const GO_ON: &str = "Go on.";

/// Makes the steps of such tasks. Holds the table of agents and the models' names.
pub struct ExternalKind {
    table: BTreeMap<String, AgentProgram>,
    limits: TurnLimits,
    models: AgentLimits,
}

impl ExternalKind {
    /// The kind over the configured agents, whose model, where a task names none, is the node's default one.
    pub fn new(config: &AgentsConfig, models: AgentLimits) -> Self {
        let limits = TurnLimits { start_ms: config.start_ms, silent_ms: config.silent_ms };
        Self { table: config.table(), limits, models }
    }

    fn program(&self, spec: &ExternalSpec) -> Result<AgentProgram, Failure> {
        if let Some(program) = &spec.program {
            check_program(&spec.agent, program)?;
            return Ok(program.clone());
        }
        self.table.get(&spec.agent).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.table.keys().map(String::as_str).collect();
            Failure::new(Code::InvalidRequest, format!("no agent is called {:?}", spec.agent)).hint(format!(
                "this node knows {}; `agents.programs` in helix.yaml adds others, --agent-command runs one that speaks ACP",
                known.join(", ")
            ))
        })
    }
}

#[async_trait]
impl TaskKind for ExternalKind {
    fn name(&self) -> &str {
        "external"
    }

    fn hears(&self) -> bool {
        true
    }

    fn check(&self, work: &TaskWork) -> Result<(), Failure> {
        let TaskWork::External(spec) = work else { return Ok(()) };
        if spec.prompt.trim().is_empty() {
            return Err(Failure::new(Code::InvalidRequest, "the prompt is empty").hint("say what the agent shall do"));
        }
        let program = self.program(spec)?;
        if spec.approval != Approval::Full && program.speaks == Speaks::Command {
            let asking = self.table.iter().filter(|(_, program)| program.speaks == Speaks::Acp).map(|(name, _)| name.as_str());
            let asking = asking.collect::<Vec<_>>().join(", ");
            let message = format!("{} is run once for each turn and cannot ask before it does something", spec.agent);
            return Err(Failure::new(Code::InvalidRequest, message)
                .hint(format!("leave --approval out: its sandbox is what holds it; these can ask: {asking}")));
        }
        Ok(())
    }

    async fn step(&self, host: &mut dyn StepHost) -> Result<StepResult, Failure> {
        let spec = match &host.task().spec.work {
            TaskWork::External(spec) => spec.clone(),
            other => return Err(Failure::new(Code::Internal, format!("a task of the kind {} is no external agent", other.kind()))),
        };
        if host.ordinal() > u64::from(spec.max_steps) {
            return Err(step_limit(spec.max_steps));
        }
        let mut program = self.program(&spec)?;
        let lost = std::mem::take(&mut program.lost);
        let mut conversation = Conversation::new(host.conversation().await?);
        let asked = questions::read(&host.questions().await?, host.head().map(|head| head.committed_at));
        let before = telling::before(&conversation);
        let prompt = self.prompt(host, &spec, &mut conversation, &asked);
        let model = match (&spec.model, spec.models) {
            (Some(model), _) => Some(model.clone()),
            // The gateway has the node's default model for it; with keys of its own it has a default of its own.
            (None, ModelTraffic::Gateway) => Some(self.models.default_name().to_owned()).filter(|model| !model.is_empty()),
            (None, ModelTraffic::Own) => None,
        };
        let turn = AgentTurn {
            agent: spec.agent.clone(),
            program,
            prompt,
            before,
            model,
            sandboxed: host.task().spec.environment.isolation().is_sandboxed(),
            lost,
            approval: spec.approval,
            allowed: asked.allowed,
            refused: asked.refused,
            gateway: None,
            limits: self.limits,
        };
        let (report, exit) = host.turn(turn, spec.models).await?;
        let ordinal = host.ordinal();
        let began = report.began;
        let ending = ended(host, &spec, &mut conversation, report).await?;
        let mut ending = ending.within(ordinal, spec.max_steps);
        if began == Began::Told {
            ending.summary = format!("took over from what was said · {}", ending.summary);
        }
        ending.exits.insert(0, exit);
        Ok(StepResult { summary: ending.summary, messages: conversation.into_added(), exits: ending.exits, end: ending.end })
    }
}

impl ExternalKind {
    /// What this turn's agent is told: the prompt at the beginning and at a fork's, else what was said since it spoke last.
    fn prompt(
        &self,
        host: &dyn StepHost,
        spec: &ExternalSpec,
        conversation: &mut Conversation,
        asked: &questions::Answers,
    ) -> String {
        let task = host.task().id;
        let forked = host.head().is_some_and(|head| head.step.task != task) && !conversation.has_prompt(&spec.prompt);
        if conversation.messages().is_empty() || forked {
            conversation.say(&spec.prompt);
            return spec.prompt.clone();
        }
        let mut said = telling::since_it_spoke(conversation);
        if let Some(answer) = &asked.last {
            conversation.say(answer);
            said.push(answer.clone());
        }
        if said.is_empty() {
            conversation.say(GO_ON);
            said.push(GO_ON.to_owned());
        }
        said.join("\n\n")
    }
}

/// What follows from how the turn ended.
async fn ended(
    host: &mut dyn StepHost,
    spec: &ExternalSpec,
    conversation: &mut Conversation,
    report: TurnReport,
) -> Result<Ending, Failure> {
    let TurnReport { messages, end, program, .. } = report;
    let answer = messages.iter().rev().map(helix_protocol::Message::as_text).find(|text| !text.is_empty()).unwrap_or_default();
    messages.into_iter().for_each(|message| conversation.push(message));
    let failed = |code, what: String, hint: &str| TurnEnd::Failed(Failure::new(code, what).hint(hint));
    Ok(match end {
        AgentEnd::Done => match &spec.verify {
            None => Ending::new(format!("done: {}", shortened(&answer)), TurnEnd::Finished),
            Some(command) => verified(host, conversation, &AgentSpec::new(&spec.prompt), command).await?,
        },
        AgentEnd::Cut => {
            conversation.say("Your turn was cut at a limit. Go on from where it ended.");
            Ending::new("cut at a limit", TurnEnd::Continue)
        }
        AgentEnd::Refused => {
            let hint = "say what the task is for, or name another model";
            Ending::new("refused", failed(Code::ModelRefused, format!("{program} refused: {}", shortened(&answer)), hint))
        }
        AgentEnd::Stopped => {
            let hint = "`helix task retry` goes on from here";
            Ending::new("stopped", failed(Code::AgentFailed, format!("{program} stopped as if it had been cancelled"), hint))
        }
        AgentEnd::Asks { permission, detail } => {
            let title = permission.title.split_whitespace().collect::<Vec<_>>().join(" ");
            let asked = Permission { title, ..permission };
            let question = questions::ask(host.ordinal(), &asked, &detail);
            let choices = crate::approvals::CHOICES.map(str::to_owned).to_vec();
            let summary = format!("asks for approval of {}", shortened(&asked.title));
            Ending::new(summary, TurnEnd::Ask { subject: Subject::Permission { asked }, question, choices })
        }
    })
}
