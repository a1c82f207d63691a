//! A workspace that a node comes back to: it goes on as it is, or is refused and then opened.

use super::*;

async fn adopt(node: &Node, task: TaskId, epoch: Epoch, tree: ObjectId) -> Result<Epoch, Code> {
    match node.ask(Request::Adopt { task, epoch, tree }).await {
        Ok(Response::Adopted { opened }) => Ok(opened),
        Ok(other) => panic!("{other:?}"),
        Err(failure) => Err(failure.code),
    }
}

/// A run in the background that goes on until there is a file `go`.
fn begin(node: &Node, task: TaskId, epoch: Epoch, number: u32) -> tokio::task::JoinHandle<Result<Response, Failure>> {
    let command = "echo $$ > pid; echo begun; while [ ! -e go ]; do sleep 0.02; done; echo done; echo x >> runs".into();
    let body = Request::Run { task, epoch, key: key(number), run: RunId::new(), command, timeout_ms: None };
    let link = node.link.clone();
    tokio::spawn(async move { link.request(body, SOON).await })
}

async fn pid_of(bench: &Bench, task: TaskId) -> Pid {
    let file = bench.root(task).join("pid");
    until("the command runs", || std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n'))).await;
    pid_in(&std::fs::read_to_string(file).expect("written"))
}

#[tokio::test]
async fn an_adopted_command_goes_on_and_what_was_done_is_not_done_again() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    node.tool(task, Epoch(1), 1, "shell", json!({"command": "echo tool >> tools"})).await.expect("it runs");
    let before = begin(&node, task, Epoch(1), 2);
    let pid = pid_of(&bench, task).await;
    node.link.abort();
    before.await.expect("no panic").expect_err("the node is gone");

    let node = bench.connect(2).await;
    assert_eq!(adopt(&node, task, Epoch(3), empty_tree()).await, Ok(Epoch(1)));
    assert_eq!(adopt(&node, task, Epoch(3), empty_tree()).await, Ok(Epoch(1)), "an answer that was lost is given again");
    assert_eq!(adopt(&node, task, Epoch(2), empty_tree()).await, Err(Code::StaleOwner));
    assert_eq!(node.run(task, Epoch(1), 3, "true").await.expect_err("stale").code, Code::StaleOwner);
    node.tool(task, Epoch(3), 1, "shell", json!({"command": "echo tool >> tools"})).await.expect("its answer is kept");
    let joined = begin(&node, task, Epoch(3), 2);
    assert!(!is_gone(pid));
    std::fs::write(bench.root(task).join("go"), "").expect("written");
    let Ok(Ok(Response::Ran { report })) = joined.await else { panic!("not run") };
    assert_eq!((report.exit_code, report.tail.as_str()), (0, "begun\ndone\n"));
    assert_eq!(pid_of(&bench, task).await, pid);
    let read = |name: &str| std::fs::read_to_string(bench.root(task).join(name)).expect("written");
    assert_eq!((read("tools"), read("runs")), ("tool\n".to_owned(), "x\n".to_owned()));
    let (snapshot, _) = node.snapshot(task, Epoch(3), empty_tree()).await;
    assert_eq!(snapshot.changes.len(), 4);
}

#[tokio::test]
async fn a_command_frozen_by_the_fence_goes_on_when_it_is_adopted() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    let before = begin(&node, task, Epoch(1), 1);
    let pid = pid_of(&bench, task).await;
    node.link.abort();
    before.await.expect("no panic").expect_err("the node is gone");
    until("the fence has fallen", || state_of(pid) == Some('T')).await;

    let node = bench.connect(2).await;
    assert_eq!(adopt(&node, task, Epoch(2), empty_tree()).await, Ok(Epoch(1)));
    std::fs::write(bench.root(task).join("go"), "").expect("written");
    let Ok(Ok(Response::Ran { report })) = begin(&node, task, Epoch(2), 1).await else { panic!("not run") };
    assert_eq!((report.exit_code, report.tail.as_str()), (0, "begun\ndone\n"));
    assert_eq!(pid_of(&bench, task).await, pid);
}

#[tokio::test]
async fn a_step_goes_on_from_where_it_began_whether_or_not_the_last_commit_stands() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    node.run(task, Epoch(1), 1, "echo one >> file").await.expect("it runs");
    let (first, _) = node.snapshot(task, Epoch(1), empty_tree()).await;
    // Its commit was lost: it is made again, the answer of its command with it.
    assert_eq!(adopt(&node, task, Epoch(2), empty_tree()).await, Ok(Epoch(1)));
    node.run(task, Epoch(2), 1, "echo one >> file").await.expect("its answer is kept");
    let (again, _) = node.snapshot(task, Epoch(2), empty_tree()).await;
    assert_eq!(again.tree, first.tree);
    // It stands: the next step begins from its files, and no other.
    assert_eq!(adopt(&node, task, Epoch(3), first.tree).await, Ok(Epoch(1)));
    node.run(task, Epoch(3), 2, "echo two >> file").await.expect("it runs");
    assert_eq!(adopt(&node, task, Epoch(4), empty_tree()).await, Err(Code::NotFound));
    assert_eq!(adopt(&node, task, Epoch(4), first.tree).await, Ok(Epoch(1)));
    // Refused or not, an opening begins everything anew.
    node.open(task, Epoch(5), empty_tree()).await;
    assert_eq!(
        node.run(task, Epoch(5), 1, "cat file || echo nothing").await.expect("it runs").tail.lines().last(),
        Some("nothing")
    );
    assert_eq!(adopt(&node, task, Epoch(6), empty_tree()).await, Ok(Epoch(5)));
}

#[tokio::test]
async fn a_workspace_is_not_adopted_where_a_call_was_cancelled_or_the_worker_is_another_one() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    assert_eq!(adopt(&node, TaskId::new(), Epoch(1), empty_tree()).await, Err(Code::NotFound));
    let task = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    let run = begin(&node, task, Epoch(1), 1);
    pid_of(&bench, task).await;
    let cancel = Request::Cancel { task, epoch: Epoch(1), key: key(1), grace_ms: 0 };
    assert_eq!(node.ask(cancel).await, Ok(Response::Cancelled { stopped: true }));
    run.await.expect("no panic").expect("it is reported");
    assert_eq!(adopt(&node, task, Epoch(2), empty_tree()).await, Err(Code::NotFound));

    let other = node.open(TaskId::new(), Epoch(1), empty_tree()).await;
    kill_process(bench.pid(), Signal::KILL).expect("it runs");
    until("the worker is dead", || is_gone(bench.pid())).await;
    let again = bench.start_again();
    let node = again.connect(2).await;
    assert_eq!(node.welcome.holds.len(), 2);
    assert_eq!(adopt(&node, other, Epoch(2), empty_tree()).await, Err(Code::NotFound));
}
