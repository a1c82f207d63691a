//! Text as every database keeps it.
//!
//! PostgreSQL has no U+0000 in a text, and what commands print and models say may hold it. So that all stores keep the same, it is
//! replaced before a write is looked at: a repeated write is compared with what was kept. JSON writes it as an escape, and is left
//! alone.

use helix_protocol::{NewEvent, Question};

use crate::{StatusChange, Then, Write};

/// The writes, without U+0000 in any text that has a column of its own.
pub(crate) fn plain(mut group: Vec<Write>) -> Vec<Write> {
    group.iter_mut().for_each(of_write);
    group
}

fn of_write(write: &mut Write) {
    match write {
        Write::CreateTask { spec, principal, idempotency_key, paused, .. } => {
            replace(&mut spec.title);
            replace(&mut principal.actor);
            idempotency_key.iter_mut().for_each(replace);
            paused.iter_mut().for_each(replace);
        }
        Write::Commit { step, then, events } => {
            replace(&mut step.summary);
            match then.as_deref_mut() {
                Some(Then::Status(change)) => of_change(change),
                Some(Then::Ask(question)) => of_question(question),
                None => {}
            }
            of_events(events);
        }
        Write::Status { change, events } => {
            of_change(change);
            of_events(events);
        }
        Write::Checkpoint(checkpoint) => replace(&mut checkpoint.name),
        Write::Ask { question, events, .. } => {
            of_question(question);
            of_events(events);
        }
        Write::Answer { answer, events, .. } => {
            replace(answer);
            of_events(events);
        }
        Write::Say { remark, events } => {
            replace(&mut remark.text);
            replace(&mut remark.actor);
            of_events(events);
        }
        Write::Worker { worker, events } => {
            replace(&mut worker.name);
            replace(&mut worker.reason);
            of_events(events);
        }
        Write::Claim { events, .. }
        | Write::Rollback { events, .. }
        | Write::WorkerLifecycle { events, .. }
        | Write::RemoveWorker { events, .. }
        | Write::Events(events) => of_events(events),
        // What is text in them is JSON, or a key of ours.
        Write::Journal(_) | Write::CreateKey(_) | Write::RevokeKey(_) | Write::RemoveKey(_) | Write::ModelCalls(_) => {}
    }
}

fn of_change(change: &mut StatusChange) {
    replace(&mut change.reason);
    replace(&mut change.hint);
}

fn of_question(question: &mut Question) {
    replace(&mut question.text);
    // An answer is one of them.
    question.choices.iter_mut().chain(&mut question.answer).for_each(replace);
}

fn of_events(events: &mut [NewEvent]) {
    for event in events {
        replace(&mut event.actor);
        replace(&mut event.message);
    }
}

fn replace(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}
