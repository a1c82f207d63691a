//! Tree of thoughts: several approaches, each followed as an attempt of its own from one step on; the best one's files and answer
//! become the task's.
//!
//! Three phases, each a step: the model writes the approaches down; the attempts are made and waited for, without a worker being
//! held; one is chosen. Where the task has a check, the first attempt that passes it wins and the others are given up at once;
//! where it has none, a model compares the answers once all have ended.

use helix_ports::{ChildEnd, StepHost, TurnEnd};
use helix_protocol::{AgentSpec, Block, Failure, Message, Reasoning, Role, TaskSpec, TaskWork};

use crate::ModelLimits;
use crate::attempts::{self, Attempts, Gate, Judge};
use crate::children::belonging;
use crate::conversation::Conversation;
use crate::endings::Ending;
use crate::reasoning::Phase;
use crate::summary::shortened;

const APPROACHES: &str = "Before anything is done, think of different ways to do it.";
const CHOSEN: &str = "The approaches were followed, each in a copy of the files.";
/// True where no approaches were asked for yet.
pub(crate) fn is_due(conversation: &Conversation) -> bool {
    conversation.turns_since(APPROACHES).is_none()
}

/// The turn that writes the approaches down.
pub(crate) fn phase(branches: u32) -> Phase {
    let branches = branches.clamp(2, 8);
    let say = format!(
        "{APPROACHES} Write {branches} approaches that differ in kind and not in detail. Begin each with a line `APPROACH 1:`, \
         `APPROACH 2:` and so on, followed by what to do and why it may work. Call no tool in this answer."
    );
    Phase { say, label: "thought of approaches" }
}

/// The approaches in an answer.
fn approaches(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines() {
        let plain = line.trim().trim_start_matches(['#', '*', ' ']);
        let is_head = plain.get(..8).is_some_and(|word| word.eq_ignore_ascii_case("approach"))
            && plain[8..].trim_start().starts_with(|c: char| c.is_ascii_digit());
        if is_head {
            found.push(String::new());
        }
        if let Some(last) = found.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    found.truncate(8);
    found
}

/// Makes the attempts, waits for them, chooses one; `None` where the conversation is in another phase.
pub(crate) async fn carry_on(
    host: &mut dyn StepHost,
    spec: &AgentSpec,
    limits: ModelLimits,
    conversation: &mut Conversation,
) -> Result<Option<Ending>, Failure> {
    let Reasoning::TreeOfThoughts { .. } = spec.reasoning else { return Ok(None) };
    if conversation.turns_since(APPROACHES) != Some(1) || conversation.turns_since(CHOSEN).is_some() {
        return Ok(None);
    }
    let answer = conversation.messages().iter().rfind(|message| message.role == Role::Assistant).map(Message::as_text);
    let approaches = approaches(&answer.unwrap_or_default());
    if approaches.len() < 2 {
        conversation.say(format!("{CHOSEN} There was but one, so follow it yourself."));
        return Ok(Some(Ending::new("one approach only", TurnEnd::Continue)));
    }
    match followed(host, spec, &approaches).await? {
        Attempts::Waiting { tasks, .. } => {
            let summary = format!("{} of {} approaches are being followed", tasks.len(), approaches.len());
            Ok(Some(Ending::new(summary, TurnEnd::Await { tasks })))
        }
        Attempts::Won(at, end) => promote(host, conversation, at, approaches.len(), &end, "it passed the check first").await,
        Attempts::Ended(ends) => match chosen(host, spec, limits, &ends).await? {
            Some((at, why)) => promote(host, conversation, at, ends.len(), &ends[at], &why).await,
            None => {
                let reasons: Vec<String> =
                    ends.iter().enumerate().map(|(at, end)| format!("{}: {} {}", at + 1, end.status, end.reason)).collect();
                conversation.say(format!("{CHOSEN} None succeeded:\n{}\nDo it yourself, otherwise.", reasons.join("\n")));
                Ok(Some(Ending::new("no approach succeeded", TurnEnd::Continue)))
            }
        },
    }
}

async fn followed(host: &mut dyn StepHost, spec: &AgentSpec, approaches: &[String]) -> Result<Attempts, Failure> {
    let parent = host.task().spec.clone();
    let group = host.task().id;
    // The step that wrote the approaches down when the attempts are made; later the attempts are known by their names.
    let from = host.head().map(|head| head.step.id);
    let branch = |(at, approach): (usize, &String)| {
        let prompt = format!("Of these approaches follow this one, and no other:\n\n{}", approach.trim());
        let work = TaskWork::Agent(AgentSpec { prompt, reasoning: Reasoning::Direct, sub_agents: 0, ..spec.clone() });
        let title = format!("{} · approach {}", parent.title, at + 1);
        let branch = TaskSpec { fork_of: from, group: Some(group), ..belonging(&parent, title, work) };
        (format!("approach {}", at + 1), branch)
    };
    let gate = if spec.verify.is_some() { Gate::Completed } else { Gate::Judged };
    // The agent goes on by itself where none succeeds.
    attempts::carry_on(host, approaches.iter().enumerate().map(branch).collect(), gate, 1).await
}

/// The best of those that completed, with the reason; by a model where there are several.
async fn chosen(
    host: &mut dyn StepHost,
    spec: &AgentSpec,
    limits: ModelLimits,
    ends: &[ChildEnd],
) -> Result<Option<(usize, String)>, Failure> {
    let AgentSpec { prompt, provider, model, thinking, .. } = spec;
    let judge = Judge { task: prompt, provider: provider.as_deref(), model: model.as_deref(), limits, thinking: *thinking };
    judge.choose(host, ends).await
}

async fn promote(
    host: &mut dyn StepHost,
    conversation: &mut Conversation,
    at: usize,
    of: usize,
    end: &ChildEnd,
    why: &str,
) -> Result<Option<Ending>, Failure> {
    if let Some(snapshot) = end.snapshot {
        host.take_files(snapshot).await?;
    }
    conversation.say(format!("{CHOSEN} The files are now those of approach {} ({why}).", at + 1));
    conversation.push(Message { role: Role::Assistant, blocks: vec![Block::text(end.answer.clone())] });
    Ok(Some(Ending::new(format!("approach {} of {of}: {}", at + 1, shortened(&end.answer)), TurnEnd::Finished)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approaches_are_found_by_their_heads() {
        let text = "Some words.\n**APPROACH 1:** a cache\nmore\n## Approach 2: an index\n\nApproaches differ.\nAPPROACH 3: neither";
        let found = approaches(text);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], "**APPROACH 1:** a cache\nmore\n");
        assert!(found[1].ends_with("Approaches differ.\n"));
    }
}
