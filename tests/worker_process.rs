//! The worker as a real process: commands, bridges, guards, signals.

mod worker_adoption;
mod worker_bench;
mod worker_sandbox;

use std::time::{Duration, Instant};

use helix_link::Event;
use helix_protocol::link::{Notice, OpenWorkspace, Request, Response, Snapshotted, ToolLimits};
use helix_protocol::{Code, Environment, Epoch, ExitReport, Failure, Isolation, ObjectId, RunId, TaskId, ToolCall, ToolOutcome};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;

use worker_bench::{Bench, FAST, Node, SOON, empty_tree, key, until};

fn pid_in(text: &str) -> Pid {
    Pid::from_raw(text.trim().parse().expect("a process id")).expect("not zero")
}

/// The state letter of a process, as proc(5) names it; none once it is gone.
fn state_of(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat[stat.rfind(')')? + 2..].chars().next()
}

fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid).is_err() || matches!(state_of(pid), None | Some('Z' | 'X'))
}

/// A task whose command has ended and left a loop running in its workspace.
async fn looping(bench: &Bench, node: &Node) -> (TaskId, Pid) {
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    let command = "(while :; do sleep 0.02; done) > /dev/null 2>&1 & echo $! > loop.pid";
    node.run(task, Epoch(1), 1, command).await.expect("it runs");
    (task, pid_in(&std::fs::read_to_string(bench.root(task).join("loop.pid")).expect("written")))
}

#[tokio::test]
async fn a_command_runs_and_its_workspace_is_snapshotted_with_its_objects() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    let report = node.run(task, Epoch(1), 1, "echo out; echo err >&2; printf data > file.txt; exit 3").await.expect("it runs");
    assert_eq!((report.exit_code, report.tail.as_str(), report.output, report.output_bytes), (3, "out\nerr\n", None, 8));
    let (snapshot, objects) = node.snapshot(task, Epoch(1), empty_tree()).await;
    assert_eq!(snapshot.changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), ["file.txt"]);
    assert!(objects.iter().any(|(id, bytes)| *id == helix_objects::hash(b"data") && bytes.as_ref() == b"data"), "{objects:?}");
    assert_eq!((snapshot.logical_bytes, snapshot.torn.len()), (4, 0));
    // Nothing new: nothing is sent.
    let (again, objects) = node.snapshot(task, Epoch(1), snapshot.tree).await;
    assert_eq!((again.tree, again.stream, objects.len()), (snapshot.tree, None, 0));
    // Another task starts from that tree: its content is here already.
    let other = node.open(TaskId::new(), Epoch(1), snapshot.tree).await;
    assert_eq!(node.run(other, Epoch(1), 1, "cat file.txt").await.expect("it runs").tail, "data");
}

#[tokio::test]
async fn a_tree_that_is_not_here_is_asked_for_and_then_checked_out() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let file = helix_objects::NewObject::new("hello".into());
    let entry =
        helix_versions::TreeEntry { name: b"a.txt".to_vec(), mode: helix_protocol::FileMode::Regular, size: 5, id: file.id() };
    let tree = helix_versions::Tree::new(vec![entry]).expect("a tree").encode();
    let open = Bench::open_request(TaskId::new(), Epoch(1), tree.id());
    let task = open.task;
    let refused = node.ask(Request::Open(Box::new(open.clone()))).await.expect_err("missing");
    assert_eq!(refused.code, Code::ObjectsMissing);
    let ids = vec![tree.id(), file.id()];
    assert_eq!(node.ask(Request::Missing { objects: ids.clone() }).await, Ok(Response::Missing { objects: ids }));
    let sent = vec![(tree.id(), tree.bytes().clone()), (file.id(), file.bytes().clone())];
    assert_eq!(node.link.store(sent, SOON).await, Ok((2, (tree.bytes().len() + 5) as u64)));
    let forged = node.link.store(vec![(file.id(), "other".into())], SOON).await;
    assert_eq!(forged.expect_err("forged").code, Code::CorruptObject);
    node.ask(Request::Open(Box::new(open))).await.expect("opened");
    assert_eq!(node.tool(task, Epoch(1), 1, "read", json!({"path": "a.txt"})).await.expect("read").content, "     1\thello\n");
}

#[tokio::test]
async fn tools_answer_the_model_and_stay_in_the_workspace() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    let call = async |number, name, input| node.tool(task, Epoch(1), number, name, input).await.expect("answered");
    assert_eq!(
        call(1, "write", json!({"path": "src/a.rs", "content": "fn a() {}\n"})).await.content,
        "made src/a.rs: 1 lines, 10 bytes"
    );
    assert_eq!(
        call(2, "edit", json!({"path": "src/a.rs", "old": "a()", "new": "b()"})).await.content,
        "edited src/a.rs, line 1: matched exactly"
    );
    assert_eq!(call(3, "grep", json!({"pattern": "fn b"})).await.content, "src/a.rs:1:fn b() {}");
    assert_eq!(call(4, "glob", json!({"pattern": "**/*.rs"})).await.content, "src/a.rs");
    assert_eq!(call(5, "todo", json!({"items": [{"text": "x", "state": "doing"}]})).await.content, "[~] x");
    let shell = call(6, "shell", json!({"command": "no-such-program-here"})).await;
    assert!(shell.is_error && shell.exit_code == Some(127) && shell.content.contains("program_missing"), "{shell:?}");
    for (number, path) in [(7, "../x"), (8, "/etc/passwd")] {
        let refused = call(number, "read", json!({"path": path})).await;
        assert!(refused.is_error && refused.content.starts_with("path_escapes: "), "{refused:?}");
    }
    let wrong = call(9, "shell", json!({"cmd": "true"})).await;
    assert!(wrong.is_error && wrong.content.starts_with("invalid_tool_call: "), "{wrong:?}");
    let long = call(10, "shell", json!({"command": "seq 1 100000"})).await;
    assert!(
        long.truncated && long.content.len() <= 32 * 1024 && long.content.contains("read_output with run "),
        "{}",
        &long.content[..100]
    );
    let run = long.content.split("run ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a run id").to_owned();
    let page = call(11, "read_output", json!({"run": run, "offset": 0, "limit": 6})).await;
    assert_eq!(page.content, "1\n2\n3\n\n[go on with offset 6]");
    let late = call(12, "shell", json!({"command": "sleep 60", "timeout_s": 1})).await;
    assert!(late.is_error && late.exit_code == Some(124), "{late:?}");
    // The same key again: the kept answer, not another run.
    assert_eq!(call(10, "shell", json!({"command": "seq 1 100000"})).await, long);
}

#[tokio::test]
async fn what_no_system_takes_is_told_to_the_model_and_a_command_that_is_too_long_for_an_argument_runs_as_any_other() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    for isolation in [Isolation::Workspace, Isolation::Full] {
        let mut open = Bench::open_request(TaskId::new(), Epoch(1), empty_tree());
        open.environment.isolation = Some(isolation);
        let task = open.task;
        node.ask(Request::Open(Box::new(open))).await.expect("opened");
        let call = async |number, name, input| node.tool(task, Epoch(1), number, name, input).await.expect("answered");
        let text = format!("{}\n", "x".repeat(99)).repeat(1_500);
        let long = format!("cat > big <<'END'\n{text}END\nwc -c < big; cat; [ -e /proc/self/fd/3 ] || echo \"$0\" closed");
        // Lines are numbered as in the command.
        let line = format!("{}: ", text.lines().count() + 4);
        let ran = node.run(task, Epoch(1), 1, &format!("{long}; exit 7")).await.expect("it runs");
        assert_eq!((ran.exit_code, ran.tail.as_str()), (7, "150000\n/bin/sh closed\n"));
        let wrong = call(2, "shell", json!({"command": format!("{long}\n(")})).await;
        let short = call(3, "shell", json!({"command": "("})).await;
        assert!(wrong.is_error && wrong.exit_code == short.exit_code, "{wrong:?} {short:?}");
        let missing = call(4, "shell", json!({"command": format!("{long}\nno-such-program-here")})).await;
        assert!(missing.exit_code == Some(127) && missing.content.contains(&line), "{missing:?}");
        let running = call(5, "shell", json!({"command": format!("{long}; sleep 300"), "background": true})).await;
        assert!(running.content.contains("closed"), "{running:?}");
        let run = running.content.split("as run ").nth(1).and_then(|rest| rest.split(';').next()).expect("a run id");
        let stopped = call(6, "stop", json!({"run": run})).await;
        assert!(stopped.content.contains("stopped"), "{stopped:?}");
        for (number, name, input, told) in [
            (7, "shell", json!({"command": "echo \0"}), "invalid_tool_call: the command has a zero byte"),
            (8, "shell", json!({"command": "echo \0", "background": true}), "invalid_tool_call: the command has a zero byte"),
            (9, "shell", json!({"command": ":".repeat(2 << 20)}), "invalid_request: the command is 2097152 bytes long"),
            (10, "write", json!({"path": "x".repeat(300), "content": "x"}), "file_unreadable: "),
            (11, "edit", json!({"path": "x".repeat(300), "old": "x", "new": "y"}), "file_unreadable: "),
        ] {
            let refused = call(number, name, input).await;
            assert!(refused.is_error && refused.content.starts_with(told), "{refused:?}");
        }
        let refused = node.run(task, Epoch(1), 12, "echo \0").await.expect_err("refused");
        assert_eq!(refused.code, Code::InvalidRequest);
    }
}

#[tokio::test]
async fn a_cut_bridge_harms_nothing_the_call_is_joined_and_its_output_replayed() {
    let bench = Bench::start();
    let mut bridge = bench.bridge(1).await;
    let task = bridge.node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    let run = RunId::new();
    let command = "echo begun; while [ ! -e go ]; do sleep 0.02; done; echo done; echo x >> runs";
    let body = Request::Run { task, epoch: Epoch(1), key: key(1), run, command: command.into(), timeout_ms: None };
    let first = {
        let link = bridge.node.link.clone();
        let body = body.clone();
        tokio::spawn(async move { link.request(body, SOON).await })
    };
    let read = Request::ReadOutput { run, offset: 0, limit: 100, wait_ms: 5_000 };
    let output = async |node: &Node, offset| {
        let Request::ReadOutput { run, limit, wait_ms, .. } = read.clone() else { unreachable!() };
        match node.ask(Request::ReadOutput { run, offset, limit, wait_ms }).await {
            Ok(Response::Output { data, ended }) => (String::from_utf8(data.to_vec()).expect("text"), ended),
            Err(failure) if failure.code == Code::NotFound => (String::new(), false),
            other => panic!("{other:?}"),
        }
    };
    while output(&bridge.node, 0).await.0 != "begun\n" {}
    bridge.process.kill().await.expect("killed");
    assert_eq!(first.await.expect("no panic").expect_err("cut").code, Code::WorkerUnreachable);

    let node = bench.connect(2).await;
    assert_eq!(node.welcome.incarnation, bridge.node.welcome.incarnation);
    assert_eq!(node.welcome.holds[0].calls, [key(1)]);
    let joined = {
        let link = node.link.clone();
        tokio::spawn(async move { link.request(body, SOON).await })
    };
    assert_eq!(output(&node, 0).await, ("begun\n".to_owned(), false));
    std::fs::write(bench.root(task).join("go"), "").expect("written");
    assert_eq!(output(&node, 6).await.0, "done\n");
    let Ok(Response::Ran { report }) = joined.await.expect("no panic") else { panic!("not run") };
    assert_eq!((report.exit_code, report.tail.as_str()), (0, "begun\ndone\n"));
    assert_eq!(output(&node, 0).await, ("begun\ndone\n".to_owned(), true));
    assert_eq!(std::fs::read_to_string(bench.root(task).join("runs")).expect("once"), "x\n");
}

#[tokio::test]
async fn killing_the_worker_kills_everything_it_started_and_its_death_is_proven() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    node.run(task, Epoch(1), 1, "setsid sh -c 'echo $$ > server.pid; cd /; exec sleep 300' > /dev/null 2>&1 & while [ ! -s server.pid ]; do sleep 0.01; done").await.expect("it runs");
    let server = pid_in(&std::fs::read_to_string(bench.root(task).join("server.pid")).expect("written"));
    assert!(!is_gone(server));
    kill_process(bench.pid(), Signal::KILL).expect("killed");
    until("the guard has killed the server", || is_gone(server)).await;
    until("the worker is gone", || is_gone(bench.pid())).await;
    let attach = bench.attach_exit();
    assert_eq!((attach.0, attach.1["proof"].as_str()), (Some(20), Some("connection_refused")));

    // The next incarnation knows the workspace, and nothing of the old one runs.
    let again = bench.start_again();
    let node = again.connect(2).await;
    assert_eq!((node.welcome.holds[0].task, node.welcome.holds[0].epoch), (task, Epoch(1)));
    assert!(node.welcome.incarnation > bench.incarnation);
}

#[tokio::test]
async fn a_stopped_worker_past_its_lease_has_its_processes_frozen_and_then_refuses() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let (task, ticking) = looping(&bench, &node).await;
    kill_process(bench.pid(), Signal::STOP).expect("stopped");
    let stopped = Instant::now();
    until("the guard has frozen the loop", || state_of(ticking) == Some('T')).await;
    assert!(stopped.elapsed() >= Duration::from_millis(FAST.fence_ms / 2), "frozen after {:?}", stopped.elapsed());
    node.stop_acknowledging();
    kill_process(bench.pid(), Signal::CONT).expect("continued");
    let refused = node.run(task, Epoch(1), 2, "true").await.expect_err("fenced");
    assert_eq!(refused.code, Code::LeaseExpired);
    assert_eq!(state_of(ticking), Some('T'));

    // A renewed grant thaws; a higher epoch kills.
    let node = bench.connect(2).await;
    until("the loop goes on", || state_of(ticking) != Some('T')).await;
    node.open(task, Epoch(2), empty_tree()).await;
    assert!(is_gone(ticking));
    let stale = node.run(task, Epoch(1), 3, "true").await.expect_err("stale");
    assert_eq!(stale.code, Code::StaleOwner);
}

/// A snapshot freezes what runs, and leaves it so where the lease ends meanwhile: the guard lets it go on with the next grant, also
/// where the guard itself was too late to see that there was an end.
#[tokio::test]
async fn what_was_frozen_when_a_lease_ended_goes_on_with_the_next_one_though_the_guard_saw_no_end() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let (task, looping) = looping(&bench, &node).await;
    let guard = bench.guard().expect("a guard");
    kill_process(guard, Signal::STOP).expect("stopped");
    node.stop_acknowledging();
    kill_process(looping, Signal::STOP).expect("stopped as a snapshot stops it");
    tokio::time::sleep(2 * Duration::from_millis(FAST.fence_ms)).await;
    let refused = node.run(task, Epoch(1), 2, "true").await.expect_err("fenced");
    assert_eq!(refused.code, Code::LeaseExpired);
    let node = bench.connect(2).await;
    node.run(task, Epoch(1), 3, "true").await.expect("granted again");
    kill_process(guard, Signal::CONT).expect("continued");
    until("the loop goes on", || !matches!(state_of(looping), Some('T'))).await;
    assert!(!is_gone(looping));
}

#[tokio::test]
async fn a_guard_that_is_killed_is_replaced_and_knows_the_deadline() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let (task, looping) = looping(&bench, &node).await;
    let first = bench.guard().expect("a guard");
    kill_process(first, Signal::KILL).expect("killed");
    until("another guard watches", || bench.guard().is_some_and(|guard| guard != first)).await;
    assert!(!is_gone(looping));
    // It holds its lock, so it is ready, before the worker is killed.
    node.run(task, Epoch(1), 2, "true").await.expect("it goes on");
    until("the new guard is ready", || bench.guard_is_ready()).await;
    kill_process(bench.pid(), Signal::KILL).expect("killed");
    until("the new guard has killed the loop", || is_gone(looping)).await;
}

#[tokio::test]
async fn a_worker_that_hears_nothing_fences_itself_says_so_and_is_lifted_by_an_acknowledgement() {
    let bench = Bench::start();
    let mut node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    node.stop_acknowledging();
    let frozen = loop {
        if let Event::Notice(Notice::Fenced { frozen }) = node.events.recv().await.expect("connected") {
            break frozen;
        }
    };
    assert!(frozen);
    assert_eq!(node.run(task, Epoch(1), 1, "true").await.expect_err("fenced").code, Code::LeaseExpired);
    node.acknowledge_again();
    let start = Instant::now();
    while node.run(task, Epoch(1), 1, "true").await.is_err() {
        assert!(start.elapsed() < SOON, "the fence is not lifted");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_detached_server_is_gone_before_its_workspace_is_reused() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    // Without the marks, in another session, orphaned: only its working folder gives it away.
    let hidden = "env -i PATH=\"$PATH\" setsid sh -c 'echo $$ > hidden.pid; sleep 300' > /dev/null 2>&1 &";
    let marked = "(setsid sh -c 'echo $$ > marked.pid; cd /; sleep 300' > /dev/null 2>&1 &)";
    // Neither, where a sandbox has its own view of files: that alone gives it away.
    let away = if node.welcome.facts.sandbox.namespaces { "cd /" } else { ":" };
    let bare = format!("env -i PATH=\"$PATH\" setsid sh -c 'echo $$ > bare.pid; {away}; sleep 300' > /dev/null 2>&1 &");
    let wait = "while [ ! -s hidden.pid ] || [ ! -s marked.pid ] || [ ! -s bare.pid ]; do sleep 0.01; done";
    node.run(task, Epoch(1), 1, &format!("{hidden} {marked}; {bare} {wait}")).await.expect("it runs");
    let pids = ["hidden.pid", "marked.pid", "bare.pid"]
        .map(|name| pid_in(&std::fs::read_to_string(bench.root(task).join(name)).expect("written")));
    assert!(pids.iter().all(|pid| !is_gone(*pid)));
    let open = node.ask(Request::Open(Box::new(Bench::open_request(task, Epoch(2), empty_tree())))).await.expect("opened");
    assert!(matches!(open, Response::Opened { warm: false, .. }));
    assert!(pids.iter().all(|pid| is_gone(*pid)));
    assert_eq!(std::fs::read_dir(bench.root(task)).expect("there").count(), 0);
}

/// Leaves its parents, its session and its folder, and lets nobody look at it who is not root, as an agent of keys does.
const UNSEEN: &str = r#"
import ctypes, os, sys, time
for _ in range(2):
    if os.fork(): os._exit(0)
    os.setsid()
pid = os.path.abspath("unseen.pid")
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
with open(pid + ".draft", "w") as file: file.write(str(os.getpid()))
os.rename(pid + ".draft", pid)
os.chdir("/")
time.sleep(300)
"#;

/// Everything that must find what a task runs, on something that shows its parent alone.
pub async fn what_is_unseen_is_found(bench: Bench, isolation: Isolation) {
    let node = bench.connect(1).await;
    let mut open = Bench::open_request(TaskId::new(), Epoch(1), empty_tree());
    open.environment.isolation = Some(isolation);
    let task = open.task;
    node.ask(Request::Open(Box::new(open.clone()))).await.expect("opened");
    let start = async |bench: &Bench, node: &Node, epoch, number| {
        let command = format!(
            "env -i python3 -c '{UNSEEN}' > /dev/null 2>&1; for _ in $(seq 1000); do [ -s unseen.pid ] && break; sleep 0.01; done"
        );
        node.run(task, epoch, number, &command).await.expect("it runs");
        pid_in(&std::fs::read_to_string(bench.root(task).join("unseen.pid")).expect("written"))
    };
    let unseen = start(&bench, &node, Epoch(1), 1).await;
    assert!(!is_gone(unseen));

    kill_process(bench.pid(), Signal::STOP).expect("stopped");
    until("the guard has frozen it", || state_of(unseen) == Some('T')).await;
    kill_process(bench.pid(), Signal::CONT).expect("continued");
    until("it goes on", || state_of(unseen) != Some('T')).await;

    open.epoch = Epoch(2);
    node.ask(Request::Open(Box::new(open.clone()))).await.expect("opened");
    assert!(is_gone(unseen), "the workspace is used again, and it runs");

    // What started it is stopped with it, so the guard alone can end it.
    let unseen = start(&bench, &node, Epoch(2), 2).await;
    kill_process(bench.pid(), Signal::STOP).expect("stopped");
    until("the guard has frozen it", || state_of(unseen) == Some('T')).await;
    kill_process(bench.pid(), Signal::KILL).expect("killed");
    until("the guard has killed it", || is_gone(unseen)).await;

    // A guard that does nothing is not missed.
    let bench = bench.start_again();
    let node = bench.connect(2).await;
    open.epoch = Epoch(3);
    node.ask(Request::Open(Box::new(open))).await.expect("opened");
    let unseen = start(&bench, &node, Epoch(3), 3).await;
    let guard = bench.guard().expect("a guard");
    kill_process(guard, Signal::STOP).expect("stopped");
    assert!(!is_gone(unseen));
    kill_process(bench.pid(), Signal::KILL).expect("killed");
    until("it is gone with the worker", || is_gone(unseen)).await;
    kill_process(guard, Signal::CONT).expect("continued");
}

#[tokio::test]
async fn a_process_that_lets_nobody_look_at_it_is_found_without_a_sandbox() {
    what_is_unseen_is_found(Bench::start_as_no_root(), Isolation::Full).await;
}

#[tokio::test]
async fn a_process_that_lets_nobody_look_at_it_is_found_in_a_sandbox() {
    what_is_unseen_is_found(Bench::start_as_no_root(), Isolation::Workspace).await;
}

#[tokio::test]
async fn a_timed_out_and_a_cancelled_run_take_what_they_started_with_them() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    let escape = |name: &str| {
        format!(
            "(setsid sh -c 'trap \"\" TERM; echo $$ > {name}; cd /; sleep 300; sleep 300' > /dev/null 2>&1 &); while [ ! -s {name} ]; do sleep 0.01; done; sleep 300"
        )
    };
    let run = |number, name: &str, timeout_ms| Request::Run {
        task,
        epoch: Epoch(1),
        key: key(number),
        run: RunId::new(),
        command: escape(name),
        timeout_ms,
    };
    let Ok(Response::Ran { report }) = node.ask(run(1, "one", Some(500))).await else { panic!("not run") };
    assert_eq!(report.exit_code, 124);
    let cancelled = {
        let link = node.link.clone();
        let body = run(2, "two", None);
        tokio::spawn(async move { link.request(body, SOON).await })
    };
    let two = bench.root(task).join("two");
    until("it runs", || std::fs::read_to_string(&two).is_ok_and(|text| !text.is_empty())).await;
    let cancel = Request::Cancel { task, epoch: Epoch(1), key: key(2), grace_ms: 100 };
    assert_eq!(node.ask(cancel).await, Ok(Response::Cancelled { stopped: true }));
    let Ok(Response::Ran { report }) = cancelled.await.expect("no panic") else { panic!("not run") };
    assert_eq!(report.exit_code, 143);
    for name in ["one", "two"] {
        assert!(is_gone(pid_in(&std::fs::read_to_string(bench.root(task).join(name)).expect("written"))), "{name}");
    }
}

#[tokio::test]
async fn secrets_are_masked_ports_are_given_and_a_setup_runs_again_only_for_another_lockfile() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let mut open = Bench::open_request(TaskId::new(), Epoch(1), empty_tree());
    let task = open.task;
    open.environment = Environment {
        variables: [("PLAIN".to_owned(), "shown".to_owned())].into(),
        setup: Some("echo run >> cache/setups || { mkdir cache; echo run >> cache/setups; }".into()),
        lockfiles: vec!["lock".into()],
        caches: vec!["cache".into()],
        ports: 2,
        ..Environment::default()
    };
    open.secrets = vec![("KEY".into(), "hunter2".into())];
    let Ok(Response::Opened { ports, setup: Some(setup), .. }) = node.ask(Request::Open(Box::new(open.clone()))).await else {
        panic!("not set up")
    };
    assert_eq!((setup.exit_code, ports.len()), (0, 2));
    let report = node.run(task, Epoch(1), 1, "printf 'hun'; printf 'ter2\\n'; echo $PLAIN $KEY $HELIX_PORT; echo $HELIX_PORTS; [ -z \"$OPENAI_API_KEY\" ] && echo clean").await.expect("it runs");
    assert_eq!(report.tail, format!("[secret]\nshown [secret] {}\n{} {}\nclean\n", ports[0], ports[0], ports[1]));
    let setups = |wanted: usize| {
        assert_eq!(std::fs::read_to_string(bench.root(task).join("cache/setups")).expect("cached").lines().count(), wanted)
    };
    setups(1);
    open.epoch = Epoch(2);
    let again = node.ask(Request::Open(Box::new(open.clone()))).await.expect("opened");
    assert!(matches!(again, Response::Opened { setup: None, .. }), "{again:?}");
    setups(1);
    node.tool(task, Epoch(2), 2, "write", json!({"path": "lock", "content": "new"})).await.expect("written");
    let (snapshot, _) = node.snapshot(task, Epoch(2), empty_tree()).await;
    (open.epoch, open.tree) = (Epoch(3), snapshot.tree);
    let third = node.ask(Request::Open(Box::new(open))).await.expect("opened");
    assert!(matches!(third, Response::Opened { setup: Some(_), .. }), "{third:?}");
    setups(2);
}

#[tokio::test]
async fn one_node_at_a_time_and_the_newest_connection_of_it() {
    let bench = Bench::start();
    let node = bench.connect(5).await;
    node.ask(Request::Ping).await.expect("there");
    let stranger = bench.try_connect_as(helix_protocol::NodeId::new(), 9).await.err().expect("refused");
    assert_eq!(stranger.code, Code::InvalidState);
    let older = bench.try_connect_as(bench.node, 4).await.err().expect("refused");
    assert_eq!(older.code, Code::InvalidState);
    let newer = bench.connect(6).await;
    node.link.closed().await;
    assert_eq!(newer.ask(Request::Ping).await, Ok(Response::Pong));
}

#[tokio::test]
async fn stop_ends_the_worker_and_wipes_where_asked_and_close_deletes_a_workspace() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(3), empty_tree()).await;
    node.run(task, Epoch(3), 1, "mkdir -p a/b; chmod 555 a/b a; sleep 300 > /dev/null 2>&1 &").await.expect("it runs");
    assert_eq!(node.ask(Request::Close { task, epoch: Epoch(2) }).await.expect_err("stale").code, Code::StaleOwner);
    assert_eq!(node.ask(Request::Close { task, epoch: Epoch(3) }).await, Ok(Response::Closed));
    assert!(!bench.root(task).exists());
    assert_eq!(node.ask(Request::Close { task, epoch: Epoch(3) }).await, Ok(Response::Closed));
    assert_eq!(node.ask(Request::Stop { wipe: false }).await, Ok(Response::Stopping));
    until("the worker is gone", || is_gone(bench.pid())).await;
    assert_eq!(bench.verb(&["status", "--json"]), (Some(3), json!({"running": false})));
    assert_eq!(bench.verb(&["stop", "--wipe"]).0, Some(0));
    assert!(!bench.folder().exists());
}

/// Runs the program on a folder: exit code, and what it said as JSON.
fn on(folder: &std::path::Path, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_helix-worker"));
    let output = program.args(arguments).arg("--folder").arg(folder).output().expect("it runs");
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    (output.status.code(), serde_json::from_slice(&said).unwrap_or_default())
}

fn names_in(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("it is there").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_folder_that_is_no_workers_is_neither_served_from_nor_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("notes.txt"), "mine").expect("written");
    for arguments in [["start"].as_slice(), &["serve", "--log", "stderr"], &["stop", "--wipe"]] {
        let (code, said) = on(folder.path(), arguments);
        assert_eq!((code, said["code"].as_str()), (Some(2), Some("invalid_request")), "{arguments:?}: {said}");
        assert!(said["message"].as_str().is_some_and(|message| message.contains("is no worker's folder")), "{said}");
        assert!(said["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{said}");
        assert_eq!(names_in(folder.path()), ["notes.txt"], "{arguments:?}");
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("notes.txt")).expect("there"), "mine");
    // Where there is nothing, nothing is deleted either.
    let empty = tempfile::tempdir().expect("a folder");
    assert_eq!(on(empty.path(), &["stop", "--wipe"]).0, Some(0));
    assert!(empty.path().exists());
}

#[test]
fn a_wipe_deletes_what_the_worker_made_and_nothing_that_lies_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let lives = folder.path().join("w");
    assert_eq!(on(&lives, &["start"]).0, Some(0));
    assert_eq!(on(&lives, &["stop"]).0, Some(0));
    // One of an earlier version, whose folders have no mark.
    std::fs::remove_file(lives.join(".helix-worker")).expect("every worker's folder is marked");
    std::fs::write(lives.join("notes.txt"), "mine").expect("written");
    assert_eq!(on(&lives, &["start"]).0, Some(0));
    assert!(lives.join(".helix-worker").exists() && lives.join("tasks").exists());
    assert_eq!(on(&lives, &["stop", "--wipe"]).0, Some(0));
    assert_eq!(names_in(&lives), ["notes.txt"]);
    assert_eq!(on(&lives, &["stop", "--wipe"]).0, Some(2), "it is no worker's any more");
    std::fs::remove_file(lives.join("notes.txt")).expect("there");
    assert_eq!(on(&lives, &["start"]).0, Some(0));
    assert_eq!(on(&lives, &["stop", "--wipe"]).0, Some(0));
    assert!(!lives.exists());
}

#[tokio::test]
async fn output_longer_than_a_report_comes_whole_with_the_next_snapshot() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    let report = node.run(task, Epoch(1), 1, "seq 1 20000").await.expect("it runs");
    let whole: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    let id = helix_objects::hash(whole.as_bytes());
    assert_eq!((report.output, report.output_bytes), (Some(id), whole.len() as u64));
    assert_eq!(report.tail, whole[whole.len() - 16 * 1024..]);
    // The answer to the first request is lost, so the node asks again, and gets it again.
    for _ in 0..2 {
        let (snapshot, objects) = node.snapshot(task, Epoch(1), empty_tree()).await;
        assert_eq!((snapshot.tree, snapshot.bytes), (empty_tree(), whole.len() as u64));
        assert_eq!(objects, [(id, whole.clone().into())]);
    }
}

#[tokio::test]
async fn garbage_on_the_socket_and_sigterm_leave_nothing_behind() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let mut garbage = tokio::net::UnixStream::connect(bench.folder().join("worker.sock")).await.expect("it listens");
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    assert_eq!(garbage.read(&mut [0; 16]).await.expect("closed"), 0);
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    node.run(task, Epoch(1), 1, "sleep 300 > /dev/null 2>&1 & echo $! > sleep.pid").await.expect("it still serves");
    let sleep = pid_in(&std::fs::read_to_string(bench.root(task).join("sleep.pid")).expect("written"));
    kill_process(bench.pid(), Signal::TERM).expect("signalled");
    until("the worker has ended", || is_gone(bench.pid())).await;
    // What a sandbox had in it ends with the sandbox, which may take the kernel a moment more.
    until("what it started has ended", || is_gone(sleep)).await;
    assert!(!bench.folder().join("worker.sock").exists());
    assert_eq!(bench.attach_exit().0, Some(20));
}

#[tokio::test]
async fn a_snapshot_of_a_running_command_is_of_one_moment() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    // Both files always hold the same number, except for the moment between the two writes: the snapshot may catch that
    // moment, but never an older `b` than the `a` before it.
    let body = "i=0; while :; do i=$((i+1)); echo $i > a; echo $i > b; done";
    let running = {
        let link = node.link.clone();
        let body = Request::Run { task, epoch: Epoch(1), key: key(1), run: RunId::new(), command: body.into(), timeout_ms: None };
        tokio::spawn(async move { link.request(body, SOON).await })
    };
    let both = [bench.root(task).join("a"), bench.root(task).join("b")];
    until("it runs", || both.iter().all(|path| path.exists())).await;
    for _ in 0..5 {
        let (snapshot, objects) = node.snapshot(task, Epoch(1), empty_tree()).await;
        let number = |name: &str| {
            let tree = objects.iter().find(|(id, _)| *id == snapshot.tree).expect("the root");
            let tree = helix_versions::Tree::decode(snapshot.tree, &tree.1).expect("a tree");
            let id = tree.get(name.as_bytes()).expect("there").id;
            let text = objects
                .iter()
                .find(|(found, _)| *found == id)
                .map(|(_, bytes)| String::from_utf8_lossy(bytes).trim().to_owned())
                .unwrap_or_default();
            text.parse::<i64>().ok()
        };
        // A file that was just truncated is empty.
        if let (Some(a), Some(b)) = (number("a"), number("b")) {
            assert!(a - b <= 1 && a >= b, "a {a}, b {b}");
        }
        assert_eq!(snapshot.torn, Vec::<String>::new());
    }
    node.ask(Request::Cancel { task, epoch: Epoch(1), key: key(1), grace_ms: 0 }).await.expect("stopped");
    running.await.expect("no panic").expect("reported");
}

#[tokio::test]
async fn small_requests_and_small_commands_pass_quickly() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    let start = Instant::now();
    let pings = (0..64).map(|_| async {
        for _ in 0..50 {
            assert_eq!(node.ask(Request::Ping).await, Ok(Response::Pong));
        }
    });
    futures::future::join_all(pings).await;
    let pings = 3200.0 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for number in 0..50 {
        assert_eq!(node.run(task, Epoch(1), number, "true").await.expect("it runs").exit_code, 0);
    }
    let commands = 50.0 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for _ in 0..50 {
        node.snapshot(task, Epoch(1), empty_tree()).await;
    }
    let snapshots = 50.0 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for _ in 0..50 {
        let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
        node.ask(Request::Close { task, epoch: Epoch(1) }).await.expect("closed");
    }
    let workspaces = 50.0 / start.elapsed().as_secs_f64();
    let status = std::fs::read_to_string(format!("/proc/{}/status", bench.pid().as_raw_nonzero())).expect("it lives");
    let memory = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    println!(
        "{pings:.0} pings/s, {commands:.0} commands/s and {snapshots:.0} snapshots/s one after the other, {workspaces:.0} workspaces/s opened and closed, {memory}"
    );
    assert!(pings > 1_000.0, "{pings:.0} pings a second");
}

#[test]
fn facts_and_versions_are_said_without_a_worker() {
    let facts = std::process::Command::new(env!("CARGO_BIN_EXE_helix-worker")).args(["facts", "--json"]).output().expect("it runs");
    let facts: helix_protocol::WorkerFacts = serde_json::from_slice(&facts.stdout).expect("facts");
    assert_eq!(facts.os, std::env::consts::OS);
    let folder = tempfile::tempdir().expect("a folder");
    let deep = folder.path().join("x".repeat(120));
    let started = std::process::Command::new(env!("CARGO_BIN_EXE_helix-worker"))
        .args(["start", "--folder"])
        .arg(&deep)
        .output()
        .expect("it runs");
    let started: serde_json::Value = serde_json::from_slice(&started.stdout).expect("one line");
    assert!(started["socket"].as_str().is_some_and(|path| path.starts_with("/tmp/helix-")), "{started}");
    let stopped = std::process::Command::new(env!("CARGO_BIN_EXE_helix-worker"))
        .args(["stop", "--wipe", "--folder"])
        .arg(&deep)
        .status()
        .expect("it runs");
    assert!(stopped.success() && !deep.exists());
}

#[tokio::test]
async fn a_worker_that_nobody_needs_leaves() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = || std::process::Command::new(env!("CARGO_BIN_EXE_helix-worker"));
    let started = program().args(["start", "--idle-exit-s", "1", "--folder"]).arg(folder.path()).output().expect("it runs");
    let started: serde_json::Value = serde_json::from_slice(&started.stdout).expect("one line");
    let pid = pid_in(&started["pid"].to_string());
    until("it has left", || is_gone(pid)).await;
    let again = program().args(["status", "--json", "--folder"]).arg(folder.path()).status().expect("it runs");
    assert_eq!(again.code(), Some(3));
}
