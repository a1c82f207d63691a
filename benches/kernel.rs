//! What the kernel costs beside bare ractor, both in one run, alternating.
//!
//! `cargo bench -p helix-kernel --bench kernel` prints a table and appends one JSON line per figure
//! to `target/figures/spine.jsonl`; `-- --quick` runs a tenth of the counts and appends nothing.

use std::fs::{OpenOptions, create_dir_all};
use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use helix_kernel::actor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use helix_kernel::{Address, Admitted, Backoff, ChildSpec, Intensity, Reply, Strategy, SupervisorHandle, SupervisorSpec, start};
use serde::Serialize;
use tokio::sync::mpsc;

const MINUTE: Duration = Duration::from_secs(60);

/// What the measured actor is told, by either way.
enum BenchMsg {
    Count,
    Ask { reply: Reply<u64> },
    Fail,
}

/// Counts. Its state is its number of messages and the channel on which it tells of its start.
struct BenchActor;

impl Actor for BenchActor {
    type Msg = Admitted<BenchMsg>;
    type State = u64;
    type Arguments = Option<mpsc::UnboundedSender<Instant>>;

    async fn pre_start(&self, _myself: ActorRef<Self::Msg>, started: Self::Arguments) -> Result<u64, ActorProcessingErr> {
        if let Some(started) = started {
            started.send(Instant::now())?;
        }
        Ok(0)
    }

    async fn handle(&self, _myself: ActorRef<Self::Msg>, message: Self::Msg, count: &mut u64) -> Result<(), ActorProcessingErr> {
        match message.take() {
            BenchMsg::Count => *count += 1,
            BenchMsg::Ask { reply } => reply.send(Ok(*count))?,
            BenchMsg::Fail => return Err("as told".into()),
        }
        Ok(())
    }
}

/// The same without anything of the kernel.
enum BareMsg {
    Count,
    Ask(RpcReplyPort<u64>),
    Fail,
}

struct BareActor;

impl Actor for BareActor {
    type Msg = BareMsg;
    type State = u64;
    type Arguments = Option<mpsc::UnboundedSender<Instant>>;

    async fn pre_start(&self, _myself: ActorRef<BareMsg>, started: Self::Arguments) -> Result<u64, ActorProcessingErr> {
        if let Some(started) = started {
            started.send(Instant::now())?;
        }
        Ok(0)
    }

    async fn handle(&self, _myself: ActorRef<BareMsg>, message: BareMsg, count: &mut u64) -> Result<(), ActorProcessingErr> {
        match message {
            BareMsg::Count => *count += 1,
            BareMsg::Ask(reply) => reply.send(*count)?,
            BareMsg::Fail => return Err("as told".into()),
        }
        Ok(())
    }
}

async fn supervised(address: &Address<BenchMsg>, started: Option<mpsc::UnboundedSender<Instant>>) -> SupervisorHandle {
    let child = ChildSpec::actor("bench", address, move || (BenchActor, started.clone()))
        .backoff(Backoff { first: Duration::ZERO, most: Duration::ZERO });
    let intensity = Intensity { restarts: u32::MAX, period: MINUTE };
    start(SupervisorSpec::new("root", Strategy::OneForOne).intensity(intensity).child(child)).await.expect("the tree starts")
}

async fn bare(started: Option<mpsc::UnboundedSender<Instant>>) -> ActorRef<BareMsg> {
    BareActor::spawn(None, BareActor, started).await.expect("the actor starts").0
}

/// Messages per second, until the last is handled: (through an address, bare).
async fn casts(count: u64) -> (f64, f64) {
    let address = Address::unbound("bench", usize::MAX);
    let root = supervised(&address, None).await;
    let begin = Instant::now();
    for _ in 0..count {
        address.tell(BenchMsg::Count).expect("it runs");
    }
    let handled = address.ask(MINUTE, |reply| BenchMsg::Ask { reply }).await.expect("it answers");
    let ours = count as f64 / begin.elapsed().as_secs_f64();
    assert_eq!(handled, count);
    root.shutdown().await.expect("an orderly end");

    let actor = bare(None).await;
    let begin = Instant::now();
    for _ in 0..count {
        actor.send_message(BareMsg::Count).expect("it runs");
    }
    let handled = helix_kernel::actor::call!(actor, BareMsg::Ask).expect("it answers");
    let theirs = count as f64 / begin.elapsed().as_secs_f64();
    assert_eq!(handled, count);
    actor.stop(None);
    (ours, theirs)
}

/// Microseconds of one request and its answer, both with a time limit: (through an address, bare).
async fn round_trips(count: u64) -> (f64, f64) {
    let address = Address::unbound("bench", 64);
    let root = supervised(&address, None).await;
    let begin = Instant::now();
    for _ in 0..count {
        black_box(address.ask(MINUTE, |reply| BenchMsg::Ask { reply }).await.expect("it answers"));
    }
    let ours = begin.elapsed().as_secs_f64() * 1e6 / count as f64;
    root.shutdown().await.expect("an orderly end");

    let actor = bare(None).await;
    let begin = Instant::now();
    for _ in 0..count {
        black_box(helix_kernel::actor::call_t!(actor, BareMsg::Ask, 60_000).expect("it answers"));
    }
    let theirs = begin.elapsed().as_secs_f64() * 1e6 / count as f64;
    actor.stop(None);
    (ours, theirs)
}

/// Median microseconds from telling an actor to fail until its next incarnation answers:
/// (supervised without a delay, the same actor spawned anew by hand once its task has ended).
async fn restarts(count: u64) -> (f64, f64) {
    let (tell, mut started) = mpsc::unbounded_channel();
    let address = Address::unbound("bench", 64);
    let root = supervised(&address, Some(tell.clone())).await;
    started.recv().await;
    let mut ours = Vec::new();
    for _ in 0..count {
        let begin = Instant::now();
        address.tell(BenchMsg::Fail).expect("it runs");
        started.recv().await;
        // It has started and is bound a moment later.
        while address.ask(MINUTE, |reply| BenchMsg::Ask { reply }).await.is_err() {
            tokio::task::yield_now().await;
        }
        ours.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    root.shutdown().await.expect("an orderly end");

    let (mut actor, mut task) = BareActor::spawn(None, BareActor, Some(tell.clone())).await.expect("it starts");
    let mut theirs = Vec::new();
    for _ in 0..count {
        let begin = Instant::now();
        actor.send_message(BareMsg::Fail).expect("it runs");
        task.await.expect("its failure is caught");
        (actor, task) = BareActor::spawn(None, BareActor, Some(tell.clone())).await.expect("it starts");
        black_box(helix_kernel::actor::call!(actor, BareMsg::Ask).expect("it answers"));
        theirs.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    actor.stop(None);
    (median(ours), median(theirs))
}

/// Bytes of resident memory per idle actor: (a supervised child with its address, bare).
async fn memory(count: usize) -> (f64, f64) {
    // Nothing is freed in between, so neither stands on memory the other left.
    let before = resident();
    let mut actors = Vec::with_capacity(count);
    for _ in 0..count {
        actors.push(bare(None).await);
    }
    let theirs = (resident() - before) / count as f64;

    let root = start(SupervisorSpec::new("root", Strategy::OneForOne)).await.expect("the tree starts");
    let before = resident();
    let mut addresses = Vec::with_capacity(count);
    for at in 0..count {
        let address = Address::unbound(format!("actor-{at}"), 64);
        root.start_child(ChildSpec::actor(address.name(), &address, || (BenchActor, None))).await.expect("it starts");
        addresses.push(address);
    }
    let ours = (resident() - before) / count as f64;
    root.shutdown().await.expect("an orderly end");
    actors.iter().for_each(|actor| actor.stop(None));
    (ours, theirs)
}

/// Bytes of this process that are in memory.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says how much memory a process has");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it names the resident part");
    let kilobytes: f64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    kilobytes * 1024.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One line of the table and of the file.
#[derive(Serialize)]
struct Figure {
    figure: &'static str,
    value: f64,
    unit: &'static str,
    against: String,
    ratio: f64,
    goal: Option<String>,
    met: Option<bool>,
}

impl Figure {
    fn new(figure: &'static str, unit: &'static str, runs: Vec<(f64, f64)>) -> Self {
        let (ours, theirs): (Vec<f64>, Vec<f64>) = runs.into_iter().unzip();
        let (value, bare) = (median(ours), median(theirs));
        let against = format!("bare ractor in the same run: {} {unit}", readable(bare));
        Self { figure, value, unit, against, ratio: value / bare, goal: None, met: None }
    }
}

fn readable(value: f64) -> String {
    if value >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// `target/figures/spine.jsonl` under the workspace's target folder.
fn figures_file() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("figures/spine.jsonl")
}

fn main() -> std::io::Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let scale = if quick { 10 } else { 1 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = runtime.block_on(async {
        let rounds = if quick { 1 } else { 5 };
        // First, before the allocator has anything to give out again.
        let idle = memory(usize::try_from(5_000 / scale).expect("a small number")).await;
        let mut runs = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..rounds {
            runs[0].push(casts(1_000_000 / scale).await);
            runs[1].push(round_trips(50_000 / scale).await);
            runs[2].push(restarts(2_000 / scale).await);
        }
        let [casts, trips, restarts] = runs;
        [
            Figure::new("kernel: messages to one actor through an address", "messages/s", casts),
            Figure::new("kernel: a request and its answer through an address", "µs", trips),
            Figure::new("kernel: an actor fails until its next incarnation answers", "µs", restarts),
            Figure::new("kernel: an idle actor with its address and supervision", "bytes", vec![idle]),
        ]
    });

    for figure in &figures {
        println!(
            "{:<62} {:>10} {:<11} {:>6.2}x  {}",
            figure.figure,
            readable(figure.value),
            figure.unit,
            figure.ratio,
            figure.against
        );
    }
    if !quick {
        let path = figures_file();
        create_dir_all(path.parent().expect("a file in a folder"))?;
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        for figure in &figures {
            writeln!(file, "{}", serde_json::to_string(figure)?)?;
        }
    }
    Ok(())
}
