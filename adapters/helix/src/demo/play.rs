//! The play, act by act: work, kill, go on, fork, export, account.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use helix_adapter_http::api::{CreateTaskRequest, CreatedTasks, ExportRequest, ForkRequest, StepList};
use helix_messages::{Exported, ImportGit};
use helix_protocol::{
    AgentSpec, Base, Code, Event, EventKind, Failure, StepSummary, Subject, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork,
    WorkerId,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::account::{Account, Figures};
use super::{Demo, Killer, Stage, repository, tell};
use crate::cli::style::Style;
use crate::cli::timeline::Timeline;
use crate::client::Watch;
use crate::scripted::{read_log, repeated_replies};

/// What the scripted agents are asked on the sample program; the transcript knows them by these words.
const SAMPLE_PROMPTS: [&str; 2] =
    ["Make the roman numerals work: `./run-tests roman` must pass.", "Make the CSV filter work: `./run-tests csv` must pass."];
/// The same on somebody's own repository, where a script can know nothing of the code.
const TOUR_PROMPTS: [&str; 2] = [
    "Write HELIX-TOUR.md: a short tour of the files of this repository.",
    "Write HELIX-SIZES.md: the sizes of the files of this repository.",
];
/// The kill comes in the first command after this many steps: there is something to lose then.
const STEPS_BEFORE_KILL: usize = 3;
/// A real model may think for long.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// The branch with both agents' work on the sample program.
const RESULT_BRANCH: &str = "helix/demo";

/// How it ended.
pub struct Ending {
    /// The account.
    pub figures: Figures,
    /// What a person is shown last.
    pub text: String,
}

/// The state of the play.
pub struct Play<'a> {
    demo: &'a Demo,
    stage: &'a Stage,
    timeline: Timeline,
    account: Account,
    tasks: Vec<TaskId>,
    killed: Option<WorkerId>,
    held: Held,
}

/// Where the agents are held for a person to kill.
#[derive(Debug)]
enum Held {
    /// The moment is to come.
    Ahead,
    /// They are, until a worker is gone or Enter is pressed.
    Now(oneshot::Receiver<()>),
    /// It is over.
    Over,
}

impl<'a> Play<'a> {
    /// Before the first act.
    pub fn new(demo: &'a Demo, stage: &'a Stage, style: Style) -> Self {
        Self {
            demo,
            stage,
            timeline: Timeline::new(style),
            account: Account::default(),
            tasks: Vec::new(),
            killed: None,
            held: Held::Ahead,
        }
    }

    /// Every act.
    pub async fn perform(&mut self) -> Result<Ending, Failure> {
        let repository = match &self.demo.repo {
            Some(path) => path.clone(),
            None => repository::write_sample(&self.stage.folder)?,
        };
        let before = repository::head(&repository)?;
        for worker in self.stage.workers().await? {
            self.timeline.name_worker(worker.record.id, worker.record.name);
        }
        let mut watch = Watch::open(&self.stage.client, None, None).await?;
        for prompt in self.prompts() {
            let task = self.create(&prompt, &repository).await?;
            tell(&format!("task {}: {prompt}", task.short()));
            self.tasks.push(task);
        }
        if self.demo.kill == Killer::Ask && self.stage.model.is_none() {
            // Nobody can hold somebody else's model, which takes its time.
            self.invite("while the agents work").await?;
            self.held = Held::Over;
        }
        let originals = self.tasks.clone();
        self.watch_until_ended(&mut watch, &originals).await?;

        let fork = self.fork(originals[0]).await?;
        self.watch_until_ended(&mut watch, &[fork]).await?;

        let branches = self.export(&originals).await?;
        for (task, branch) in originals.iter().zip(&branches) {
            tell(&format!("task {}: exported as the branch {branch}", task.short()));
        }
        let tested = match self.demo.repo {
            None => Some(repository::merge_and_test(&repository, &self.stage.folder, &branches, RESULT_BRANCH)?),
            Some(_) => None,
        };
        let result = if tested.is_some() { RESULT_BRANCH.to_owned() } else { branches[0].clone() };
        let log = repository::log_stat(&repository, &before, &result)?;
        let figures = self.figures(result, tested).await?;
        let text = self.closing(&figures, &log, &repository);
        Ok(Ending { figures, text })
    }

    fn prompts(&self) -> Vec<String> {
        let texts = |prompts: [&str; 2]| prompts.map(str::to_owned).to_vec();
        match (&self.demo.prompt[..], &self.demo.repo) {
            ([], None) => texts(SAMPLE_PROMPTS),
            ([], Some(_)) => texts(TOUR_PROMPTS),
            (given, _) => given.to_vec(),
        }
    }

    async fn create(&self, prompt: &str, repository: &std::path::Path) -> Result<TaskId, Failure> {
        let agent = AgentSpec { max_steps: 60, ..AgentSpec::new(prompt) };
        let path = std::path::absolute(repository).map_err(|error| Failure::io(repository.display(), &error))?;
        let request = CreateTaskRequest {
            spec: TaskSpec { base: Base::Empty, ..TaskSpec::new(prompt, TaskWork::Agent(agent)) },
            import: Some(ImportGit { path, clean: false }),
            attempts: 1,
            secrets: self.demo.secret.clone(),
        };
        let created: CreatedTasks = self.stage.client.post("/tasks", &request).await?;
        let task = created.tasks.first().ok_or_else(|| Failure::new(Code::Internal, "the node made no task"))?;
        Ok(task.id)
    }

    /// Tells the person what there is to kill.
    async fn invite(&self, when: &str) -> Result<(), Failure> {
        tell(&format!("Kill any of these {when}; its agents go on elsewhere:"));
        for worker in self.stage.workers().await? {
            if let Some(pid) = worker.pid {
                tell(&format!("  kill -9 {pid}    # {}", worker.record.name));
            }
        }
        Ok(())
    }

    /// Holds the agents once there is something to lose, and says what can be done.
    async fn hold(&mut self) -> Result<(), Failure> {
        let Some(model) = &self.stage.model else { return Ok(()) };
        model.hold();
        let (sender, pressed) = oneshot::channel();
        // A thread of its own: one that the runtime waits for would keep the demo from ending.
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_line(&mut String::new());
            let _ = sender.send(());
        });
        self.held = Held::Now(pressed);
        tell(">>> the agents are held in the middle of their work");
        self.invite("now").await?;
        tell("or press Enter to let them go on as they are");
        Ok(())
    }

    fn let_go(&mut self, why: &str) {
        if let (Held::Now(_), Some(model)) = (std::mem::replace(&mut self.held, Held::Over), &self.stage.model) {
            model.let_go();
            tell(&format!(">>> {why}: the agents go on"));
        }
    }

    /// Shows events until every one of `tasks` has ended, and kills at the chosen moment.
    async fn watch_until_ended(&mut self, watch: &mut Watch, tasks: &[TaskId]) -> Result<(), Failure> {
        let started = Instant::now();
        let mut open: Vec<TaskId> = tasks.to_vec();
        while !open.is_empty() {
            let limit = PATIENCE.saturating_sub(started.elapsed());
            let entered = async {
                match &mut self.held {
                    Held::Now(pressed) => drop(pressed.await),
                    Held::Ahead | Held::Over => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                heard = tokio::time::timeout(limit, watch.next()) => heard,
                () = entered => {
                    self.let_go("Enter");
                    continue;
                }
            };
            let heard = heard.map_err(|_| Failure::new(Code::TimedOut, "the agents did not come to an end within an hour"))?;
            let event = match heard {
                Ok(event) => event,
                // A line that was cut comes back with what happened meanwhile, as long as the node is there.
                Err(failure) if failure.code == Code::NodeUnreachable && self.stage.node.folder().holder().is_some() => continue,
                Err(failure) => return Err(failure),
            };
            self.see(&event).await?;
            if let Some(task) = event.event.task.filter(|_| ends(&event)) {
                open.retain(|open| *open != task);
            }
        }
        for task in tasks {
            let record: TaskRecord = self.stage.client.get(&format!("/tasks/{task}")).await?;
            if record.status != TaskStatus::Completed {
                let hint = format!("the node's log is {}", self.stage.node.folder().log().display());
                let message = format!("task {} is {}: {}", task.short(), record.status, record.reason);
                return Err(Failure::new(Code::TaskFailed, message).hint(hint));
            }
        }
        Ok(())
    }

    async fn see(&mut self, event: &Event) -> Result<(), Failure> {
        let now = Instant::now();
        if self.is_the_moment(event) {
            self.kill_worker_of(self.tasks[0]).await?;
        }
        let lost = event.event.kind == EventKind::WorkerLost;
        if let Some(worker) = event.event.worker.filter(|worker| lost && self.killed != Some(*worker)) {
            // Somebody else killed it: the clock starts when the node noticed.
            self.account.killed(worker, now);
        }
        self.account.hear(event, now);
        if let Some(line) = self.timeline.line(event) {
            tell(&line);
        }
        if lost {
            self.let_go("a worker is gone");
        }
        let is_due = self.tasks.first().is_some_and(|task| self.account.steps_of(*task) >= STEPS_BEFORE_KILL);
        if self.demo.kill == Killer::Ask && matches!(self.held, Held::Ahead) && is_due {
            self.hold().await?;
        }
        Ok(())
    }

    /// The first command that the first agent runs once it has made some steps: the step is under way, and nothing of it committed.
    fn is_the_moment(&self, event: &Event) -> bool {
        self.demo.kill == Killer::Auto
            && self.killed.is_none()
            && event.event.kind == EventKind::ToolStarted
            && event.event.task == self.tasks.first().copied()
            && event.event.detail["tool"] == "shell"
            && self.account.steps_of(self.tasks[0]) >= STEPS_BEFORE_KILL
    }

    async fn kill_worker_of(&mut self, task: TaskId) -> Result<(), Failure> {
        let Some(worker) = self.account.worker_of(task) else { return Ok(()) };
        let workers = self.stage.workers().await?;
        let Some(view) = workers.iter().find(|view| view.record.id == worker) else { return Ok(()) };
        let pid = view.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new(Code::Internal, format!("{} gave no process id", view.record.name)))?;
        self.account.killed(worker, Instant::now());
        self.killed = Some(worker);
        kill_process(pid, Signal::KILL).map_err(|error| Failure::io("killing the worker", &error.into()))?;
        tell(&format!(">>> kill -9 {} ({}), in the middle of a step of task {}", pid, view.record.name, task.short()));
        Ok(())
    }

    /// Continues a past step of a task as a task of its own.
    async fn fork(&mut self, task: TaskId) -> Result<TaskId, Failure> {
        // A model may have been done before that.
        let step = STEPS_BEFORE_KILL.min(self.account.steps_of(task)).to_string();
        let request =
            ForkRequest { step: Some(step.clone()), title: Some("a second attempt".to_owned()), ..ForkRequest::default() };
        let fork: TaskRecord = self.stage.client.post(&format!("/tasks/{task}/fork"), &request).await?;
        tell(&format!("task {}: forked from step {step} of task {}, files and conversation", fork.id.short(), task.short()));
        self.tasks.push(fork.id);
        Ok(fork.id)
    }

    async fn export(&self, tasks: &[TaskId]) -> Result<Vec<String>, Failure> {
        let mut branches = Vec::new();
        for task in tasks {
            let exported: Exported = self.stage.client.post(&format!("/tasks/{task}/export"), &ExportRequest::default()).await?;
            branches.push(exported.branch);
        }
        Ok(branches)
    }

    async fn figures(&self, result_branch: String, tests_passed: Option<bool>) -> Result<Figures, Failure> {
        let (mut lines, mut all) = (BTreeMap::new(), BTreeMap::new());
        for task in &self.tasks {
            lines.insert(*task, self.steps(*task, false).await?);
            all.insert(*task, self.steps(*task, true).await?);
        }
        let verdict = self.account.judge(&lines, &all);
        let repeated = match &self.stage.model {
            Some(server) => {
                let log =
                    read_log(server.log()).map_err(|error| Failure::new(Code::Internal, format!("the model's log: {error:#}")))?;
                Some(repeated_replies(&log) as u64)
            }
            None => None,
        };
        Ok(Figures {
            steps: verdict.steps,
            lost_steps: verdict.lost,
            double_steps: verdict.double,
            model_calls_repeated: repeated,
            kills: self.account.kills(),
            resumed_in_ms: self.account.resumed().iter().map(|time| time.as_millis() as u64).collect(),
            result_branch,
            tests_passed,
            bytes_logical: self.account.bytes_logical(),
            bytes_stored: self.stage.stored_bytes(),
        })
    }

    /// A task's line of steps, or every step it ever committed.
    async fn steps(&self, task: TaskId, every: bool) -> Result<Vec<StepSummary>, Failure> {
        let query: &[(&str, &str)] = if every { &[("all", "true")] } else { &[] };
        Ok(self.stage.client.query::<StepList>(&format!("/tasks/{task}/steps"), query).await?.steps)
    }

    fn closing(&self, figures: &Figures, log: &str, repository: &std::path::Path) -> String {
        let tests = match figures.tests_passed {
            Some(true) => "its tests pass",
            Some(false) => "its tests FAIL",
            None => "look at it before you merge it",
        };
        let place = match self.demo.repo {
            None if !self.demo.keep => "the demo's repository, which goes with it; `--keep` keeps it".to_owned(),
            _ => repository.display().to_string(),
        };
        format!(
            "\ngit log --stat {branch}    ({place}; {tests})\n\n{log}\n\
             {steps} steps, {lost} lost, {double} made twice{repeated}.\n\
             {moved}\n\
             {logical} of files in those steps, {stored} on disk.\n\n\
             With your own repository, model and machines:\n\
             \x20 export OPENAI_API_KEY=...     # or llm.providers in helix.yaml\n\
             \x20 helix run \"fix the failing test\" --repo .\n\
             \x20 helix worker add HOST         # any host your ssh knows\n",
            branch = figures.result_branch,
            steps = figures.steps,
            lost = figures.lost_steps,
            double = figures.double_steps,
            repeated =
                figures.model_calls_repeated.map_or(String::new(), |count| format!("; {count} model replies asked for again")),
            moved = moved(figures.kills, &figures.resumed_in_ms),
            logical = bytes(figures.bytes_logical),
            stored = bytes(figures.bytes_stored),
        )
    }
}

/// True of events after which a task makes no more steps: nobody mends what its model waits for while the demo runs.
fn ends(event: &Event) -> bool {
    let event = &event.event;
    match event.kind {
        EventKind::TaskCompleted | EventKind::TaskFailed | EventKind::TaskCancelled => true,
        EventKind::TaskAsked => Subject::deserialize(&event.detail["subject"]).is_ok_and(|subject| subject == Subject::Model),
        _ => false,
    }
}

/// What the kills came to.
fn moved(kills: u64, resumed_in_ms: &[u64]) -> String {
    let killed = match kills {
        0 => return "No worker was killed.".to_owned(),
        1 => "1 worker killed".to_owned(),
        several => format!("{several} workers killed"),
    };
    let (whose, times) = (if kills == 1 { "its" } else { "their" }, resumed_in_ms.iter().map(|ms| format!("{ms} ms")));
    let times = times.collect::<Vec<_>>().join(" and ");
    match resumed_in_ms.len() {
        0 => format!("{killed}; no task had to go on elsewhere."),
        1 => format!("{killed}; {whose} task made its next tool call {times} later, elsewhere."),
        _ => format!("{killed}; {whose} tasks made their next tool calls {times} later, elsewhere."),
    }
}

/// Bytes in the largest unit that leaves a number above one.
fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{:.1} KiB", count as f64 / 1_024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::moved;

    #[test]
    fn the_end_is_told_for_any_number_of_workers() {
        assert_eq!(moved(0, &[]), "No worker was killed.");
        assert_eq!(moved(1, &[]), "1 worker killed; no task had to go on elsewhere.");
        assert_eq!(moved(1, &[37]), "1 worker killed; its task made its next tool call 37 ms later, elsewhere.");
        assert_eq!(
            moved(2, &[37, 41]),
            "2 workers killed; their tasks made their next tool calls 37 ms and 41 ms later, elsewhere."
        );
    }
}
