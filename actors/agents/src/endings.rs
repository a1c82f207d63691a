//! What follows a turn without tool calls.

use helix_ports::{StepHost, TurnEnd};
use helix_protocol::{AgentSpec, Code, ExitReport, Failure, Reasoning, StopReason};

use crate::conversation::Conversation;
use crate::reasoning;
use crate::summary::shortened;

/// An empty answer is followed by this.
pub(crate) const NUDGE: &str = "Your answer was empty.";
/// An answer cut at its limit is followed by this.
pub(crate) const GO_ON: &str = "Your answer was cut at its limit of tokens.";
/// A failed check is followed by a message that begins like this, and with how often it has failed.
pub(crate) const CHECK: &str = "You said that the task is done, and its check fails. Time ";

/// So many empty or cut answers in a row end the task.
const PATIENCE: usize = 3;
/// After so many corrections a check that fails ends the task.
const CORRECTIONS: usize = 7;

/// How the turn ended, with its line for the timeline.
#[derive(Debug)]
pub(crate) struct Ending {
    pub summary: String,
    pub end: TurnEnd,
    pub exits: Vec<ExitReport>,
}

impl Ending {
    pub fn new(summary: impl Into<String>, end: TurnEnd) -> Self {
        Self { summary: summary.into(), end, exits: Vec::new() }
    }

    /// The last step that a task may make leaves nothing to a next one: nobody is asked what no step would read.
    pub fn within(self, ordinal: u64, max_steps: u32) -> Self {
        let goes_on = matches!(self.end, TurnEnd::Continue | TurnEnd::Ask { .. });
        let end = if goes_on && ordinal >= u64::from(max_steps) { TurnEnd::Failed(step_limit(max_steps)) } else { self.end };
        Self { end, ..self }
    }
}

pub(crate) fn step_limit(max_steps: u32) -> Failure {
    Failure::new(Code::StepLimit, format!("the agent had not finished after {max_steps} steps, which is its limit"))
        .hint("`helix task fork TASK --max-steps N` goes on from here, with more of them")
}

/// The model says that it is done, or has nothing to say.
pub(crate) async fn without_calls(
    host: &mut dyn StepHost,
    conversation: &mut Conversation,
    spec: &AgentSpec,
    text: &str,
    stop: &StopReason,
) -> Result<Ending, Failure> {
    match stop {
        StopReason::Refusal => {
            let failure = Failure::new(Code::ModelRefused, format!("the model refused: {}", shortened(text)))
                .hint("say what the task is for, or name another model");
            Ok(Ending::new("refused", TurnEnd::Failed(failure)))
        }
        StopReason::MaxTokens | StopReason::ContextFull => {
            Ok(again(conversation, GO_ON, "Go on from where it ended.", "cut at the limit of an answer's tokens"))
        }
        // Asked again with what it said, it goes on.
        StopReason::Pause => Ok(Ending::new("goes on with a long turn", TurnEnd::Continue)),
        _ if text.trim().is_empty() => {
            Ok(again(conversation, NUDGE, "Go on with the task, or say in a few sentences what you have done.", "an empty answer"))
        }
        _ => match &spec.verify {
            None => Ok(reasoning::reflected(spec, conversation, text)
                .unwrap_or_else(|| Ending::new(format!("done: {}", shortened(text)), TurnEnd::Finished))),
            Some(command) => match reasoning::found_faults(spec, conversation, text) {
                Some(ending) => Ok(ending),
                None => verified(host, conversation, spec, command).await,
            },
        },
    }
}

/// Asks once more, until that has happened too often.
fn again(conversation: &mut Conversation, beginning: &str, then: &str, what: &str) -> Ending {
    let times = conversation.trailing(beginning) + 1;
    if times >= PATIENCE {
        let failure = Failure::new(Code::ModelFailed, format!("the model's answer was {what} {times} times in a row"))
            .hint("raise `max_tokens` of the provider, or name another model");
        return Ending::new(what, TurnEnd::Failed(failure));
    }
    conversation.say(format!("{beginning} {then}"));
    Ending::new(what, TurnEnd::Continue)
}

/// Believes "done" only when the check says so too.
pub(crate) async fn verified(
    host: &mut dyn StepHost,
    conversation: &mut Conversation,
    spec: &AgentSpec,
    command: &str,
) -> Result<Ending, Failure> {
    let (most, then) = match spec.reasoning {
        Reasoning::Reflection { rounds } => (rounds.max(1) as usize, reasoning::AFTER_A_FAILED_CHECK),
        _ => (CORRECTIONS, ""),
    };
    let report = host.run(command, None).await?;
    let times = conversation.highest(CHECK) + 1;
    let summary = format!("done · check {} → exit {}", shortened(command), report.exit_code);
    let end = if report.exit_code == 0 {
        TurnEnd::Finished
    } else if times > most {
        let failure = Failure::new(
            Code::TaskFailed,
            format!("the check {command:?} failed {times} times; at last with exit code {}", report.exit_code),
        )
        .hint("`helix task log` shows its output; `helix task fork` with another prompt goes on from any step");
        TurnEnd::Failed(failure)
    } else {
        let tail = report.tail.trim_end();
        conversation.say(format!("{CHECK}{times}: `{command}` ended with exit code {}.\n\n{tail}{then}", report.exit_code));
        TurnEnd::Continue
    };
    Ok(Ending { summary, end, exits: vec![report] })
}
