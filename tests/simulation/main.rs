//! Nodes, workers and leases under seeded misfortune, on a simulated network and in simulated time.
//!
//! Every node and every worker is a host of turmoil with a runtime, a clock and sockets of its own. What runs on them is what
//! runs in earnest: the node's branches cluster, storage, fleet and tasks, the link, and the worker's fence and tables of calls;
//! the records and the content are in memory, models and commands are simple. Hosts crash and come back, networks are cut in one
//! direction or both, messages are held and overtake each other, processes are stopped, machines suspended, clocks run apart,
//! the records go away and lose their answers; nodes take each other's tasks over. Then there is peace, and everything must end
//! as if nothing had happened.
//!
//! `HELIX_SEEDS=1000` runs a thousand seeds, `HELIX_SEED=7` that one alone, with its trace.

mod chance;
mod ending;
mod entropy;
mod faults;
mod machine;
#[path = "../../actors/tasks/tests/support/models.rs"]
#[allow(dead_code)]
mod models;
mod node;
mod oracle;
mod process;
mod records;
#[path = "../../actors/tasks/tests/support/talk.rs"]
mod talk;
mod transport;
mod work;
mod workspaces;
mod world;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Seeds of `make test`.
const SEEDS: u64 = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs a seed in a process of its own, so that nothing is left of the one before. Answers with what it said,
/// and whether all was well.
fn run(seed: u64, trace: bool) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
    command.args(["one_seed", "--exact", "--ignored", "--nocapture"]).env("HELIX_SEED", seed.to_string());
    command.env("HELIX_TRACE", if trace { "1" } else { "0" });
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().expect("it can be started");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One seed, in this process. [`run`] starts it.
#[test]
#[ignore = "the other tests run it, each time in a process of its own"]
fn one_seed() {
    let seed = number("HELIX_SEED").unwrap_or(1);
    // On a thread of its own, so that nothing there has drawn from the system before.
    let thread = std::thread::Builder::new().stack_size(16 << 20).spawn(move || {
        entropy::fix(seed);
        world::simulate(seed)
    });
    let outcome = thread.expect("a thread").join().expect("the simulation itself does not panic");
    if number("HELIX_TRACE") == Some(1) {
        println!("\n{}", outcome.trace.join("\n"));
    }
    println!("seed {seed}: {}", outcome.summary);
    for wrong in &outcome.wrong {
        println!("WRONG {wrong}");
    }
    assert_eq!(outcome.wrong, Vec::<String>::new());
}

#[test]
fn whatever_happens_every_task_ends_as_if_nothing_had_happened() {
    if let Some(seed) = number("HELIX_SEED") {
        let (well, said) = run(seed, true);
        println!("{said}");
        assert!(well, "seed {seed} failed");
        return;
    }
    let seeds = usize::try_from(number("HELIX_SEEDS").unwrap_or(SEEDS)).expect("a count");
    let (next, failed, taken_over) = (AtomicUsize::new(1), Mutex::new(Vec::new()), AtomicU64::new(0));
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    let (well, said) = run(seed as u64, false);
                    let lines: Vec<&str> =
                        said.lines().filter(|line| line.starts_with("seed ") || line.starts_with("WRONG ")).collect();
                    println!("{}", lines.join("\n  "));
                    if !well {
                        failed.lock().push(seed);
                    }
                    taken_over.fetch_add(told(&said, "taken_over"), Ordering::Relaxed);
                }
            });
        }
    });
    let mut failed = failed.into_inner();
    failed.sort_unstable();
    assert_eq!(failed, Vec::<usize>::new(), "run one of these seeds alone, with its trace: HELIX_SEED=N");
    assert!(taken_over.into_inner() > 0 || seeds < 5, "some node took something over, or nothing was tried");
}

/// A count out of a seed's summary.
fn told(said: &str, what: &str) -> u64 {
    let after = said.split(&format!("{what}: ")).nth(1).unwrap_or_default();
    after.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or_default()
}

#[test]
fn the_same_seed_makes_the_same_trace() {
    let seed = number("HELIX_SEED").unwrap_or(3);
    let trace = |said: &str| said.lines().filter(|line| line.starts_with(' ')).map(str::to_owned).collect::<Vec<_>>();
    let (first, second) = (trace(&run(seed, true).1), trace(&run(seed, true).1));
    assert!(first.len() > 50, "the trace tells something: {} lines", first.len());
    let differs = first.iter().zip(&second).position(|(one, other)| one != other);
    if let Some(at) = differs {
        panic!("the traces part at line {at}: {:?} and {:?}", first[at], second[at]);
    }
    assert_eq!(first.len(), second.len());
    assert_ne!(first, trace(&run(seed + 1, true).1), "another seed makes another run");
}
