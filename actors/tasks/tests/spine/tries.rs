//! What goes wrong, and whether it is tried again.

use std::time::Duration;

use helix_database::RecordStore;
use helix_messages::{ResumeTask, RetryTask};
use helix_ports::ProviderError;
use helix_protocol::{Code, Failure, OnFailure, StepOutcome, TaskSpec, TaskStatus};

use crate::files;
use crate::support::{Fault, Outside, commands, me, talk};

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
async fn a_node_that_dies_while_it_keeps_files_leaves_no_copy_that_runs_by_itself() {
    let mut spec = commands(&["append a 1", "append a 2; exit 3"]);
    spec.on_failure = OnFailure::Fork;
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(spec.clone()).await.expect("made").id;
    node.until(task, TaskStatus::Failed).await;
    for at in 1..outside.faults.writes() {
        let outside = Outside::new();
        outside.world.add("one", 4);
        outside.faults.plan(at, Fault::DeathAfter);
        let died = outside.faults.on_death();
        let node = outside.start().await;
        let task = node.create(spec.clone()).await.expect("made").id;
        died.await.expect("the fault is planned");
        node.kill().await;
        let node = outside.start().await;
        node.until(task, TaskStatus::Failed).await;
        // Longer than anything that waits would be left alone.
        tokio::time::sleep(Duration::from_secs(120)).await;
        let copies: Vec<_> = outside.all_tasks().await.into_iter().filter(|task| task.spec.fork_of.is_some()).collect();
        assert!(!copies.is_empty() && copies.iter().all(|copy| copy.status == TaskStatus::Paused), "write {at}: {copies:?}");
        assert!(outside.world.effects().iter().all(|(_, by, ..)| *by == task), "write {at}: {:?}", outside.world.effects());
        node.stop().await;
    }
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
async fn a_model_that_fails_for_now_is_a_retry_and_one_that_refuses_is_the_end() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    outside.log.fail_next(crate::support::ModelLog::refused(Code::ModelFailed));
    let task = node.create(talk(1)).await.expect("made").id;
    let done = node.until(task, TaskStatus::Completed).await;
    assert_eq!((done.epoch.0, outside.log.total()), (2, 3));
    outside.log.fail_next(crate::support::ModelLog::refused(Code::ModelRefused));
    let task = node.create(talk(1)).await.expect("made").id;
    let failed = node.until(task, TaskStatus::Failed).await;
    assert_eq!(failed.epoch.0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_models_take_no_call_before_a_person_mends_something_parks_and_goes_on_when_it_is_mended() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    // The last of them is one that a retry might mend, and none is left.
    for code in [Code::ModelRefused, Code::ModelUnavailable, Code::ModelFailed] {
        let refused = ProviderError::Elsewhere(Failure::new(code, "the key is refused").hint("set A_KEY"));
        outside.log.fail_next(refused.clone());
        let spec = TaskSpec { max_retries: Some(0), ..talk(2) };
        let task = node.create(spec).await.expect("made").id;
        let parked = node.until(task, TaskStatus::WaitingForInput).await;
        assert_eq!(parked.reason, format!("no model takes its calls: the key is refused ({code}); set A_KEY. Is it mended?"));
        assert_eq!((parked.steps, parked.retries), (0, 0));
        let why = node.tasks.why(task).await.expect("it is explained");
        let short = task.short();
        assert_eq!(why.next, [format!("mend what it names, then `helix task resume {short}`: it goes on from its last step")]);
        // Nothing is asked of a model meanwhile; mended in part it is told again, and any answer lets it go on.
        let asked = outside.log.total();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(outside.log.total(), asked);
        outside.log.fail_next(refused);
        let question = outside.records.questions(task).await.expect("readable").remove(0);
        node.tasks.answer(question.id, "yes".to_owned(), me()).await.expect("answered");
        node.until_it(task, |task| task.status == TaskStatus::WaitingForInput).await;
        node.tasks.resume(task, ResumeTask::default(), me()).await.expect("resumed");
        let done = node.until(task, TaskStatus::Completed).await;
        assert_eq!((done.steps, done.retries), (2, 0));
    }
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
        outside.log.fail_next(crate::support::ModelLog::refused(Code::ModelFailed));
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
    assert_eq!(failed.reason, "the task ran for longer than its limit of 1 s (timed_out)");
    let outcomes: Vec<_> = node.line(task).await.iter().map(|step| step.outcome).collect();
    assert_eq!(outcomes, [StepOutcome::Continue, StepOutcome::Continue, StepOutcome::Failed]);
}

#[tokio::test(start_paused = true)]
async fn a_time_out_passes_whoever_owns_the_task() {
    let began = || (tokio::time::Instant::now(), Duration::from_millis(9_900), Duration::from_millis(11_100));
    let mut spec = commands(&["sleep 1000", "append a 1; sleep 60000"]);
    spec.timeout_ms = Some(10_000);
    for dies in [true, false] {
        let outside = Outside::new();
        outside.world.add("one", 4);
        let mut node = outside.start().await;
        let task = node.create(spec.clone()).await.expect("made").id;
        let (began, least, most) = began();
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(3_500)).await;
            if dies {
                node.kill().await
            } else {
                node.stop().await
            }
            node = outside.start().await;
        }
        let failed = node.until(task, TaskStatus::Failed).await;
        assert!(failed.reason.contains("its limit of 10 s"), "{}", failed.reason);
        assert!(began.elapsed() > least && began.elapsed() < most, "{dies}: {:?}", began.elapsed());
        assert_eq!(outside.world.effects().len(), 2, "{dies}: it went on where it was");
    }
    let outside = Outside::new();
    for name in ["one", "two", "three", "four", "five"] {
        outside.world.add(name, 1);
    }
    let node = outside.start().await;
    let task = node.create(spec.clone()).await.expect("made").id;
    let (began, least, most) = began();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        outside.world.kill(node.task(task).await.worker.expect("it runs"));
    }
    node.until(task, TaskStatus::Failed).await;
    assert!(began.elapsed() > least && began.elapsed() < most + Duration::from_secs(1), "{:?}", began.elapsed());
    let line = node.line(task).await;
    let took: Vec<_> = line.iter().map(|step| step.committed_at.since(step.started_at).as_secs_f64().round()).collect();
    assert_eq!(took, [1.0, 9.0], "the step has the time that all its owners took");
}

#[tokio::test(start_paused = true)]
async fn what_ended_in_time_while_no_node_was_there_counts() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let mut spec = commands(&["sleep 5000; append a 1"]);
    spec.timeout_ms = Some(10_000);
    let task = node.create(spec).await.expect("made").id;
    tokio::time::sleep(Duration::from_secs(2)).await;
    node.kill().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let node = outside.start().await;
    node.until(task, TaskStatus::Completed).await;
    assert_eq!(node.files(task).await, files(&[("a", "1\n")]));
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
