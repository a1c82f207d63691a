//! Claims about workers, nodes, and which records these are.

use helix_protocol::{
    Capability, EventKind, Lifecycle, NewEvent, RecordsId, Resources, Sandboxing, Timestamp, Toolchain, WorkerFacts, WorkerHealth,
    WorkerId, WorkerRecord, WorkerStatus, WorkerTarget,
};

use super::stage::Stage;
use crate::{Applied, RecordError, Write};

pub(super) fn worker(name: &str) -> WorkerRecord {
    WorkerRecord {
        id: WorkerId::new(),
        name: name.to_owned(),
        target: WorkerTarget::Ssh { destination: "build-1".to_owned() },
        slots: 4,
        lifecycle: Lifecycle::Open,
        status: WorkerStatus::Inactive,
        health: WorkerHealth::Unknown,
        facts: None,
        reason: String::new(),
        created_at: Timestamp(3),
        last_seen_at: None,
        version: 0,
    }
}

fn facts() -> WorkerFacts {
    WorkerFacts {
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        hostname: "build-1".to_owned(),
        capabilities: vec![Capability("git".to_owned())],
        toolchains: vec![Toolchain { name: "cargo".to_owned(), version: "cargo 1.95.0".to_owned() }],
        resources: Resources { cores: 8, load: 0.5, ..Resources::default() },
        sandbox: Sandboxing { landlock: 3, seccomp: true, namespaces: false, lacks: vec!["no namespaces".to_owned()] },
    }
}

fn put(worker: &WorkerRecord) -> Write {
    let connected = NewEvent::info(EventKind::WorkerConnected, "node", "connected").worker(worker.id);
    Write::Worker { worker: Box::new(worker.clone()), events: vec![connected] }
}

pub(super) async fn a_worker_is_recorded_changed_and_forgotten(stage: Stage) {
    let (first, second) = (worker("b"), worker("a"));
    stage.done(put(&first)).await;
    stage.done(put(&second)).await;
    let seen =
        WorkerRecord { facts: Some(facts()), last_seen_at: Some(Timestamp(8)), status: WorkerStatus::Active, version: 1, ..first };
    stage.done(put(&seen)).await;
    let expected = vec![WorkerRecord { version: 1, ..second.clone() }, WorkerRecord { version: 2, ..seen.clone() }];
    assert_eq!(stage.store.workers().await, Ok(expected));
    for _ in 0..2 {
        stage.done(Write::RemoveWorker { worker: second.id, events: Vec::new() }).await;
    }
    assert_eq!(stage.store.workers().await, Ok(vec![WorkerRecord { version: 2, ..seen }]));
}

pub(super) async fn a_repeated_worker_write_is_the_same_write(stage: Stage) {
    let first = worker("a");
    assert_eq!(stage.done(put(&first)).await.events().len(), 1);
    assert_eq!(stage.done(put(&first)).await, Applied::Done { events: Vec::new() });
    // Whoever has seen the row and writes it as it is means it.
    let seen = WorkerRecord { version: 1, ..first };
    assert_eq!(stage.done(put(&seen)).await.events().len(), 1);
    assert_eq!(stage.store.workers().await, Ok(vec![WorkerRecord { version: 2, ..seen }]));
}

pub(super) async fn two_workers_cannot_have_one_name(stage: Stage) {
    let first = worker("a");
    stage.done(put(&first)).await;
    let answer = stage.apply(put(&worker("a"))).await;
    assert!(matches!(answer, Err(RecordError::Conflict(_))), "{answer:?}");
    assert_eq!(stage.store.workers().await, Ok(vec![WorkerRecord { version: 1, ..first }]));
}

pub(super) async fn a_lifecycle_is_changed_once(stage: Stage) {
    let first = worker("a");
    stage.done(put(&first)).await;
    let cordon = Write::WorkerLifecycle { worker: first.id, lifecycle: Lifecycle::Cordoned, events: Vec::new() };
    for _ in 0..2 {
        stage.done(cordon.clone()).await;
    }
    assert_eq!(stage.store.workers().await, Ok(vec![WorkerRecord { lifecycle: Lifecycle::Cordoned, version: 2, ..first }]));
    let answer =
        stage.apply(Write::WorkerLifecycle { worker: WorkerId::new(), lifecycle: Lifecycle::Open, events: Vec::new() }).await;
    assert!(matches!(answer, Err(RecordError::NotFound(_))), "{answer:?}");
}

pub(super) async fn a_node_lease_is_renewed(stage: Stage) {
    let before = stage.store.now().await.expect("the store answers");
    let taken = stage.store.renew_node(stage.node, 60_000).await.expect("the store answers").expect("nobody holds it");
    assert_eq!(taken.node, stage.node);
    assert!(taken.expires_at >= before.after(std::time::Duration::from_secs(60)));
    let renewed = stage.store.renew_node(stage.node, 90_000).await.expect("the store answers").expect("it is ours");
    assert!(renewed.expires_at > taken.expires_at);
}

pub(super) async fn records_keep_the_id_that_they_were_given_first(stage: Stage) {
    assert_eq!(stage.store.id().await, Ok(None));
    let first = RecordsId::new();
    for id in [first, RecordsId::new()] {
        assert_eq!(stage.store.identify(id).await, Ok(first));
        assert_eq!(stage.store.id().await, Ok(Some(first)));
    }
}
