//! Workers and nodes that come and go: who has a task, and that it goes on from its last step.

use std::collections::BTreeSet;
use std::time::Duration;

use helix_protocol::{
    Capability, Isolation, Lifecycle, Money, Network, OnFailure, Sandboxing, StepOutcome, TaskRecord, TaskStatus, WorkerId,
};

use crate::files;
use crate::support::{LEASE, Node, Outside, commands, talk, turns};

#[tokio::test(start_paused = true)]
async fn a_lost_worker_costs_no_step_and_no_paid_reply() {
    // While the model thinks, with replies of the same turn before it and without.
    for (ms, turns) in [(2_500, 1), (3_500, 1), (4_500, 2)] {
        let outside = Outside::new();
        outside.log.think_for(Duration::from_secs(1));
        let (one, two) = (outside.world.add("one", 4), outside.world.add("two", 4));
        let node = outside.start().await;
        let task = node.create(talk(3)).await.expect("made").id;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        let at = node.task(task).await.worker.expect("it runs");
        outside.world.kill(at);
        let done = node.until(task, TaskStatus::Completed).await;
        let asked = outside.log.asked();
        assert!(asked.len() == 6 && asked.values().all(|times| *times == 1), "{asked:?}");
        let line = node.line(task).await;
        let uncertain: u32 = line.iter().map(|step| step.spend.uncertain_calls).sum();
        assert_eq!((done.epoch.0, done.spent, uncertain, line.len()), (2, Money(60), 0, 3), "after {ms} ms");
        let other = if at == one { two } else { one };
        let workers: Vec<_> = line.iter().map(|step| step.worker).collect();
        assert!(workers[..turns].iter().all(|worker| *worker == Some(at)), "{workers:?}");
        assert!(workers[turns..].iter().all(|worker| *worker == Some(other)), "{workers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_worker_costs_no_step_and_its_half_run_command_begins_anew() {
    let outside = Outside::new();
    let (one, two) = (outside.world.add("one", 4), outside.world.add("two", 4));
    let node = outside.start().await;
    let task = node.create(commands(&["append a 1", "append a 2; sleep 5000", "append a 3"])).await.expect("made");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let at = node.task(task.id).await.worker.expect("it runs");
    outside.world.kill(at);
    let done = node.until(task.id, TaskStatus::Completed).await;
    assert_eq!(done.epoch.0, 2);
    assert_eq!(node.files(task.id).await, files(&[("a", "1\n2\n3\n")]), "the half-run command began anew on the restored files");
    let other = if at == one { two } else { one };
    let workers: Vec<_> = node.line(task.id).await.iter().map(|step| step.worker).collect();
    assert_eq!(workers, [Some(at), Some(other), Some(other)]);
    assert_eq!(node.task(task.id).await.retries, 0);
    let events = outside.events_of(task.id).await;
    assert!(events.iter().any(|event| event == "task.reassigned"), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_task_is_taken_from_a_worker_with_the_proof_that_it_is_gone() {
    let outside = Outside::new();
    outside.world.add("one", 1);
    outside.world.add("two", 1);
    let node = outside.start().await;
    // It calls its worker often, and so meets its end before the fleet tells of it.
    let task = node.create(commands(&["append a 1; sleep 20"; 200])).await.expect("made");
    tokio::time::sleep(Duration::from_millis(2 * LEASE.reassign_ms)).await;
    let at = node.task(task.id).await.worker.expect("it runs");
    outside.world.crash(at);
    tokio::time::sleep(Duration::from_millis(200)).await;
    outside.world.kill(at);
    node.until(task.id, TaskStatus::Completed).await;
    let told = outside.reassignments(task.id).await;
    assert!(told.len() == 1 && told[0].contains("its socket refuses connections"), "{told:?}");
}

/// A task in the middle of its second step, whose worker, the only one, is killed at this moment.
async fn left_alone(outside: &Outside) -> (Node, TaskRecord) {
    let one = outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(commands(&["append a 1", "sleep 5000; append a 2"])).await.expect("made");
    tokio::time::sleep(Duration::from_secs(2)).await;
    outside.world.kill(one);
    (node, task)
}

#[tokio::test(start_paused = true)]
async fn without_another_worker_a_task_waits_and_goes_on_when_one_comes() {
    let outside = Outside::new();
    let (node, task) = left_alone(&outside).await;
    let waiting = node.until(task.id, TaskStatus::WaitingForWorker).await;
    assert_eq!(waiting.reason, "one is lost and no other worker is free");
    let why = node.tasks.why(task.id).await.expect("explained");
    assert_eq!(why.workers.iter().map(|w| w.reason.as_str()).collect::<Vec<_>>(), ["it is not connected"]);
    outside.world.add("two", 1);
    node.until(task.id, TaskStatus::Completed).await;
    assert_eq!(node.files(task.id).await, files(&[("a", "1\n2\n")]));
    assert_eq!(outside.reassignments(task.id).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn why_a_task_moved_is_told_once_however_soon_after_its_loss_another_worker_comes() {
    for later in [0, 1, 2, 5, 20, 100] {
        let outside = Outside::new();
        let (node, task) = left_alone(&outside).await;
        // Nobody else is there at that moment, and before that is recorded somebody is.
        for _ in 0..later {
            tokio::task::yield_now().await;
        }
        outside.world.add("two", 1);
        node.until(task.id, TaskStatus::Completed).await;
        let told = outside.reassignments(task.id).await;
        assert!(told.len() == 1 && told[0].contains("its socket refuses connections"), "after {later}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_command_is_snapshotted_and_on_failure_decides_what_the_next_owner_starts_from() {
    for (on_failure, expected) in [(OnFailure::Rollback, "1\n2\n"), (OnFailure::Keep, "1\n2\n2\n"), (OnFailure::Fork, "1\n2\n")] {
        let mut outside = Outside::new();
        outside.tasks.snapshot_interval_ms = 1_000;
        outside.world.add("one", 1);
        outside.world.add("two", 1);
        let node = outside.start().await;
        let mut spec = commands(&["append a 1", "append a 2; sleep 5000"]);
        spec.on_failure = on_failure;
        let task = node.create(spec).await.expect("made");
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let running = node.task(task.id).await;
        outside.world.kill(running.worker.expect("it runs"));
        node.until(task.id, TaskStatus::Completed).await;
        assert_eq!(node.files(task.id).await, files(&[("a", expected)]), "{on_failure:?}");
        let outcomes: Vec<_> = node.line(task.id).await.iter().map(|step| (step.ordinal, step.outcome)).collect();
        assert_eq!(outcomes[..2], [(1, StepOutcome::Continue), (1, StepOutcome::Unfinished)], "{on_failure:?}");
        assert_eq!(outcomes.last(), Some(&(2, StepOutcome::Finished)));
        let forks = outside.all_tasks().await.into_iter().filter(|task| task.spec.fork_of.is_some()).collect::<Vec<_>>();
        assert_eq!(forks.len(), usize::from(on_failure == OnFailure::Fork));
        assert!(forks.iter().all(|fork| fork.status == TaskStatus::Paused));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_worker_loses_its_tasks_at_their_step_boundaries() {
    let outside = Outside::new();
    let (one, two) = (outside.world.add("one", 8), outside.world.add("two", 8));
    outside.world.set_ready(two, false);
    let node = outside.start().await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(
            node.create(commands(&["append a 1; sleep 1000", "append a 2; sleep 1000", "append a 3"])).await.expect("made").id,
        );
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    outside.world.set_ready(two, true);
    outside.world.set_lifecycle(one, Lifecycle::Draining);
    for task in &tasks {
        node.until(*task, TaskStatus::Completed).await;
        assert_eq!(node.files(*task).await, files(&[("a", "1\n2\n3\n")]));
        let workers: Vec<_> = node.line(*task).await.iter().map(|step| step.worker).collect();
        assert_eq!(workers, [Some(one), Some(two), Some(two)]);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let closed: BTreeSet<_> = outside.world.closed().into_iter().filter(|(worker, _)| *worker == one).collect();
    assert_eq!(closed.len(), tasks.len(), "nothing is left on the drained worker");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_opened_again_before_a_boundary_keeps_its_tasks() {
    let outside = Outside::new();
    let one = outside.world.add("one", 8);
    let node = outside.start().await;
    let task = node.create(commands(&["append a 1; sleep 1000", "append a 2"])).await.expect("made").id;
    tokio::time::sleep(Duration::from_millis(500)).await;
    outside.world.add("two", 8);
    outside.world.set_lifecycle(one, Lifecycle::Draining);
    tokio::time::sleep(Duration::from_millis(100)).await;
    outside.world.set_lifecycle(one, Lifecycle::Open);
    assert_eq!(node.until(task, TaskStatus::Completed).await.epoch.0, 1);
    let workers: Vec<_> = node.line(task).await.iter().map(|step| step.worker).collect();
    assert_eq!(workers, [Some(one), Some(one)]);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_tasks_on_four_workers() {
    let outside = Outside::new();
    for name in ["one", "two", "three", "four"] {
        outside.world.add(name, 5);
    }
    let node = outside.start().await;
    let mut tasks = Vec::new();
    for _ in 0..200 {
        tasks.push(node.create(commands(&["append a 1; sleep 10", "append a 2"])).await.expect("made").id);
    }
    for task in tasks {
        node.until(task, TaskStatus::Completed).await;
        assert_eq!(node.files(task).await, files(&[("a", "1\n2\n")]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_adopts_its_tasks_on_the_workers_that_hold_them() {
    let outside = Outside::new();
    let (one, two) = (outside.world.add("one", 4), outside.world.add("two", 4));
    let node = outside.start().await;
    let task = node.create(commands(&["append a 1", "append a 2; sleep 5000", "append a 3"])).await.expect("made").id;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let at = node.task(task).await.worker.expect("it runs");
    outside.world.set_ready(at, false);
    node.kill().await;
    let node = outside.start().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(node.task(task).await.epoch.0, 1, "within the lease nothing is reassigned for silence");
    outside.world.set_ready(at, true);
    let done = node.until(task, TaskStatus::Completed).await;
    assert_eq!(done.epoch.0, 2);
    assert!(node.line(task).await.iter().all(|step| step.worker == Some(at)));
    assert_eq!(node.files(task).await, files(&[("a", "1\n2\n3\n")]));
    let epochs: Vec<_> = outside.world.effects().into_iter().map(|(_, _, epoch, _)| epoch.0).collect();
    assert_eq!(epochs, [1, 1, 2], "the command in the middle was begun under the first owner, and not again");
    assert_eq!(outside.world.opened(), 1);
    // One that does not come back is waited for until the fleet gives it up: it may be granted its lease at the last moment.
    let task = node.create(commands(&["append a 1; sleep 5000", "append a 2"])).await.expect("made").id;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let at = node.task(task).await.worker.expect("it runs");
    outside.world.cut(at);
    node.kill().await;
    let node = outside.start().await;
    tokio::time::sleep(2 * Duration::from_millis(LEASE.reassign_ms)).await;
    assert_eq!(node.task(task).await.worker, Some(at));
    outside.world.expire(at, LEASE.reassign_ms);
    node.until(task, TaskStatus::Completed).await;
    let other = if at == one { two } else { one };
    assert!(node.line(task).await.iter().all(|step| step.worker == Some(other)));
}

#[tokio::test(start_paused = true)]
async fn whoever_adopts_a_workspace_looks_at_what_may_have_been_started_before_its_time() {
    let outside = Outside::new();
    outside.world.add("one", 1);
    let node = outside.start().await;
    let task = node.create(turns(&[("shell", "sleep 3000; append built 1"), ("read_output", "5000")])).await.expect("made").id;
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.kill().await;
    let node = outside.start().await;
    node.until(task, TaskStatus::Completed).await;
    assert_eq!(node.files(task).await, files(&[("built", "1\n")]));
    assert_eq!((outside.world.opened(), outside.world.effects().len()), (1, 2), "nothing was begun anew");
}

#[tokio::test(start_paused = true)]
async fn an_adopted_command_goes_on_whatever_was_kept_of_its_files() {
    for on_failure in [OnFailure::Rollback, OnFailure::Keep, OnFailure::Fork] {
        let mut outside = Outside::new();
        outside.tasks.snapshot_interval_ms = 1_000;
        outside.world.add("one", 1);
        let node = outside.start().await;
        let mut spec = commands(&["append a 1", "append a 2; sleep 5000"]);
        spec.on_failure = on_failure;
        let task = node.create(spec).await.expect("made").id;
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        node.kill().await;
        let node = outside.start().await;
        node.until(task, TaskStatus::Completed).await;
        assert_eq!(node.files(task).await, files(&[("a", "1\n2\n")]), "{on_failure:?}");
        let line: Vec<_> = node.line(task).await.iter().map(|step| (step.ordinal, step.outcome)).collect();
        assert_eq!(line[..2], [(1, StepOutcome::Continue), (1, StepOutcome::Unfinished)], "{on_failure:?}");
        assert_eq!((line.last(), outside.world.effects().len()), (Some(&(2, StepOutcome::Finished)), 2), "{on_failure:?}");
        assert!(outside.all_tasks().await.iter().all(|task| task.spec.fork_of.is_none()), "nothing died, so nothing is forked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_go_on_with_a_step_is_opened_anew() {
    let outside = Outside::new();
    let worker = outside.world.add("one", 1);
    let node = outside.start().await;
    let task = node.create(commands(&["append a 1", "append a 2; sleep 5000", "append a 3"])).await.expect("made").id;
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.kill().await;
    outside.world.forget_answers(worker);
    let node = outside.start().await;
    node.until(task, TaskStatus::Completed).await;
    assert_eq!(node.files(task).await, files(&[("a", "1\n2\n3\n")]), "the half-run command began anew on the restored files");
    assert_eq!((outside.world.effects().len(), outside.world.opened()), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_stopping_node_parks_its_tasks_at_step_boundaries_and_they_stay_assigned() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let short = node.create(commands(&["sleep 300; append a 1", "append a 2"])).await.expect("made").id;
    let long = node.create(commands(&["sleep 60000; append a 1"])).await.expect("made").id;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(node.tasks.park(Duration::from_secs(5)).await, Ok(1), "the long one is left in the middle of its step");
    let parked = node.task(short).await;
    assert_eq!((parked.status, parked.steps), (TaskStatus::Running, 1));
    node.kill().await;
    let node = outside.start().await;
    node.until(short, TaskStatus::Completed).await;
    node.until(long, TaskStatus::Completed).await;
    assert_eq!(node.files(short).await, files(&[("a", "1\n2\n")]));
}

#[tokio::test(start_paused = true)]
async fn stopping_a_node_costs_running_tasks_nothing_whether_it_waits_for_them_or_not() {
    for waits in [true, false] {
        let outside = Outside::new();
        outside.world.add("one", 64);
        let node = outside.start().await;
        let mut tasks = Vec::new();
        for number in 0..40 {
            let mut spec = commands(&["append a 1; sleep 60000", "append a 2"]);
            spec.max_retries = Some(number % 2);
            tasks.push(node.create(spec).await.expect("made").id);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        if waits {
            assert_eq!(node.tasks.park(Duration::from_secs(5)).await, Ok(40));
        }
        node.stop().await;
        for task in outside.all_tasks().await {
            assert_eq!((task.status, task.retries, task.epoch.0), (TaskStatus::Running, 0, 1), "{}", task.reason);
        }
        let node = outside.start().await;
        for task in tasks {
            let done = node.until(task, TaskStatus::Completed).await;
            assert_eq!((done.retries, done.epoch.0), (0, 2));
            assert_eq!(node.files(task).await, files(&[("a", "1\n2\n")]));
        }
        assert_eq!((outside.world.opened(), outside.world.effects().len()), (40, 80), "every command was begun once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_for_a_worker_that_was_removed_says_so_and_what_to_do() {
    let outside = Outside::new();
    outside.world.add("another", 4);
    let node = outside.start().await;
    let mut spec = commands(&["append a 1"]);
    spec.needs.worker = Some(WorkerId::new());
    let held = node.create(spec).await.expect("made").id;
    let why = node.tasks.why(held).await.expect("explained");
    assert_eq!(why.reason, "the only worker it may run on was removed");
    assert_eq!(why.next, [format!("`helix task cancel {}`, and run it again on another worker", held.short())]);
}

#[tokio::test(start_paused = true)]
async fn a_task_waits_for_a_worker_that_can_give_its_sandbox_and_one_without_needs_none() {
    let outside = Outside::new();
    let worker = outside.world.add("old", 4);
    let sandbox = Sandboxing { seccomp: true, lacks: vec!["no Landlock".to_owned()], ..Sandboxing::default() };
    outside.world.set_sandbox(worker, sandbox.clone());
    let node = outside.start().await;
    let held = node.create(commands(&["append a 1"])).await.expect("made");
    let environment = &held.spec.environment;
    assert_eq!(
        (environment.isolation, environment.network),
        (Some(Isolation::Workspace), Some(Network::Host)),
        "a person typed it"
    );
    let mut free = commands(&["append a 1"]);
    free.environment.isolation = Some(Isolation::Full);
    let free = node.create(free).await.expect("made");
    node.until(free.id, TaskStatus::Completed).await;
    assert_eq!(node.task(held.id).await.status, TaskStatus::Pending);
    let why = node.tasks.why(held.id).await.expect("explained");
    assert_eq!(why.workers[0].reason, "it has no sandbox (no Landlock)");
    assert!(why.next.iter().any(|next| next.contains("--unsandboxed")), "{:?}", why.next);
    let mut both = commands(&["append a 1"]);
    both.needs.capabilities = vec![Capability("cuda".to_owned())];
    let both = node.create(both).await.expect("made");
    let why = node.tasks.why(both.id).await.expect("explained");
    assert_eq!(why.workers[0].reason, "it has no cuda, no sandbox (no Landlock)");
    assert!(why.next.iter().any(|next| next.contains("--unsandboxed")), "{:?}", why.next);
    outside.world.set_sandbox(worker, Sandboxing { landlock: 3, lacks: Vec::new(), ..sandbox });
    node.until(held.id, TaskStatus::Completed).await;
}
