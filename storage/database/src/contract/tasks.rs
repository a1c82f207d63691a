//! Claims about making tasks, their states, and what waits for what.

use std::collections::BTreeSet;

use helix_protocol::{
    Base, Budget, Epoch, EventKind, Money, OwnerId, Principal, StepId, TaskId, TaskRecord, TaskSpec, TaskStatus, Timestamp,
};
use uuid::Uuid;

use super::stage::{
    Stage, after, change, commit, creation, creation_under, on_files_of, spec, stale, status, step_on, told, wrong_status,
};
use crate::{Applied, RecordError, StatusChange, TaskFilter, Then, Write};

pub(super) async fn a_new_task_is_pending_and_told(stage: Stage) {
    let id = TaskId::new();
    let Applied::Task { task, events } = stage.done(creation(id, spec("fix the tests"))).await else { panic!("no task") };
    assert_eq!(
        (task.id, task.status, task.epoch, task.head, task.steps, task.version, task.owner),
        (id, TaskStatus::Pending, Epoch(0), None, 0, 1, OwnerId::LOCAL)
    );
    assert_eq!(task.spec, spec("fix the tests"));
    let told: Vec<_> = events.iter().map(|event| (event.event.kind, event.event.task, event.task_sequence)).collect();
    assert_eq!(told, [(EventKind::TaskCreated, Some(id), 1)]);
    assert_eq!(stage.store.task(id).await, Ok(Some(*task)));
    assert_eq!(stage.store.task(TaskId::new()).await, Ok(None));
}

pub(super) async fn a_task_that_is_made_parked_was_never_anything_else_and_takes_a_step(stage: Stage) {
    let open = stage.new_task().await;
    let Write::CreateTask { id, attempt, spec, principal, project, idempotency_key, .. } =
        creation(TaskId::new(), after(&[open.id]))
    else {
        unreachable!("it is one")
    };
    let paused = Some("keeps the files of another".to_owned());
    let made = Write::CreateTask { id, attempt, spec, principal, project, idempotency_key, paused };
    let Applied::Task { task, events } = stage.done(made.clone()).await else { panic!("no task") };
    assert_eq!((task.status, task.reason.as_str()), (TaskStatus::Paused, "keeps the files of another"));
    let told: Vec<_> = events.iter().map(|event| (event.event.kind, event.task_sequence)).collect();
    assert_eq!(told, [(EventKind::TaskCreated, 1), (EventKind::TaskPaused, 2)]);
    assert_eq!(stage.task_after(made).await, *task);
    let pause = StatusChange { from: TaskStatus::ALL.to_vec(), reason: task.reason.clone(), ..change(task.id, TaskStatus::Paused) };
    let step = Write::Commit { step: Box::new(step_on(&task)), then: Some(Box::new(Then::Status(pause))), events: Vec::new() };
    let kept = stage.task_after(step).await;
    assert_eq!((kept.status, kept.steps, kept.epoch), (TaskStatus::Paused, 1, task.epoch));
    assert_eq!(stage.task_after(goes_on(&kept, TaskStatus::Paused)).await.status, TaskStatus::WaitingForDependencies);
}

pub(super) async fn a_repeated_creation_is_the_same_creation(stage: Stage) {
    let id = TaskId::new();
    let made = stage.task_after(creation(id, spec("a"))).await;
    assert_eq!(stage.apply(creation(id, spec("a"))).await, Ok(Applied::Task { task: Box::new(made), events: Vec::new() }));
    let answer = stage.apply(creation(id, spec("b"))).await;
    assert!(matches!(answer, Err(RecordError::Conflict(_))), "{answer:?}");
}

fn keyed(spec: TaskSpec) -> Write {
    creation_under(TaskId::new(), spec, Some("monday"), Principal::local("cli"))
}

pub(super) async fn an_idempotency_key_answers_the_task_made_before(stage: Stage) {
    let made = stage.task_after(keyed(spec("a"))).await;
    assert_eq!(stage.task_after(keyed(spec("a"))).await, made);
    assert_eq!(stage.store.tasks(TaskFilter::default()).await, Ok(vec![made]));
}

pub(super) async fn an_idempotency_key_with_another_request_is_refused(stage: Stage) {
    let made = stage.task_after(keyed(spec("a"))).await;
    assert_eq!(stage.apply(keyed(spec("b"))).await, Err(RecordError::IdempotencyConflict("monday".to_owned())));
    assert_eq!(stage.store.tasks(TaskFilter::default()).await, Ok(vec![made]));
}

pub(super) async fn the_same_key_of_another_owner_is_another_key(stage: Stage) {
    let made = stage.task_after(keyed(spec("a"))).await;
    let other = Principal { owner: OwnerId(Uuid::from_u128(2)), actor: "api".to_owned() };
    let theirs = stage.task_after(creation_under(TaskId::new(), spec("b"), Some("monday"), other.clone())).await;
    assert_ne!(theirs.id, made.id);
    assert_eq!(theirs.owner, other.owner);
}

pub(super) async fn a_dependency_that_does_not_exist_is_refused(stage: Stage) {
    for request in [after(&[TaskId::new()]), on_files_of(TaskId::new())] {
        let answer = stage.apply(creation(TaskId::new(), request)).await;
        assert!(matches!(answer, Err(RecordError::NotFound(_))), "{answer:?}");
    }
    assert_eq!(stage.store.tasks(TaskFilter::default()).await, Ok(Vec::new()));
}

pub(super) async fn a_dependency_that_failed_is_refused(stage: Stage) {
    let failed = stage.new_task().await;
    stage.set(failed.id, TaskStatus::Failed).await;
    let answer = stage.apply(creation(TaskId::new(), after(&[failed.id]))).await;
    assert_eq!(answer, Err(ended(&failed, TaskStatus::Failed)));
}

fn ended(needs: &TaskRecord, status: TaskStatus) -> RecordError {
    RecordError::DependencyEnded { needs: needs.id, status }
}

pub(super) async fn a_forked_step_that_does_not_exist_is_refused(stage: Stage) {
    let request = TaskSpec { fork_of: Some(StepId::new()), ..spec("a fork") };
    let answer = stage.apply(creation(TaskId::new(), request)).await;
    assert!(matches!(answer, Err(RecordError::NotFound(_))), "{answer:?}");
}

pub(super) async fn completing_a_task_frees_those_that_waited(stage: Stage) {
    let first = stage.new_task().await;
    let second = stage.create(after(&[first.id])).await;
    assert_eq!(second.status, TaskStatus::WaitingForDependencies);
    let Applied::Task { events, .. } = stage.done(status(change(first.id, TaskStatus::Completed))).await else { panic!("no task") };
    assert_eq!(events.iter().map(|event| event.event.task).collect::<Vec<_>>(), [Some(second.id)]);
    assert_eq!(stage.task(second.id).await.status, TaskStatus::Pending);
    assert_eq!(stage.create(after(&[first.id])).await.status, TaskStatus::Pending);
}

pub(super) async fn completing_a_task_frees_one_that_was_made_in_the_same_group(stage: Stage) {
    let (owner, waiting) = (stage.claimed_task().await, TaskId::new());
    let completed = status(change(owner.id, TaskStatus::Completed));
    let answers = stage.store.apply(vec![creation(waiting, after(&[owner.id])), completed]).await.expect("the store answers");
    let Ok(Applied::Task { task, .. }) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!(task.status, TaskStatus::WaitingForDependencies);
    assert_eq!(stage.task(waiting).await.status, TaskStatus::Pending);
}

pub(super) async fn a_task_waits_for_all_its_dependencies(stage: Stage) {
    let (first, second) = (stage.new_task().await, stage.new_task().await);
    let third = stage.create(after(&[first.id, second.id, first.id])).await;
    stage.set(first.id, TaskStatus::Completed).await;
    assert_eq!(stage.task(third.id).await.status, TaskStatus::WaitingForDependencies);
    assert_eq!(stage.store.dependents(second.id).await, Ok(vec![third.clone()]));
    stage.set(second.id, TaskStatus::Completed).await;
    assert_eq!(stage.task(third.id).await.status, TaskStatus::Pending);
}

pub(super) async fn starting_from_the_files_of_a_task_waits_for_it(stage: Stage) {
    let first = stage.new_task().await;
    let second = stage.create(on_files_of(first.id)).await;
    assert_eq!(second.status, TaskStatus::WaitingForDependencies);
    assert_eq!(stage.store.dependents(first.id).await, Ok(vec![second.clone()]));
    stage.set(first.id, TaskStatus::Completed).await;
    assert_eq!(stage.task(second.id).await.status, TaskStatus::Pending);
}

pub(super) async fn failing_a_task_fails_those_that_waited(stage: Stage) {
    let first = stage.new_task().await;
    let second = stage.create(after(&[first.id])).await;
    stage.set(first.id, TaskStatus::Failed).await;
    let failed = stage.task(second.id).await;
    assert_eq!(failed.status, TaskStatus::Failed);
    assert!(failed.reason.contains(&first.id.to_string()), "{}", failed.reason);
    let (first, second) = (first.id.short(), second.id.short());
    let hint = format!("`helix task retry {first}` tries that one again, then `helix task retry {second}` this one");
    assert_eq!(failed.hint, hint);
    assert!(failed.finished_at.is_some());
}

fn goes_on(task: &TaskRecord, from: TaskStatus) -> Write {
    let change = StatusChange { from: vec![from], ..change(task.id, TaskStatus::Pending) };
    Write::Status { change: Box::new(change), events: vec![told(EventKind::TaskResumed, task.id)] }
}

pub(super) async fn a_parked_task_goes_on_once_its_dependencies_have_completed(stage: Stage) {
    let (first, second) = (stage.new_task().await, stage.new_task().await);
    let third = stage.create(TaskSpec { base: Base::Task { task: second.id }, ..after(&[first.id]) }).await;
    stage.set(third.id, TaskStatus::Paused).await;
    stage.set(first.id, TaskStatus::Completed).await;
    let waiting = stage.task_after(goes_on(&third, TaskStatus::Paused)).await;
    assert_eq!(waiting.status, TaskStatus::WaitingForDependencies, "the second has not completed");
    let repeated = Applied::Task { task: Box::new(waiting), events: Vec::new() };
    assert_eq!(stage.apply(goes_on(&third, TaskStatus::Paused)).await, Ok(repeated));
    stage.set(second.id, TaskStatus::Completed).await;
    assert_eq!(stage.task(third.id).await.status, TaskStatus::Pending);
    stage.set(third.id, TaskStatus::Paused).await;
    assert_eq!(stage.task_after(goes_on(&third, TaskStatus::Paused)).await.status, TaskStatus::Pending);
}

pub(super) async fn a_task_is_tried_again_once_those_it_needs_are(stage: Stage) {
    let first = stage.new_task().await;
    let second = stage.create(after(&[first.id])).await;
    let third = stage.create(on_files_of(second.id)).await;
    let parked = stage.create(after(&[first.id])).await;
    stage.set(parked.id, TaskStatus::Paused).await;
    stage.set(first.id, TaskStatus::Failed).await;
    let refused = Err(ended(&first, TaskStatus::Failed));
    assert_eq!(stage.apply(goes_on(&second, TaskStatus::Failed)).await, refused);
    assert_eq!(stage.apply(goes_on(&third, TaskStatus::Failed)).await, Err(ended(&second, TaskStatus::Failed)));
    assert_eq!(stage.apply(goes_on(&parked, TaskStatus::Paused)).await, refused);
    assert_eq!(stage.task_after(goes_on(&first, TaskStatus::Failed)).await.status, TaskStatus::Pending);
    for task in [&second, &third] {
        let waiting = stage.task_after(goes_on(task, TaskStatus::Failed)).await;
        assert_eq!((waiting.status, waiting.finished_at), (TaskStatus::WaitingForDependencies, None));
    }
    stage.set(first.id, TaskStatus::Completed).await;
    let states = [stage.task(second.id).await.status, stage.task(third.id).await.status];
    assert_eq!(states, [TaskStatus::Pending, TaskStatus::WaitingForDependencies]);
}

pub(super) async fn cancelling_a_task_fails_a_whole_chain(stage: Stage) {
    let first = stage.new_task().await;
    let second = stage.create(after(&[first.id])).await;
    let third = stage.create(after(&[second.id])).await;
    let fourth = stage.create(after(&[first.id, third.id])).await;
    let Applied::Task { task, events } = stage.done(status(change(first.id, TaskStatus::Cancelled))).await else {
        panic!("no task")
    };
    assert_eq!(task.status, TaskStatus::Cancelled);
    let told: BTreeSet<_> = events.iter().map(|event| (event.event.kind, event.event.task)).collect();
    let expected = [second.id, third.id, fourth.id].map(|id| (EventKind::TaskFailed, Some(id)));
    assert_eq!((events.len(), told), (3, BTreeSet::from(expected)));
    for task in [second, third, fourth] {
        assert_eq!(stage.task(task.id).await.status, TaskStatus::Failed);
    }
}

pub(super) async fn a_final_state_is_left_only_where_it_is_named(stage: Stage) {
    let task = stage.new_task().await;
    let failed = stage.set(task.id, TaskStatus::Failed).await;
    assert!(failed.finished_at.is_some());
    let retry = change(task.id, TaskStatus::Pending);
    assert_eq!(stage.apply(status(retry.clone())).await, Err(wrong_status(task.id, TaskStatus::Failed)));
    let pending = stage.task_after(status(StatusChange { from: vec![TaskStatus::Failed], ..retry })).await;
    assert_eq!((pending.status, pending.finished_at), (TaskStatus::Pending, None));
}

pub(super) async fn a_state_that_is_not_active_lets_the_worker_go(stage: Stage) {
    let owner = stage.claimed_task().await;
    let running = stage.set(owner.id, TaskStatus::Running).await;
    assert_eq!((running.node, running.worker), (Some(stage.node), Some(stage.worker)));
    let paused = stage.set(owner.id, TaskStatus::Paused).await;
    assert_eq!((paused.node, paused.worker, paused.epoch), (None, None, owner.epoch));
}

pub(super) async fn a_fencing_change_makes_the_owner_stale(stage: Stage) {
    let owner = stage.claimed_task().await;
    let lost = StatusChange { fence: true, ..change(owner.id, TaskStatus::WaitingForWorker) };
    let fenced = stage.task_after(status(lost)).await;
    assert_eq!(fenced.epoch, owner.epoch.next());
    assert_eq!(stage.apply(commit(step_on(&owner))).await, Err(stale(&fenced, owner.epoch)));
}

pub(super) async fn a_repeated_change_of_state_is_the_same_change(stage: Stage) {
    let owner = stage.claimed_task().await;
    let wanted = StatusChange {
        epoch: Some(owner.epoch),
        fence: true,
        reason: "it failed".to_owned(),
        hint: "mend it".to_owned(),
        retries: Some(2),
        not_before: Some(Some(Timestamp(99))),
        ..change(owner.id, TaskStatus::Pending)
    };
    let write = Write::Status { change: Box::new(wanted), events: vec![told(EventKind::StepFailed, owner.id)] };
    let changed = stage.task_after(write.clone()).await;
    assert_eq!((changed.retries, changed.not_before, changed.epoch), (2, Some(Timestamp(99)), owner.epoch.next()));
    assert_eq!((changed.reason.as_str(), changed.hint.as_str()), ("it failed", "mend it"));
    assert_eq!(stage.apply(write).await, Ok(Applied::Task { task: Box::new(changed), events: Vec::new() }));

    let cancel = status(StatusChange { fence: true, ..change(owner.id, TaskStatus::Cancelled) });
    let cancelled = stage.task_after(cancel.clone()).await;
    assert_eq!(stage.task_after(cancel).await, cancelled);
}

pub(super) async fn a_change_of_budget_is_kept_and_the_request_is_not_forgotten(stage: Stage) {
    let id = TaskId::new();
    let asked = TaskSpec { budget: Budget { money: Some(Money(5)), tokens: Some(9) }, ..spec("a") };
    let made = stage.task_after(creation(id, asked.clone())).await;
    let raised = Budget { money: Some(Money(50)), tokens: None };
    let task = stage.task_after(status(StatusChange { budget: Some(raised), ..change(id, TaskStatus::Paused) })).await;
    assert_eq!((made.spec.budget, task.spec.budget), (asked.budget, raised));
    assert_eq!(stage.task(id).await, task);
    assert_eq!(stage.task_after(creation(id, asked)).await, task);
}

pub(super) async fn tasks_are_listed_newest_first_by_state(stage: Stage) {
    let mut made = Vec::new();
    for title in ["a", "b", "c", "d"] {
        made.push(stage.create(spec(title)).await);
    }
    made[1] = stage.set(made[1].id, TaskStatus::Completed).await;
    made[2] = stage.set(made[2].id, TaskStatus::Paused).await;
    made.sort_by_key(|task: &TaskRecord| std::cmp::Reverse((task.created_at, task.id)));
    assert_eq!(stage.store.tasks(TaskFilter::default()).await, Ok(made.clone()));
    let limited = TaskFilter { limit: Some(2), ..TaskFilter::default() };
    assert_eq!(stage.store.tasks(limited).await, Ok(made[..2].to_vec()));
    let open = TaskFilter { status: vec![TaskStatus::Pending, TaskStatus::Paused], limit: None };
    let expected: Vec<_> = made.into_iter().filter(|task| task.status != TaskStatus::Completed).collect();
    assert_eq!(stage.store.tasks(open).await, Ok(expected));
}

pub(super) async fn tasks_are_found_by_the_first_or_last_digits_of_their_ids(stage: Stage) {
    let ids =
        [0x0190_aaaa_0000_7000_8000_0000_0000_beef, 0x0190_aaab_0000_7000_8000_1111_0000_beef, 0xbeef_0000_7000_8000_2222_0001];
    let ids = ids.map(|id| TaskId(Uuid::from_u128(id)));
    for id in ids {
        stage.done(creation(id, spec("a"))).await;
    }
    let found = [
        ("12ab", vec![]),
        ("beef", vec![ids[1], ids[0]]),
        ("11110000beef", vec![ids[1]]),
        ("0190aaab0000", vec![ids[1]]),
        ("0000beef0000", vec![]),
        ("00000000beef0000", vec![ids[2]]),
    ];
    for (digits, tasks) in found {
        assert_eq!(stage.store.tasks_like(digits).await, Ok(tasks), "{digits}");
    }
}
