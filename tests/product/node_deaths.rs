//! The node dies: started again, it adopts its tasks from the workers that went on.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use helix::client::Watch;
use helix::node::{DataFolder, NodeProcess};
use helix_adapter_http::api::CheckpointRequest;
use helix_database::testing::{Durability, TestPostgres};
use helix_protocol::{Checkpoint, Epoch, Event, EventKind, TaskId, TaskRecord, TaskStatus, WorkerId};
use serde_json::json;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, query, raw_sql};

use crate::harness::{Chance, HELIX, Product, SOON, Setup, Signal, Verdict, diligent, rounds, send, state_of, transcript};
use crate::worker_deaths::{TOLD_OF_A_STEP, moment};

/// Longer than it takes from a command's end until its step's commit is with the writer: the files are looked at in between.
const GATHERED: Duration = Duration::from_secs(2);

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

/// Another connection to a server's database, in a transaction that holds what this locks until it is committed.
async fn holding(url: &str, lock: &str) -> AnyConnection {
    let mut connection = AnyConnection::connect(url).await.expect("the server answers");
    raw_sql(AssertSqlSafe(format!("BEGIN; {lock}"))).execute(&mut connection).await.expect("the server answers");
    connection
}

async fn let_go(mut connection: AnyConnection) {
    raw_sql("COMMIT").execute(&mut connection).await.expect("the server answers");
    connection.close().await.expect("it can be closed");
}

/// Whether anybody waits for what a transaction holds.
async fn is_waited_for(connection: &mut AnyConnection) -> bool {
    let waiting = query("SELECT 1 FROM pg_locks WHERE NOT granted").fetch_all(connection).await;
    !waiting.expect("the server answers").is_empty()
}

/// A node with a folder of its own on the records of `product`, whose content it has as a backup of it would.
fn another_node(product: &Product) -> NodeProcess {
    let folder = DataFolder::locate(&product.folder().join("another")).expect("a named folder");
    std::fs::create_dir(folder.root()).expect("it can be made");
    let mut copy = Command::new("cp");
    copy.arg("-a").args(["content", "records.id", "format"].map(|name| product.node.folder().root().join(name)));
    assert!(copy.arg(folder.root()).status().expect("cp can be run").success());
    let started = NodeProcess::start(Path::new(HELIX), &folder, &product.folder().join("helix.yaml"));
    started.unwrap_or_else(|failure| panic!("{failure}: {}", std::fs::read_to_string(folder.log()).unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stopped_past_its_lease_commits_nothing_of_a_task_that_another_went_on_with_and_ends() {
    let server = TestPostgres::start(Durability::Unsynced);
    let url = server.url(&server.database().await);
    let setup = Setup::workers(1).patient_leases().set("database.url", url.clone());
    let mut product = setup.start().await;
    let other = product.command(&["echo other > other"]).await;
    product.completed(other).await;
    let [begun, go] = ["begun", "go"].map(|name| product.folder().join(name));
    let second = format!("touch {}; until [ -e {} ]; do sleep 0.02; done; echo second >> log", begun.display(), go.display());
    let task = product.command(&["echo first >> log", &second, "test $(wc -l < log) = 2; cp log copy"]).await;
    product
        .until("its second step runs", async || begun.exists() && product.record(task).await.status == TaskStatus::Running)
        .await;
    let owner = product.record(task).await;

    // The commit of its second step waits in the node behind a write that waits in the database.
    let writes = holding(&url, &format!("SELECT id FROM distributed_tasks WHERE id = '{other}' FOR UPDATE")).await;
    let mut looking = AnyConnection::connect(&url).await.expect("the server answers");
    let client = product.node.client().expect("a client can be made");
    let behind = tokio::spawn(async move {
        let named = CheckpointRequest { name: "behind".to_owned(), step: None };
        client.post::<Checkpoint>(&format!("/tasks/{other}/checkpoint"), &named).await
    });
    while !is_waited_for(&mut looking).await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut trail = product.oracle.trail();
    std::fs::write(&go, "").expect("the folder is writable");
    trail.until_kind(task, EventKind::ToolFinished).await;
    tokio::time::sleep(GATHERED).await;
    let stopped = product.node.pid();
    send(stopped, Signal::STOP);

    let another = tokio::task::block_in_place(|| another_node(&product));
    product.client = another.client().expect("a client can be made");
    for what in ["pause", "resume"] {
        product.client.post::<TaskRecord>(&format!("/tasks/{task}/{what}"), &json!({})).await.expect("it is let go on");
    }
    product.until("it completes under the other node", async || product.record(task).await.status.is_final()).await;
    let (record, steps) = (product.record(task).await, product.all_steps(task).await);
    let made: Vec<_> = steps.iter().map(|step| (step.ordinal, step.epoch)).collect();
    assert!(record.status == TaskStatus::Completed && record.epoch > owner.epoch, "{record:?}");
    assert_eq!(made, [(1, owner.epoch), (2, record.epoch), (3, record.epoch)]);
    assert_eq!(state_of(stopped), Some('T'), "it was stopped all the while");

    // It hears that its lease is gone only after it has tried to commit: renewals wait for this lock.
    let renewals = holding(&url, "SELECT pg_advisory_xact_lock(7091828468)").await;
    let_go(writes).await;
    send(stopped, Signal::CONT);
    let log = || std::fs::read_to_string(product.node.folder().log()).expect("it writes one");
    let refused = format!(
        "step 2 is not committed: task {task} is at epoch {}, so a write under epoch {} is stale",
        record.epoch, owner.epoch
    );
    product.until("its commit is refused", async || log().contains(&refused)).await;
    let_go(renewals).await;
    product.until("the node that was stopped ends", async || state_of(stopped).is_none()).await;
    assert!(log().contains("another node took these records over"), "{}", log());
    assert_eq!(tokio::task::block_in_place(|| product.node.kill()).expect("it has ended").code(), Some(4));
    drop(behind);
    assert_eq!((&product.record(task).await, &product.all_steps(task).await), (&record, &steps));
    let told_by_the_other = steps[1..].iter().map(|step| step.id).collect();
    assert_eq!(product.judge().await, Verdict { untold: told_by_the_other, ..Verdict::default() });
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
