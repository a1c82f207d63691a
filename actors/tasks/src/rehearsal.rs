//! A recorded conversation played again by the kind as this node has it today: no model is asked, nothing runs, nothing is written.
//!
//! Each step is made on what was recorded before it, so one difference does not hide the next. Replies, answers of tools,
//! ends of checks and of tasks of its own come from the records; where the kind asks for something else than then, that is
//! the difference. What a model was asked is known by the hashes that a step keeps ([`asked`]); steps of before they were
//! kept are compared without them.

use std::sync::Arc;

use helix_messages::{Difference, Differs, Replayed, ReplayedStep};
use helix_ports::TurnEnd;
use helix_protocol::{
    AskedModel, Block, Code, Failure, Message, ModelReply, ModelRequest, Question, Role, StepOutcome, StepRecord, Subject, TaskId,
    TaskWork,
};

use crate::drive::{answers_to, read_task};
use crate::host::has_asked;
use crate::said;
use crate::shared::Shared;

mod host;

use host::Recorded;

/// Plays a task's steps again. Refused with `invalid_request` for a kind that has no conversation, or one that is somebody
/// else's.
pub(crate) async fn replay(shared: &Arc<Shared>, task: TaskId) -> Result<Replayed, Failure> {
    let record = read_task(shared, task).await?;
    let name = record.spec.work.kind();
    if let TaskWork::External(agent) = &record.spec.work {
        let message =
            format!("the agent {} is not of this node: what it would say today is not known without running it", agent.agent);
        return Err(Failure::new(Code::InvalidRequest, message).hint("`helix task fork` runs it again from a step"));
    }
    let Some(kind) = shared.kind(name).filter(|kind| kind.hears()) else {
        return Err(Failure::new(
            Code::InvalidRequest,
            format!("task {} is of kind {name:?}, which has no conversation", task.short()),
        )
        .hint("only what agents said can be played again"));
    };
    let mut line = Vec::new();
    if let Some(head) = record.head {
        line = shared.read(|records| async move { records.read().conversation(head).await }).await?;
    }
    let mut questions = shared.read(|records| async move { records.read().questions(task).await }).await?;
    questions.reverse();
    let remarks = shared.read(|records| async move { records.read().remarks(task).await }).await?;
    let (mut steps, mut before, mut turn, mut asked_at) = (Vec::new(), Vec::new(), None::<StepRecord>, None);
    for step in line {
        let messages = said::by(shared, step.clone()).await?;
        let is_turn = step.step.task == task && !messages.is_empty() && step.step.outcome != StepOutcome::Unfinished;
        if is_turn {
            let mut heard = answers_to(&questions, turn.as_ref());
            let of_step = remarks.iter().filter(|remark| step.step.heard.contains(&remark.id));
            heard.extend(of_step.map(|remark| Message::text(Role::User, remark.text.clone())));
            let said = if messages.starts_with(&heard) { heard.len() } else { 0 };
            let (heard, own) = messages.split_at(said);
            let before = [&before[..], heard].concat();
            let asked = questions.iter().filter(|question| question.created_at < step.committed_at).cloned().collect();
            let mut host =
                Recorded::new(Arc::clone(shared), record.clone(), turn.clone(), step.clone(), before, own.to_vec(), asked);
            host.asked_at = asked_at;
            let made = kind.step(&mut host).await;
            steps.push(compared(host, made, ended(&step, &questions)));
        }
        if matches!(step.step.outcome, StepOutcome::Continue | StepOutcome::Finished) {
            if has_asked(&step) {
                asked_at = Some(step.committed_at);
            }
            turn = Some(step);
        }
        before.extend(messages);
    }
    let differs = steps.iter().any(|step| !step.differences.is_empty());
    Ok(Replayed { task, steps, differs })
}

/// How a step ended then.
fn ended(step: &StepRecord, questions: &[Question]) -> &'static str {
    match step.step.outcome {
        StepOutcome::Finished => "finished",
        StepOutcome::Failed => "failed",
        StepOutcome::Continue | StepOutcome::Unfinished => {
            let asked = questions.iter().find(|question| question.created_at == step.committed_at);
            match asked {
                Some(Question { subject: Subject::Children { .. }, .. }) => "waits for tasks of its own",
                Some(_) => "asks",
                None => "goes on",
            }
        }
    }
}

fn word(end: &TurnEnd) -> &'static str {
    match end {
        TurnEnd::Continue => "goes on",
        TurnEnd::Finished => "finished",
        TurnEnd::Failed(_) => "failed",
        TurnEnd::Await { .. } => "waits for tasks of its own",
        TurnEnd::Ask { .. } => "asks",
    }
}

fn compared(mut host: Recorded, made: Result<helix_ports::StepResult, Failure>, then: &'static str) -> ReplayedStep {
    match made {
        Ok(result) => {
            host.compare_messages(&result.messages);
            host.compare_unasked();
            let today = word(&result.end);
            if then != today {
                host.differs(Differs::End, then, today);
            }
        }
        // Whatever ended it early is the difference; a failure that is none of those is the kind's own.
        Err(failure) if host.differences.is_empty() => host.differs(Differs::End, then, format!("fails: {}", failure.message)),
        Err(_) => {}
    }
    ReplayedStep {
        step: host.step.step.id,
        ordinal: host.step.step.ordinal,
        summary: host.step.step.summary.clone(),
        differences: host.differences,
        unknown: host.unknown,
    }
}

/// What a model is asked, as a step keeps it.
pub(crate) fn asked(request: &ModelRequest, reply: &ModelReply) -> AskedModel {
    let (system, rest): (Vec<&Message>, Vec<&Message>) = request.messages.iter().partition(|message| message.role == Role::System);
    let settings = serde_json::json!([
        request.provider,
        request.model,
        request.tool_choice,
        request.parallel_tools,
        request.max_tokens,
        request.thinking,
        request.show_thinking,
    ]);
    // Their arguments have no order of their own.
    let mut tools = request.tools.clone();
    tools.iter_mut().for_each(|tool| tool.parameters.sort_all_objects());
    AskedModel {
        system: digest(&system),
        tools: digest(&tools),
        messages: digest(&rest),
        settings: digest(&settings),
        stop: reply.stop.clone(),
        reply: Some(reply.blocks.clone()),
    }
}

/// The same for a step of these messages: a reply that is the model's last word among them is not kept twice.
pub(crate) fn kept(mut asked: Vec<AskedModel>, messages: &[Message]) -> Vec<AskedModel> {
    let last = last_of_model(messages);
    for call in &mut asked {
        if call.reply.as_deref() == last {
            call.reply = None;
        }
    }
    asked
}

fn last_of_model(messages: &[Message]) -> Option<&[Block]> {
    messages.iter().rfind(|message| message.role == Role::Assistant).map(|message| message.blocks.as_slice())
}

fn digest(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_vec(value).expect("plain data");
    blake3::hash(&text).to_hex()[..16].to_owned()
}

/// Whether what is said today is what was said then, where the record stands in for what it does not hold: instructions below the
/// first prompt come from the repository, and an answer of a tool is given back whole.
fn is_as_then(today: &Message, then: &Message) -> bool {
    let same = |(today, then): (&Block, &Block)| match (today, then) {
        (Block::Text { text: today, .. }, Block::Text { text: then, .. }) if then != today => {
            then.strip_prefix(today.as_str()).is_some_and(|rest| rest.starts_with("\n\n"))
        }
        (
            Block::ToolResult { id, content, is_error, .. },
            Block::ToolResult { id: then_id, content: then_content, is_error: then_error, .. },
        ) => id == then_id && is_error == then_error && content.contains(then_content.as_str()),
        (today, then) => today == then,
    };
    today.role == then.role && today.blocks.len() == then.blocks.len() && today.blocks.iter().zip(&then.blocks).all(same)
}

fn difference(what: Differs, then: impl Into<String>, today: impl Into<String>) -> Difference {
    Difference { what, then: then.into(), today: today.into() }
}

/// A message as text, for people.
fn shown(message: &Message) -> String {
    let block = |block: &Block| match block {
        Block::Text { text, .. } | Block::Thinking { text, .. } => text.clone(),
        Block::ToolUse { name, input, .. } => format!("{name} {input}"),
        Block::ToolResult { content, is_error: true, .. } => format!("error: {content}"),
        Block::ToolResult { content, .. } => content.clone(),
        other => serde_json::to_string(other).unwrap_or_default(),
    };
    message.blocks.iter().map(block).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(content: &str, is_error: bool) -> Message {
        let block = Block::ToolResult { id: "1".into(), content: content.into(), images: Vec::new(), is_error, extra: None };
        Message { role: Role::User, blocks: vec![block] }
    }

    #[test]
    fn instructions_of_the_repository_and_notices_are_no_difference_and_other_words_are() {
        let user = |text: &str| Message::text(Role::User, text);
        assert!(is_as_then(&user("fix it"), &user("fix it\n\nThis repository's AGENTS.md")));
        assert!(!is_as_then(&user("fix it"), &user("fix it now")));
        assert!(!is_as_then(&user("fix it now"), &user("fix it")));
        assert!(is_as_then(&result("out\n[the same as before]", false), &result("out", false)));
        assert!(!is_as_then(&result("there is no tool `x`", true), &result("out", false)));
        assert!(!is_as_then(&result("out", true), &result("out", false)));
    }

    #[test]
    fn a_reply_is_kept_once() {
        let reply = |text: &str| ModelReply {
            model: "m".to_owned(),
            blocks: vec![Block::text(text)],
            stop: helix_protocol::StopReason::EndTurn,
            usage: Default::default(),
        };
        let request =
            ModelRequest { messages: vec![Message::text(Role::System, "s"), Message::text(Role::User, "u")], ..Default::default() };
        let calls = vec![asked(&request, &reply("summary")), asked(&request, &reply("done"))];
        let messages = [Message::text(Role::User, "u"), Message { role: Role::Assistant, blocks: vec![Block::text("done")] }];
        let kept = kept(calls, &messages);
        assert_eq!(kept[0].reply.as_deref(), Some(&[Block::text("summary")][..]));
        assert_eq!(kept[1].reply, None);
        let other = ModelRequest { tools: Vec::new(), max_tokens: 5, ..request };
        let again = asked(&other, &reply("done"));
        assert_eq!((&again.system, &again.tools, &again.messages), (&kept[1].system, &kept[1].tools, &kept[1].messages));
        assert_ne!(again.settings, kept[1].settings);
    }
}
