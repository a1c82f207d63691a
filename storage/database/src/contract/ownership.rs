//! Claims about who may write.

use std::sync::Arc;

use helix_protocol::{Epoch, EventKind, NewEvent, NewStep, Question, Subject, TaskStatus, Timestamp};

use super::stage::{Stage, after, change, commit, creation, entry, journal, reserved, spec, stale, status, step_on, wrong_status};
use crate::{Applied, EventFilter, RecordError, StatusChange, Write};

pub(super) async fn claiming_raises_the_epoch_and_names_the_holder(stage: Stage) {
    let task = stage.new_task().await;
    let claimed = stage.claim(&task).await;
    assert_eq!(
        (claimed.epoch, claimed.status, claimed.node, claimed.worker, claimed.version),
        (Epoch(1), TaskStatus::Assigned, Some(stage.node), Some(stage.worker), 2)
    );
    assert_eq!(stage.task(task.id).await, claimed);
}

pub(super) async fn a_claim_under_an_old_epoch_is_refused(stage: Stage) {
    let task = stage.new_task().await;
    let first = stage.claim(&task).await;
    let other = Stage::from(Arc::clone(&stage.store));
    assert_eq!(other.apply(other.claim_of(&task)).await, Err(stale(&first, task.epoch)));
    assert_eq!(stage.task(task.id).await, first);
    let second = other.claim(&first).await;
    assert_eq!((second.epoch, second.worker), (Epoch(2), Some(other.worker)));
}

pub(super) async fn a_repeated_claim_is_the_same_claim(stage: Stage) {
    let task = stage.new_task().await;
    let claimed = stage.claim(&task).await;
    assert_eq!(stage.apply(stage.claim_of(&task)).await, Ok(Applied::Task { task: Box::new(claimed), events: Vec::new() }));
}

pub(super) async fn of_concurrent_claims_exactly_one_wins(stage: Stage) {
    let task = stage.new_task().await;
    let claimers: Vec<_> = (0..8)
        .map(|_| {
            let other = Stage::from(Arc::clone(&stage.store));
            let claim = other.claim_of(&task);
            tokio::spawn(async move { other.apply(claim).await })
        })
        .collect();
    let mut won = 0;
    for claimer in claimers {
        match claimer.await.expect("the claimer does not panic") {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, RecordError::StaleOwner { .. }), "{error}"),
        }
    }
    assert_eq!((won, stage.task(task.id).await.epoch), (1, Epoch(1)));
}

pub(super) async fn a_task_that_waits_for_dependencies_cannot_be_claimed(stage: Stage) {
    let first = stage.new_task().await;
    let second = stage.create(after(&[first.id])).await;
    let refused = wrong_status(second.id, TaskStatus::WaitingForDependencies);
    assert_eq!(stage.apply(stage.claim_of(&second)).await, Err(refused));
}

pub(super) async fn a_stale_owner_cannot_commit(stage: Stage) {
    let owner = stage.claimed_task().await;
    let newer = Stage::from(Arc::clone(&stage.store)).claim(&owner).await;
    assert_eq!(stage.apply(commit(step_on(&owner))).await, Err(stale(&newer, owner.epoch)));
    assert_eq!(stage.task(owner.id).await, newer);
    assert_eq!(stage.store.steps(owner.id).await, Ok(Vec::new()));
}

pub(super) async fn a_stale_owner_cannot_change_the_state(stage: Stage) {
    let owner = stage.claimed_task().await;
    let newer = Stage::from(Arc::clone(&stage.store)).claim(&owner).await;
    let late = StatusChange { epoch: Some(owner.epoch), ..change(owner.id, TaskStatus::Failed) };
    assert_eq!(stage.apply(status(late)).await, Err(stale(&newer, owner.epoch)));
    assert_eq!(stage.task(owner.id).await, newer);
}

pub(super) async fn a_stale_owner_cannot_ask(stage: Stage) {
    let owner = stage.claimed_task().await;
    let newer = Stage::from(Arc::clone(&stage.store)).claim(&owner).await;
    let question = Question::new(owner.id, Subject::default(), "go on?", Vec::new(), Timestamp(5));
    let ask = Write::Ask { question: Box::new(question), epoch: owner.epoch, events: Vec::new() };
    assert_eq!(stage.apply(ask).await, Err(stale(&newer, owner.epoch)));
    assert_eq!(stage.store.questions(owner.id).await, Ok(Vec::new()));
}

pub(super) async fn a_journal_entry_under_another_epoch_is_refused(stage: Stage) {
    let owner = stage.claimed_task().await;
    let newer = Stage::from(Arc::clone(&stage.store)).claim(&owner).await;
    let late = entry(&owner, 1, reserved("call", 10, 10));
    assert_eq!(stage.apply(journal(late)).await, Err(stale(&newer, owner.epoch)));
    assert_eq!(stage.store.journal(owner.attempt, 0).await, Ok(Vec::new()));
}

pub(super) async fn one_stale_member_costs_its_neighbours_nothing(stage: Stage) {
    let (first, second, third) = (stage.claimed_task().await, stage.claimed_task().await, stage.claimed_task().await);
    let newer = Stage::from(Arc::clone(&stage.store)).claim(&second).await;
    let steps = [step_on(&first), step_on(&second), step_on(&third)];
    let answers = stage.store.apply(steps.clone().map(commit).into()).await.expect("the store answers");
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert_eq!(answers[1], Err(stale(&newer, second.epoch)));
    let heads = [stage.task(first.id).await.head, stage.task(second.id).await.head, stage.task(third.id).await.head];
    assert_eq!(heads, [Some(steps[0].id), None, Some(steps[2].id)]);
}

pub(super) async fn a_member_refused_after_a_change_costs_its_neighbours_nothing(stage: Stage) {
    let owners = [stage.claimed_task().await, stage.claimed_task().await, stage.claimed_task().await];
    let (known, first) = stage.next_step(&owners[0]).await;
    for owner in &owners {
        stage.done(journal(entry(owner, 9, reserved("a", 5, 5)))).await;
    }
    // The second one's step has the id of one that there is: that is found when its task has been changed already.
    let steps = [step_on(&first), NewStep { id: known.id, ..step_on(&owners[1]) }, step_on(&owners[2])];
    let told = |step: &NewStep| Write::Commit {
        step: Box::new(step.clone()),
        then: None,
        events: vec![NewEvent::info(EventKind::StepCompleted, "node", "told").task(step.task)],
    };
    let answers = stage.store.apply(steps.iter().map(told).collect()).await.expect("the store answers");
    assert!(answers[0].is_ok() && matches!(answers[1], Err(RecordError::Conflict(_))) && answers[2].is_ok(), "{answers:?}");
    let heads = [stage.task(first.id).await.head, stage.task(owners[1].id).await.head, stage.task(owners[2].id).await.head];
    assert_eq!(heads, [Some(steps[0].id), None, Some(steps[2].id)]);
    for (owner, (entries, events)) in owners.iter().zip([(0, 2), (1, 1), (0, 2)]) {
        assert_eq!(stage.store.journal(owner.attempt, 0).await.map(|journal| journal.len()), Ok(entries));
        let filter = EventFilter { after: 0, task: Some(owner.id), limit: 100 };
        let recorded = stage.store.events(filter).await.expect("readable");
        assert_eq!(recorded.last().map(|event| event.task_sequence), Some(events), "{recorded:?}");
    }
}

pub(super) async fn a_group_answers_in_its_order(stage: Stage) {
    let specs = [spec("c"), spec("a"), spec("b")];
    let mut ids: Vec<_> = specs.iter().map(|_| helix_protocol::TaskId::new()).collect();
    ids.reverse();
    let group = ids.iter().zip(specs).map(|(id, spec)| creation(*id, spec)).collect();
    let answers = stage.store.apply(group).await.expect("the store answers");
    let answered: Vec<_> = answers
        .into_iter()
        .map(|answer| match answer {
            Ok(Applied::Task { task, .. }) => (task.id, task.spec.title),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(answered, [(ids[0], "c".to_owned()), (ids[1], "a".to_owned()), (ids[2], "b".to_owned())]);
}
