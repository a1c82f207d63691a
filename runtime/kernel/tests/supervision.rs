//! What the supervisor promises, with real actors on a paused clock. Each thing that ractor does
//! and that an actor's author might not expect has a test here.

mod probe;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use helix_kernel::{
    Backoff, ChildSpec, Intensity, Restart, Strategy, SupervisorHandle, SupervisorSpec, TreeKind, TreeNode, TreeState, start,
};
use helix_protocol::{Code, Failure, Timestamp};
use probe::{LONG, Probe, ProbeMsg, Record, until_state};
use tokio::time::{Instant, timeout};

const PATIENT: Intensity = Intensity { restarts: 100, period: Duration::from_secs(1) };

async fn tree(strategy: Strategy, probes: &[&Probe]) -> SupervisorHandle {
    let spec = SupervisorSpec::new("root", strategy).intensity(PATIENT);
    let spec = probes.iter().fold(spec, |spec, probe| spec.child(probe.child()));
    start(spec).await.expect("the tree starts")
}

#[tokio::test(start_paused = true)]
async fn children_start_in_order_and_a_stop_runs_each_post_stop_in_reverse_order() {
    let record = Record::new();
    let [a, mut b, c] = ["a", "b", "c"].map(|name| Probe::new(name, &record));
    b.slow_stop = Duration::from_secs(1);
    let root = tree(Strategy::OneForOne, &[&a, &b, &c]).await;
    assert_eq!(record.all(), ["+a", "+b", "+c"]);
    record.clear();
    root.shutdown().await.expect("an orderly end");
    assert_eq!(record.all(), ["-c", "~b", "-b", "-a"]);
    assert_eq!(root.ended().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_mailbox_is_handled_before_an_orderly_stop() {
    let record = Record::new();
    let a = Probe::new("a", &record);
    let root = tree(Strategy::OneForOne, &[&a]).await;
    for note in ["1", "2", "3"] {
        a.tell(ProbeMsg::Note(note.to_owned()));
    }
    root.shutdown().await.expect("an orderly end");
    assert_eq!(record.all(), ["+a", "1", "2", "3", "-a"]);
    let refused = a.address.tell(ProbeMsg::Panic).map_err(|failure| failure.code);
    assert_eq!(refused, Err(Code::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_an_err_both_restart_and_both_skip_post_stop_so_state_lives_outside() {
    let record = Record::new();
    let a = Probe::new("a", &record);
    let root = tree(Strategy::OneForOne, &[&a]).await;
    a.tell(ProbeMsg::Panic);
    record.until(&["+a", "+a"]).await;
    until_state(&root, "a", TreeState::Running).await;
    a.tell(ProbeMsg::Fail);
    record.until(&["+a", "+a", "+a"]).await;
    until_state(&root, "a", TreeState::Running).await;
    // The count lives behind the handle that each incarnation is given.
    assert_eq!(a.which().await, Ok(3));
}

#[tokio::test(start_paused = true)]
async fn a_kill_counts_as_abnormal_and_skips_post_stop() {
    let record = Record::new();
    let a = Probe::new("a", &record);
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).child(a.child().restart(Restart::Transient));
    let root = start(spec).await.expect("it starts");
    a.myself().await.kill();
    record.until(&["+a", "+a"]).await;
    until_state(&root, "a", TreeState::Running).await;
    let node = root.tree().await.expect("it runs").child("a").cloned().expect("it is there");
    assert_eq!((node.restarts, node.last_failure.as_deref()), (1, Some("it was killed")));
}

#[tokio::test(start_paused = true)]
async fn only_an_abnormal_end_restarts_a_transient_child_and_none_a_temporary_one() {
    let record = Record::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| Probe::new(name, &record));
    let spec = SupervisorSpec::new("root", Strategy::OneForOne)
        .child(a.child().restart(Restart::Transient))
        .child(b.child().restart(Restart::Temporary))
        .child(c.child().restart(Restart::Permanent));
    let root = start(spec).await.expect("it starts");
    a.tell(ProbeMsg::End);
    until_state(&root, "a", TreeState::Stopped).await;
    b.tell(ProbeMsg::Panic);
    until_state(&root, "b", TreeState::Failed).await;
    record.clear();
    c.tell(ProbeMsg::End);
    record.until(&["-c", "+c"]).await;
    let states: Vec<_> = root.tree().await.expect("it runs").children.iter().map(|child| child.state).collect();
    assert_eq!(states[..2], [TreeState::Stopped, TreeState::Failed]);
}

#[tokio::test(start_paused = true)]
async fn two_incarnations_never_overlap_even_while_post_stop_still_runs() {
    let record = Record::new();
    let mut a = Probe::new("a", &record);
    a.slow_stop = Duration::from_secs(30);
    let root = tree(Strategy::OneForOne, &[&a]).await;
    a.tell(ProbeMsg::End);
    record.until(&["+a", "~a"]).await;
    // It has ended for everybody but itself: nobody is reached, and nobody else started.
    assert_eq!(a.which().await.map_err(|failure| failure.code), Err(Code::ShuttingDown));
    record.until(&["+a", "~a", "-a", "+a"]).await;
    until_state(&root, "a", TreeState::Running).await;
    assert_eq!(a.which().await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn an_old_reference_is_dead_and_the_address_resolves() {
    let record = Record::new();
    let a = Probe::new("a", &record);
    let root = tree(Strategy::OneForOne, &[&a]).await;
    let old = a.myself().await;
    a.tell(ProbeMsg::Panic);
    record.until(&["+a", "+a"]).await;
    until_state(&root, "a", TreeState::Running).await;
    assert!(old.send_message(helix_kernel::Admitted::internal(ProbeMsg::Panic)).is_err());
    assert_eq!(a.which().await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_actor_dies_is_answered_and_gives_its_permit_back() {
    let record = Record::new();
    let a = Probe::new("a", &record);
    let root = tree(Strategy::OneForOne, &[&a]).await;
    a.tell(ProbeMsg::Panic);
    assert_eq!(a.which().await.map_err(|failure| failure.code), Err(Code::ShuttingDown));
    until_state(&root, "a", TreeState::Running).await;
    assert_eq!(a.address.admission().waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_refuses_and_what_it_holds_is_still_answered() {
    let record = Record::new();
    let a = Probe::new("a", &record);
    let _root = tree(Strategy::OneForOne, &[&a]).await;
    // The clock is paused and there is one thread: nothing is taken out before the next await.
    for note in ["1", "2", "3", "4"] {
        a.tell(ProbeMsg::Note(note.to_owned()));
    }
    let refused = a.address.tell(ProbeMsg::Note("5".to_owned()));
    let expected = Failure::new(Code::Overloaded, "a has 4 requests waiting, which is its limit").hint("try again in a moment");
    assert_eq!(refused, Err(expected));
    record.until(&["+a", "1", "2", "3", "4"]).await;
    assert_eq!(a.which().await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_answers_while_a_restart_waits_for_an_hour() {
    let record = Record::new();
    let [a, b] = ["a", "b"].map(|name| Probe::new(name, &record));
    let hour = Duration::from_secs(3600);
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).child(a.child().backoff(Backoff { first: hour, most: hour }));
    let root = start(spec).await.expect("it starts");
    let before = Instant::now();
    a.tell(ProbeMsg::Panic);
    until_state(&root, "a", TreeState::Restarting).await;
    assert_eq!(a.which().await.map_err(|failure| failure.code), Err(Code::ShuttingDown));
    root.start_child(b.child()).await.expect("the supervisor is not asleep");
    assert_eq!(b.which().await, Ok(1));
    assert!(before.elapsed() < Duration::from_secs(1), "nobody waited for the delay");
    record.until(&["+a", "+b", "+a"]).await;
    assert!(before.elapsed() <= hour + Duration::from_secs(1), "the delay has a ceiling");
}

#[tokio::test(start_paused = true)]
async fn children_that_fail_together_come_back_apart() {
    let record = Record::new();
    let probes = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| Probe::new(name, &record));
    let minute = Duration::from_secs(60);
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).intensity(PATIENT);
    let backoff = Backoff { first: minute, most: minute };
    let _root = start(probes.iter().fold(spec, |spec, probe| spec.child(probe.child().backoff(backoff)))).await.expect("it starts");
    record.clear();
    probes.iter().for_each(|probe| probe.tell(ProbeMsg::Panic));
    let (began, mut back) = (Instant::now(), Vec::new());
    while back.len() < probes.len() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        back.resize(record.all().len(), began.elapsed());
    }
    assert!(back.iter().all(|after| *after <= minute + Duration::from_secs(1)), "{back:?}");
    let apart: std::collections::BTreeSet<Duration> = back.into_iter().collect();
    assert!(apart.len() > probes.len() / 2, "{apart:?}");
}

#[tokio::test(start_paused = true)]
async fn each_strategy_restarts_its_group_with_every_post_stop_run() {
    for (strategy, expected) in [
        (Strategy::OneForOne, vec!["+b"]),
        (Strategy::RestForOne, vec!["-c", "+b", "+c"]),
        (Strategy::OneForAll, vec!["-c", "-a", "+a", "+b", "+c"]),
    ] {
        let record = Record::new();
        let [a, b, c] = ["a", "b", "c"].map(|name| Probe::new(name, &record));
        let _root = tree(strategy, &[&a, &b, &c]).await;
        record.clear();
        b.tell(ProbeMsg::Panic);
        record.until(&expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failures_past_the_intensity_escalate_two_levels_up_and_end_the_tree_with_their_reason() {
    let record = Record::new();
    let [a, b] = ["a", "b"].map(|name| Probe::new(name, &record));
    let once = Intensity { restarts: 1, period: LONG };
    let twig = SupervisorSpec::new("twig", Strategy::OneForOne).intensity(once).child(a.child());
    let branch = SupervisorSpec::new("branch", Strategy::OneForOne).intensity(once).child(ChildSpec::supervisor(twig));
    let spec =
        SupervisorSpec::new("root", Strategy::OneForOne).intensity(once).child(b.child()).child(ChildSpec::supervisor(branch));
    let root = start(spec).await.expect("it starts");
    // Each level bears one restart of the level below: eight incarnations.
    for incarnation in 1..=8 {
        let told = timeout(LONG, async {
            while a.which().await != Ok(incarnation) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        told.await.unwrap_or_else(|_| panic!("incarnation {incarnation} never runs"));
        a.tell(ProbeMsg::Fail);
    }
    let end = timeout(LONG, root.ended()).await.expect("the tree ends");
    let times = "more than 1 restarts within 86400s; the last was for";
    let message = format!("root: {times} branch: branch: {times} twig: twig: {times} a: as told");
    assert_eq!(end, Err(Failure::new(Code::Internal, message)));
    // The sibling at the top was stopped in order, and `a` never was.
    assert_eq!(record.all(), ["+b", "+a", "+a", "+a", "+a", "+a", "+a", "+a", "+a", "-b"]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_start_stops_what_was_started_and_keeps_its_code_and_hint() {
    let record = Record::new();
    let [a, mut b, c] = ["a", "b", "c"].map(|name| Probe::new(name, &record));
    b.unstartable = 1..2;
    let branch = SupervisorSpec::new("branch", Strategy::OneForOne).child(b.child()).child(c.child());
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).child(a.child()).child(ChildSpec::supervisor(branch));
    let handle = spec.handle();
    let failure = start(spec).await.map(|_| ()).expect_err("b does not start");
    let expected =
        Failure::new(Code::NodeRunning, "branch did not start: b did not start: the folder is taken").hint("stop the other one");
    assert_eq!(failure, expected);
    assert_eq!(record.all(), ["+a", "!b", "-a"]);
    assert_eq!(handle.ended().await, Err(expected));
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_fails_is_tried_again_and_counts() {
    let record = Record::new();
    let mut a = Probe::new("a", &record);
    a.unstartable = 2..5;
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).intensity(Intensity { restarts: 4, period: LONG }).child(a.child());
    let root = start(spec).await.expect("the first start works");
    a.tell(ProbeMsg::Panic);
    record.until(&["+a", "!a", "!a", "!a", "+a"]).await;
    until_state(&root, "a", TreeState::Running).await;
    a.tell(ProbeMsg::Panic);
    let failure = timeout(LONG, root.ended()).await.expect("that was one too many").expect_err("and a failure");
    assert_eq!(failure.message, "root: more than 4 restarts within 86400s; the last was for a: as told");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_stop_in_time_is_killed() {
    let record = Record::new();
    let [a, b] = ["a", "b"].map(|name| Probe::new(name, &record));
    let spec =
        SupervisorSpec::new("root", Strategy::OneForOne).child(a.child()).child(b.child().shutdown_within(Duration::from_secs(7)));
    let root = start(spec).await.expect("it starts");
    b.tell(ProbeMsg::Hang);
    let before = Instant::now();
    root.shutdown().await.expect("an orderly end");
    assert_eq!(record.all(), ["+a", "+b", "-a"]);
    assert!(before.elapsed() >= Duration::from_secs(7) && before.elapsed() < Duration::from_secs(8));
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_is_killed_for_its_slowness_leaves_nothing_behind() {
    let record = Record::new();
    let a = Probe::new("a", &record);
    let branch = SupervisorSpec::new("branch", Strategy::OneForOne).child(a.child().shutdown_within(LONG));
    let branch_handle = branch.handle();
    let spec = SupervisorSpec::new("root", Strategy::OneForOne)
        .child(ChildSpec::supervisor(branch).shutdown_within(Duration::from_secs(1)));
    let root = start(spec).await.expect("it starts");
    let myself = a.myself().await;
    a.tell(ProbeMsg::Hang);
    root.stop_child("branch").await.expect("it ends");
    assert_eq!(myself.get_status(), helix_kernel::actor::ActorStatus::Stopped);
    assert_eq!(branch_handle.ended().await, Ok(()));
    assert_eq!(a.which().await.map_err(|failure| failure.code), Err(Code::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn the_owners_of_children_that_were_killed_with_their_branch_are_told() {
    let record = Record::new();
    let [a, b] = ["a", "b"].map(|name| Probe::new(name, &record));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let branch = SupervisorSpec::new("branch", Strategy::OneForOne).child(a.child().shutdown_within(LONG));
    let handle = branch.handle();
    let spec = SupervisorSpec::new("root", Strategy::OneForOne)
        .child(ChildSpec::supervisor(branch).shutdown_within(Duration::from_secs(1)));
    let root = start(spec).await.expect("it starts");
    let child = b.child().when_gone(move |failure| drop(tell.send(failure))).shutdown_within(LONG);
    handle.start_child(child).await.expect("it starts");
    b.tell(ProbeMsg::Hang);
    root.shutdown().await.expect("an orderly end");
    assert_eq!(told.recv().await, Some(Some(Failure::new(Code::Internal, "branch was killed"))));
    assert_eq!(told.recv().await, None);
    assert_eq!(record.all(), ["+a", "+b"]);
}

#[tokio::test(start_paused = true)]
async fn a_tree_can_be_shut_down_while_a_start_hangs() {
    let record = Record::new();
    let [a, mut b] = ["a", "b"].map(|name| Probe::new(name, &record));
    b.slow_start = LONG;
    let branch = SupervisorSpec::new("branch", Strategy::OneForOne).child(b.child());
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).child(a.child()).child(ChildSpec::supervisor(branch));
    let handle = spec.handle();
    let starting = tokio::spawn(start(spec));
    record.until(&["+a"]).await;
    until_state(&handle, "branch", TreeState::Restarting).await;
    handle.shutdown().await.expect("an orderly end");
    let failure = starting.await.expect("no panic").map(|_| ()).expect_err("it never was up");
    assert_eq!(failure, Failure::new(Code::ShuttingDown, "root is stopping"));
    assert_eq!(record.all(), ["+a", "-a"]);
}

#[tokio::test(start_paused = true)]
async fn children_come_and_go_at_run_time() {
    let record = Record::new();
    let [a, mut b] = ["a", "b"].map(|name| Probe::new(name, &record));
    b.unstartable = 1..2;
    let root = tree(Strategy::OneForOne, &[]).await;
    root.start_child(a.child()).await.expect("it starts");
    let twice = root.start_child(a.child()).await;
    assert_eq!(twice.map_err(|failure| failure.message), Err("root already has a child called \"a\"".to_owned()));

    let unstarted = root.start_child(b.child()).await.map_err(|failure| failure.code);
    assert_eq!(unstarted, Err(Code::NodeRunning));
    root.start_child(b.child()).await.expect("the second incarnation starts, and the name was free");

    root.stop_child("a").await.expect("it ends");
    assert_eq!(record.all(), ["+a", "!b", "+b", "-a"]);
    let unknown = root.stop_child("a").await.map_err(|failure| failure.code);
    assert_eq!(unknown, Err(Code::NotFound));
    let names: Vec<_> = root.tree().await.expect("it runs").children.into_iter().map(|child| child.name).collect();
    assert_eq!(names, ["b"]);
    root.shutdown().await.expect("an orderly end");
    assert_eq!(root.start_child(a.child()).await.map_err(|failure| failure.code), Err(Code::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn whoever_added_a_child_hears_of_its_end_for_good_and_why() {
    let record = Record::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let probes = ["ends", "fails", "stopped", "left"].map(|name| Probe::new(name, &record));
    let root = tree(Strategy::OneForOne, &[]).await;
    for probe in &probes {
        let (heard, name) = (Arc::clone(&heard), probe.name);
        let told =
            move |failure: Option<Failure>| heard.lock().expect("no panic").push((name, failure.map(|failure| failure.message)));
        root.start_child(probe.child().restart(Restart::Temporary).when_gone(told)).await.expect("it starts");
    }
    let [ends, fails, ..] = &probes;
    ends.tell(ProbeMsg::End);
    while root.tree().await.expect("it runs").child("ends").is_some() {}
    fails.tell(ProbeMsg::Panic);
    while root.tree().await.expect("it runs").child("fails").is_some() {}
    root.stop_child("stopped").await.expect("it ends");
    root.shutdown().await.expect("an orderly end");
    let expected = [("ends", None), ("fails", Some("as told".to_owned())), ("stopped", None), ("left", None)];
    assert_eq!(*heard.lock().expect("no panic"), expected);
}

/// An HTTP worker's runtime may be gone when its request is; what it asked to start is not.
#[tokio::test]
async fn a_child_that_is_added_from_another_runtime_lives_on_the_supervisors() {
    let record = Record::new();
    let a = Probe::new("a", &record);
    let root = tree(Strategy::OneForOne, &[]).await;
    let (there, child) = (root.clone(), a.child());
    let added = tokio::task::spawn_blocking(move || {
        let elsewhere = tokio::runtime::Builder::new_current_thread().build().expect("a second runtime");
        elsewhere.block_on(there.start_child(child))
    });
    added.await.expect("no panic").expect("it starts");
    assert_eq!(a.which().await, Ok(1));
}

/// ractor's names are one space per process; ours are paths in a tree.
#[tokio::test(start_paused = true)]
async fn two_trees_in_one_process_may_use_the_same_names() {
    let record = Record::new();
    let (here, there) = (Probe::new("a", &record), Probe::new("a", &record));
    let first = tree(Strategy::OneForOne, &[&here]).await;
    let second = tree(Strategy::OneForOne, &[&there]).await;
    first.shutdown().await.expect("an orderly end");
    assert_eq!(there.which().await, Ok(1));
    second.shutdown().await.expect("an orderly end");
    assert_eq!(record.all(), ["+a", "+a", "-a", "-a"]);
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_panics_is_a_failing_start() {
    let record = Record::new();
    let a = Probe::new("a", &record);
    let child = ChildSpec::actor("a", &a.address, || -> (probe::ProbeActor, Probe) { panic!("no arguments") });
    let failure =
        start(SupervisorSpec::new("root", Strategy::OneForOne).child(child)).await.map(|_| ()).expect_err("it does not start");
    assert_eq!(failure.message, "a did not start: what makes the actor panicked");
}

#[tokio::test(start_paused = true)]
async fn two_children_of_one_name_are_refused() {
    let record = Record::new();
    let a = Probe::new("a", &record);
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).child(a.child()).child(a.child());
    let failure = start(spec).await.map(|_| ()).expect_err("it does not start");
    assert_eq!(failure.message, "root already has a child called \"a\"");
    assert_eq!(record.all(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn the_tree_is_data() {
    let record = Record::new();
    let [a, b] = ["a", "b"].map(|name| Probe::new(name, &record));
    let branch = SupervisorSpec::new("branch", Strategy::RestForOne).child(b.child().restart(Restart::Transient));
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).child(a.child()).child(ChildSpec::supervisor(branch));
    let root = start(spec).await.expect("it starts");
    a.tell(ProbeMsg::Panic);
    record.until(&["+a", "+b", "+a"]).await;
    until_state(&root, "a", TreeState::Running).await;
    a.tell(ProbeMsg::Hang);
    a.note_later();
    tokio::task::yield_now().await;

    let mut seen = root.tree().await.expect("it runs");
    assert!(seen.since > Timestamp::default() && seen.children.iter().all(|child| child.since >= seen.since));
    without_times(&mut seen);
    let node = |name: &str, limit| TreeNode {
        name: name.to_owned(),
        kind: TreeKind::Actor,
        strategy: None,
        restart: Restart::Permanent,
        state: TreeState::Running,
        restarts: 0,
        since: Timestamp::default(),
        last_failure: None,
        waiting: 0,
        limit,
        children: Vec::new(),
    };
    let branch = |name: &str, strategy, children| TreeNode {
        kind: TreeKind::Supervisor,
        strategy: Some(strategy),
        children,
        ..node(name, 1024)
    };
    let expected = branch(
        "root",
        Strategy::OneForOne,
        vec![
            TreeNode { restarts: 1, last_failure: Some("as told".to_owned()), waiting: 1, ..node("a", 4) },
            branch("branch", Strategy::RestForOne, vec![TreeNode { restart: Restart::Transient, ..node("b", 4) }]),
        ],
    );
    assert_eq!(seen, expected);
    let json = serde_json::to_string(&seen).expect("it is data");
    assert_eq!(serde_json::from_str::<TreeNode>(&json).expect("and comes back"), expected);
}

fn without_times(node: &mut TreeNode) {
    node.since = Timestamp::default();
    node.children.iter_mut().for_each(without_times);
}

#[tokio::test(start_paused = true)]
async fn an_hours_timer_runs_at_once_on_a_paused_clock() {
    let record = Record::new();
    let a = Probe::new("a", &record);
    let _root = tree(Strategy::OneForOne, &[&a]).await;
    let before = std::time::Instant::now();
    let note = || helix_kernel::Admitted::internal(ProbeMsg::Note("an hour later".to_owned()));
    a.myself().await.send_after(Duration::from_secs(3600), note);
    record.until(&["+a", "an hour later"]).await;
    assert!(before.elapsed() < Duration::from_secs(60));
}
