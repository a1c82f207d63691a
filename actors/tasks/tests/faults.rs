//! A fault at every single write: nothing is lost, nothing is done twice, nothing that was paid for is asked again.

mod support;

use std::time::Duration;

use helix_database::Write;
use helix_protocol::{AttemptId, Budget, Money, ProjectId, StepOutcome, TaskId, TaskStatus};
use support::{Fault, Outside, me, talk};

const TURNS: u64 = 3;

/// A world in which the day has a limit, which none of this reaches.
fn limited() -> Outside {
    let mut outside = Outside::new();
    outside.limits.owner = Budget { money: Some(Money(10_000)), tokens: None };
    outside
}

/// What a run without faults leaves: the files, and how many writes it took.
async fn undisturbed() -> (Vec<(String, String)>, u64) {
    let outside = limited();
    outside.world.add("one", 2);
    let node = outside.start().await;
    let task = node.create(talk(TURNS)).await.expect("made").id;
    node.until(task, TaskStatus::Completed).await;
    (node.files(task).await, outside.faults.writes())
}

/// What died on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Died {
    /// Perhaps a worker: what models were asked is the node's, and goes on.
    NoNode,
    /// A call whose reply never reached the journal may be asked for once more, and is charged in full.
    Node,
}

async fn check(outside: &Outside, node: &support::Node, task: TaskId, died: Died, expected: &[(String, String)], what: &str) {
    let done = node.until(task, TaskStatus::Completed).await;
    assert_eq!(node.files(task).await, expected, "{what}: the same final tree");
    let line: Vec<_> = node.line(task).await.iter().map(|step| (step.ordinal, step.outcome)).collect();
    let turns = [(1, StepOutcome::Continue), (2, StepOutcome::Continue), (3, StepOutcome::Finished)];
    assert_eq!(line, turns, "{what}: no step lost or double");
    let repeated: u32 = outside.log.asked().values().map(|times| times - 1).sum();
    let uncertain: u32 = node.line(task).await.iter().map(|step| step.spend.uncertain_calls).sum();
    let most = u32::from(died == Died::Node);
    assert!(repeated <= uncertain && uncertain <= most, "{what}: {repeated} calls repeated, {uncertain} charged as uncertain");
    assert_eq!(done.spent, Money(60 + 100 * i64::from(uncertain)), "{what}");
    assert!(node.counts_as_the_records_do().await, "{what}: nothing of the day stays set aside, and nothing is counted twice");
}

#[tokio::test(start_paused = true)]
async fn a_database_that_refuses_or_loses_an_answer_at_any_write_changes_nothing() {
    let (expected, writes) = undisturbed().await;
    for fault in [Fault::Refused, Fault::AnswerLost] {
        // The first write is the creation, whose asker repeats it.
        for at in 1..writes {
            let outside = limited();
            outside.world.add("one", 2);
            outside.faults.plan(at, fault);
            let node = outside.start().await;
            let task = node.create(talk(TURNS)).await.expect("made").id;
            check(&outside, &node, task, Died::NoNode, &expected, &format!("{fault:?} at write {at}")).await;
            node.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_whose_making_arrives_when_its_node_is_dead_and_its_successor_has_begun_are_done() {
    let outside = limited();
    outside.world.add("one", 2);
    let node = outside.start().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The node is told of nothing.
    let (first, second) = (TaskId::new(), TaskId::new());
    for (id, depends_on) in [(first, Vec::new()), (second, vec![first])] {
        let (attempt, spec) = (AttemptId::new(), Box::new(helix_protocol::TaskSpec { depends_on, ..talk(TURNS) }));
        let (principal, project) = (me(), ProjectId::DEFAULT);
        let stray = Write::CreateTask { id, attempt, spec, principal, project, idempotency_key: None, paused: None };
        node.records.write(stray).await.expect("it arrives");
    }
    for task in [first, second] {
        node.until_within(task, &[TaskStatus::Completed], Duration::from_secs(120)).await;
        assert_eq!(node.line(task).await.len() as u64, TURNS);
    }
}

/// What the disk of the node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Records,
    Content,
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_at_any_write_costs_nothing_but_time() {
    // Long enough that what is said becomes content as well.
    let wordy = || {
        let outside = limited();
        outside.world.add("one", 2);
        outside.log.speak_at_length(40_000);
        outside
    };
    let outside = wordy();
    let node = outside.start().await;
    let task = node.create(talk(TURNS)).await.expect("made").id;
    node.until(task, TaskStatus::Completed).await;
    let (expected, records, content) = (node.files(task).await, outside.faults.writes(), outside.disk.writes());
    node.stop().await;
    assert!(content > TURNS, "each turn writes content");
    for (of, writes) in [(Of::Records, records), (Of::Content, content)] {
        // The first write of the records is the creation, whose asker is told and repeats it.
        for at in u64::from(of == Of::Records)..writes {
            let outside = wordy();
            match of {
                Of::Records => outside.faults.plan(at, Fault::Full),
                Of::Content => outside.disk.fill_at(at),
            }
            let node = outside.start().await;
            let task = node.create(talk(TURNS)).await.expect("made").id;
            check(&outside, &node, task, Died::NoNode, &expected, &format!("{of:?} full at write {at}")).await;
            assert_eq!(node.task(task).await.epoch.0, 1, "{of:?} full at write {at}: no retry is used");
            node.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_at_any_write_is_followed_by_one_that_adopts_its_task() {
    let (expected, writes) = undisturbed().await;
    for fault in [Fault::DeathBefore, Fault::DeathAfter] {
        for at in 1..writes {
            let outside = limited();
            outside.world.add("one", 2);
            outside.faults.plan(at, fault);
            let died = outside.faults.on_death();
            let node = outside.start().await;
            let task = node.create(talk(TURNS)).await.expect("made").id;
            died.await.expect("the fault is planned");
            node.kill().await;
            let node = outside.start().await;
            check(&outside, &node, task, Died::Node, &expected, &format!("{fault:?} at write {at}")).await;
            let effects = outside.world.effects();
            assert_eq!(effects.len() as u64, 2 * TURNS, "{fault:?} at write {at}: no tool is called twice: {effects:?}");
            node.stop().await;
        }
    }
}

/// A worker dies as soon as a write is asked for, or once it is made and nobody has heard of that.
async fn followed_by_another(unheard: bool) {
    let (expected, writes) = undisturbed().await;
    for at in 2..writes {
        let outside = limited();
        outside.world.add("one", 2);
        outside.world.add("two", 2);
        if unheard {
            outside.faults.plan(at, Fault::AnswerLost);
        }
        let node = outside.start().await;
        let task = node.create(talk(TURNS)).await.expect("made").id;
        while outside.faults.writes() < at + u64::from(unheard) {
            tokio::task::yield_now().await;
        }
        if let Some(worker) = node.task(task).await.worker {
            outside.world.kill(worker);
        }
        let what = format!("worker killed at write {at}, unheard: {unheard}");
        check(&outside, &node, task, Died::NoNode, &expected, &what).await;
        node.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_at_any_write_is_followed_by_another() {
    followed_by_another(false).await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_dies_before_it_hears_of_any_write_that_was_made_is_followed_by_another() {
    followed_by_another(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_arrives_after_its_owner_was_replaced_is_refused() {
    let (expected, writes) = undisturbed().await;
    for at in 1..writes {
        let outside = limited();
        outside.world.add("one", 2);
        outside.world.add("two", 2);
        outside.faults.plan(at, Fault::Late(3_000));
        let node = outside.start().await;
        let task = node.create(talk(TURNS)).await.expect("made").id;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let at_worker = node.outside.world.effects().last().map(|(worker, ..)| *worker).or(node.task(task).await.worker);
        if let Some(worker) = at_worker {
            outside.world.kill(worker);
        }
        check(&outside, &node, task, Died::NoNode, &expected, &format!("write {at} arrived late")).await;
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        assert_eq!(node.files(task).await, expected, "write {at} changed nothing when it came");
        node.stop().await;
    }
}
