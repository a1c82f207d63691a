//! The worker dies, or is stopped: the task goes on elsewhere from its last step.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use helix_protocol::{EventKind, TaskId, WorkerId};

use crate::harness::{Chance, Product, Setup, Signal, Trail, Verdict, diligent, processes_in, rounds, state_of, transcript};

/// The worker that was given the task last.
pub fn owner(product: &Product, task: TaskId) -> Option<WorkerId> {
    let heard = product.oracle.heard_of(task);
    heard.iter().rev().find(|event| event.event.kind == EventKind::TaskAssigned).and_then(|event| event.event.worker)
}

/// What is told of a step, in this order.
pub const TOLD_OF_A_STEP: [EventKind; 5] =
    [EventKind::ModelCalled, EventKind::ModelReplied, EventKind::ToolStarted, EventKind::ToolFinished, EventKind::StepCompleted];

/// Reads on to the task's next event of a kind after its step `after`.
pub async fn moment(trail: &mut Trail, task: TaskId, after: u64, kind: EventKind) {
    trail
        .until(&format!("step {after} of {}", task.short()), |event| {
            event.event.task == Some(task)
                && event.event.kind == EventKind::StepCompleted
                && event.event.detail["ordinal"].as_u64() >= Some(after)
        })
        .await;
    if kind != EventKind::StepCompleted {
        trail.until_kind(task, kind).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_whatever_is_told_of_a_step_costs_no_step_and_no_reply() {
    // Twice and more the steps that are killed in: a kill that comes late on a busy machine still comes before the end.
    let product = Setup::workers(3).model(transcript([diligent("diligent", 16, 20)])).start().await;
    let undisturbed = product.agent("diligent, in peace").await;
    let tree = product.completed(undisturbed).await;
    for _ in 0..rounds(1) {
        let mut trail = product.oracle.trail();
        let task = product.agent("diligent, with killed workers").await;
        for (after, boundary) in (1..).zip(TOLD_OF_A_STEP) {
            moment(&mut trail, task, after, boundary).await;
            let worker = owner(&product, task).expect("it has one");
            product.signal(worker, Signal::KILL).await;
            let moved = trail.until_kind(task, EventKind::TaskReassigned).await;
            assert_eq!(moved.event.worker, Some(worker), "{boundary:?}");
        }
        assert_eq!(product.completed(task).await, tree);
    }
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_any_moment_costs_no_step_and_no_reply() {
    let mut chance = Chance::new("a worker killed at any moment");
    let product = Setup::workers(3).model(transcript([diligent("diligent", 5, 10)])).start().await;
    let undisturbed = product.agent("diligent, in peace").await;
    let tree = product.completed(undisturbed).await;
    let events = product.oracle.heard_of(undisturbed).len();
    let mut tasks = BTreeMap::new();
    for _ in 0..rounds(4) {
        let mut trail = product.oracle.trail();
        let task = product.agent("diligent, with a killed worker").await;
        let point = 2 + chance.below(events - 3);
        let mut left = point;
        trail
            .until("its chosen event", |event| {
                left -= usize::from(event.event.task == Some(task));
                left == 0
            })
            .await;
        chance.moment(Duration::from_millis(15)).await;
        if let Some(worker) = owner(&product, task) {
            product.signal(worker, Signal::KILL).await;
        }
        tasks.insert(task, point);
        product.completed(task).await;
    }
    for (task, point) in tasks {
        assert_eq!(product.tree(task).await, tree, "the worker was killed after event {point} of {events}");
    }
    assert_eq!(product.judge().await, Verdict::default());
}

/// Stops a worker in the middle of a command until its lease is over, lets it go on, and answers how long the task stood still. The
/// command would end at once by then, if anything let it.
async fn stopped_past_its_lease(setup: Setup) -> Duration {
    let product = setup.start().await;
    let [outside, go, late] = ["begun", "go", "late"].map(|name| product.folder().join(name));
    let [begun, may_go, ended_late] = [&outside, &go, &late].map(|file| file.display());
    let first = format!("touch {begun}; until [ -e {may_go} ]; do sleep 0.02; done; touch {ended_late}");
    let begin = format!("echo begun >> log; if [ ! -e {begun} ]; then {first}; fi; echo ended >> log");
    let mut trail = product.oracle.trail();
    let task = product.command(&["echo first >> log", &begin, "cat log > copy"]).await;
    product.until("the second command has begun", async || outside.exists()).await;
    let worker = owner(&product, task).unwrap();
    let folder = product.worker_folder(&product.worker(worker).await.record.name).join("tasks");
    assert!(!processes_in(&folder).is_empty(), "the command runs there");
    let pid = product.signal(worker, Signal::STOP).await;
    let stopped = Instant::now();

    let lost = trail.until_kind(task, EventKind::TaskReassigned).await;
    assert_eq!(lost.event.worker, Some(worker));
    let running: Vec<_> = processes_in(&folder).into_iter().filter(|seen| !matches!(seen.state, 'T' | 't')).collect();
    assert_eq!(running, [], "what a stopped worker ran is frozen before its task is given to another");
    trail.until_kind(task, EventKind::TaskAssigned).await;
    let still = stopped.elapsed();
    product.completed(task).await;
    assert_ne!(product.steps(task).await.last().unwrap().worker, Some(worker));
    assert_eq!(state_of(pid), Some('T'), "it was stopped all the while");

    std::fs::write(&go, "").expect("the folder is writable");
    product.signal(worker, Signal::CONT).await;
    product.until("the late worker's processes are gone", async || processes_in(&folder).is_empty()).await;
    let again = trail
        .until("the worker is back", |event| event.event.kind == EventKind::WorkerConnected && event.event.worker == Some(worker))
        .await;
    assert!(again.sequence > lost.sequence);
    assert!(!late.exists(), "what it ran was ended before it could go on");
    let peaceful = product.command(&["echo first >> log", &begin, "cat log > copy"]).await;
    assert_eq!(product.completed(peaceful).await, product.tree(task).await);
    assert_eq!(product.judge().await, Verdict::default());
    still
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stopped_past_its_lease_is_frozen_its_task_moved_and_what_it_ran_ended_before_it_can_go_on() {
    for _ in 0..rounds(1) {
        stopped_past_its_lease(Setup::workers(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_lease_times_that_people_have_silence_moves_a_task_within_twelve_seconds() {
    let still = stopped_past_its_lease(Setup::workers(2).real_leases()).await;
    eprintln!("silence moved the task after {still:?}");
    assert!(still > Duration::from_secs(8) && still < Duration::from_secs(12), "{still:?}");
}
