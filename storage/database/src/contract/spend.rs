//! Claims about what was spent.

use helix_protocol::{
    Block, Budget, CallKey, ExternalSpec, JournalBody, ModelReply, Money, OwnerId, Payer, Principal, Spent, StopReason, TaskId,
    TaskSpec, TaskStatus, TaskWork, Timestamp, Usage,
};
use uuid::Uuid;

use super::ledger::call;
use super::stage::{Stage, call_failed, creation_under, entry, journal, reserved, rollback, spec};
use crate::{Descendant, Write};

const BEGINNING: Timestamp = Timestamp(0);

pub(super) async fn spend_counts_committed_steps_since_an_instant(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (_, task) = stage.next_step(&owner).await;
    stage.next_step(&task).await;
    let other = Principal { owner: OwnerId(Uuid::from_u128(9)), actor: "api".to_owned() };
    let theirs = stage.task_after(creation_under(TaskId::new(), spec("theirs"), None, other.clone())).await;
    stage.next_step(&stage.claim(&theirs).await).await;
    assert_eq!(stage.store.spent_since(Payer::Owner(OwnerId::LOCAL), BEGINNING).await, Ok((Money(6800), 2400)));
    assert_eq!(stage.store.spent_since(Payer::Owner(other.owner), BEGINNING).await, Ok((Money(3400), 1200)));
    let tomorrow = Timestamp::now().after(std::time::Duration::from_secs(86_400));
    assert_eq!(stage.store.spent_since(Payer::Owner(OwnerId::LOCAL), tomorrow).await, Ok((Money::ZERO, 0)));
}

pub(super) async fn spend_includes_reservations_of_unfinished_steps(stage: Stage) {
    let owner = stage.claimed_task().await;
    let usage = Usage { input_tokens: 10, output_tokens: 5, cost: Money(7), ..Usage::default() };
    let reply = ModelReply {
        model: "m".to_owned(),
        blocks: vec![Block::Text { text: "ok".to_owned(), extra: None }],
        stop: StopReason::EndTurn,
        usage,
    };
    let bodies = [
        reserved("answered", 1000, 1000),
        JournalBody::Replied { call: CallKey("answered".to_owned()), reply },
        reserved("failed", 500, 500),
        call_failed("failed", 20, 30),
        reserved("open", 100, 200),
    ];
    for (body, sequence) in bodies.into_iter().zip(1..) {
        stage.done(journal(entry(&owner, sequence, body))).await;
    }
    assert_eq!(stage.store.spent_since(Payer::Owner(OwnerId::LOCAL), BEGINNING).await, Ok((Money(7 + 20 + 100), 15 + 30 + 200)));
    stage.next_step(&owner).await;
    assert_eq!(stage.store.spent_since(Payer::Owner(OwnerId::LOCAL), BEGINNING).await, Ok((Money(3400), 1200)));
}

pub(super) async fn spend_of_a_dropped_journal_is_not_forgotten(stage: Stage) {
    let owner = stage.claimed_task().await;
    let (step, task) = stage.next_step(&owner).await;
    stage.done(journal(entry(&task, 1, call_failed("a", 20, 30)))).await;
    stage.done(journal(entry(&task, 2, reserved("b", 5, 6)))).await;
    let before = stage.store.spent_since(Payer::Owner(OwnerId::LOCAL), BEGINNING).await;
    assert_eq!(before, Ok((Money(3425), 1236)));
    stage.set(task.id, TaskStatus::Paused).await;
    let back = stage.task_after(rollback(task.id, step.id)).await;
    assert_eq!((back.spent, back.tokens), (Money(3425), 1236));
    assert_eq!(stage.store.spent_since(Payer::Owner(OwnerId::LOCAL), BEGINNING).await, before);
}

pub(super) async fn what_is_below_a_task_is_read_with_what_each_spent(stage: Stage) {
    let parent = stage.new_task().await;
    let budget = Budget { money: Some(Money(500)), tokens: None };
    let own = |parent: TaskId| TaskSpec { parent: Some(parent), budget, ..spec("a task's own") };
    let steps = stage.claim(&stage.create(own(parent.id)).await).await;
    let (_, steps) = stage.next_step(&steps).await;
    for (body, sequence) in [reserved("a", 100, 50), call_failed("a", 20, 30), reserved("b", 5, 6)].into_iter().zip(1..) {
        stage.done(journal(entry(&steps, sequence, body))).await;
    }
    stage.set(steps.id, TaskStatus::Cancelled).await;
    let external = TaskWork::External(ExternalSpec::new("codex", "mend it"));
    let external = stage.create(TaskSpec { work: external, budget: Budget::default(), ..own(steps.id) }).await;
    let used = [Some(external.id), Some(steps.id), None].map(|task| call(3, task, None));
    stage.done(Write::ModelCalls(used.to_vec())).await;
    stage.create(spec("nobody's")).await;
    let mut below = [
        Descendant {
            id: steps.id,
            parent: parent.id,
            status: TaskStatus::Cancelled,
            budget,
            spent: Spent { money: Money(3400 + 20 + 5), tokens: 1200 + 30 + 6 },
        },
        Descendant {
            id: external.id,
            parent: steps.id,
            status: TaskStatus::Pending,
            budget: Budget::default(),
            spent: Spent { money: Money(7), tokens: 15 },
        },
    ];
    let of_steps = below[1];
    below.sort_by_key(|below| below.id);
    assert_eq!(stage.store.descendants(parent.id).await, Ok(below.to_vec()));
    assert_eq!(stage.store.descendants(steps.id).await, Ok(vec![of_steps]));
    assert_eq!(stage.store.descendants(external.id).await, Ok(Vec::new()));
}
