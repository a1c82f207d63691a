//! Many tasks on several workers: chains, crowds, and a worker that is emptied under load.

use std::collections::BTreeMap;
use std::time::Instant;

use helix_adapter_http::api::LogPage;
use helix_messages::WorkerView;
use helix_protocol::{Base, Environment, EventKind, Needs, TaskRecord, TaskSpec, TaskStatus};
use serde_json::json;

use crate::harness::{Product, Setup, Signal, Verdict, command_spec, rounds, state_of};

/// What a task's commands wrote, step by step.
async fn said(product: &Product, task: helix_protocol::TaskId) -> Vec<String> {
    let page: LogPage = product.client.query(&format!("/tasks/{task}/log"), &[("whole", "true")]).await.expect("its log");
    page.steps.into_iter().flat_map(|step| step.runs).map(|run| run.output).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_tasks_carries_its_files_over_three_workers() {
    for _ in 0..rounds(1) {
        let product = Setup::workers(3).start().await;
        let workers: Vec<_> = product.workers().await.into_iter().map(|worker| worker.record.id).collect();
        let mut chain = Vec::new();
        for (at, worker) in workers.iter().enumerate() {
            let commands = [format!("echo link-{at} >> chain"), "mkdir -p build && cp chain build/copy && cat chain".to_owned()];
            let mut spec = command_spec(&[&commands[0], &commands[1]]);
            spec.needs = Needs { worker: Some(*worker), ..Needs::default() };
            if let Some(before) = chain.last() {
                spec.base = Base::Task { task: *before };
                spec.depends_on = vec![*before];
            }
            chain.push(product.create(spec).await);
        }
        for task in &chain {
            product.completed(*task).await;
        }
        let mut ran_on = Vec::new();
        for task in &chain {
            ran_on.extend(product.steps(*task).await.last().expect("a step").worker);
        }
        assert_eq!(ran_on, workers);
        assert_eq!(said(&product, chain[2]).await.last().map(String::as_str), Some("link-0\nlink-1\nlink-2\n"));
        assert_eq!(product.judge().await, Verdict::default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_command_tasks_on_four_workers_are_each_done_once() {
    const TASKS: usize = 200;
    for _ in 0..rounds(1) {
        let product = Setup::workers(4).set("workers.slots", 4).start().await;
        let outside = product.folder().join("done");
        let started = Instant::now();
        let mut tasks = Vec::new();
        for number in 0..TASKS {
            let command = format!("echo {number} > result; echo {number} >> {}", outside.display());
            tasks.push(product.command(&[&command]).await);
        }
        for task in &tasks {
            let record = product.ended(*task).await;
            assert_eq!((record.status, record.steps, record.retries), (TaskStatus::Completed, 1, 0), "{}", record.reason);
        }
        eprintln!("{TASKS} command tasks on four workers took {:?}", started.elapsed());
        let text = std::fs::read_to_string(&outside).expect("the tasks wrote it");
        let mut numbers: Vec<usize> = text.lines().map(|line| line.parse().expect("a number")).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..TASKS).collect::<Vec<_>>());
        assert_eq!(product.judge().await, Verdict::default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_drained_under_load_hands_its_tasks_over_between_steps() {
    const STEPS: usize = 4;
    for _ in 0..rounds(1) {
        let product = Setup::workers(3).start().await;
        let outside = product.folder().join("done");
        let mut trail = product.oracle.trail();
        let mut tasks = Vec::new();
        for number in 0..12 {
            let commands: Vec<String> = (0..STEPS)
                .map(|step| format!("echo {number}.{step} >> {0}; echo {step} >> steps; sleep 0.1", outside.display()))
                .collect();
            tasks.push(product.command(&commands.iter().map(String::as_str).collect::<Vec<_>>()).await);
        }
        let first = trail.until("a first step", |event| event.event.kind == EventKind::StepCompleted).await;
        let drained = first.event.worker.expect("it names its worker");
        let view: WorkerView = product.client.post(&format!("/workers/{drained}/drain"), &()).await.expect("it is drained");
        assert_eq!(view.record.id, drained);
        let moved = trail.until("a task moves", |event| event.event.kind == EventKind::TaskReassigned).await;
        assert_eq!((moved.event.worker, moved.event.detail["proof"].as_str()), (Some(drained), Some("drained")));
        let mut trees = BTreeMap::new();
        for task in &tasks {
            *trees.entry(product.completed(*task).await).or_insert(0) += 1;
            let record = product.record(*task).await;
            assert_eq!((record.retries, record.steps), (0, STEPS as u64));
        }
        assert_eq!(trees.into_values().collect::<Vec<_>>(), [12], "every task made the same files");
        let mut done: Vec<String> =
            std::fs::read_to_string(&outside).expect("the tasks wrote it").lines().map(str::to_owned).collect();
        let count = done.len();
        done.sort_unstable();
        done.dedup();
        assert_eq!((count, done.len()), (12 * STEPS, 12 * STEPS), "no command ran twice");
        assert_eq!(product.judge().await, Verdict::default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_task_that_is_tried_again_at_once_finds_its_workspace() {
    let product = Setup::workers(1).start().await;
    for round in 0..rounds(10) {
        let mended = product.folder().join(format!("mended-{round}"));
        let check = format!("test -e {}", mended.display());
        let task = product.command(&["echo first >> log", &check, "cat log"]).await;
        let mut trail = product.oracle.whole_trail();
        trail.until_kind(task, EventKind::TaskFailed).await;
        std::fs::write(&mended, "").expect("the folder is writable");
        let retried: TaskRecord =
            product.client.post(&format!("/tasks/{task}/retry"), &json!({})).await.expect("it is tried again");
        assert_eq!(retried.id, task);
        let end = trail.until("its end", |event| {
            event.event.task == Some(task) && matches!(event.event.kind, EventKind::TaskCompleted | EventKind::TaskFailed)
        });
        let end = end.await.event;
        assert_eq!(end.kind, EventKind::TaskCompleted, "round {round}: {}", end.message);
        assert_eq!(said(&product, task).await.last().map(String::as_str), Some("first\n"));
    }
    assert_eq!(product.judge().await, Verdict::default());
}

/// A server that leaves its parent, its session and its folder, says where it is, and takes connections for ever.
const SERVER: &str = r#"perl -MIO::Socket::INET -MPOSIX -e '
    fork and exit; POSIX::setsid(); fork and exit; chdir "/";
    my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ENV{HELIX_PORT}, Listen => 5, ReuseAddr => 1) or die;
    open(my $told, ">", "$ARGV[0].new"); print $told "$$ $ENV{HELIX_PORT}"; close $told; rename "$ARGV[0].new", $ARGV[0];
    while (my $client = $server->accept) { close $client }' "#;

fn serving(commands: &[&str]) -> TaskSpec {
    TaskSpec { environment: Environment { ports: 1, ..Environment::default() }, ..command_spec(commands) }
}

/// The server's process and port.
fn server(told: &std::path::Path) -> (u32, u16) {
    let text = std::fs::read_to_string(told).expect("the server said where it is");
    let (pid, port) = text.split_once(' ').expect("process and port");
    (pid.parse().expect("a process"), port.parse().expect("a port"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_server_is_gone_when_its_task_has_ended_and_when_its_workspace_is_taken_back() {
    for _ in 0..rounds(1) {
        let product = Setup::workers(1).start().await;
        let told = product.folder().join("server");
        let start = format!("{SERVER}{0}; while [ ! -e {0} ]; do sleep 0.01; done", told.display());

        let task = product.create(serving(&[&start])).await;
        product.completed(task).await;
        let (pid, port) = server(&told);
        product.until("it is gone with its task", async || state_of(pid).is_none()).await;
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "and its port is free");

        std::fs::remove_file(&told).expect("it was written");
        let again = product.folder().join("again");
        let wait = format!("if [ ! -e {0} ]; then touch {0}; {start}; sleep 600; fi", again.display());
        let task = product.create(serving(&["echo before > file", &wait, "cat file"])).await;
        product.until("the server runs", async || told.exists()).await;
        let (pid, port) = server(&told);
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), "it serves");
        let mut trail = product.oracle.trail();
        let worker = product.workers().await[0].record.id;
        product.signal(worker, Signal::KILL).await;
        trail.until("the next step", |event| event.event.task == Some(task) && event.event.kind == EventKind::StepCompleted).await;
        assert_eq!(state_of(pid), None, "it is gone before its workspace is used again");
        product.completed(task).await;
        assert_eq!(product.judge().await, Verdict::default());
    }
}
