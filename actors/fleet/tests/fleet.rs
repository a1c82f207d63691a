//! The branch against workers whose machines, networks and clocks the test controls. Time is paused throughout.

#![allow(clippy::unwrap_used)]

mod fake;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fake::{Machine, Node, addition};
use helix_messages::{TasksMsg, WorkerView};
use helix_objects::{Durability, Mark, NewObject, ObjectStore, Pin, hash};
use helix_ports::DeathProof;
use helix_protocol::link::{Holding, OpenWorkspace, Request, Response, ToolLimits};
use helix_protocol::{
    CallKey, Capability, Code, Environment, Epoch, FileMode, Lifecycle, ObjectId, TaskId, TaskRecord, ToolCall, ToolOutcome,
    WorkerHealth, WorkerStatus,
};
use helix_versions::{Tree, TreeEntry};
use serde_json::json;

fn tool(key: &str) -> Request {
    let call = ToolCall { key: CallKey(key.to_owned()), name: "shell".to_owned(), input: json!({}) };
    Request::Tool { task: TaskId::new(), epoch: Epoch(1), call, limits: ToolLimits::default() }
}

fn answered(content: &str) -> Response {
    Response::Tool { outcome: ToolOutcome::ok(content) }
}

fn holding(task: TaskId, epoch: Epoch) -> Holding {
    Holding { task, epoch, tree: hash(b""), calls: Vec::new() }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Waits until the machine was asked for a call so often.
async fn asked(machine: &Machine, key: &str, times: u32) {
    while machine.calls.lock().get(&CallKey(key.to_owned())).is_none_or(|(asked, _)| *asked < times) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_known_worker_is_connected_at_start_and_keeps_its_lease_while_its_heartbeats_arrive() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let view = node.until(|view| view.ready).await;
    assert_eq!((view.incarnation, view.pid, view.record.status), (1, Some(4_001), WorkerStatus::Active));
    tokio::time::sleep(secs(600)).await;
    assert_eq!(node.drain_losses(), []);
    assert_eq!(node.events().await, ["worker.connected"], "nothing is recorded for a heartbeat");
    let listed = node.fleet.list().await.unwrap();
    assert!(node.clock.wall().0 - listed[0].record.last_seen_at.unwrap().0 <= 1_000_000, "the list knows the last heartbeat");
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_is_made_again_and_a_keyed_call_runs_once() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    machine.set(|now| now.answering = false);
    let (fleet, unkeyed) = (node.fleet.clone(), node.fleet.clone());
    let call = tokio::spawn(async move { fleet.request(worker, tool("k"), None).await });
    let ping = tokio::spawn(async move { unkeyed.request(worker, Request::Ping, None).await });
    asked(&machine, "k", 1).await;
    machine.cut();
    asked(&machine, "k", 2).await;
    machine.set(|now| now.answering = true);
    assert_eq!(call.await.unwrap(), Ok(answered("joined")));
    assert_eq!(ping.await.unwrap().unwrap_err().code, Code::WorkerUnreachable);
    assert_eq!(machine.calls.lock()[&CallKey("k".to_owned())], (2, 1), "asked twice, run once");
    assert_eq!(node.drain_losses(), []);
    assert_eq!(*machine.starts.lock(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_worker_keeps_its_tasks_within_the_lease() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    machine.set(|now| {
        now.reachable = false;
        now.cuts += 1;
    });
    node.until(|view| !view.ready).await;
    let fleet = node.fleet.clone();
    let call = tokio::spawn(async move { fleet.request(worker, tool("k"), None).await });
    tokio::time::sleep(secs(8)).await;
    machine.set(|now| now.reachable = true);
    assert_eq!(call.await.unwrap(), Ok(answered("first")));
    assert_eq!(node.drain_losses(), []);
}

#[tokio::test(start_paused = true)]
async fn a_killed_worker_is_lost_at_once_and_started_again_as_another_incarnation() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    machine.set(|now| now.answering = false);
    let fleet = node.fleet.clone();
    let call = tokio::spawn(async move { fleet.request(worker, tool("k"), None).await });
    asked(&machine, "k", 1).await;
    let killed = node.clock.boottime();
    machine.kill();
    let lost = node.lost().await;
    assert!(node.clock.boottime().since(killed) < Duration::from_millis(100));
    assert_eq!((lost.worker, lost.incarnation, lost.proof), (worker, 1, DeathProof::ConnectionRefused));
    assert_eq!(call.await.unwrap().unwrap_err().code, Code::WorkerLost);
    assert_eq!(node.until(|view| view.ready).await.incarnation, 2);
    machine.set(|now| now.answering = true);
    assert_eq!(node.fleet.request(worker, tool("l"), None).await, Ok(answered("first")));
    assert_eq!(node.events().await, ["worker.connected", "worker.disconnected", "worker.lost", "worker.connected"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_worker_is_lost_when_its_lease_is_over_and_not_before() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    machine.set(|now| now.answering = false);
    let fleet = node.fleet.clone();
    let call = tokio::spawn(async move { fleet.request(worker, tool("k"), None).await });
    asked(&machine, "k", 1).await;
    machine.set(|now| now.frozen = true);
    let frozen = node.clock.boottime();
    node.until(|view| !view.ready).await;
    assert!((2..=3).contains(&node.clock.boottime().since(frozen).as_secs()), "a suspect after three seconds of silence");
    let lost = node.lost().await;
    let silent = Duration::from_millis(lost.silent_ms);
    assert!((secs(10)..Duration::from_millis(10_100)).contains(&silent), "{silent:?}");
    assert_eq!(lost.proof, DeathProof::LeaseExpired { silent_ms: lost.silent_ms });
    assert_eq!(call.await.unwrap().unwrap_err().code, Code::WorkerLost);
    assert_eq!(node.fleet.request(worker, Request::Ping, None).await.unwrap_err().code, Code::WorkerLost);

    // It returns as the process it was. What it holds is somebody else's by now, and it is no worker before that has ended.
    let task = node.claimed("a").await;
    machine.holds.lock().push(holding(task.id, task.epoch));
    machine.set(|now| now.frozen = false);
    tokio::time::sleep(secs(20)).await;
    assert!(!node.fleet.list().await.unwrap()[0].ready);
    machine.set(|now| now.answering = true);
    let view = node.until(|view| view.ready).await;
    assert_eq!((view.incarnation, view.holds), (1, Vec::new()));
    assert_eq!(*machine.holds.lock(), []);
    assert_eq!(node.drain_losses(), []);
    assert_eq!(
        node.events().await,
        ["worker.connected", "worker.heartbeat_missed", "worker.disconnected", "worker.lost", "task.created", "worker.connected"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_the_worker_fences_itself_is_made_anew() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    node.until(|view| view.ready).await;
    machine.notice(helix_protocol::link::Notice::Fenced { frozen: true }).await;
    node.until(|view| !view.ready).await;
    node.until(|view| view.ready).await;
    assert_eq!(node.drain_losses(), []);
    assert_eq!(node.events().await, ["worker.connected", "worker.disconnected", "worker.connected"]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_of_an_older_build_is_replaced_once_and_a_busy_one_is_left_alone() {
    let (idle, busy, stubborn) = (Machine::running(), Machine::running(), Machine::running());
    for machine in [&idle, &busy, &stubborn] {
        *machine.build.lock() = "0.0.9".to_owned();
    }
    *stubborn.installed.lock() = "0.0.9".to_owned();
    busy.set(|now| now.reachable = false);
    let mut node = Node::start(&[("busy", &busy), ("idle", &idle), ("stubborn", &stubborn)]).await;
    let task = node.claimed("busy").await;
    busy.holds.lock().push(holding(task.id, task.epoch));
    busy.set(|now| now.reachable = true);
    tokio::time::sleep(secs(60)).await;
    let views = node.fleet.list().await.expect("the fleet answers");
    let mut now: Vec<_> = views.iter().map(|view| (view.record.name.as_str(), view.incarnation, view.ready)).collect();
    now.sort_unstable();
    assert_eq!(now, [("busy", 1, true), ("idle", 2, true), ("stubborn", 2, true)]);
    let starts = [&busy, &idle, &stubborn].map(|machine| *machine.starts.lock());
    assert_eq!(starts, [0, 1, 1], "each is replaced at most once for a build");
    assert_eq!(node.drain_losses(), [], "nothing is lost by it");
}

#[tokio::test(start_paused = true)]
async fn another_process_in_its_place_is_a_loss() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    node.until(|view| view.ready).await;
    machine.set(|now| {
        now.incarnation = 7;
        now.cuts += 1;
    });
    let lost = node.lost().await;
    assert_eq!((lost.incarnation, lost.proof), (1, DeathProof::Replaced));
    assert_eq!(node.until(|view| view.ready).await.incarnation, 7);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_return_after_the_nodes_start_has_one_lease_to_be_adopted_in() {
    let machine = Machine::running();
    machine.set(|now| now.reachable = false);
    let mut node = Node::start(&[("a", &machine)]).await;
    let lost = node.lost().await;
    assert_eq!(lost.incarnation, 0);
    assert!((10_000..10_100).contains(&lost.silent_ms), "{}", lost.silent_ms);
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_lost_before_the_nodes_start_is_ended_before_it_is_granted_anything() {
    let machine = Machine::running();
    machine.set(|now| now.reachable = false);
    let mut node = Node::start(&[("a", &machine), ("b", &Machine::running())]).await;
    let (its, others) = (node.claimed("a").await, node.claimed("b").await);
    let resting = node.created().await;
    // A task that lost this worker waits for any, under an epoch that was raised for it.
    let waiting = node.waiting(&node.claimed("a").await).await;
    let was = |task: &TaskRecord, epoch: u64| holding(task.id, Epoch(epoch));
    let lost = [was(&others, 0), was(&waiting, 1)];
    machine.holds.lock().extend(lost.into_iter().chain([was(&its, 1), was(&resting, 0)]));
    machine.set(|now| {
        now.answering = false;
        now.reachable = true;
    });
    tokio::time::sleep(secs(5)).await;
    assert_eq!(machine.holds.lock().len(), 4);
    assert!(node.fleet.list().await.unwrap().iter().all(|view| view.record.name != "a" || !view.ready), "nothing is ended yet");
    machine.set(|now| now.answering = true);
    let view = node.until(|view| view.ready && view.record.name == "a").await;
    assert_eq!(view.holds, [was(&its, 1), was(&resting, 0)]);
    assert_eq!(*machine.holds.lock(), view.holds);
    assert_eq!(node.drain_losses(), []);
}

#[tokio::test(start_paused = true)]
async fn what_takes_longer_to_end_than_a_lease_takes_the_rest_with_it() {
    let machine = Machine::running();
    machine.set(|now| now.reachable = false);
    let mut node = Node::start(&[("a", &machine), ("b", &Machine::running())]).await;
    let (its, others) = (node.claimed("a").await, node.claimed("b").await);
    machine.holds.lock().extend([holding(its.id, its.epoch), holding(others.id, Epoch(0))]);
    machine.set(|now| {
        now.answering = false;
        now.reachable = true;
    });
    assert_eq!(node.lost().await.incarnation, 0, "the lease goes on while it is looked through");
    machine.set(|now| now.answering = true);
    assert_eq!(node.until(|view| view.ready && view.record.name == "a").await.holds, []);
    assert_eq!(*machine.holds.lock(), []);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_works_for_others_is_left_alone() {
    let machine = Machine::running();
    machine.holds.lock().push(holding(TaskId::new(), Epoch(1)));
    let mut node = Node::start(&[("a", &machine)]).await;
    let view = node.until(|view| view.record.status == WorkerStatus::Failed).await;
    assert!(view.record.reason.contains("which this node's records do not know"), "{}", view.record.reason);
    tokio::time::sleep(secs(300)).await;
    assert_eq!(machine.holds.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_found_dead_at_the_nodes_start_is_lost_at_once() {
    let machine = Machine::running();
    machine.kill();
    let mut node = Node::start(&[("a", &machine)]).await;
    let lost = node.lost().await;
    assert_eq!((lost.proof, lost.silent_ms), (DeathProof::ConnectionRefused, 0));
    assert_eq!(node.until(|view| view.ready).await.incarnation, 2);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_be_started_is_tried_ever_more_slowly_and_says_why() {
    let machine = Machine::running();
    machine.kill();
    machine.set(|now| now.installable = false);
    let mut node = Node::start(&[("a", &machine)]).await;
    node.lost().await;
    tokio::time::sleep(secs(1)).await;
    let view = node.fleet.list().await.unwrap().remove(0);
    assert_eq!((view.record.status, view.record.reason.as_str()), (WorkerStatus::Failed, "the disk is read-only"));
    machine.set(|now| now.installable = true);
    assert_eq!(node.until(|view| view.ready).await.record.status, WorkerStatus::Active);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_node_hears_its_workers_before_it_judges_them() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    node.until(|view| view.ready).await;
    tokio::time::sleep(secs(5)).await;
    node.machine_clock.suspend(secs(3_600));
    tokio::time::sleep(secs(30)).await;
    assert_eq!(node.drain_losses(), []);
    assert!(node.fleet.list().await.unwrap()[0].ready);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_changes_nothing() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    node.machine_clock.jump(-3_600_000_000);
    machine.cut();
    assert_eq!(node.fleet.request(worker, tool("k"), Some(secs(1))).await, Ok(answered("first")));
    assert_eq!(node.drain_losses(), []);
}

/// A tree of these files.
fn tree_of(files: &[(&str, ObjectId)]) -> NewObject {
    let entry =
        |(name, id): &(&str, ObjectId)| TreeEntry { name: name.as_bytes().to_vec(), mode: FileMode::Regular, size: 1, id: *id };
    Tree::new(files.iter().map(entry).collect()).unwrap().encode()
}

/// A tree of three files, one of them in a folder.
fn tree_in(store: &dyn ObjectStore) -> ObjectId {
    let file = |name: &str, content: &'static [u8]| {
        let object = NewObject::new(Bytes::from_static(content));
        store.put(std::slice::from_ref(&object), Durability::NoSync).unwrap();
        let (name, size) = (name.as_bytes().to_vec(), content.len() as u64);
        TreeEntry { name, mode: FileMode::Regular, size, id: object.id() }
    };
    let folder = Tree::new(vec![file("c", b"three")]).unwrap().encode();
    let sub = TreeEntry { name: b"sub".to_vec(), mode: FileMode::Directory, size: 5, id: folder.id() };
    let root = Tree::new(vec![file("a", b"one"), file("b", b"two"), sub]).unwrap().encode();
    store.put(&[folder, root.clone()], Durability::NoSync).unwrap();
    root.id()
}

#[tokio::test(start_paused = true)]
async fn a_workspace_is_opened_with_what_the_worker_lacks_and_nothing_else() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    let tree = tree_in(&*node.objects);
    let one = NewObject::new(Bytes::from_static(b"one"));
    machine.store.put(&[one], Durability::NoSync).unwrap();
    let open = OpenWorkspace {
        task: TaskId::new(),
        epoch: Epoch(1),
        tree,
        environment: Environment::default(),
        secrets: Vec::new(),
        file_cap_bytes: 1 << 20,
    };
    let opened = Ok(Response::Opened { folder: "/w".to_owned(), ports: Vec::new(), setup: None, warm: false });
    assert_eq!(node.fleet.open(worker, open.clone()).await, opened);
    assert_eq!(*machine.stored.lock(), 4, "two files and two folders; the third file was there");
    assert_eq!(node.fleet.open(worker, open).await, opened);
    assert_eq!(*machine.stored.lock(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_sent_nothing_that_it_was_not_asked_about_and_each_object_once() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    let tree = tree_in(&*node.objects);
    let others = NewObject::new(Bytes::from_static(b"another task's"));
    let other = others.id();
    node.objects.put(&[others], Durability::NoSync).unwrap();
    *machine.also_missing.lock() = vec![other, tree, tree, hash(b"nowhere")];
    let open = OpenWorkspace {
        task: TaskId::new(),
        epoch: Epoch(1),
        tree,
        environment: Environment::default(),
        secrets: Vec::new(),
        file_cap_bytes: 1 << 20,
    };
    node.fleet.open(worker, open).await.unwrap();
    assert_eq!(*machine.stored.lock(), 5, "three files and two folders");
    assert_eq!(machine.store.get(other).unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_verified_pinned_and_covered_by_its_mark() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    let file = Bytes::from(vec![7; 200_000]);
    let (tree, since) = (tree_of(&[("file", hash(&file))]).bytes().clone(), tree_of(&[]));
    node.objects.put(std::slice::from_ref(&since), Durability::NoSync).unwrap();
    let (task, epoch) = (TaskId::new(), Epoch(3));
    let objects = vec![(hash(&tree), tree.clone()), (hash(&file), file.clone())];
    *machine.snapshot.lock() = (hash(&tree), objects.clone());
    let received = node.fleet.snapshot(worker, task, epoch, since.id(), Vec::new()).await.unwrap();
    assert_eq!((received.snapshot.tree, received.mark), (hash(&tree), Mark(3)));
    assert_eq!(node.objects.get(hash(&file)).unwrap(), Some(file));
    let mut pins = objects.iter().map(|(id, _)| (Pin { task, epoch }, *id)).collect::<Vec<_>>();
    pins.sort_unstable();
    assert_eq!(node.objects.pinned().unwrap(), pins);

    // Nothing new: nothing travels and nothing is synced.
    *machine.snapshot.lock() = (hash(&tree), Vec::new());
    let again = node.fleet.snapshot(worker, task, epoch, hash(&tree), Vec::new()).await.unwrap();
    assert_eq!((again.snapshot.stream, again.mark), (None, Mark(0)));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_has_nothing_of_another_task_that_its_worker_did_not_send() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    let (ours, others) = (NewObject::new(Bytes::from_static(b"ours")), NewObject::new(Bytes::from_static(b"another task's")));
    let (since, of_others) = (tree_of(&[("a", ours.id())]), tree_of(&[("b", others.id())]));
    let kept = [ours.clone(), others.clone(), since.clone(), of_others.clone()];
    node.objects.put(&kept, Durability::NoSync).unwrap();
    let taken = |tree: &NewObject, sent: &[&NewObject]| {
        let sent = sent.iter().map(|object| (object.id(), object.bytes().clone())).collect();
        *machine.snapshot.lock() = (tree.id(), sent);
        let (fleet, since) = (node.fleet.clone(), since.id());
        async move {
            fleet.snapshot(worker, TaskId::new(), Epoch(1), since, Vec::new()).await.map(|_| ()).map_err(|refused| refused.code)
        }
    };
    let both = tree_of(&[("a", ours.id()), ("b", others.id())]);
    assert_eq!(taken(&of_others, &[]).await, Err(Code::ObjectsMissing), "its tree");
    assert_eq!(taken(&both, &[&both]).await, Err(Code::ObjectsMissing), "a file of it");
    assert_eq!(taken(&both, &[&both, &others]).await, Ok(()), "the same content, made here too");
    assert_eq!(taken(&since, &[]).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn bytes_under_a_wrong_id_and_a_tree_that_never_came_are_refused() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    *machine.snapshot.lock() = (hash(b"tree"), vec![(hash(b"tree"), Bytes::from_static(b"another"))]);
    let refused = node.fleet.snapshot(worker, TaskId::new(), Epoch(1), hash(b""), Vec::new()).await.unwrap_err();
    assert_eq!(refused.code, Code::CorruptObject);
    *machine.snapshot.lock() = (hash(b"tree"), vec![(hash(b"file"), Bytes::from_static(b"file"))]);
    let refused = node.fleet.snapshot(worker, TaskId::new(), Epoch(1), hash(b""), Vec::new()).await.unwrap_err();
    assert_eq!(refused.code, Code::ObjectsMissing);
}

#[tokio::test(start_paused = true)]
async fn an_added_worker_is_ready_recorded_and_given_as_many_slots_as_cores() {
    let machine = Machine::running();
    machine.kill();
    let mut node = Node::start(&[]).await;
    node.transport.machines.lock().insert("/m/new".to_owned(), Arc::clone(&machine));
    let view = node.fleet.add(addition("/m/new")).await.unwrap();
    assert_eq!((view.ready, view.record.name.as_str(), view.record.slots, view.incarnation), (true, "new", 4, 2));
    assert_eq!(node.store.workers().await.unwrap()[0].id, view.record.id);
    let again = node.fleet.add(addition("/m/new")).await.unwrap_err();
    assert_eq!(again.code, Code::InvalidState);
    node.until(|view| view.ready).await;
}

#[tokio::test(start_paused = true)]
async fn an_addition_that_is_refused_records_nothing() {
    let machine = Machine::running();
    machine.set(|now| now.installable = false);
    let node = Node::start(&[]).await;
    node.transport.machines.lock().insert("m".to_owned(), Arc::clone(&machine));
    let refused = node.fleet.add(addition("m")).await.unwrap_err();
    assert_eq!((refused.code, refused.message.as_str()), (Code::InstallFailed, "the disk is read-only"));
    assert_eq!((node.store.workers().await.unwrap(), node.fleet.list().await.unwrap()), (Vec::new(), Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_removed_worker_is_stopped_told_lost_and_forgotten() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    node.fleet.remove(worker, false).await.unwrap();
    assert_eq!(node.lost().await.worker, worker);
    assert!(!machine.conditions.borrow().running);
    assert_eq!((node.store.workers().await.unwrap(), node.fleet.list().await.unwrap()), (Vec::new(), Vec::new()));
    assert_eq!(node.fleet.request(worker, Request::Ping, None).await.unwrap_err().code, Code::NotFound);
    assert_eq!(*machine.starts.lock(), 0, "a worker that is being removed is not started again");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_worker_is_forgotten_only_by_force_and_after_its_lease() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    machine.set(|now| {
        now.reachable = false;
        now.cuts += 1;
    });
    node.until(|view| !view.ready).await;
    assert_eq!(node.fleet.remove(worker, false).await.unwrap_err().code, Code::WorkerUnreachable);
    let asked = node.clock.boottime();
    node.fleet.remove(worker, true).await.unwrap();
    assert!(node.clock.boottime().since(asked) > secs(8), "its tasks move only when it has fenced itself");
    assert_eq!(node.fleet.list().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_machine_under_a_second_address_is_no_second_worker() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let first = node.until(|view| view.ready).await;
    node.transport.machines.lock().insert("elsewhere".to_owned(), Arc::clone(&machine));
    let refused = node.fleet.add(addition("elsewhere")).await.unwrap_err();
    assert_eq!(refused.code, Code::AnotherWorker);
    tokio::time::sleep(secs(60)).await;
    assert_eq!(node.fleet.list().await.unwrap().len(), 1);
    assert_eq!((node.events().await, node.drain_losses()), (vec!["worker.connected"], Vec::new()), "nobody was disturbed");
    machine.set(|now| {
        now.reachable = false;
        now.cuts += 1;
    });
    node.fleet.remove(first.record.id, true).await.unwrap();
    machine.set(|now| now.reachable = true);
    assert!(node.fleet.add(addition("elsewhere")).await.unwrap().ready, "the node has no other worker there any more");
}

#[tokio::test(start_paused = true)]
async fn a_second_worker_on_one_machine_from_before_waits_and_is_forgotten_without_harm_to_the_first() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine), ("b", &machine)]).await;
    node.until(|view| view.record.name == "a" && view.ready).await;
    let second = node.until(|view| view.record.name == "b" && view.record.status == WorkerStatus::Failed).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(node.events().await.iter().filter(|kind| **kind == "worker.connected").count(), 1, "they do not take turns");
    node.fleet.remove(second.record.id, false).await.unwrap();
    let left = node.fleet.list().await.unwrap();
    assert_eq!((left.len(), left[0].ready, machine.conditions.borrow().running), (1, true, true));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_tasks_are_to_run_on_and_on_no_other_is_removed_only_by_force() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    let pinned = node.pinned(worker).await;
    let refused = node.fleet.remove(worker, false).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidState);
    assert!(refused.message.ends_with(&format!("task {} is to run on it and on no other", pinned.id.short())), "{refused}");
    assert!(machine.conditions.borrow().running);
    node.fleet.remove(worker, true).await.unwrap();
    assert_eq!(node.fleet.list().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_removal_goes_on_until_the_records_have_it() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    node.writable.send_replace(false);
    let fleet = node.fleet.clone();
    let removal = tokio::spawn(async move { fleet.remove(worker, false).await });
    tokio::time::sleep(secs(60)).await;
    assert!(!machine.conditions.borrow().running && !removal.is_finished());
    node.writable.send_replace(true);
    assert_eq!(removal.await.unwrap(), Ok(()));
    assert_eq!((node.store.workers().await.unwrap(), node.lost().await.worker), (Vec::new(), worker));
}

#[tokio::test(start_paused = true)]
async fn a_drained_worker_is_recorded_and_told_and_stays_connected() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    let view = node.fleet.set_lifecycle(worker, Lifecycle::Draining).await.unwrap();
    assert_eq!((view.record.lifecycle, view.record.status, view.ready), (Lifecycle::Draining, WorkerStatus::Maintenance, true));
    assert_eq!(node.store.workers().await.unwrap()[0].lifecycle, Lifecycle::Draining);
    let told = loop {
        if let TasksMsg::WorkerLifecycle { worker, lifecycle } = node.told.recv().await.unwrap() {
            break (worker, lifecycle);
        }
    };
    assert_eq!(told, (worker, Lifecycle::Draining));
    assert_eq!(node.events().await, ["worker.connected", "worker.lifecycle_changed"]);
}

#[tokio::test(start_paused = true)]
async fn lasting_strain_is_told_once() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    node.until(|view| view.record.health == WorkerHealth::Healthy).await;
    *machine.memory_percent.lock() = 95;
    node.until(|view| view.record.health == WorkerHealth::Unhealthy).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(node.events().await, ["worker.connected", "worker.health_degraded"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_free_follows_the_heartbeats_and_a_program_that_was_installed_since_is_found() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let free = |view: &WorkerView| view.record.facts.as_ref().unwrap().resources.memory_free_mib;
    node.until(|view| view.ready && free(view) == 90).await;
    *machine.memory_percent.lock() = 60;
    node.until(|view| free(view) == 40).await;
    tokio::time::sleep(secs(90)).await;
    machine.capabilities.lock().push(Capability("docker".to_owned()));
    let asked_at = node.clock.wall();
    let view = node.until(|view| !view.record.facts.as_ref().unwrap().capabilities.is_empty()).await;
    assert!(view.ready && node.clock.wall().0 - asked_at.0 <= 601_000_000, "within ten minutes, over the connection that stands");
    assert_eq!(node.events().await, ["worker.connected"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_bounded_by_its_own_time() {
    let machine = Machine::running();
    let mut node = Node::start(&[("a", &machine)]).await;
    let worker = node.until(|view| view.ready).await.record.id;
    machine.set(|now| now.answering = false);
    let late = node.fleet.request(worker, tool("k"), Some(secs(2))).await.unwrap_err();
    assert_eq!(late.code, Code::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_workers_are_connected_and_each_death_is_told() {
    let machines: Vec<(String, Arc<Machine>)> = (0..200).map(|n| (format!("m{n}"), Machine::running())).collect();
    let known: Vec<(&str, &Arc<Machine>)> = machines.iter().map(|(name, machine)| (name.as_str(), machine)).collect();
    let mut node = Node::start(&known).await;
    while node.fleet.list().await.unwrap().iter().any(|view| !view.ready) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (_, machine) in machines.iter().take(50) {
        machine.kill();
    }
    let mut lost = Vec::new();
    for _ in 0..50 {
        lost.push(node.lost().await.name);
    }
    lost.sort();
    let mut killed: Vec<String> = machines.iter().take(50).map(|(name, _)| name.clone()).collect();
    killed.sort();
    assert_eq!(lost, killed);
}
