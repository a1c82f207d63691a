//! Claims about the gateway's keys and the ledger.

use helix_protocol::{
    Budget, CallOutcome, ExternalSpec, GatewayKey, KeyId, ModelCall, ModelCallId, Money, OwnerId, ProjectId, Spent, TaskId,
    TaskSpec, TaskWork, Timestamp, Usage,
};

use super::stage::Stage;
use crate::{LedgerFilter, RecordError, Write};

fn key(name: &str) -> GatewayKey {
    GatewayKey {
        id: KeyId::new(),
        name: name.to_owned(),
        hash: format!("hash of {name}"),
        owner: OwnerId::LOCAL,
        project: ProjectId::DEFAULT,
        task: None,
        models: vec!["coder".to_owned()],
        budget: Budget { money: Some(Money(5)), tokens: None },
        daily: Budget::default(),
        requests_per_minute: Some(60),
        created_at: Timestamp(3),
        expires_at: Some(Timestamp(99)),
        revoked_at: None,
    }
}

fn call(at: i64, task: Option<TaskId>, key: Option<KeyId>) -> ModelCall {
    let usage = Usage { input_tokens: 10, cached_tokens: 4, output_tokens: 5, cost: Money(7), ..Usage::default() };
    ModelCall {
        id: ModelCallId::new(),
        at: Timestamp(at),
        owner: OwnerId::LOCAL,
        actor: "somebody".to_owned(),
        task,
        step: task.map(|_| 2),
        key,
        provider: "a".to_owned(),
        model: "m".to_owned(),
        usage,
        latency_ms: 12,
        outcome: CallOutcome::Answered,
        code: None,
    }
}

pub(super) async fn a_key_is_kept_as_it_was_made_and_revoked_once(stage: Stage) {
    let (first, second) = (key("first"), key("second"));
    for made in [&first, &first, &second] {
        stage.done(Write::CreateKey(Box::new(made.clone()))).await;
    }
    assert_eq!(stage.store.gateway_keys().await, Ok(vec![first.clone(), second.clone()]));
    let other = GatewayKey { name: "other".to_owned(), ..first.clone() };
    let refused = stage.apply(Write::CreateKey(Box::new(other))).await;
    assert!(matches!(refused, Err(RecordError::Conflict(_))), "{refused:?}");
    stage.done(Write::RevokeKey(first.id)).await;
    let revoked = stage.store.gateway_keys().await.expect("the store answers");
    assert!(revoked[0].revoked_at.is_some());
    assert_eq!(revoked, [GatewayKey { revoked_at: revoked[0].revoked_at, ..first.clone() }, second]);
    stage.done(Write::RevokeKey(first.id)).await;
    assert_eq!(stage.store.gateway_keys().await, Ok(revoked));
    let refused = stage.apply(Write::RevokeKey(KeyId::new())).await;
    assert!(matches!(refused, Err(RecordError::NotFound(_))), "{refused:?}");
}

pub(super) async fn the_ledger_is_read_newest_first_and_a_call_counts_once(stage: Stage) {
    let (task, key) = (TaskId::new(), KeyId::new());
    let calls = [call(1, Some(task), None), call(2, None, Some(key)), call(3, Some(task), Some(key))];
    stage.done(Write::ModelCalls(calls[..2].to_vec())).await;
    stage.done(Write::ModelCalls(calls[1..].to_vec())).await;
    let all = LedgerFilter { limit: 10, ..LedgerFilter::default() };
    let newest: Vec<ModelCall> = calls.iter().rev().cloned().collect();
    assert_eq!(stage.store.ledger(all).await, Ok(newest.clone()));
    assert_eq!(stage.store.ledger(LedgerFilter { limit: 1, ..all }).await, Ok(newest[..1].to_vec()));
    assert_eq!(stage.store.ledger(LedgerFilter { task: Some(task), ..all }).await, Ok(vec![calls[2].clone(), calls[0].clone()]));
    assert_eq!(stage.store.ledger(LedgerFilter { since: Timestamp(3), ..all }).await, Ok(vec![calls[2].clone()]));
    let spent = |times: u64| Spent { money: Money(7 * times as i64), tokens: 15 * times };
    assert_eq!(stage.store.ledger_spent(all).await, Ok(spent(3)));
    assert_eq!(stage.store.ledger_spent(LedgerFilter { key: Some(key), ..all }).await, Ok(spent(2)));
    assert_eq!(stage.store.ledger_spent(LedgerFilter { key: Some(key), since: Timestamp(3), ..all }).await, Ok(spent(1)));
    assert_eq!(stage.store.ledger_spent(LedgerFilter { key: Some(KeyId::new()), ..all }).await, Ok(Spent::default()));
}

pub(super) async fn what_the_gateway_spent_counts_against_the_owners_day(stage: Stage) {
    let calls = vec![call(1, None, Some(KeyId::new())), call(5, None, Some(KeyId::new())), call(5, Some(TaskId::new()), None)];
    stage.done(Write::ModelCalls(calls)).await;
    assert_eq!(stage.store.spent_since(OwnerId::LOCAL, Timestamp(2)).await, Ok((Money(7), 15)));
    assert_eq!(stage.store.spent_since(OwnerId::LOCAL, Timestamp(0)).await, Ok((Money(14), 30)));
    let own = stage.new_task().await;
    let external = TaskSpec::new("external", TaskWork::External(ExternalSpec::new("codex", "mend it")));
    let external = stage.create(external).await;
    let keyed = [own.id, external.id].map(|task| call(5, Some(task), Some(KeyId::new()))).to_vec();
    stage.done(Write::ModelCalls(keyed)).await;
    // What an external agent's turn spent is in its step, and is not counted twice.
    assert_eq!(stage.store.spent_since(OwnerId::LOCAL, Timestamp(0)).await, Ok((Money(21), 45)));
}
