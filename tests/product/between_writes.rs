//! The worker, or the node, dies between every two writes that a step makes: not near such a place, but at it.
//!
//! The records are one file, and whoever has its write lock keeps every other writer waiting. A test follows a step until its last
//! write is the chosen one, takes the lock and looks once more: either the step stands there and cannot go on while its worker or
//! its node is killed, or the lock came late. Then that task is left in peace, and another one is tried; how often is printed.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use helix::scripted::{Fault, FaultKind, read_log, repeated_replies};
use helix_adapter_http::api::{Ledger, RemarkList};
use helix_protocol::{AgentSpec, Environment, EventKind, ExternalSpec, ObjectId, TaskId, TaskRecord, TaskSpec, TaskWork};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, query, query_as};

use crate::external::{free_port, i_am_the_model, spec};
use crate::harness::{Chance, Product, SOON, Setup, Signal, Verdict, rounds, scenario, state_of, transcript};
use crate::node_deaths::assignment;
use crate::web::{Asked, site};
use crate::worker_deaths::owner;

/// What an agent's step journals before its commit, in this order: it hears a remark, its model fails it once and answers then, and
/// it gets a page of the web. Between the two notes of the time after the failure its task is given up and claimed again. The one
/// kind that is missing, `rested`, takes an hour of rest.
const STEP: [&str; 10] =
    ["heard", "timed", "reserved", "call_failed", "timed", "timed", "reserved", "replied", "intended", "resulted"];
/// After so many of them it is given up.
const RETRIED: usize = 5;
/// The same of a turn of an agent of somebody else's making.
const TURN: [&str; 2] = ["timed", "charged"];

/// So many tasks are tried for one place, on a machine that is busy with something else.
const TRIES: usize = 20;
/// The victim dies anywhere in this time after the write, as far as chance goes.
const HELD: Duration = Duration::from_millis(120);
/// So long that the only notes of the time are those at the beginning and at the end of a try.
const TIMEOUT_MS: u64 = 600_000;
const WORDS: &str = "mind the last line";

/// How far a task is by the records: the ordinal of its head, and what is journalled of the step after that.
#[derive(Clone, Debug, Default, PartialEq)]
struct Place {
    head: i64,
    journal: Vec<String>,
}

impl Place {
    /// The second step has made so many of these writes.
    fn after(writes: &[&str]) -> Self {
        Self { head: 1, journal: writes.iter().map(|&write| write.to_owned()).collect() }
    }

    fn is_before(&self, other: &Self) -> bool {
        (self.head, self.journal.len()) < (other.head, other.journal.len())
    }

    async fn of(task: TaskId, records: &mut SqliteConnection) -> Self {
        const PLACE: &str = "SELECT (SELECT ordinal FROM steps WHERE id = t.head), \
             (SELECT group_concat(entry) FROM (SELECT json_extract(body, '$.entry') AS entry FROM journal \
              WHERE attempt_id = t.attempt_id ORDER BY sequence)) FROM distributed_tasks t WHERE t.id = $1";
        let row: (Option<i64>, Option<String>) =
            query_as(PLACE).bind(task.to_string()).fetch_one(records).await.expect("the records can be read");
        let journal = row.1.iter().flat_map(|entries| entries.split(',')).map(str::to_owned).collect();
        Self { head: row.0.unwrap_or_default(), journal }
    }
}

/// The records as somebody else's program has them open.
struct Records {
    reads: SqliteConnection,
    locks: SqliteConnection,
}

impl Records {
    async fn open(product: &Product) -> Self {
        let options = SqliteConnectOptions::new().filename(product.node.folder().records());
        let locks = options.clone().busy_timeout(Duration::ZERO).connect().await.expect("the records can be opened");
        Self { reads: options.connect().await.expect("the records can be opened"), locks }
    }

    /// Waits until the task is at `place`, and lets nobody write from then on. Answers with the place where the task was found
    /// instead, if the lock came late.
    async fn shut_at(&mut self, task: TaskId, place: &Place) -> Result<(), Place> {
        let began = Instant::now();
        let in_time = |what: &str| assert!(began.elapsed() < SOON, "{what}: waited in vain for {place:?}");
        loop {
            let now = Place::of(task, &mut self.reads).await;
            if now == *place {
                break;
            }
            if !now.is_before(place) {
                return Err(now);
            }
            in_time("the task");
        }
        while let Err(error) = query("BEGIN IMMEDIATE").execute(&mut self.locks).await {
            in_time(&error.to_string());
        }
        let held = Place::of(task, &mut self.locks).await;
        if held == *place {
            return Ok(());
        }
        self.let_go().await;
        Err(held)
    }

    /// Everybody may write again.
    async fn let_go(&mut self) {
        query("ROLLBACK").execute(&mut self.locks).await.expect("the lock is held");
    }
}

/// A product with tasks that can be stopped at a place.
struct Bed {
    product: Product,
    records: Records,
    /// What was asked of the site of the agents' pages.
    asked: Asked,
    /// How many agents were set to work.
    agents: usize,
    /// How often the lock came late.
    late: usize,
    /// What an agent's and a turn's task end with where nothing dies.
    trees: [ObjectId; 2],
}

impl Bed {
    async fn new(setup: Setup) -> Self {
        let (port, asked) = site().await;
        let agents = (0..=TRIES * (STEP.len() + 1)).map(|number| conversation(number, port));
        let model = transcript(agents.chain(i_am_the_model()));
        // A call that fails is not repeated by itself, so that the failure is the step's.
        let setup = setup.model(model).set("llm.provider.max_retries", 0);
        let product = setup.set("gateway.listen", format!("127.0.0.1:{}", free_port())).start().await;
        let records = Records::open(&product).await;
        let mut bed = Self { product, records, asked, agents: 0, late: 0, trees: [ObjectId([0; 32]); 2] };
        let (agent, number) = bed.agent().await;
        bed.go(number);
        bed.trees[0] = bed.product.completed(agent).await;
        let turns = bed.turns().await;
        bed.trees[1] = bed.product.completed(turns).await;
        bed
    }

    fn file(&self, name: &str, number: usize) -> PathBuf {
        self.product.folder().join(format!("{name}-{number}"))
    }

    /// Lets the first step of an agent end.
    fn go(&self, number: usize) {
        std::fs::write(self.file("go", number), "").expect("the folder is writable");
    }

    /// An agent with its number.
    async fn agent(&mut self) -> (TaskId, usize) {
        let number = self.agents;
        self.agents += 1;
        let agent = AgentSpec { web_hosts: vec!["127.0.0.1".to_owned()], ..AgentSpec::new(phrase(number)) };
        let outside = ("OUTSIDE".to_owned(), self.product.folder().display().to_string());
        let environment = Environment { variables: [outside].into(), ..Environment::default() };
        let spec = TaskSpec { environment, timeout_ms: Some(TIMEOUT_MS), ..TaskSpec::new("an agent", TaskWork::Agent(agent)) };
        (self.product.create(spec).await, number)
    }

    /// Three turns of an agent of somebody else's making, each of which asks its model once.
    async fn turns(&self) -> TaskId {
        let verify = Some("test $(wc -l < made.txt) = 3".to_owned());
        let work = TaskWork::External(ExternalSpec { verify, ..spec(&self.product, "model") });
        let spec = TaskSpec { timeout_ms: Some(TIMEOUT_MS), max_retries: Some(5), ..TaskSpec::new("turns", work) };
        self.product.create(spec).await
    }

    /// An agent whose second step has made so many of its writes, and can make no other.
    async fn agent_after(&mut self, writes: usize) -> (TaskId, usize) {
        let mut seen = Place::default();
        for _ in 0..TRIES {
            let (task, number) = self.agent().await;
            let reads = &mut self.records.reads;
            let answered = async || Place::of(task, reads).await.journal.last().is_some_and(|write| write == "replied");
            self.product.until("its first step has its reply", answered).await;
            self.product.say(task, WORDS).await;
            let fault = Fault { kind: FaultKind::Status { status: 500, retry_after_s: None }, times: 1 };
            self.product.model.as_ref().expect("it is scripted").order(fault);
            self.go(number);
            match self.records.shut_at(task, &Place::after(&STEP[..writes])).await {
                Ok(()) => return (task, number),
                Err(place) => seen = place,
            }
            self.late += 1;
            assert_eq!(self.product.completed(task).await, self.trees[0]);
        }
        panic!("no step could be stopped after {:?}; the last was found at {seen:?}", &STEP[..writes]);
    }

    /// The same of turns.
    async fn turns_after(&mut self, writes: usize) -> TaskId {
        let mut seen = Place::default();
        for _ in 0..TRIES {
            let task = self.turns().await;
            match self.records.shut_at(task, &Place::after(&TURN[..writes])).await {
                Ok(()) => return task,
                Err(place) => seen = place,
            }
            self.late += 1;
            assert_eq!(self.product.completed(task).await, self.trees[1]);
        }
        panic!("no turn could be stopped after {:?}; the last was found at {seen:?}", &TURN[..writes]);
    }

    /// Kills the worker that has the task, while nobody can write.
    async fn kill_worker_of(&mut self, task: TaskId, chance: &mut Chance) {
        chance.moment(HELD).await;
        let owned = self.product.record(task).await.worker;
        let worker = owned.or_else(|| owner(&self.product, task)).expect("it has one, or had one");
        let pid = self.product.signal(worker, Signal::KILL).await;
        self.product.until("the worker is dead", async || state_of(pid).is_none()).await;
        self.records.let_go().await;
    }

    /// Whether the task was moved from one worker to another.
    fn moved(&self, task: TaskId) -> bool {
        self.product.oracle.heard_of(task).iter().any(|event| event.event.kind == EventKind::TaskReassigned)
    }

    /// Kills the node, while nobody can write after these, and starts it again.
    async fn kill_node_of(&mut self, task: TaskId, writes: &[&str], chance: &mut Chance) {
        let mut trail = self.product.oracle.trail();
        let TaskRecord { worker, epoch, .. } = self.product.record(task).await;
        let mut workspace = None;
        if let Some(worker) = worker {
            let folder = self.product.worker_folder(&self.product.worker(worker).await.record.name);
            workspace = Some(folder.join("tasks").join(task.to_string()).join("files"));
        }
        let inode = |files: &PathBuf| std::fs::metadata(files).map(|files| files.ino()).ok();
        chance.moment(HELD).await;
        let before = workspace.as_ref().and_then(inode);
        self.product.kill_node();
        self.records.let_go().await;
        self.product.start_node_again();
        // Between a failed call and the next one nobody has the task, and so nobody has to adopt it.
        if let (Some(worker), Some(files)) = (worker, workspace) {
            let adopted = trail.until_kind(task, EventKind::TaskAssigned).await;
            assert_eq!(assignment(&adopted), (worker, epoch.next()));
            // One that goes on after a failed call opens its workspace anew, which is certainly done when a command has run there.
            let opening = writes.len() >= RETRIED && !writes.contains(&"intended");
            // Only a task that has ended meanwhile has given its workspace back, and `judge` sees whether it has.
            let after = inode(&files);
            let kept = before.is_some() && (after == before || after.is_none());
            assert!(opening || kept, "after {writes:?} the workspace was made anew: {before:?}, {after:?}");
        }
    }

    /// Holds an agent whose step was stopped after so many writes against what stands outside of the system: files, pages, replies.
    async fn judge(&self, (task, number): (TaskId, usize), writes: usize, victim: Victim) {
        let place = format!("{victim:?} killed after {:?}", &STEP[..writes]);
        assert_eq!(self.product.completed(task).await, self.trees[0], "{place}");
        let steps = self.product.all_steps(task).await;
        assert_eq!(steps.iter().map(|step| step.ordinal).collect::<Vec<_>>(), [1, 2, 3], "{place}");
        match victim {
            Victim::Node => assert!(!self.moved(task), "{place}: it is adopted, never moved"),
            // Before its call has failed it may be given up without its worker being missed.
            Victim::Worker => assert!(writes <= RETRIED || self.moved(task), "{place}: the worker was not missed"),
        }
        // A call dies with its node alone. What it may have cost is charged, and it is made again.
        let died = u32::from(victim == Victim::Node && writes > 0 && STEP[writes - 1] == "reserved");
        assert_eq!(steps.iter().map(|step| step.spend.uncertain_calls).sum::<u32>(), died, "{place}");
        let log = read_log(self.product.model.as_ref().expect("it is scripted").log()).expect("the log can be read");
        let log: Vec<_> = log.into_iter().filter(|line| line.scenario == phrase(number)).collect();
        assert!(repeated_replies(&log) <= died as usize, "{place}: a reply was asked for again: {log:#?}");
        // A page that was being got may be got again, and what a killed worker was at is done again by another; nothing else is.
        // The node goes on without the worker until it misses it.
        let got = self.asked.lock().iter().filter(|path| **path == format!("/page?{number}")).count();
        let last = writes.checked_sub(1).map(|last| STEP[last]);
        let again = usize::from(last == Some("intended") || (last == Some("replied") && victim == Victim::Worker));
        assert!((1..=1 + again).contains(&got), "{place}: the page was got {got} times");
        let told = std::fs::read_to_string(self.file("told", number)).expect("it was written").lines().count();
        let again = usize::from(victim == Victim::Worker && STEP[..writes].contains(&"replied"));
        assert!((1..=1 + again).contains(&told), "{place}: the command ran {told} times");
        let remarks = self.product.client.get::<RemarkList>(&format!("/tasks/{task}/remarks")).await.expect("they are listed");
        let heard: Vec<_> = remarks.remarks.iter().map(|remark| remark.step).collect();
        assert_eq!(heard, [Some(steps[1].id)], "{place}");
        let times = |line: &helix::scripted::LogLine| line.said.iter().filter(|said| *said == WORDS).count();
        let heard: Vec<_> = log.iter().filter(|line| line.completed).map(|line| (line.turn, times(line))).collect();
        assert!(heard.iter().all(|(turn, times)| *times == usize::from(*turn > 0)), "{place}: {heard:?}");
    }

    /// The same of turns: what their model was paid is charged, and never twice.
    async fn judge_turns(&self, task: TaskId, writes: usize, victim: Victim) {
        let place = format!("{victim:?} killed after {:?}", &TURN[..writes]);
        assert_eq!(self.product.completed(task).await, self.trees[1], "{place}");
        let steps = self.product.steps(task).await;
        assert_eq!(steps.iter().map(|step| step.ordinal).collect::<Vec<_>>(), [1, 2, 3], "{place}");
        assert_eq!(self.moved(task), victim == Victim::Worker, "{place}");
        let ledger: Ledger = self.product.client.query("/llm/ledger", &[("task", &task.to_string())]).await.expect("there is one");
        let charged: u64 = steps.iter().map(|step| step.spend.tokens).sum();
        assert_eq!([charged, self.product.record(task).await.tokens], [ledger.spent.tokens; 2], "{place}");
    }

    /// What holds at the end of everything.
    async fn end(self, victim: Victim) {
        let kills = STEP.len() + TURN.len() + 2;
        eprintln!("{victim:?} killed at {kills} places; {} times the lock came late, and another task was tried", self.late);
        assert_eq!(self.product.judge().await, Verdict::default());
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Worker,
    Node,
}

fn phrase(number: usize) -> String {
    format!("agent {number} of many.")
}

/// What the agent of this number is told: three turns, the first of which waits for the test, and the last of which does nothing.
fn conversation(number: usize, port: u16) -> Value {
    let shell = |command: &str| json!({"tool": "shell", "arguments": {"command": command}});
    let page = json!({"tool": "web_fetch", "arguments": {"url": format!("http://127.0.0.1:{port}/page?{number}")}});
    let wait = format!("until test -e \"$OUTSIDE/go-{number}\"; do sleep 0.01; done; echo one >> log");
    let tell = format!("echo told >> \"$OUTSIDE/told-{number}\"; echo two >> log");
    let check = "test $(wc -l < log) = 2 || echo wrong >> wrong";
    scenario(
        &phrase(number),
        [
            json!({"text": "I begin.", "calls": [shell(&wait)]}),
            json!({"text": "I work.", "delay_ms": 40, "calls": [shell(&tell), page, shell(check)]}),
            json!({"text": "All is done."}),
        ],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_between_any_two_journal_writes_costs_no_step_and_no_reply() {
    let mut chance = Chance::new("a worker killed between any two journal writes");
    for _ in 0..rounds(1) {
        let mut bed = Bed::new(Setup::workers(3)).await;
        for writes in 0..=STEP.len() {
            let agent = bed.agent_after(writes).await;
            bed.kill_worker_of(agent.0, &mut chance).await;
            bed.judge(agent, writes, Victim::Worker).await;
        }
        for writes in 0..=TURN.len() {
            let turns = bed.turns_after(writes).await;
            bed.kill_worker_of(turns, &mut chance).await;
            bed.judge_turns(turns, writes, Victim::Worker).await;
        }
        bed.end(Victim::Worker).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_between_any_two_journal_writes_adopts_its_task_with_its_workspace() {
    let mut chance = Chance::new("a node killed between any two journal writes");
    for _ in 0..rounds(1) {
        let mut bed = Bed::new(Setup::workers(2).patient_leases()).await;
        for writes in 0..=STEP.len() {
            let agent = bed.agent_after(writes).await;
            bed.kill_node_of(agent.0, &STEP[..writes], &mut chance).await;
            bed.judge(agent, writes, Victim::Node).await;
        }
        for writes in 0..=TURN.len() {
            let turns = bed.turns_after(writes).await;
            bed.kill_node_of(turns, &TURN[..writes], &mut chance).await;
            bed.judge_turns(turns, writes, Victim::Node).await;
        }
        bed.end(Victim::Node).await;
    }
}
