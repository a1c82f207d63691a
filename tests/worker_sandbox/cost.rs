//! What a sandbox costs, beside a command without one.

use std::time::{Duration, Instant};

use helix_protocol::link::{Request, Response};
use helix_protocol::{Epoch, Isolation, Network, TaskId};
use serde_json::json;

use super::Space;
use crate::worker_bench::{Bench, Node};

/// Runs a program to its end so many times: the median and the best, none where it is not there or fails.
fn bare(program: &str, arguments: &[&str], times: u32) -> Option<(Duration, Duration)> {
    let mut took = Vec::new();
    for _ in 0..times {
        let start = Instant::now();
        let mut command = std::process::Command::new(program);
        command
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        if !command.status().ok()?.success() {
            return None;
        }
        took.push(start.elapsed());
    }
    took.sort();
    Some((took[took.len() / 2], took[0]))
}

/// What bubblewrap makes of the same walls, as far as it can.
const BUBBLEWRAP: &[&str] =
    &["--ro-bind", "/", "/", "--dev", "/dev", "--tmpfs", "/tmp", "--unshare-user", "--unshare-ipc", "--unshare-net", "true"];

/// When workspaces are closed whose commands were measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Each before the next is opened, as task follows task: the kernel takes an old network down under the lock
    /// that a new one waits for.
    AtOnce,
    /// All at the end.
    Together,
}

/// So many times a workspace's opening with its first command, and a later command: of each the median and the best.
async fn first_and_later(node: &Node, isolation: Isolation, ends: Ends, times: u32) -> [(Duration, Duration); 2] {
    let (mut first, mut later, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..times {
        let mut start = Instant::now();
        let space = Space::at(node, isolation, Network::None).await;
        for took in [&mut first, &mut later] {
            space.succeeds("true").await;
            took.push(start.elapsed());
            start = Instant::now();
        }
        open.push(space.task);
        if ends == Ends::AtOnce {
            close_all(node, &mut open).await;
        }
    }
    close_all(node, &mut open).await;
    [first, later].map(|mut took| {
        took.sort();
        (took[took.len() / 2], took[0])
    })
}

async fn close_all(node: &Node, tasks: &mut Vec<TaskId>) {
    for task in tasks.drain(..) {
        assert_eq!(node.ask(Request::Close { task, epoch: Epoch(1) }).await, Ok(Response::Closed));
    }
}

/// Prints what a sandbox costs, beside a bare process and bubblewrap; fails where it costs what a person would notice.
#[tokio::test]
async fn a_sandbox_costs_little() {
    const TIMES: u32 = 15;
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let [plain, plain_later] = first_and_later(&node, Isolation::Full, Ends::AtOnce, TIMES).await;
    let [first, later] = first_and_later(&node, Isolation::Workspace, Ends::AtOnce, TIMES).await;
    let [alone, _] = first_and_later(&node, Isolation::Workspace, Ends::Together, TIMES).await;
    let (process, wrapped) = (bare("true", &[], TIMES).expect("every machine has it"), bare("bwrap", BUBBLEWRAP, TIMES));
    println!("median of {TIMES} and best:");
    println!("{plain:?} a workspace opened and its first command, unsandboxed");
    println!("{first:?} the same sandboxed, right after another one ended");
    println!("{alone:?} the same sandboxed, while none is taken down");
    println!("{plain_later:?} a later command, unsandboxed");
    println!("{later:?} a later command in its sandbox");
    println!("{process:?} a bare process that runs `true`");
    println!("{wrapped:?} the same in bubblewrap");
    // Lines that `make bench-models` takes into its table.
    let over = |all: Duration, without: Duration| all.saturating_sub(without).as_secs_f64() * 1e3;
    let line = |figure: &str, with: (Duration, Duration), without: (Duration, Duration), goal: Option<f64>| {
        let (value, least) = (over(with.0, without.0), over(with.1, without.1));
        let against = format!("medians of {TIMES}, over the same without; between the best of each {least:.2} ms");
        let (told, met) = (goal.map(|most| format!("≤ {most} ms")), goal.map(|most| value <= most));
        let line = json!({"figure": figure, "value": value, "unit": "ms", "against": against, "goal": told, "met": met});
        println!("figure {line}");
    };
    line("a sandbox, for a workspace opened and its first command, right after another one ended", first, plain, Some(5.0));
    line("a sandbox, for a workspace opened and its first command, while none is taken down", alone, plain, Some(5.0));
    if let Some(wrapped) = wrapped {
        line("the same by bubblewrap, over a bare `true`", wrapped, process, None);
    }
    assert!(first.0 < plain.0 + Duration::from_millis(100) && later.0 < plain_later.0 + Duration::from_millis(50));
}
