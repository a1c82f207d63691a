//! Ways from the prompt to the answer, over any model.
//!
//! A phase begins with a message of ours and is a step of its own, so it is seen, paid for and forked like any other. Which phase a
//! task is in follows from the conversation alone. Thinking inside the model is another matter: see `thinking` of the spec.

use helix_ports::TurnEnd;
use helix_protocol::{AgentSpec, Reasoning};

use crate::conversation::Conversation;
use crate::endings::{CHECK, Ending};
use crate::summary::shortened;

const REASON: &str = "\
Before you act, reason. Write numbered steps; each is one inference or one thing to find out, followed by its result on a line \
that begins with `Result:`. Where a result cannot be known without looking, say what you will look at. End with what follows for \
the task. Call no tool in this answer.";
const PLAN: &str = "\
Before you act, plan. Write the steps of the work in order, each with how you will know that it is done, and what could go \
wrong. Call no tool in this answer.";
const REVISE: &str = "\
Hold your plan against what has happened since. Say which steps are done and how you know, what turned out otherwise, and write \
the plan anew for what is left. Call no tool in this answer.";
/// Followed by the number of the round.
const CRITIQUE: &str = "Find fault with your work, as a reviewer who did not write it. Round ";
const HOW_TO_CRITICISE: &str = "\
: what does the task ask that is missing, what breaks, what is untested? Look at the files and run what you need. Then answer \
with the faults, or with the line `NO FAULTS` and nothing else.";
const CORRECT: &str = "Correct these faults, the worst first. When you are done, say what you changed.";
const ACT: &str = "Now act on it.";

/// Stands below the output of a check that failed, which the model's critique begins with.
pub(crate) const AFTER_A_FAILED_CHECK: &str = "\n\nFind the faults behind it, as a reviewer who did not write this: what does this \
output show to be wrong, why did you take it for right, and what else breaks for the same reason? Look at the files and run what \
you need, but change nothing yet. Answer with the faults.";

/// A phase that a step begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    /// What we say.
    pub say: String,
    /// For the timeline.
    pub label: &'static str,
}

/// The phase that the next turn is, where it is one in which the model thinks and does not act.
pub(crate) fn next(spec: &AgentSpec, conversation: &Conversation) -> Option<Phase> {
    let phase = |say: &str, label| Some(Phase { say: say.to_owned(), label });
    match spec.reasoning {
        Reasoning::ChainOfThought if conversation.turns_since(REASON).is_none() && begins(conversation) => {
            phase(REASON, "reasoned")
        }
        Reasoning::Progressive { every } => match (conversation.turns_since(PLAN), conversation.turns_since(REVISE)) {
            (None, None) if begins(conversation) => phase(PLAN, "planned"),
            (planned, revised) => {
                // The turn that planned counts as one; after a compaction the summary stands for the plan.
                let turns = match (planned, revised) {
                    (Some(planned), Some(revised)) => planned.min(revised),
                    (Some(turns), None) | (None, Some(turns)) => turns,
                    (None, None) => turns(conversation),
                };
                if turns > every.max(1) as usize { phase(REVISE, "revised its plan") } else { None }
            }
        },
        Reasoning::TreeOfThoughts { branches } if crate::tree::is_due(conversation) && begins(conversation) => {
            Some(crate::tree::phase(branches))
        }
        _ => None,
    }
}

/// What follows such a turn.
pub(crate) fn thought(phase: &Phase, conversation: &mut Conversation, text: &str) -> Ending {
    conversation.say(ACT);
    Ending::new(format!("{}: {}", phase.label, shortened(text)), TurnEnd::Continue)
}

/// What follows when the model says that it is done, and its own critique is to be the judge; `None` where that is the end.
pub(crate) fn reflected(spec: &AgentSpec, conversation: &mut Conversation, text: &str) -> Option<Ending> {
    let Reasoning::Reflection { rounds } = spec.reasoning else { return None };
    let round = conversation.highest(CRITIQUE);
    if !is_in_critique(conversation, CRITIQUE) {
        if round >= rounds as usize {
            return None;
        }
        conversation.say(format!("{CRITIQUE}{}{HOW_TO_CRITICISE}", round + 1));
        return Some(Ending::new(format!("done, as it says: {}", shortened(text)), TurnEnd::Continue));
    }
    if text.lines().any(|line| line.trim().trim_matches(['*', '`', '.']).eq_ignore_ascii_case("no faults")) {
        return Some(Ending::new(format!("critique {round}: no faults"), TurnEnd::Finished));
    }
    Some(to_be_corrected(conversation, round, text))
}

/// What follows when the model has found the faults behind a check that failed; `None` where it was not asked for them.
pub(crate) fn found_faults(spec: &AgentSpec, conversation: &mut Conversation, text: &str) -> Option<Ending> {
    let reflects = matches!(spec.reasoning, Reasoning::Reflection { .. });
    (reflects && is_in_critique(conversation, CHECK)).then(|| {
        let round = conversation.highest(CHECK);
        to_be_corrected(conversation, round, text)
    })
}

/// True where we asked for a critique with a message that begins like this, and for no correction since.
fn is_in_critique(conversation: &Conversation, asked: &str) -> bool {
    let corrected = conversation.turns_since(CORRECT);
    conversation.turns_since(asked).is_some_and(|turns| corrected.is_none_or(|since| turns < since))
}

fn to_be_corrected(conversation: &mut Conversation, round: usize, faults: &str) -> Ending {
    conversation.say(CORRECT);
    Ending::new(format!("critique {round}: {}", shortened(faults)), TurnEnd::Continue)
}

fn begins(conversation: &Conversation) -> bool {
    turns(conversation) == 0
}

fn turns(conversation: &Conversation) -> usize {
    conversation.messages().iter().filter(|message| message.role == helix_protocol::Role::Assistant).count()
}
