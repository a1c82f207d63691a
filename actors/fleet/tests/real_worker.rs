//! The branch against the real worker program: as a process of this machine, and behind a real sshd.

#![allow(clippy::unwrap_used)]

mod fake;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fake::Node;
use helix_adapter_ssh::testing::TestSshd;
use helix_adapter_ssh::{LocalTransport, Programs, SystemSsh};
use helix_messages::AddWorker;
use helix_objects::{Durability, NewObject, ObjectStore};
use helix_ports::DeathProof;
use helix_protocol::link::{OpenWorkspace, Request, Response};
use helix_protocol::{CallKey, Code, Environment, Epoch, FileMode, ObjectId, RunId, TaskId, WorkerId, WorkerTarget};
use helix_versions::{Tree, TreeEntry};

/// The worker program, beside this test's folder; built where it is not.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap().join("helix-worker");
    if !built.exists() {
        assert!(Command::new(env!("CARGO")).args(["build", "-p", "helix-worker"]).status().unwrap().success());
    }
    built
}

fn tree_of_one_file(store: &dyn ObjectStore) -> ObjectId {
    let file = NewObject::new(Bytes::from_static(b"hello\n"));
    let entry = TreeEntry { name: b"greeting".to_vec(), mode: FileMode::Regular, size: 6, id: file.id() };
    let root = Tree::new(vec![entry]).unwrap().encode();
    store.put(&[file, root.clone()], Durability::NoSync).unwrap();
    root.id()
}

fn open(task: TaskId, tree: ObjectId) -> OpenWorkspace {
    OpenWorkspace { task, epoch: Epoch(1), tree, environment: Environment::default(), secrets: Vec::new(), file_cap_bytes: 1 << 20 }
}

fn run(task: TaskId, key: &str, command: &str) -> Request {
    let (key, run) = (CallKey(key.to_owned()), RunId::new());
    Request::Run { task, epoch: Epoch(1), key, run, command: command.to_owned(), timeout_ms: None }
}

/// Opens a workspace, changes a file in it, and takes the snapshot.
async fn one_step(node: &Node, worker: WorkerId) {
    let (task, tree) = (TaskId::new(), tree_of_one_file(&*node.objects));
    let opened = node.fleet.open(worker, open(task, tree)).await.unwrap();
    assert!(matches!(opened, Response::Opened { .. }), "{opened:?}");
    let ran = node.fleet.request(worker, run(task, "k1", "echo more >> greeting"), None).await.unwrap();
    assert!(matches!(ran, Response::Ran { .. }), "{ran:?}");
    let received = node.fleet.snapshot(worker, task, Epoch(1), tree, Vec::new()).await.unwrap();
    let file = helix_versions::read_file(&*node.objects, received.snapshot.tree, b"greeting").unwrap();
    assert_eq!(file, Bytes::from_static(b"hello\nmore\n"));
}

fn addition(target: WorkerTarget) -> AddWorker {
    AddWorker { name: "w".to_owned(), target, slots: Some(2) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_lost_within_a_tenth_of_a_second_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("w");
    let mut node = Node::real(Arc::new(LocalTransport::new(program()))).await;
    let view = node.fleet.add(addition(WorkerTarget::Local { folder: place.display().to_string() })).await.unwrap();
    let worker = view.record.id;
    assert!(view.ready && view.record.facts.is_some());
    one_step(&node, worker).await;

    let fleet = node.fleet.clone();
    let (task, tree) = (TaskId::new(), tree_of_one_file(&*node.objects));
    node.fleet.open(worker, open(task, tree)).await.unwrap();
    let sleeping = tokio::spawn(async move { fleet.request(worker, run(task, "k2", "sleep 600"), None).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let killed = Instant::now();
    kill(view.pid.unwrap());
    let lost = node.lost().await;
    let took = killed.elapsed();
    assert_eq!((lost.incarnation, lost.proof), (view.incarnation, DeathProof::ConnectionRefused));
    assert!(took < Duration::from_millis(500), "{took:?}");
    eprintln!("killed, proven dead and told after {took:?}");
    assert_eq!(sleeping.await.unwrap().unwrap_err().code, Code::WorkerLost);
    let again = node.until(|now| now.ready && now.incarnation != view.incarnation).await;
    assert_ne!(again.pid, view.pid);
    one_step(&node, worker).await;
    measure(&node, worker).await;

    node.fleet.remove(worker, false).await.unwrap();
    assert!(!place.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_under_two_names_is_one_worker_and_its_work_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (place, alias) = (folder.path().join("w"), folder.path().join("./w"));
    let at = |name: &str, place: &Path| AddWorker {
        name: name.to_owned(),
        target: WorkerTarget::Local { folder: place.display().to_string() },
        slots: Some(2),
    };
    let mut node = Node::real(Arc::new(LocalTransport::new(program()))).await;
    let worker = node.fleet.add(at("first", &place)).await.unwrap().record.id;
    let (task, tree) = (TaskId::new(), tree_of_one_file(&*node.objects));
    node.fleet.open(worker, open(task, tree)).await.unwrap();
    let fleet = node.fleet.clone();
    let call = tokio::spawn(async move { fleet.request(worker, run(task, "k4", "sleep 1"), None).await });
    let refused = node.fleet.add(at("second", &alias)).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (Code::AnotherWorker, "this machine is worker first of this node already")
    );
    let Response::Ran { report } = call.await.unwrap().unwrap() else { panic!("another answer") };
    assert_eq!((report.exit_code, node.drain_losses()), (0, Vec::new()));
    node.fleet.remove(worker, false).await.unwrap();
    let again = node.fleet.add(at("second", &alias)).await.unwrap();
    node.fleet.remove(again.record.id, false).await.unwrap();
}

/// What the branch carries, printed for whoever looks.
async fn measure(node: &Node, worker: WorkerId) {
    const CALLS: usize = 4_000;
    let start = Instant::now();
    let callers = (0..64).map(|_| {
        let fleet = node.fleet.clone();
        tokio::spawn(async move {
            for _ in 0..CALLS / 64 {
                assert_eq!(fleet.request(worker, Request::Ping, None).await, Ok(Response::Pong));
            }
        })
    });
    futures::future::try_join_all(callers).await.unwrap();
    eprintln!("{:.0} pings a second through the fleet and the link, 64 at once", CALLS as f64 / start.elapsed().as_secs_f64());
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_behind_sshd_is_installed_from_nothing_survives_a_cut_and_leaves_nothing() {
    let sshd = TestSshd::start().unwrap();
    let programs = Programs::new(Path::new("/nonexistent"), program());
    let transport = SystemSsh::new(programs, "node", Duration::from_secs(15)).options(sshd.options());
    let mut node = Node::real(Arc::new(transport)).await;
    let view = node.fleet.add(addition(sshd.system_target())).await.unwrap();
    let worker = view.record.id;
    one_step(&node, worker).await;

    let (task, tree) = (TaskId::new(), tree_of_one_file(&*node.objects));
    node.fleet.open(worker, open(task, tree)).await.unwrap();
    let fleet = node.fleet.clone();
    let call =
        tokio::spawn(async move { fleet.request(worker, run(task, "k3", "echo once >> log; sleep 1; wc -l < log"), None).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    sshd.cut();
    let Response::Ran { report } = call.await.unwrap().unwrap() else { panic!("another answer") };
    assert_eq!(report.exit_code, 0);
    let received = node.fleet.snapshot(worker, task, Epoch(1), tree, Vec::new()).await.unwrap();
    let log = helix_versions::read_file(&*node.objects, received.snapshot.tree, b"log").unwrap();
    assert_eq!(log, Bytes::from_static(b"once\n"), "the command ran once, whatever became of its connection");
    assert_eq!(node.drain_losses(), []);
    let now = node.fleet.list().await.unwrap().remove(0);
    assert_eq!((now.incarnation, now.pid), (view.incarnation, view.pid), "the worker outlived its connection");

    node.fleet.remove(worker, false).await.unwrap();
    assert!(!sshd.home().join(".local/share/helix").exists());
}
