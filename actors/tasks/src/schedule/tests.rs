//! Who goes where, and in which order.

use std::time::Duration;

use helix_messages::WorkerView;
use helix_protocol::link::Holding;
use helix_protocol::{
    Capability, Epoch, Lifecycle, ObjectId, Resources, Timestamp, WorkerFacts, WorkerHealth, WorkerRecord, WorkerStatus,
    WorkerTarget,
};
use proptest::prelude::*;

use super::*;

const NOW: Boottime = Boottime(Duration::from_micros(1_000));
const LATER: Boottime = Boottime(Duration::from_micros(1_005));

fn worker(name: &str, slots: u32) -> WorkerView {
    let facts = WorkerFacts {
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        hostname: name.to_owned(),
        capabilities: vec![Capability("git".to_owned())],
        toolchains: Vec::new(),
        resources: Resources {
            cores: 8,
            memory_mib: 1000,
            memory_free_mib: 800,
            disk_mib: 100,
            disk_free_mib: 90,
            ..Default::default()
        },
        sandbox: helix_protocol::Sandboxing { lacks: vec!["no Landlock".to_owned()], ..Default::default() },
    };
    WorkerView {
        record: WorkerRecord {
            id: WorkerId::new(),
            name: name.to_owned(),
            target: WorkerTarget::Ssh { destination: name.to_owned() },
            slots,
            lifecycle: Lifecycle::Open,
            status: WorkerStatus::Active,
            health: WorkerHealth::Healthy,
            facts: Some(facts),
            reason: String::new(),
            created_at: Timestamp(1),
            last_seen_at: None,
            version: 1,
        },
        ready: true,
        lost: false,
        incarnation: 1,
        pid: None,
        holds: Vec::new(),
    }
}

fn task() -> Waiting {
    Waiting {
        task: TaskId::new(),
        needs: Needs::default(),
        priority: 5,
        criticality: Criticality::Normal,
        lost: false,
        not_before: None,
        content: None,
        last: None,
    }
}

fn fleet(views: &[WorkerView]) -> Fleet {
    let mut fleet = Fleet::default();
    fleet.replace(views.to_vec());
    fleet
}

fn queue(tasks: &[Waiting]) -> Queue {
    let mut queue = Queue::default();
    tasks.iter().cloned().for_each(|task| queue.push(task));
    queue
}

fn placed(queue: &mut Queue, fleet: &mut Fleet) -> Vec<(TaskId, WorkerId)> {
    assign(queue, fleet, NOW, usize::MAX).into_iter().map(|one| (one.waiting.task, one.worker)).collect()
}

#[test]
fn who_lost_a_worker_goes_first_by_criticality_and_the_rest_by_priority_then_age() {
    let old = task();
    let urgent = Waiting { priority: 20, ..task() };
    let lost = Waiting { lost: true, ..task() };
    let critical = Waiting { lost: true, criticality: Criticality::Critical, ..task() };
    let young = task();
    let order: Vec<TaskId> =
        queue(&[young.clone(), lost.clone(), old.clone(), urgent.clone(), critical.clone()]).iter().map(|w| w.task).collect();
    assert_eq!(order, [critical.task, lost.task, urgent.task, old.task, young.task]);
}

#[test]
fn the_reserve_is_for_high_criticality() {
    let machine = worker("a", 4);
    let mut fleet = fleet(std::slice::from_ref(&machine));
    let tasks: Vec<Waiting> = (0..5).map(|_| task()).collect();
    let mut queue = queue(&tasks);
    assert_eq!(placed(&mut queue, &mut fleet).len(), 3);
    let reasons = fleet.explain(&tasks[3]);
    assert_eq!(reasons[0].reason, "its last of 4 slots is kept for tasks of high criticality");
    let high = Waiting { criticality: Criticality::High, ..task() };
    queue.push(high.clone());
    assert_eq!(placed(&mut queue, &mut fleet), [(high.task, machine.record.id)]);
    assert_eq!(fleet.explain(&high)[0].reason, "all its 4 slots are taken");
}

#[test]
fn each_worker_says_in_words_why_it_is_not_the_one() {
    let closed = WorkerView { ready: false, ..worker("away", 1) };
    let mut cordoned = worker("cordoned", 1);
    cordoned.record.lifecycle = Lifecycle::Cordoned;
    let fleet = fleet(&[closed, cordoned, worker("plain", 1)]);
    let reasons = |waiting: &Waiting| fleet.explain(waiting).into_iter().map(|one| one.reason).collect::<Vec<_>>();
    assert_eq!(reasons(&task()), ["it is not connected", "it is cordoned", ""]);
    let needs = |needs: Needs| Waiting { needs, ..task() };
    let cuda = needs(Needs { capabilities: vec![Capability("git".to_owned()), Capability("cuda".to_owned())], ..Needs::default() });
    assert_eq!(reasons(&cuda)[2], "it has no cuda");
    let sandbox = Capability(helix_protocol::Sandboxing::CAPABILITY.to_owned());
    let sandboxed = needs(Needs { capabilities: vec![sandbox], ..Needs::default() });
    assert_eq!(reasons(&sandboxed)[2], "it has no sandbox (no Landlock)");
    assert_eq!(reasons(&needs(Needs { cores: 9, ..Needs::default() }))[2], "8 of its 8 cores are free, 9 are needed");
    assert_eq!(reasons(&needs(Needs { gpus: 1, ..Needs::default() }))[2], "0 of its 0 GPUs are free, 1 are needed");
    assert_eq!(
        reasons(&needs(Needs { memory_mib: 900, ..Needs::default() }))[2],
        "800 MiB of its memory are free, 900 MiB are needed"
    );
    assert_eq!(reasons(&needs(Needs { disk_mib: 91, ..Needs::default() }))[2], "90 MiB of its disk are free, 91 MiB are needed");
    assert_eq!(reasons(&needs(Needs { worker: Some(WorkerId::new()), ..Needs::default() }))[2], "the task asks for another worker");
}

#[test]
fn the_worker_that_holds_the_workspace_wins_and_equal_ones_share() {
    let (one, mut two) = (worker("one", 3), worker("two", 3));
    let mine = task();
    let tree = ObjectId([1; 32]);
    two.holds.push(Holding { task: mine.task, epoch: Epoch(1), tree, calls: Vec::new() });
    let mut fleet = fleet(&[one.clone(), two.clone()]);
    let (second, third) = (task(), task());
    let got = placed(&mut queue(&[mine.clone(), second.clone(), third.clone()]), &mut fleet);
    assert_eq!(got[0], (mine.task, two.record.id));
    assert_eq!(got[1], (second.task, one.record.id), "the emptier one");
    let count = |worker: WorkerId| got.iter().filter(|(_, at)| *at == worker).count();
    assert_eq!(
        (count(one.record.id), count(two.record.id)),
        (if got[2].1 == one.record.id { 2 } else { 1 }, if got[2].1 == one.record.id { 1 } else { 2 })
    );
}

#[test]
fn a_task_comes_to_the_content_while_there_is_room() {
    let content = Some(Content::Snapshot(SnapshotId(ObjectId([7; 32]))));
    let mut fleet = fleet(&[worker("one", 4), worker("two", 4)]);
    let tasks: Vec<Waiting> = (0..3).map(|_| Waiting { content, ..task() }).collect();
    let got = placed(&mut queue(&tasks), &mut fleet);
    assert_eq!(got[0].1, got[1].1, "three quarters of it are free");
    assert_ne!(got[1].1, got[2].1, "half of it is taken, and the other machine is idle");
}

#[test]
fn a_task_comes_to_where_the_one_whose_files_it_begins_with_ran() {
    let machines = [worker("one", 4), worker("two", 4)];
    for machine in &machines {
        let mut fleet = fleet(&machines);
        let only = Needs { worker: Some(machine.record.id), ..Needs::default() };
        let (first, other) = (Waiting { needs: only, ..task() }, task());
        // The other machine is emptier.
        placed(&mut queue(std::slice::from_ref(&first)), &mut fleet);
        let second = Waiting { content: Some(Content::Task(first.task)), ..task() };
        assert_eq!(placed(&mut queue(std::slice::from_ref(&second)), &mut fleet), [(second.task, machine.record.id)]);
        let stranger = Waiting { content: Some(Content::Task(other.task)), ..task() };
        assert_ne!(placed(&mut queue(&[stranger]), &mut fleet)[0].1, machine.record.id);
        fleet.lost(machine.record.id);
        fleet.replace(machines.to_vec());
        let third = Waiting { content: Some(Content::Task(first.task)), ..task() };
        assert_ne!(placed(&mut queue(&[third]), &mut fleet)[0].1, machine.record.id, "what was there went with the worker");
    }
}

#[test]
fn a_retry_waits_for_its_time() {
    let later = Waiting { not_before: Some(LATER), ..task() };
    let mut queue = queue(std::slice::from_ref(&later));
    let mut fleet = fleet(&[worker("one", 1)]);
    assert_eq!(assign(&mut queue, &mut fleet, NOW, 9), []);
    assert_eq!(queue.next_due(NOW), Some(LATER));
    assert_eq!(assign(&mut queue, &mut fleet, LATER, 9).len(), 1);
    assert_eq!(queue.next_due(NOW), None);
}

fn any_task() -> impl Strategy<Value = Waiting> {
    (0_i64..3, 0_u8..4, any::<bool>(), 0_u32..4, prop::option::of(0_u64..2_000)).prop_map(
        |(priority, criticality, lost, cores, due)| {
            let all = [Criticality::Low, Criticality::Normal, Criticality::High, Criticality::Critical];
            Waiting {
                priority,
                criticality: all[usize::from(criticality)],
                lost,
                needs: Needs { cores, ..Needs::default() },
                not_before: due.map(|due| Boottime(Duration::from_micros(due))),
                ..task()
            }
        },
    )
}

proptest! {
    #[test]
    fn nothing_is_placed_beyond_what_a_worker_has_and_nobody_who_fits_is_left(
        tasks in prop::collection::vec(any_task(), 0..40), slots in prop::collection::vec(0_u32..7, 0..5), most in 0_usize..20,
    ) {
        let views: Vec<WorkerView> = slots.iter().enumerate().map(|(n, slots)| worker(&n.to_string(), *slots)).collect();
        let (mut queue, mut fleet) = (queue(&tasks), fleet(&views));
        let placed = assign(&mut queue, &mut fleet, NOW, most);
        prop_assert_eq!(placed.len() + queue.len(), tasks.len());
        prop_assert!(placed.len() <= most);
        for view in &views {
            let here: Vec<&Assignment> = placed.iter().filter(|one| one.worker == view.record.id).collect();
            prop_assert!(here.len() as u32 <= view.record.slots);
            prop_assert!(here.iter().map(|one| one.waiting.needs.cores).sum::<u32>() <= 8);
            prop_assert!(here.iter().all(|one| one.waiting.not_before.is_none_or(|due| due <= NOW)));
        }
        if placed.len() < most {
            for left in queue.iter().filter(|left| left.not_before.is_none_or(|due| due <= NOW)) {
                prop_assert!(fleet.explain(left).iter().all(|one| !one.reason.is_empty()), "{:?} fits", left);
            }
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again(tasks in prop::collection::vec(any_task(), 0..40)) {
        let view = worker("one", 6);
        let (mut queue, mut fleet) = (queue(&tasks), fleet(std::slice::from_ref(&view)));
        let first = assign(&mut queue, &mut fleet, NOW, usize::MAX);
        for one in &first {
            fleet.give_back(one.worker, &one.waiting.needs);
            queue.push(one.waiting.clone());
        }
        let second = assign(&mut queue, &mut fleet, NOW, usize::MAX);
        let ids = |placed: &[Assignment]| placed.iter().map(|one| one.waiting.task).collect::<Vec<_>>();
        prop_assert_eq!(ids(&first), ids(&second));
    }
}
