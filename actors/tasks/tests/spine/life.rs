//! A task in peace: its steps, its files, and the tasks that follow it.

use helix_protocol::{Base, Code, StepOutcome, TaskStatus};

use crate::files;
use crate::support::{Outside, commands, turns};

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
async fn what_a_command_in_the_background_makes_is_in_the_step_that_only_looks_meanwhile() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let background = ("shell", "sleep 3000; append built 1");
    for looking in [&[("read_output", "10000"), ("read", "0")][..], &[("read", "0"), ("read_output", "10000")], &[("grep", "5000")]]
    {
        let task = node.create(turns(&[&[background], looking].concat())).await.expect("made").id;
        node.until(task, TaskStatus::Completed).await;
        assert_eq!(node.files(task).await, files(&[("built", "1\n")]), "{looking:?}");
        let changed: Vec<u64> = node.line(task).await.iter().map(|step| step.files_changed).collect();
        let waits = looking.iter().position(|(_, ms)| *ms != "0").expect("one does") + 1;
        assert_eq!(changed.iter().position(|files| *files == 1), Some(waits), "{looking:?}: {changed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_only_looks_is_made_without_a_look_where_nothing_was_run() {
    let outside = Outside::new();
    outside.world.add("one", 4);
    let node = outside.start().await;
    let task = node.create(turns(&[("read", "10"), ("grep", "10"), ("stop", "10"), ("read_output", "10")])).await.expect("made").id;
    node.until(task, TaskStatus::Completed).await;
    assert_eq!((node.line(task).await.len(), outside.world.looks()), (4, 0));
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
