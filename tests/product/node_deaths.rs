//! The node dies: started again, it adopts its tasks from the workers that went on.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use helix::client::Watch;
use helix_protocol::{Epoch, Event, EventKind, TaskId, WorkerId};

use crate::harness::{Chance, Product, SOON, Setup, Verdict, diligent, rounds, transcript};
use crate::worker_deaths::{TOLD_OF_A_STEP, moment};

/// Who was given the task last, and under which epoch.
pub fn assignment(event: &Event) -> (WorkerId, Epoch) {
    (event.event.worker.expect("it names the worker"), Epoch(event.event.detail["epoch"].as_u64().expect("it names the epoch")))
}

fn last_assignment(product: &Product, task: TaskId) -> Option<(WorkerId, Epoch)> {
    let heard = product.oracle.heard_of(task);
    heard.iter().rev().find(|event| event.event.kind == EventKind::TaskAssigned).map(assignment)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_at_whatever_is_told_of_a_step_adopts_its_task_with_its_workspace() {
    let mut product = Setup::workers(3).patient_leases().model(transcript([diligent("diligent", 12, 20)])).start().await;
    let undisturbed = product.agent("diligent, in peace").await;
    let tree = product.completed(undisturbed).await;
    let names: BTreeMap<_, _> =
        product.workers().await.into_iter().map(|worker| (worker.record.id, (worker.record.name, worker.pid))).collect();
    for _ in 0..rounds(1) {
        let mut trail = product.oracle.trail();
        let task = product.agent("diligent, under a killed node").await;
        for (after, boundary) in (1..).zip(TOLD_OF_A_STEP) {
            moment(&mut trail, task, after, boundary).await;
            let (worker, epoch) = last_assignment(&product, task).expect("it has one");
            product.kill_node();
            let files = product.worker_folder(&names[&worker].0).join("tasks").join(task.to_string()).join("files");
            let workspace = std::fs::metadata(&files).expect("the workspace is there").ino();
            product.start_node_again();
            let adopted = trail.until_kind(task, EventKind::TaskAssigned).await;
            assert_eq!(assignment(&adopted), (worker, Epoch(epoch.0 + 1)), "killed after {boundary:?}");
            match std::fs::metadata(&files) {
                Ok(now) => assert_eq!(now.ino(), workspace, "{boundary:?}: it was made anew"),
                // Only a task that has ended meanwhile has given its workspace back.
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{boundary:?}");
                    assert_eq!(
                        product.completed(task).await,
                        tree,
                        "{boundary:?}: the workspace is gone, and the task is not done"
                    );
                }
            }
        }
        assert_eq!(product.completed(task).await, tree);
        let told = product.oracle.heard_of(task);
        assert!(told.iter().all(|event| event.event.kind != EventKind::TaskReassigned), "adopted, never moved");
    }
    let now: BTreeMap<_, _> =
        product.workers().await.into_iter().map(|worker| (worker.record.id, (worker.record.name, worker.pid))).collect();
    assert_eq!(now, names, "the workers outlived every node");
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_at_any_moment_costs_no_step_and_no_reply() {
    let mut chance = Chance::new("a node killed at any moment");
    let mut product = Setup::workers(2).patient_leases().model(transcript([diligent("diligent", 5, 10)])).start().await;
    let undisturbed = product.agent("diligent, in peace").await;
    let tree = product.completed(undisturbed).await;
    let events = product.oracle.heard_of(undisturbed).len();
    for _ in 0..rounds(3) {
        let mut trail = product.oracle.trail();
        let tasks = [product.agent("diligent, one of two").await, product.agent("diligent, the other").await];
        let point = 1 + chance.below(events - 2);
        let mut left = point;
        let mut chosen = |event: &Event| {
            left -= usize::from(event.event.task == Some(tasks[0]));
            left == 0
        };
        trail.until("its chosen event", &mut chosen).await;
        chance.moment(Duration::from_millis(15)).await;
        product.kill_node();
        product.start_node_again();
        for task in tasks {
            assert_eq!(product.completed(task).await, tree, "the node was killed after event {point} of {events}");
        }
    }
    assert_eq!(product.judge().await, Verdict::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_stop_parks_its_tasks_and_goes_on_with_them_at_its_next_start() {
    for _ in 0..rounds(1) {
        let mut product = Setup::workers(2).patient_leases().model(transcript([diligent("diligent", 6, 20)])).start().await;
        let undisturbed = product.agent("diligent, in peace").await;
        let tree = product.completed(undisturbed).await;
        let mut trail = product.oracle.trail();
        let task = product.agent("diligent, under a stopped node").await;
        moment(&mut trail, task, 2, EventKind::ToolStarted).await;
        let status = tokio::task::block_in_place(|| product.node.stop()).expect("it leaves");
        assert_eq!(status.code(), Some(0));
        product.start_node_again();
        assert_eq!(product.completed(task).await, tree);
        assert_eq!(product.judge().await, Verdict::default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_had_seen_nothing_yet_misses_nothing_of_what_happens_while_its_line_is_cut() {
    let mut product = Setup::workers(0).start().await;
    let mut watch = Watch::open(&product.client, None, None).await.expect("the node can be watched");
    product.kill_node();
    watch.next().await.expect_err("the line is cut");
    product.start_node_again();
    let task = product.command(&["true"]).await;
    let heard = async {
        loop {
            match watch.next().await {
                Ok(event) if event.event.task == Some(task) => break event.event.kind,
                _ => {}
            }
        }
    };
    let heard = tokio::time::timeout(SOON, heard).await.expect("it hears of the task that was made before it came back");
    assert_eq!(heard, EventKind::TaskCreated);
}
