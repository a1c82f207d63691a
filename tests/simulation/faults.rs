//! What goes wrong, and when: a plan made from the seed before anything runs.

use std::time::Duration;

use crate::chance::Chance;

/// One direction, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing arrives either way.
    Both,
    /// What the node sends is lost.
    FromNode,
    /// What the worker sends is lost.
    FromWorker,
    /// Nothing is lost, and nothing arrives before the cut is mended.
    Held,
}

/// A misfortune. Nodes and machines are numbered; those that last are over after a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of a worker's process.
    WorkerKilled { machine: usize },
    /// SIGSTOP of a worker's process, SIGCONT later. What it runs goes on.
    WorkerStopped { machine: usize, lasts: Duration },
    /// The machine is suspended; what is sent to it meanwhile arrives later.
    MachineSuspended { machine: usize, lasts: Duration },
    /// The machine loses its power, and comes back with its disk.
    MachineCrashed { machine: usize, lasts: Duration },
    /// The node's machine likewise.
    NodeCrashed { node: usize, lasts: Duration },
    /// The node stops in order, and starts again.
    NodeStopped { node: usize },
    /// Between one node, or all of them, and a machine.
    Network { node: Option<usize>, machine: usize, cut: Cut, lasts: Duration },
    /// A node and every machine.
    NodeAlone { node: usize, cut: Cut, lasts: Duration },
    /// Messages take long and overtake each other.
    Slow { most: Duration, lasts: Duration },
    /// A node does not reach the records.
    RecordsAway { node: usize, lasts: Duration },
    /// Its answers are lost on the way back, every other one.
    AnswersLost { node: usize, lasts: Duration },
    /// They come late.
    RecordsSlow { node: usize, by: Duration, lasts: Duration },
    /// Somebody sets a node's wall clock; it is read at the node's next start.
    ClockSet { node: usize, micros: i64 },
    /// A worker is drained, and opened again.
    Drained { machine: usize, lasts: Duration },
    /// A task is parked, and resumed.
    Paused { task: usize, lasts: Duration },
}

/// What goes wrong, in order.
pub fn plan(chance: &mut Chance, nodes: usize, machines: usize, tasks: usize) -> Vec<(Duration, Fault)> {
    let count = chance.between(6, 30);
    let mut plan: Vec<(Duration, Fault)> =
        (0..count).map(|_| (Duration::from_millis(chance.between(1_000, 70_000)), fault(chance, nodes, machines, tasks))).collect();
    plan.sort_by_key(|(at, _)| *at);
    plan
}

fn fault(chance: &mut Chance, nodes: usize, machines: usize, tasks: usize) -> Fault {
    let (node, machine, lasts) = (chance.pick(nodes), chance.pick(machines), chance.while_());
    let cut = [Cut::Both, Cut::FromNode, Cut::FromWorker, Cut::Held][chance.pick(4)];
    match chance.below(24) {
        0 | 1 => Fault::WorkerKilled { machine },
        2..=4 => Fault::WorkerStopped { machine, lasts },
        5 | 6 => Fault::MachineSuspended { machine, lasts },
        7 => Fault::MachineCrashed { machine, lasts },
        8 | 9 => Fault::NodeCrashed { node, lasts },
        10 => Fault::NodeStopped { node },
        11 | 12 => Fault::Network { node: Some(node), machine, cut, lasts },
        13..=15 => Fault::Network { node: None, machine, cut, lasts },
        16 => Fault::NodeAlone { node, cut, lasts },
        17 => Fault::Slow { most: Duration::from_millis(chance.between(200, 2_500)), lasts },
        18 | 19 => Fault::RecordsAway { node, lasts },
        20 => Fault::AnswersLost { node, lasts },
        21 => Fault::RecordsSlow { node, by: Duration::from_millis(chance.between(50, 4_000)), lasts },
        22 => Fault::ClockSet { node, micros: i64::try_from(chance.below(7_200_000_000)).expect("two hours") - 3_600_000_000 },
        _ if chance.one_in(2) => Fault::Drained { machine, lasts },
        _ => Fault::Paused { task: chance.pick(tasks), lasts },
    }
}
