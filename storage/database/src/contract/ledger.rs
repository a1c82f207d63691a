//! Claims about the gateway's keys and the ledger.

use helix_protocol::{
    Budget, CallKey, CallOutcome, ExternalSpec, GatewayKey, JournalBody, KeyId, ModelCall, ModelCallId, Money, OwnerId, Payer,
    ProjectId, Spend, Spent, TaskId, TaskSpec, TaskWork, Timestamp, Usage,
};

use super::stage::{Stage, entry, journal};
use crate::{LedgerFilter, RecordError, Write};

fn key(name: &str) -> GatewayKey {
    GatewayKey {
        id: KeyId::new(),
        name: name.to_owned(),
        hash: format!("hash of {name}"),
        owner: OwnerId::LOCAL,
        project: ProjectId::DEFAULT,
        task: Some(TaskId::new()),
        step: Some(2),
        models: vec!["coder".to_owned()],
        budget: Budget { money: Some(Money(5)), tokens: None },
        daily: Budget::default(),
        requests_per_minute: Some(60),
        created_at: Timestamp(3),
        expires_at: Some(Timestamp(99)),
        revoked_at: None,
    }
}

pub(super) fn call(at: i64, task: Option<TaskId>, key: Option<KeyId>) -> ModelCall {
    let usage = Usage { input_tokens: 10, cached_tokens: 4, output_tokens: 5, cost: Money(7), ..Usage::default() };
    ModelCall {
        id: ModelCallId::new(),
        at: Timestamp(at),
        owner: OwnerId::LOCAL,
        project: ProjectId::DEFAULT,
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

pub(super) async fn a_removed_key_is_gone_and_the_ledger_keeps_what_it_spent(stage: Stage) {
    let (gone, stays) = (key("gone"), key("stays"));
    for made in [&gone, &stays] {
        stage.done(Write::CreateKey(Box::new(made.clone()))).await;
    }
    let spent = call(1, None, Some(gone.id));
    stage.done(Write::ModelCalls(vec![spent.clone()])).await;
    for _ in 0..2 {
        stage.done(Write::RemoveKey(gone.id)).await;
        assert_eq!(stage.store.gateway_keys().await, Ok(vec![stays.clone()]));
    }
    let of_it = LedgerFilter { key: Some(gone.id), limit: 10, ..LedgerFilter::default() };
    assert_eq!(stage.store.ledger(of_it).await, Ok(vec![spent]));
    assert_eq!(stage.store.spent_since(Payer::Owner(OwnerId::LOCAL), Timestamp(0)).await, Ok((Money(7), 15)));
}

pub(super) async fn what_is_known_of_a_call_takes_the_place_of_what_was_feared_and_stays(stage: Stage) {
    let ended = call(5, None, Some(KeyId::new()));
    let most = Usage { input_tokens: 900, cost: Money(800), estimated: true, ..Usage::default() };
    let feared = ModelCall { at: Timestamp(2), usage: most, outcome: CallOutcome::Uncertain, ..ended.clone() };
    let spent = async || stage.store.spent_since(Payer::Owner(OwnerId::LOCAL), Timestamp(0)).await;
    stage.done(Write::ModelCalls(vec![feared.clone()])).await;
    assert_eq!(spent().await, Ok((Money(800), 900)), "should the node die now, it stays charged");
    stage.done(Write::ModelCalls(vec![ended.clone()])).await;
    assert_eq!(spent().await, Ok((Money(7), 15)));
    stage.done(Write::ModelCalls(vec![feared, ended.clone()])).await;
    assert_eq!(spent().await, Ok((Money(7), 15)));
    let all = LedgerFilter { limit: 10, ..LedgerFilter::default() };
    assert_eq!(stage.store.ledger(all).await, Ok(vec![ended]));
}

pub(super) async fn every_call_counts_once_against_its_owner_and_its_project(stage: Stage) {
    let project = ProjectId(uuid::Uuid::from_u128(7));
    let spent = async |payer, since| stage.store.spent_since(payer, Timestamp(since)).await;
    let owner = Payer::Owner(OwnerId::LOCAL);
    let of_step = call(5, Some(TaskId::new()), None);
    let of_nobody = ModelCall { project, ..call(5, None, None) };
    let keyed = [1, 5].map(|at| call(at, None, Some(KeyId::new())));
    stage.done(Write::ModelCalls([keyed.to_vec(), vec![of_step, of_nobody]].concat())).await;
    assert_eq!(spent(owner, 2).await, Ok((Money(14), 30)), "what a step asked is in the step");
    assert_eq!(spent(owner, 0).await, Ok((Money(21), 45)));
    assert_eq!(spent(Payer::Project(project), 0).await, Ok((Money(7), 15)));
    assert_eq!(spent(Payer::Project(ProjectId::DEFAULT), 0).await, Ok((Money(14), 30)));
    assert_eq!(spent(Payer::Owner(OwnerId(uuid::Uuid::from_u128(9))), 0).await, Ok((Money::ZERO, 0)));
}

pub(super) async fn what_an_external_agent_spends_counts_as_it_is_spent_and_not_again_with_its_step(stage: Stage) {
    let spent = async || stage.store.spent_since(Payer::Project(ProjectId::DEFAULT), Timestamp(0)).await;
    let external = TaskSpec::new("external", TaskWork::External(ExternalSpec::new("codex", "mend it")));
    let external = stage.create(external).await;
    stage.done(Write::ModelCalls(vec![call(1, Some(external.id), Some(KeyId::new()))])).await;
    assert_eq!(spent().await, Ok((Money(7), 15)));
    let claimed = stage.claim(&external).await;
    let charged = Spend { model_calls: 1, tokens: 15, money: Money(7), uncertain_calls: 0 };
    let body = JournalBody::Charged { call: CallKey("turn".to_owned()), spend: charged };
    stage.done(journal(entry(&claimed, 1, body))).await;
    assert_eq!(spent().await, Ok((Money(7), 15)));
    let (_, task) = stage.next_step(&claimed).await;
    assert_ne!(task.spent, Money::ZERO, "the task was charged");
    assert_eq!(spent().await, Ok((Money(7), 15)));
    let own = stage.new_task().await;
    stage.done(Write::ModelCalls(vec![call(2, Some(own.id), Some(KeyId::new()))])).await;
    assert_eq!(spent().await, Ok((Money(14), 30)), "a key that somebody made for a task is no step of it");
}
