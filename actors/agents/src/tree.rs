//! Tree of thoughts: several approaches, each followed as an attempt of its own from one step on; the best one's files and answer
//! become the task's.
//!
//! Three phases, each a step: the model writes the approaches down; the attempts are made and waited for, without a worker being
//! held; one is chosen. Where the task has a check, the first attempt that passes it wins and the others are given up at once;
//! where it has none, a model compares the answers once all have ended.

use helix_ports::{ChildEnd, StepHost, TurnEnd};
use helix_protocol::{AgentSpec, Block, Failure, Message, ModelRequest, Reasoning, Role, TaskId, TaskSpec, TaskStatus};

use crate::children::belonging;
use crate::conversation::Conversation;
use crate::endings::Ending;
use crate::reasoning::Phase;
use crate::summary::shortened;

const APPROACHES: &str = "Before anything is done, think of different ways to do it.";
const CHOSEN: &str = "The approaches were followed, each in a copy of the files.";
const JUDGE: &str = "\
You compare attempts at one task. Judge by what the task asks: whether it is done, whether it is right, whether the change is \
small and clean. An attempt that says that it could not finish is worse than one that did. Answer with your reasons in a few \
sentences and then, on a line of its own, `BEST:` and the attempt's number.";

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

/// Where the attempts stand.
enum Attempts {
    Waiting(Vec<TaskId>),
    Ended(Vec<ChildEnd>),
    /// One passed the check.
    Won(usize, ChildEnd),
}

/// Makes the attempts, waits for them, chooses one; `None` where the conversation is in another phase.
pub(crate) async fn carry_on(
    host: &mut dyn StepHost,
    spec: &AgentSpec,
    max_tokens: u32,
    conversation: &mut Conversation,
) -> Result<Option<Ending>, Failure> {
    let Reasoning::TreeOfThoughts { .. } = spec.reasoning else { return Ok(None) };
    if conversation.turns_since(APPROACHES) != Some(1) || conversation.count(CHOSEN) > 0 {
        return Ok(None);
    }
    let answer = conversation.messages().iter().rfind(|message| message.role == Role::Assistant).map(Message::as_text);
    let approaches = approaches(&answer.unwrap_or_default());
    if approaches.len() < 2 {
        conversation.say(format!("{CHOSEN} There was but one, so follow it yourself."));
        return Ok(Some(Ending::new("one approach only", TurnEnd::Continue)));
    }
    match attempts(host, spec, &approaches).await? {
        Attempts::Waiting(tasks) => {
            let summary = format!("{} of {} approaches are being followed", tasks.len(), approaches.len());
            Ok(Some(Ending::new(summary, TurnEnd::Await { tasks })))
        }
        Attempts::Won(at, end) => promote(host, conversation, at, approaches.len(), &end, "it passed the check first").await,
        Attempts::Ended(ends) => match chosen(host, spec, max_tokens, &ends).await? {
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

async fn attempts(host: &mut dyn StepHost, spec: &AgentSpec, approaches: &[String]) -> Result<Attempts, Failure> {
    let parent = host.task().spec.clone();
    let group = host.task().id;
    // The step that wrote the approaches down when the attempts are made; later the attempts are known by their names.
    let from = host.head().map(|head| head.step.id);
    let (mut ends, mut waiting) = (Vec::new(), Vec::new());
    for (at, approach) in approaches.iter().enumerate() {
        let prompt = format!("Of these approaches follow this one, and no other:\n\n{}", approach.trim());
        let work = AgentSpec { prompt, reasoning: Reasoning::Direct, sub_agents: 0, ..spec.clone() };
        let title = format!("{} · approach {}", parent.title, at + 1);
        let shares = u32::try_from(approaches.len()).unwrap_or(1);
        let branch = TaskSpec { fork_of: from, group: Some(group), ..belonging(&parent, title, work, shares) };
        let task = host.child(&format!("approach {}", at + 1), branch).await?;
        match host.child_end(task).await? {
            Some(end) => ends.push((at, end)),
            None => waiting.push(task),
        }
    }
    if spec.verify.is_some()
        && let Some((at, end)) = ends.iter().find(|(_, end)| end.status == TaskStatus::Completed).cloned()
    {
        for task in waiting {
            host.cancel_child(task).await?;
        }
        return Ok(Attempts::Won(at, end));
    }
    if waiting.is_empty() {
        Ok(Attempts::Ended(ends.into_iter().map(|(_, end)| end).collect()))
    } else {
        Ok(Attempts::Waiting(waiting))
    }
}

/// The best of those that completed, with the reason; by a model where there are several.
async fn chosen(
    host: &mut dyn StepHost,
    spec: &AgentSpec,
    max_tokens: u32,
    ends: &[ChildEnd],
) -> Result<Option<(usize, String)>, Failure> {
    let completed: Vec<usize> =
        ends.iter().enumerate().filter(|(_, end)| end.status == TaskStatus::Completed).map(|(at, _)| at).collect();
    match completed.as_slice() {
        [] => return Ok(None),
        [at] => return Ok(Some((*at, "it alone was completed".to_owned()))),
        _ => {}
    }
    let mut question = format!("The task:\n{}\n", spec.prompt);
    for at in &completed {
        let end = &ends[*at];
        question.push_str(&format!("\nAttempt {} changed {} and says:\n{}\n", at + 1, listed(&end.changed), end.answer));
    }
    let request = ModelRequest {
        provider: spec.provider.clone(),
        model: spec.model.clone(),
        messages: vec![Message::text(Role::System, JUDGE), Message::text(Role::User, question)],
        // A model that thinks before it judges must not have used them up by then.
        max_tokens,
        thinking: spec.thinking,
        ..ModelRequest::default()
    };
    let reply = host.model(request).await?;
    let text = Message { role: Role::Assistant, blocks: reply.blocks }.as_text();
    let named = text.lines().rev().find_map(|line| {
        let number = line.trim().trim_matches(['*', '`']).strip_prefix("BEST:")?;
        number.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().ok()
    });
    let at = named.and_then(|number| number.checked_sub(1)).filter(|at| completed.contains(at));
    // A judge that names none has not judged: the first that was completed is as good as any.
    Ok(Some(at.map_or((completed[0], "the judge named none".to_owned()), |at| (at, shortened(&text)))))
}

fn listed(paths: &[String]) -> String {
    if paths.is_empty() { "no file".to_owned() } else { paths.join(", ") }
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
