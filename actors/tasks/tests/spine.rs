//! One task end to end, and everything that can get in its way, over records and content in memory.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use helix_messages::{DailyLimits, ForkTask, ResumeTask, RetryTask};
use helix_objects::ObjectStore;
use helix_protocol::{
    AtMost, Base, Budget, Code, INLINE_MESSAGES, Isolation, Lifecycle, Message, Money, Network, OnFailure, Sandboxing, StepOutcome,
    TaskRecord, TaskStatus,
};
use support::{Outside, commands, me, talk};

fn files(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_command_task_makes_one_step_of_each_command() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(commands(&["append a 1", "append a 2", "append b 3"])).await.expect("made");
    let done = node.until(task.id, TaskStatus::Completed).await;
    assert_eq!(node.files(task.id).await, files(&[("a", "1\n2\n"), ("b", "3\n")]));
    let line: Vec<(u64, StepOutcome, u64)> =
        node.line(task.id).await.iter().map(|s| (s.ordinal, s.outcome, s.files_changed)).collect();
    assert_eq!(line, [(1, StepOutcome::Continue, 1), (2, StepOutcome::Continue, 1), (3, StepOutcome::Finished, 1)]);
    assert_eq!((done.epoch.0, done.worker, done.node), (1, None, None));
    assert_eq!(outside.world.opened(), 1, "the workspace stays open from step to step");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_nothing_is_three_writes_and_one_ping() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(commands(&[])).await.expect("made");
    node.until(task.id, TaskStatus::Completed).await;
    assert_eq!(outside.faults.log(), ["CreateTask", "Claim", "Commit"]);
    assert_eq!(outside.world.opened(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_command_ends_its_task_and_its_output_is_kept() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(commands(&["append a 1", "append a 2; exit 3", "append a 3"])).await.expect("made");
    let failed = node.until(task.id, TaskStatus::Failed).await;
    assert_eq!(failed.reason, "`append a 2; exit 3` ended with exit code 3; its output ended with:\ntail");
    let line = node.line(task.id).await;
    let last = line.last().expect("two steps");
    assert_eq!((last.ordinal, last.outcome), (2, StepOutcome::Failed));
    assert_eq!(node.files(task.id).await, files(&[("a", "1\n")]), "rolled back");
    let record = outside.records_step(last.id).await;
    assert_eq!(record.step.exits.iter().map(|exit| exit.exit_code).collect::<Vec<_>>(), [3]);
    // A person may try it again: the same command, under a new owner.
    node.tasks.retry(task.id, RetryTask::default(), me()).await.expect("it has failed");
    node.until(task.id, TaskStatus::Failed).await;
    assert_eq!(node.line(task.id).await.last().map(|step| step.ordinal), Some(2));
}

#[tokio::test(start_paused = true)]
async fn on_failure_keeps_or_forks_the_files_of_a_failed_step() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let mut spec = commands(&["append a 1", "append a 2; exit 3"]);
    spec.on_failure = OnFailure::Keep;
    let kept = node.create(spec.clone()).await.expect("made");
    node.until(kept.id, TaskStatus::Failed).await;
    assert_eq!(node.files(kept.id).await, files(&[("a", "1\n2\n")]));
    spec.on_failure = OnFailure::Fork;
    let forked = node.create(spec).await.expect("made");
    node.until(forked.id, TaskStatus::Failed).await;
    assert_eq!(node.files(forked.id).await, files(&[("a", "1\n")]), "the original stays at its last step");
    let all = outside.all_tasks().await;
    let copy = all.iter().find(|task| task.spec.fork_of.is_some()).expect("a fork was made");
    assert_eq!(copy.status, TaskStatus::Paused);
    assert_eq!(node.files(copy.id).await, files(&[("a", "1\n2\n")]));
}

#[tokio::test(start_paused = true)]
async fn a_lost_worker_costs_no_step_and_no_paid_reply() {
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
async fn without_another_worker_a_task_waits_and_goes_on_when_one_comes() {
    let outside = Outside::new();
    let one = outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(commands(&["append a 1", "sleep 5000; append a 2"])).await.expect("made");
    tokio::time::sleep(Duration::from_secs(2)).await;
    outside.world.kill(one);
    let waiting = node.until(task.id, TaskStatus::WaitingForWorker).await;
    assert_eq!(waiting.reason, "one is lost and no other worker is free");
    let why = node.tasks.why(task.id).await.expect("explained");
    assert_eq!(why.workers.iter().map(|w| w.reason.as_str()).collect::<Vec<_>>(), ["it is not connected"]);
    outside.world.add("two", 1);
    node.until(task.id, TaskStatus::Completed).await;
    assert_eq!(node.files(task.id).await, files(&[("a", "1\n2\n")]));
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
async fn a_pause_waits_for_the_step_boundary_and_a_resume_goes_on_from_there() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(commands(&["sleep 1000; append a 1", "append a 2"])).await.expect("made");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let paused = node.tasks.pause(task.id, me()).await.expect("paused");
    assert_eq!((paused.status, paused.steps), (TaskStatus::Paused, 1));
    let refused = node.tasks.retry(task.id, RetryTask::default(), me()).await.expect_err("it has not ended");
    assert_eq!(refused.code, Code::InvalidState);
    node.tasks.resume(task.id, ResumeTask::default(), me()).await.expect("resumed");
    node.until(task.id, TaskStatus::Completed).await;
    assert_eq!(node.files(task.id).await, files(&[("a", "1\n2\n")]));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_stops_at_once_and_its_workspace_is_closed() {
    let outside = Outside::new();
    let one = outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(commands(&["append a 1; sleep 500000", "append a 2"])).await.expect("made");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let cancelled = node.tasks.cancel(task.id, me()).await.expect("cancelled");
    assert_eq!((cancelled.status, cancelled.head), (TaskStatus::Cancelled, None));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(outside.world.closed(), [(one, task.id)]);
    assert_eq!(node.tasks.cancel(task.id, me()).await.expect_err("it has ended").code, Code::InvalidState);
    let next = node.create(commands(&[])).await.expect("made");
    node.until(next.id, TaskStatus::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn a_budget_parks_the_task_before_the_call_that_could_pass_it() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let mut spec = talk(3);
    // Reserved: 100 a call. Spent: 10. The tenth micro-dollar beyond 120 is never reserved.
    spec.budget = Budget { money: Some(Money(120)), tokens: None };
    let task = node.create(spec).await.expect("made");
    let parked = node.until(task.id, TaskStatus::WaitingForInput).await;
    assert_eq!((parked.spent, parked.steps), (Money(20), 1));
    let calls = outside.log.total();
    assert_eq!(calls, 3, "two of the first turn, one of the second: 20 + 10 + 100 is too much");
    let resume = ResumeTask { budget: Some(Budget { money: Some(Money(1_000)), tokens: None }), answer: None };
    node.tasks.resume(task.id, resume, me()).await.expect("resumed");
    let done = node.until(task.id, TaskStatus::Completed).await;
    assert_eq!(done.spent, Money(60));
    assert_eq!(outside.log.total(), 6, "the reply of the second turn that was paid for is not asked for again");
    assert!(outside.log.asked().values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_reaches_a_days_limit_waits_for_the_next_day_and_says_whose_limit_it_is() {
    for project in [false, true] {
        let mut outside = Outside::new();
        let limit = Budget { money: Some(Money(130)), tokens: None };
        let (name, limits) = if project {
            ("the project", DailyLimits { project: limit, ..DailyLimits::default() })
        } else {
            ("all tasks and keys", DailyLimits { owner: limit, ..DailyLimits::default() })
        };
        outside.limits = limits;
        outside.world.add("one", 4);
        let node = outside.start().await;
        // Reserved: 100 a call. Spent: 10.
        let first = node.create(talk(2)).await.expect("made");
        node.until_within(first.id, &[TaskStatus::Completed], Duration::from_secs(60)).await;
        let second = node.create(talk(2)).await.expect("made");
        let waits = |task: &TaskRecord| task.reason.starts_with("waiting for the next day: ");
        let waiting = node.until_it(second.id, waits).await;
        assert!(
            waiting.reason.contains(&format!("$0.000040 of today's limit for {name} of $0.000130 are spent")),
            "{}",
            waiting.reason
        );
        assert_eq!((waiting.status, waiting.spent, waiting.retries), (TaskStatus::Pending, Money(0), 0));
        let asked = outside.log.total();
        let midnight = outside.clock.wall().day_start().after(Duration::from_secs(86_400));
        let done = node.until_within(second.id, &[TaskStatus::Completed], Duration::from_secs(90_000)).await;
        assert!(done.finished_at.expect("it ended") >= midnight);
        assert_eq!((done.spent, outside.log.total()), (Money(40), asked + 4));
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_the_next_day_goes_on_at_once_under_a_node_with_higher_limits() {
    let mut outside = Outside::new();
    outside.limits.owner = Budget { money: Some(Money(130)), tokens: None };
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(talk(4)).await.expect("made");
    node.until_it(task.id, |task| task.reason.starts_with("waiting for the next day: ")).await;
    node.kill().await;
    let asked = outside.log.total();
    outside.limits.owner = Budget { money: Some(Money(1_000)), tokens: None };
    let node = outside.start().await;
    let done = node.until_within(task.id, &[TaskStatus::Completed], Duration::from_secs(60)).await;
    assert_eq!((done.spent, outside.log.total()), (Money(80), 8), "what was paid for is not asked for again");
    assert!(asked < 8);
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_tasks_runs_in_order_and_each_takes_over_the_files() {
    let outside = Outside::new();
    for name in ["one", "two", "three"] {
        outside.world.add(name, 1);
    }
    let node = outside.start().await;
    let first = node.create(commands(&["sleep 1000; append a 1"])).await.expect("made");
    let mut spec = commands(&["append a 2"]);
    spec.base = Base::Task { task: first.id };
    let second = node.create(spec).await.expect("made");
    assert_eq!(second.status, TaskStatus::WaitingForDependencies);
    let mut spec = commands(&["append a 3"]);
    spec.base = Base::Task { task: second.id };
    let third = node.create(spec).await.expect("made");
    node.until(third.id, TaskStatus::Completed).await;
    assert_eq!(node.files(third.id).await, files(&[("a", "1\n2\n3\n")]));
    let mut spec = commands(&[]);
    spec.depends_on = vec![helix_protocol::TaskId::new()];
    assert_eq!(node.create(spec).await.expect_err("nobody knows it").code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_dependency_fails_fails_with_it() {
    let outside = Outside::new();
    outside.world.add("one", 1);
    let node = outside.start().await;
    let first = node.create(commands(&["sleep 100; exit 1"])).await.expect("made");
    let mut spec = commands(&[]);
    spec.depends_on = vec![first.id];
    let second = node.create(spec).await.expect("made");
    node.until(second.id, TaskStatus::Failed).await;
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
    // One that does not come back is not waited for beyond its lease.
    let task = node.create(commands(&["append a 1; sleep 5000", "append a 2"])).await.expect("made").id;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let at = node.task(task).await.worker.expect("it runs");
    outside.world.set_ready(at, false);
    node.kill().await;
    let node = outside.start().await;
    node.until(task, TaskStatus::Completed).await;
    let other = if at == one { two } else { one };
    assert!(node.line(task).await.iter().all(|step| step.worker == Some(other)));
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
async fn any_step_can_be_forked_and_a_head_moved_back() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(talk(3)).await.expect("made").id;
    node.until(task, TaskStatus::Completed).await;
    let line = node.line(task).await;
    let fork = ForkTask { step: line[0].id, prompt: None, title: Some("again".to_owned()), max_steps: None, principal: me() };
    let fork = node.tasks.fork(fork).await.expect("forked").id;
    node.until(fork, TaskStatus::Completed).await;
    assert_eq!(node.files(fork).await, node.files(task).await, "the same turns said the same");
    assert_eq!(node.line(fork).await[0].id, line[0].id);
    let limited = ForkTask { step: line[0].id, prompt: None, title: None, max_steps: Some(9), principal: me() };
    assert_eq!(node.tasks.fork(limited).await.expect_err("it is no agent").code, Code::InvalidRequest);
    let checkpoint = node.tasks.checkpoint(task, Some(line[1].id), "good".to_owned()).await.expect("named");
    assert_eq!(checkpoint.step, line[1].id);
    let back = node.tasks.rollback(task, line[1].id, me()).await.expect("moved");
    assert_eq!(back.head, Some(line[1].id));
    let elsewhere = node.line(fork).await.last().expect("a head").id;
    assert_eq!(node.tasks.rollback(task, elsewhere, me()).await.expect_err("not on its line").code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_fork_may_begin_with_files_of_its_own_and_keeps_them_when_its_worker_dies() {
    let mut outside = Outside::new();
    outside.tasks.snapshot_interval_ms = 1_000;
    outside.world.add("one", 1);
    let node = outside.start().await;
    let original = node.create(commands(&["append a 1"])).await.expect("made").id;
    let other = node.create(commands(&["append b 2"])).await.expect("made").id;
    let (original, other) = (node.until(original, TaskStatus::Completed).await, node.until(other, TaskStatus::Completed).await);
    let brought = node.line(other.id).await[0].snapshot;

    let mut spec = commands(&["append a 1", "append b 3; sleep 5000"]);
    spec.fork_files = Some(brought);
    assert_eq!(node.create(spec.clone()).await.expect_err("no step is named").code, Code::InvalidRequest);
    spec.fork_of = original.head;
    let fork = node.create(spec).await.expect("made").id;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let running = node.task(fork).await;
    outside.world.add("two", 1);
    outside.world.kill(running.worker.expect("it runs"));
    node.until(fork, TaskStatus::Completed).await;
    assert_eq!(node.files(fork).await, files(&[("b", "2\n3\n")]));
    let again = ForkTask {
        step: node.line(fork).await.last().expect("a head").id,
        prompt: None,
        title: None,
        max_steps: None,
        principal: me(),
    };
    let again = node.tasks.fork(again).await.expect("forked");
    assert_eq!(again.spec.fork_files, None, "a fork of what came of them has its step's files");
}

#[tokio::test(start_paused = true)]
async fn a_question_parks_the_task_and_its_answer_is_said_in_the_next_turn() {
    // On the machine's clock some time passes between the asking and the commit; the other one stands still.
    for outside in [Outside::new(), Outside::new_real()] {
        a_question_is_answered(&outside).await;
    }
}

async fn a_question_is_answered(outside: &Outside) {
    outside.world.add("one", 4);
    let node = outside.start().await;
    let mut spec = talk(2);
    spec.work = helix_protocol::TaskWork::Custom { name: "talk".to_owned(), input: serde_json::json!({"steps": 2, "ask": 1}) };
    let task = node.create(spec).await.expect("made").id;
    let parked = node.until(task, TaskStatus::WaitingForInput).await;
    assert_eq!(parked.steps, 1);
    let refused = node.tasks.resume(task, ResumeTask::default(), me()).await.expect_err("it waits for an answer");
    assert_eq!(refused.code, Code::InvalidState);
    node.tasks.resume(task, ResumeTask { budget: None, answer: Some("this one".to_owned()) }, me()).await.expect("resumed");
    let done = node.until(task, TaskStatus::Completed).await;
    let head = outside.records_step(done.head.expect("a head")).await;
    assert_eq!(head.step.messages[0].as_text(), "this one");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_at_length_is_kept_as_content_and_the_next_turn_hears_it_whole() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    outside.log.speak_at_length(INLINE_MESSAGES / 2);
    let node = outside.start().await;
    let task = node.create(talk(2)).await.expect("made").id;
    node.until(task, TaskStatus::Completed).await;
    for (summary, turn) in node.line(task).await.iter().zip(1..) {
        let step = outside.records_step(summary.id).await.step;
        assert_eq!(step.messages, [], "its row is small");
        let object = step.long_messages.expect("it was long");
        let text = outside.objects.read(object).expect("it is in the content store");
        let said: Vec<Message> = serde_json::from_slice(&text).expect("a list of messages");
        let texts: Vec<_> = said.iter().map(|message| message.as_text().trim_end_matches('.').to_owned()).collect();
        let before = 3 * (turn - 1);
        let expected = [format!("turn {turn}"), format!("reply after {}", before + 1), format!("reply after {}", before + 2)];
        assert_eq!(texts, expected, "the model heard everything that was said before");
    }
    assert_eq!(outside.objects.pinned().expect("readable"), [], "what a step holds needs no pin");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_fails_for_now_is_a_retry_and_one_that_refuses_is_the_end() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    outside.log.fail_next(support::ModelLog::refused(Code::ModelFailed));
    let task = node.create(talk(1)).await.expect("made").id;
    let done = node.until(task, TaskStatus::Completed).await;
    assert_eq!((done.epoch.0, outside.log.total()), (2, 3));
    outside.log.fail_next(support::ModelLog::refused(Code::ModelRefused));
    let task = node.create(talk(1)).await.expect("made").id;
    let failed = node.until(task, TaskStatus::Failed).await;
    assert_eq!(failed.epoch.0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_with_a_full_disk_is_waited_for_and_no_retry_is_used() {
    let outside = Outside::new();
    let one = outside.world.add("one", 4);
    let node = outside.start().await;
    let first = node.create(talk(1)).await.expect("made").id;
    node.until(first, TaskStatus::Completed).await;
    outside.world.set_full(one, true);
    let task = node.create(talk(2)).await.expect("made").id;
    // Far longer than all retries together would take.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let waiting = node.task(task).await;
    assert_eq!((waiting.retries, waiting.steps, waiting.status.is_final()), (0, 0, false), "{}", waiting.reason);
    assert!(waiting.reason.starts_with("waiting for space on one: "), "{}", waiting.reason);
    outside.world.set_full(one, false);
    let done = node.until(task, TaskStatus::Completed).await;
    assert_eq!((done.steps, done.retries), (2, 0));
    assert_eq!(outside.log.asked().values().max(), Some(&1), "no reply was asked for again");
}

/// Which of two nodes meets the clock as it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meets {
    TheSameNode,
    TheNextNode,
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_by_an_hour_makes_no_retry_wait_longer() {
    const HOUR: i64 = 3_600_000_000;
    for (by, meets) in [(-HOUR, Meets::TheSameNode), (HOUR, Meets::TheSameNode), (-HOUR, Meets::TheNextNode)] {
        let mut outside = Outside::new();
        (outside.tasks.retry_backoff_ms, outside.tasks.retry_backoff_most_ms) = (40_000, 60_000);
        outside.world.add("one", 4);
        let mut node = outside.start().await;
        outside.log.fail_next(support::ModelLog::refused(Code::ModelFailed));
        let task = node.create(talk(1)).await.expect("made").id;
        while node.task(task).await.retries == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        outside.machine.as_ref().expect("the clock is simulated").jump(by);
        if meets == Meets::TheNextNode {
            node.stop().await;
            node = outside.start().await;
        }
        let began = tokio::time::Instant::now();
        node.until_within(task, &[TaskStatus::Completed], Duration::from_secs(62)).await;
        assert!(began.elapsed() < Duration::from_secs(62), "{by} {meets:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_takes_too_long_fails() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let mut spec = commands(&["sleep 400", "sleep 400", "sleep 400"]);
    spec.timeout_ms = Some(1_000);
    let task = node.create(spec).await.expect("made").id;
    let failed = node.until(task, TaskStatus::Failed).await;
    assert_eq!(failed.reason, "the task ran for longer than its limit of 1000 ms (timed_out)");
    let outcomes: Vec<_> = node.line(task).await.iter().map(|step| step.outcome).collect();
    assert_eq!(outcomes, [StepOutcome::Continue, StepOutcome::Continue, StepOutcome::Failed]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_during_a_step_does_not_count_towards_the_time_out() {
    for by in [3_600_000_000, -3_600_000_000] {
        let outside = Outside::new();
        outside.world.add("one", 4);
        let node = outside.start().await;
        let mut spec = commands(&["sleep 400", "sleep 400"]);
        spec.timeout_ms = Some(1_000);
        let task = node.create(spec).await.expect("made").id;
        tokio::time::sleep(Duration::from_millis(100)).await;
        outside.machine.as_ref().expect("the clock is simulated").jump(by);
        // Another node has nothing but the steps' own times to tell by.
        while node.line(task).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        node.stop().await;
        let node = outside.start().await;
        node.until(task, TaskStatus::Completed).await;
        for step in node.line(task).await {
            assert_eq!(step.committed_at.since(step.started_at).as_millis() / 100, 4, "set by {by}: {step:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_panics_uses_its_retries_and_takes_nobody_with_it() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let mut spec = talk(2);
    spec.work = helix_protocol::TaskWork::Custom { name: "talk".to_owned(), input: serde_json::json!({"steps": 3, "panic": 2}) };
    spec.max_retries = Some(2);
    let broken = node.create(spec).await.expect("made").id;
    let other = node.create(commands(&["sleep 100; append a 1"])).await.expect("made").id;
    let failed = node.until(broken, TaskStatus::Failed).await;
    assert_eq!((failed.epoch.0, failed.steps, failed.retries), (3, 1, 2));
    let unsaid = node.create(talk(1)).await.expect("made").spec.max_retries;
    assert_eq!(unsaid, Some(helix_config::TasksConfig::default().max_retries), "who does not say takes the node's");
    let done = node.until(other, TaskStatus::Completed).await;
    assert_eq!(done.epoch.0, 1);
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
    outside.world.set_sandbox(worker, Sandboxing { landlock: 3, lacks: Vec::new(), ..sandbox });
    node.until(held.id, TaskStatus::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_gets_what_the_node_is_configured_to_and_a_repository_only_less() {
    let mut outside = Outside::new();
    (outside.tasks.network, outside.tasks.writable) = (Network::Host, vec!["~/.cargo".to_owned()]);
    let node = outside.start().await;
    let mut spec = talk(1);
    spec.environment.at_most = AtMost { isolation: Some(Isolation::ReadOnly), network: Some(Network::None) };
    let made = node.create(spec).await.expect("made").spec.environment;
    assert_eq!(
        (made.isolation, made.network, made.writable.as_slice()),
        (Some(Isolation::Workspace), Some(Network::Host), &["~/.cargo".to_owned()][..])
    );
    assert_eq!((made.isolation(), made.network()), (Isolation::ReadOnly, Network::None));
    let mut wide = talk(1);
    wide.environment.at_most = AtMost { isolation: Some(Isolation::Full), network: Some(Network::Host) };
    wide.environment.network = Some(Network::None);
    let made = node.create(wide).await.expect("made").spec.environment;
    assert_eq!((made.isolation(), made.network()), (Isolation::Workspace, Network::None));
    let mut unheld = talk(1);
    (unheld.environment.isolation, unheld.environment.network) = (Some(Isolation::Full), Some(Network::None));
    assert_eq!(node.create(unheld).await.expect_err("nothing would hold it").code, Code::InvalidRequest);
    let mut relative = talk(1);
    relative.environment.writable = vec!["cache".to_owned()];
    assert_eq!(node.create(relative).await.expect_err("of which folder").code, Code::InvalidRequest);
}

#[tokio::test(start_paused = true)]
async fn a_bad_request_is_refused_before_anything_is_recorded() {
    let outside = Outside::new();
    let node = outside.start().await;
    let custom = helix_protocol::TaskWork::Custom { name: "unheard".to_owned(), input: serde_json::Value::Null };
    let refused = node.create(support::spec(custom)).await.expect_err("nobody knows the kind");
    assert_eq!((refused.code, refused.hint.as_str()), (Code::InvalidRequest, "this node knows command, talk"));
    assert_eq!(node.create(commands(&["  "])).await.expect_err("an empty command").code, Code::InvalidRequest);
    let mut spec = commands(&[]);
    spec.timeout_ms = Some(0);
    assert_eq!(node.create(spec).await.expect_err("no time").code, Code::InvalidRequest);
    let mut spec = commands(&[]);
    let nowhere = helix_protocol::SnapshotId(helix_protocol::ObjectId([9; 32]));
    spec.base = Base::Snapshot { snapshot: nowhere, git_commit: None, repository: None };
    assert_eq!(node.create(spec).await.expect_err("no such snapshot").code, Code::NotFound);
    assert_eq!(outside.faults.writes(), 0);
}
