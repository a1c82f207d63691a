//! Claims about steps, their journal, and the line they form.

use std::collections::HashSet;

use helix_protocol::{
    Base, CallKey, Checkpoint, Epoch, Event, EventKind, JournalBody, Message, Money, NewStep, ObjectId, Question, Role, SnapshotId,
    StepId, StepOutcome, StepRecord, Subject, TaskId, TaskSpec, TaskStatus, Timestamp, ToolOutcome,
};

use super::stage::{
    Stage, after, call_failed, change, commit, creation, entry, journal, reserved, rollback, spec, stale, step_on, told,
    wrong_status,
};
use crate::{Applied, RecordError, StatusChange, Then, Write};

fn checkpoint_of(task: helix_protocol::TaskId, step: StepId, name: &str) -> Write {
    Write::Checkpoint(Checkpoint { task, step, name: name.to_owned(), created_at: Timestamp(7) })
}

pub(super) async fn a_commit_moves_the_head_and_adds_the_spend(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (step, task) = stage.next_step(&owner).await;
    assert_eq!((task.head, task.steps, task.status, task.epoch), (Some(step.id), 1, TaskStatus::Running, owner.epoch));
    let (_, task) = stage.next_step(&task).await;
    assert_eq!((task.steps, task.spent, task.tokens), (2, Money(6800), 2400));
    assert_eq!(stage.task(owner.id).await, task);
}

pub(super) async fn a_repeated_commit_is_the_same_commit(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (step, task) = stage.next_step(&owner).await;
    let again = stage.done(commit(step.clone())).await;
    let Applied::Step { step: record, task: shown, events } = again else { panic!("{again:?}") };
    assert_eq!((record.step, *shown, events), (step.clone(), task.clone(), Vec::new()));
    // Another owner came between the commit and its lost answer: it is still the same commit.
    let newer = stage.claim(&task).await;
    assert!(stage.apply(commit(step)).await.is_ok());
    assert_eq!(stage.task(owner.id).await, newer);
    assert_eq!(stage.store.steps(owner.id).await.map(|steps| steps.len()), Ok(1));
}

pub(super) async fn a_commit_on_another_head_is_refused(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (_, task) = stage.next_step(&owner).await;
    assert_eq!(stage.apply(commit(step_on(&owner))).await, Err(stale(&task, owner.epoch)));
    assert_eq!(stage.store.steps(owner.id).await.map(|steps| steps.len()), Ok(1));
}

pub(super) async fn a_commit_cannot_raise_a_cancelled_task_from_the_dead(stage: Stage) {
    let owner = stage.claimed_task().await;
    let cancelled = stage.set(owner.id, TaskStatus::Cancelled).await;
    let refused = wrong_status(owner.id, TaskStatus::Cancelled);
    assert_eq!(stage.apply(commit(step_on(&owner))).await, Err(refused));
    assert_eq!(stage.task(owner.id).await, cancelled);
}

pub(super) async fn a_commit_drops_the_journal_of_its_step_and_before(stage: Stage) {
    let owner = stage.claimed_task().await;
    stage.done(journal(entry(&owner, 1, reserved("a", 5, 5)))).await;
    let later = helix_protocol::JournalEntry { ordinal: 2, ..entry(&owner, 2, reserved("b", 5, 5)) };
    stage.done(journal(later.clone())).await;
    stage.next_step(&owner).await;
    assert_eq!(stage.store.journal(owner.attempt, 0).await, Ok(vec![later]));
}

pub(super) async fn a_commit_and_its_consequence_are_one(stage: Stage) {
    let owner = stage.claimed_task().await;
    let waiting = stage.create(after(&[owner.id])).await;
    let step = step_on(&owner);
    let completed = StatusChange { reason: "done".to_owned(), ..change(owner.id, TaskStatus::Completed) };
    let then = Some(Box::new(Then::Status(completed)));
    let write = Write::Commit { step: Box::new(step.clone()), then, events: vec![told(EventKind::StepCompleted, owner.id)] };
    let task = stage.task_after(write.clone()).await;
    assert_eq!((task.status, task.head, task.worker, task.reason.as_str()), (TaskStatus::Completed, Some(step.id), None, "done"));
    assert_eq!(stage.task(waiting.id).await.status, TaskStatus::Pending);
    assert_eq!(stage.task_after(write).await, task);

    let owner = stage.claimed_task().await;
    let question = Question::new(owner.id, Subject::default(), "raise the budget?", Vec::new(), Timestamp(9));
    let then = Some(Box::new(Then::Ask(question.clone())));
    let write = Write::Commit { step: Box::new(step_on(&owner)), then, events: Vec::new() };
    let Applied::Step { step, task, .. } = stage.done(write).await else { panic!("no step") };
    assert_eq!((task.status, task.steps), (TaskStatus::WaitingForInput, 1));
    let question = Question { created_at: step.committed_at, ..question };
    assert_eq!(stage.store.questions(owner.id).await, Ok(vec![question]), "it has the instant of its step");
}

pub(super) async fn a_commit_whose_consequence_is_refused_leaves_no_trace(stage: Stage) {
    let owner = stage.claimed_task().await;
    stage.done(journal(entry(&owner, 1, reserved("a", 5, 5)))).await;
    let impossible = StatusChange { from: vec![TaskStatus::Paused], ..change(owner.id, TaskStatus::Completed) };
    let then = Some(Box::new(Then::Status(impossible)));
    let write = Write::Commit { step: Box::new(step_on(&owner)), then, events: vec![told(EventKind::StepCompleted, owner.id)] };
    assert_eq!(stage.apply(write).await, Err(wrong_status(owner.id, TaskStatus::Running)));
    assert_eq!(stage.task(owner.id).await, owner);
    assert_eq!(stage.store.steps(owner.id).await, Ok(Vec::new()));
    assert_eq!(stage.store.journal(owner.attempt, 0).await.map(|entries| entries.len()), Ok(1));
}

pub(super) async fn a_step_that_exists_costs_its_neighbours_nothing(stage: Stage) {
    let (taken, _) = stage.next_step(&stage.claimed_task().await).await;
    let (before, between, after) = (stage.claimed_task().await, stage.claimed_task().await, stage.claimed_task().await);
    let again = NewStep { id: taken.id, ..step_on(&between) };
    let group = vec![commit(step_on(&before)), commit(again), commit(step_on(&after))];
    let answers = stage.store.apply(group).await.expect("the store answers");
    assert!(answers[0].is_ok() && matches!(answers[1], Err(RecordError::Conflict(_))) && answers[2].is_ok(), "{answers:?}");
    assert_eq!(stage.task(between.id).await, between);
    for (task, steps) in [(before.id, 1), (between.id, 0), (after.id, 1), (taken.task, 1)] {
        assert_eq!(stage.store.steps(task).await.map(|steps| steps.len()), Ok(steps));
    }
}

pub(super) async fn a_step_is_seen_by_those_that_follow_it_in_its_group(stage: Stage) {
    let owner = stage.claimed_task().await;
    let step = step_on(&owner);
    let fork = TaskSpec { fork_of: Some(step.id), ..spec("the same from there") };
    let next = NewStep { id: StepId::new(), parent: Some(step.id), ordinal: 2, ..step.clone() };
    let name = checkpoint_of(owner.id, step.id, "here");
    let group = vec![commit(step.clone()), commit(step.clone()), name, creation(TaskId::new(), fork), commit(next.clone())];
    let answers = stage.store.apply(group).await.expect("the store answers");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let Ok(Applied::Step { step: again, events, .. }) = &answers[1] else { panic!("{answers:?}") };
    assert_eq!((&again.step, events.len()), (&step, 0), "the same commit");
    let Ok(Applied::Task { task: forked, .. }) = &answers[3] else { panic!("{answers:?}") };
    assert_eq!((forked.head, forked.steps), (Some(step.id), 1));
    let line = stage.store.lineage(next.id).await.expect("the store answers");
    assert_eq!(line.iter().map(|step| step.id).collect::<Vec<_>>(), [step.id, next.id]);
}

pub(super) async fn a_repeated_append_is_the_same_append_and_another_body_is_a_conflict(stage: Stage) {
    let owner = stage.claimed_task().await;
    let first = entry(&owner, 1, reserved("a", 5, 5));
    for _ in 0..2 {
        assert_eq!(stage.apply(journal(first.clone())).await, Ok(Applied::Done { events: Vec::new() }));
    }
    let answer = stage.apply(journal(entry(&owner, 1, reserved("a", 6, 5)))).await;
    assert!(matches!(answer, Err(RecordError::Conflict(_))), "{answer:?}");
    assert_eq!(stage.store.journal(owner.attempt, 0).await, Ok(vec![first]));
}

pub(super) async fn the_journal_is_read_above_an_ordinal_in_sequence(stage: Stage) {
    let owner = stage.claimed_task().await;
    let outcome = ToolOutcome::ok("ok \u{1f980}");
    let bodies = [
        reserved("a", 5, 5),
        call_failed("a", 5, 5),
        JournalBody::Intended { call: helix_protocol::CallKey("t".to_owned()), tool: "post".to_owned() },
        JournalBody::Resulted { call: helix_protocol::CallKey("t".to_owned()), outcome },
    ];
    let entries: Vec<_> = bodies.into_iter().zip(1..).map(|(body, sequence)| entry(&owner, sequence, body)).collect();
    for entry in entries.iter().rev() {
        stage.done(journal(entry.clone())).await;
    }
    assert_eq!(stage.store.journal(owner.attempt, 0).await, Ok(entries));
    assert_eq!(stage.store.journal(owner.attempt, 1).await, Ok(Vec::new()));
}

pub(super) async fn a_step_comes_back_as_it_was_committed(stage: Stage) {
    let owner = stage.claimed_task().await;
    let step = step_on(&owner);
    let Applied::Step { step: committed, .. } = stage.done(commit(step.clone())).await else { panic!("no step") };
    assert_eq!(committed.step, step);
    assert_eq!(stage.store.step(step.id).await, Ok(Some(*committed.clone())));
    assert_eq!(stage.store.conversation(step.id).await, Ok(vec![*committed]));
    assert_eq!(stage.store.step(StepId::new()).await, Ok(None));
}

pub(super) async fn a_step_names_the_object_that_holds_what_it_said(stage: Stage) {
    let owner = stage.claimed_task().await;
    let step = NewStep { messages: Vec::new(), long_messages: Some(ObjectId([5; 32])), ..step_on(&owner) };
    let Applied::Step { step: committed, .. } = stage.done(commit(step.clone())).await else { panic!("no step") };
    assert_eq!(committed.step, step);
    assert_eq!(stage.store.step(step.id).await, Ok(Some(*committed.clone())));
    assert_eq!(stage.store.conversation(step.id).await, Ok(vec![*committed]));
}

pub(super) async fn a_lineage_is_the_line_and_nothing_beside_it(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (first, task) = stage.next_step(&owner).await;
    let (second, _) = stage.next_step(&task).await;
    stage.set(owner.id, TaskStatus::Paused).await;
    let task = stage.task_after(rollback(owner.id, first.id)).await;
    stage.set(owner.id, TaskStatus::Pending).await;
    let task = stage.claim(&stage.task(task.id).await).await;
    let (third, _) = stage.next_step(&task).await;
    stage.done(checkpoint_of(owner.id, first.id, "before")).await;
    let line = stage.store.lineage(third.id).await.expect("the store answers");
    let shown: Vec<_> = line.iter().map(|step| (step.id, step.ordinal, step.checkpoints.clone())).collect();
    assert_eq!(shown, [(first.id, 1, vec!["before".to_owned()]), (third.id, 2, Vec::new())]);
    let all: Vec<_> = stage.store.steps(owner.id).await.expect("the store answers").iter().map(|step| step.id).collect();
    assert_eq!(all, [first.id, second.id, third.id]);
    assert_eq!(stage.store.lineage(StepId::new()).await, Ok(Vec::new()));
    let noted = (line[1].skipped.clone(), line[1].torn.clone(), line[1].artifacts.clone());
    assert_eq!(noted, (third.skipped, third.torn, third.artifacts), "a summary says what the step does not carry");
}

pub(super) async fn steps_of_one_number_are_in_the_order_of_their_line(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (first, task) = stage.next_step(&owner).await;
    let failed = NewStep { outcome: StepOutcome::Failed, ..step_on(&task) };
    let Applied::Step { task, .. } = stage.done(commit(failed.clone())).await else { panic!("no step") };
    let again = NewStep { ordinal: failed.ordinal, ..step_on(&task) };
    stage.done(commit(again.clone())).await;
    let expected = [first.id, failed.id, again.id];
    let line = stage.store.lineage(again.id).await.expect("the store answers");
    assert_eq!(line.iter().map(|step| step.id).collect::<Vec<_>>(), expected);
    let conversation = stage.store.conversation(again.id).await.expect("the store answers");
    assert_eq!(conversation.iter().map(|step| step.step.id).collect::<Vec<_>>(), expected);
}

pub(super) async fn a_rollback_moves_the_head_and_fences(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (first, task) = stage.next_step(&owner).await;
    let (_, task) = stage.next_step(&task).await;
    stage.done(journal(entry(&task, 1, reserved("a", 5, 5)))).await;
    let paused = stage.set(task.id, TaskStatus::Paused).await;
    let back = stage.task_after(rollback(task.id, first.id)).await;
    assert_eq!((back.head, back.steps, back.epoch, back.status), (Some(first.id), 1, Epoch(2), TaskStatus::Paused));
    assert_ne!(back.attempt, paused.attempt, "what is made now is another line of steps");
    assert_eq!(back.spent, paused.spent + Money(5));
    assert_eq!(stage.store.journal(task.attempt, 0).await, Ok(Vec::new()));
    assert_eq!(stage.apply(commit(step_on(&task))).await, Err(stale(&back, task.epoch)));
}

pub(super) async fn a_rollback_of_an_active_task_is_refused(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (step, _) = stage.next_step(&owner).await;
    assert_eq!(stage.apply(rollback(owner.id, step.id)).await, Err(wrong_status(owner.id, TaskStatus::Running)));
}

pub(super) async fn a_rollback_elsewhere_is_refused(stage: Stage) {
    let (owner, other) = (stage.claimed_task().await, stage.claimed_task().await);
    stage.next_step(&owner).await;
    let (elsewhere, _) = stage.next_step(&other).await;
    let paused = stage.set(owner.id, TaskStatus::Paused).await;
    for step in [elsewhere.id, StepId::new()] {
        let answer = stage.apply(rollback(owner.id, step)).await;
        assert!(matches!(answer, Err(RecordError::NotFound(_))), "{answer:?}");
    }
    assert_eq!(stage.task(owner.id).await, paused);
}

pub(super) async fn a_repeated_rollback_is_the_same_rollback(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (first, task) = stage.next_step(&owner).await;
    stage.next_step(&task).await;
    stage.set(owner.id, TaskStatus::Paused).await;
    let back = stage.task_after(rollback(owner.id, first.id)).await;
    assert_eq!(stage.task_after(rollback(owner.id, first.id)).await, back);
}

pub(super) async fn a_fork_starts_at_the_forked_step(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (first, task) = stage.next_step(&owner).await;
    stage.next_step(&task).await;
    let fork = stage.create(TaskSpec { fork_of: Some(first.id), ..spec("a fork") }).await;
    assert_eq!((fork.head, fork.steps, fork.status, fork.spent), (Some(first.id), 1, TaskStatus::Pending, Money::ZERO));
}

pub(super) async fn lineage_crosses_into_the_forked_task(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (first, task) = stage.next_step(&owner).await;
    stage.next_step(&task).await;
    let fork = stage.create(TaskSpec { fork_of: Some(first.id), ..spec("a fork") }).await;
    let fork = stage.claim(&fork).await;
    let (own, _) = stage.next_step(&fork).await;
    let line: Vec<_> =
        stage.store.lineage(own.id).await.expect("the store answers").iter().map(|step| (step.task, step.id)).collect();
    assert_eq!(line, [(owner.id, first.id), (fork.id, own.id)]);
    let conversation: Vec<StepRecord> = stage.store.conversation(own.id).await.expect("the store answers");
    assert_eq!(conversation.into_iter().map(|record| record.step).collect::<Vec<_>>(), [first.clone(), own.clone()]);
    // A fork may go back beyond its own first step, and name what it inherited.
    stage.done(checkpoint_of(fork.id, first.id, "where it began")).await;
    stage.set(fork.id, TaskStatus::Paused).await;
    assert_eq!(stage.task_after(rollback(fork.id, first.id)).await.head, Some(first.id));
}

pub(super) async fn a_checkpoint_names_one_step(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (first, task) = stage.next_step(&owner).await;
    let (second, _) = stage.next_step(&task).await;
    for _ in 0..2 {
        assert_eq!(stage.apply(checkpoint_of(owner.id, first.id, "good")).await, Ok(Applied::Done { events: Vec::<Event>::new() }));
    }
    let answer = stage.apply(checkpoint_of(owner.id, second.id, "good")).await;
    assert!(matches!(answer, Err(RecordError::Conflict(_))), "{answer:?}");
    let other = stage.new_task().await;
    let answer = stage.apply(checkpoint_of(other.id, first.id, "good")).await;
    assert!(matches!(answer, Err(RecordError::NotFound(_))), "{answer:?}");
    let named = Checkpoint { task: owner.id, step: first.id, name: "good".to_owned(), created_at: Timestamp(7) };
    assert_eq!(stage.store.checkpoints(owner.id).await, Ok(vec![named]));
}

pub(super) async fn the_greatest_store_sequence_is_acknowledged(stage: Stage) {
    assert_eq!(stage.store.acknowledged_store_sequence().await, Ok(0));
    for sequence in [40, 17] {
        let owner = stage.claimed_task().await;
        let step = helix_protocol::NewStep { store_sequence: sequence, ..step_on(&owner) };
        stage.done(commit(step)).await;
    }
    assert_eq!(stage.store.acknowledged_store_sequence().await, Ok(40));
}

pub(super) async fn all_content_that_is_named_anywhere_is_told(stage: Stage) {
    let id = |byte: u8| ObjectId([byte; 32]);
    assert_eq!(stage.store.named_content().await, Ok(HashSet::new()));
    let base = Base::Snapshot { snapshot: SnapshotId(id(0xb0)), git_commit: None, repository: None };
    let task = TaskId::new();
    stage.done(creation(task, TaskSpec { base, ..spec("a task that names files") })).await;
    let owner = stage.claimed_task().await;
    let mut first = helix_protocol::NewStep { tree: id(0xb1), snapshot: SnapshotId(id(0xb2)), ..step_on(&owner) };
    first.exits[0].output = Some(id(0xb3));
    first.messages.push(Message::text(Role::Assistant, format!("see object {}", id(0xb4))));
    let owner = stage.task_after(commit(first)).await;
    let long = helix_protocol::NewStep {
        long_messages: Some(id(0xb6)),
        messages: Vec::new(),
        tree: id(0xb1),
        snapshot: SnapshotId(id(0xb2)),
        ..step_on(&owner)
    };
    let owner = stage.task_after(commit(long)).await;
    let (last, owner) = stage.next_step(&owner).await;
    let body = JournalBody::Reserved { call: CallKey(id(0xb5).to_string()), money: Money(1), tokens: 1 };
    stage.done(journal(entry(&owner, 1, body))).await;
    let expected = [id(0xb0), id(0xb1), id(0xb2), id(0xb3), id(0xb4), id(0xb5), id(0xb6), last.tree];
    assert_eq!(stage.store.named_content().await, Ok(HashSet::from(expected)));
    // More than is read at once, each named by one row.
    for _ in 0..300 {
        let owner = stage.claimed_task().await;
        stage.next_step(&owner).await;
    }
    assert_eq!(stage.store.named_content().await.map(|named| named.len()), Ok(expected.len() + 300));
}
