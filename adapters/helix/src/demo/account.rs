//! The account the demo renders: what was acknowledged, what is there, what was asked twice.
//!
//! It is kept from outside the node. Every step that the event stream acknowledges is written down; at the end the
//! tasks' lines of steps are held against that list, and the model server's own log against itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use helix_protocol::{Code, Epoch, Event, EventKind, Failure, StepId, StepOutcome, StepSummary, TaskId, WorkerId};
use serde::Serialize;

use super::Killer;

/// What `helix demo --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Steps committed.
    pub steps: u64,
    /// Acknowledged steps that are not on their task's line at the end.
    pub lost_steps: u64,
    /// Steps of a task that were committed more than once.
    pub double_steps: u64,
    /// Whole replies that the model server gave more than once to the same request; `null` where the server is not the demo's own,
    /// because only its log can tell.
    pub model_calls_repeated: Option<u64>,
    /// Workers killed.
    pub kills: u64,
    /// From each kill to the first tool call of the resumed step, in milliseconds, one number for each task that was moved.
    pub resumed_in_ms: Vec<u64>,
    /// The branch with the result.
    pub result_branch: String,
    /// Whether the program's own tests pass on that branch; `null` where it has none that the demo knows.
    pub tests_passed: Option<bool>,
    /// The files of every step, as if each had been kept whole, in bytes.
    pub bytes_logical: u64,
    /// What the content store takes for them, in bytes.
    pub bytes_stored: u64,
}

impl Figures {
    /// The promise, held against the figures: a demo that lost something must not end well, and neither must one that was to kill a
    /// worker and shows no task that went on elsewhere. A real model may be done before the moment comes; the scripted one is not.
    pub(super) fn judge(&self, killer: Killer) -> Result<(), Failure> {
        let is_scripted = self.model_calls_repeated.is_some();
        if is_scripted && killer == Killer::Auto && (self.kills == 0 || self.resumed_in_ms.is_empty()) {
            return Err(Failure::new(Code::Internal, "no worker was killed in the middle of a step, so nothing was shown")
                .hint("run it again; with --kill ask the killing is yours"));
        }
        let kept = self.lost_steps == 0 && self.double_steps == 0 && self.model_calls_repeated.unwrap_or(0) == 0;
        if kept && self.tests_passed != Some(false) {
            return Ok(());
        }
        Err(Failure::new(Code::Internal, "the demo lost or repeated work, or its result is wrong: see the figures")
            .hint("run it again with --keep, and report it with the node's log"))
    }
}

/// A worker that was killed.
#[derive(Clone, Debug)]
struct Kill {
    worker: WorkerId,
    at: Instant,
}

/// A task between two owners.
#[derive(Clone, Copy, Debug)]
struct Moving {
    killed_at: Instant,
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Account {
    acknowledged: BTreeMap<TaskId, BTreeSet<StepId>>,
    workers: BTreeMap<TaskId, (WorkerId, Epoch)>,
    kills: Vec<Kill>,
    moving: BTreeMap<TaskId, Moving>,
    resumed: Vec<Duration>,
    bytes_logical: u64,
}

impl Account {
    /// Writes down what an event says.
    pub fn hear(&mut self, event: &Event, at: Instant) {
        let Some(task) = event.event.task else { return };
        let detail = &event.event.detail;
        match event.event.kind {
            EventKind::TaskAssigned => {
                let epoch = detail["epoch"].as_u64().map(Epoch);
                if let (Some(worker), Some(epoch)) = (event.event.worker, epoch) {
                    self.workers.insert(task, (worker, epoch));
                }
            }
            EventKind::TaskReassigned => {
                if let Some(kill) = self.kill_behind(event.event.worker) {
                    self.moving.insert(task, Moving { killed_at: kill.at });
                }
            }
            EventKind::ToolStarted => {
                if let Some(moving) = self.moving.remove(&task) {
                    self.resumed.push(at.duration_since(moving.killed_at));
                }
            }
            EventKind::StepCompleted => {
                if let Some(step) = detail["step"].as_str().and_then(|step| step.parse().ok()) {
                    self.acknowledged.entry(task).or_default().insert(step);
                }
                self.bytes_logical += detail["logical_bytes"].as_u64().unwrap_or(0);
            }
            _ => {}
        }
    }

    /// Writes down that a worker was killed just now.
    pub fn killed(&mut self, worker: WorkerId, at: Instant) {
        self.kills.push(Kill { worker, at });
    }

    /// The worker that holds a task at present.
    pub fn worker_of(&self, task: TaskId) -> Option<WorkerId> {
        self.workers.get(&task).map(|(worker, _)| *worker)
    }

    /// How many steps of a task were acknowledged.
    pub fn steps_of(&self, task: TaskId) -> usize {
        self.acknowledged.get(&task).map_or(0, BTreeSet::len)
    }

    /// How long each moved task took from the kill to its next tool call.
    pub fn resumed(&self) -> &[Duration] {
        &self.resumed
    }

    /// How many workers were killed.
    pub fn kills(&self) -> u64 {
        self.kills.len() as u64
    }

    /// The files of every acknowledged step, as if each had been kept whole.
    pub fn bytes_logical(&self) -> u64 {
        self.bytes_logical
    }

    /// Holds the tasks' steps against what was acknowledged. `lines` has for each task its line up to the head, `all` every step it
    /// ever committed.
    pub fn judge(&self, lines: &BTreeMap<TaskId, Vec<StepSummary>>, all: &BTreeMap<TaskId, Vec<StepSummary>>) -> Verdict {
        let mut verdict = Verdict::default();
        for (task, acknowledged) in &self.acknowledged {
            let line: BTreeSet<StepId> = lines.get(task).into_iter().flatten().map(|step| step.id).collect();
            verdict.steps += acknowledged.len() as u64;
            verdict.lost += acknowledged.difference(&line).count() as u64;
        }
        for steps in all.values() {
            let mut turns = BTreeSet::new();
            let turns_made = steps.iter().filter(|step| matches!(step.outcome, StepOutcome::Continue | StepOutcome::Finished));
            verdict.double += turns_made.filter(|step| !turns.insert((step.attempt, step.ordinal))).count() as u64;
        }
        verdict
    }

    fn kill_behind(&self, worker: Option<WorkerId>) -> Option<&Kill> {
        self.kills.iter().rev().find(|kill| Some(kill.worker) == worker)
    }
}

/// What holding them against each other gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged steps.
    pub steps: u64,
    /// Of them, not on the line.
    pub lost: u64,
    /// Turns committed more than once.
    pub double: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_protocol::{AttemptId, EventId, NewEvent, ObjectId, SnapshotId, Spend, Timestamp};
    use serde_json::json;

    fn event(kind: EventKind, task: TaskId, detail: serde_json::Value) -> Event {
        let event = NewEvent::info(kind, "test", "").task(task).detail(detail);
        Event { id: EventId::new(), sequence: 1, task_sequence: 1, schema: 1, at: Timestamp(0), event }
    }

    fn step(id: StepId, task: TaskId, attempt: AttemptId, ordinal: u64) -> StepSummary {
        StepSummary {
            id,
            task,
            attempt,
            parent: None,
            ordinal,
            epoch: Epoch(1),
            outcome: StepOutcome::Continue,
            summary: String::new(),
            tree: ObjectId([0; 32]),
            snapshot: SnapshotId(ObjectId([0; 32])),
            files_changed: 0,
            skipped: Vec::new(),
            torn: Vec::new(),
            artifacts: Vec::new(),
            spend: Spend::default(),
            worker: None,
            checkpoints: Vec::new(),
            started_at: Timestamp(0),
            committed_at: Timestamp(0),
        }
    }

    #[test]
    fn a_step_that_was_acknowledged_and_is_not_on_the_line_is_lost() {
        let (task, attempt, kept, gone) = (TaskId::new(), AttemptId::new(), StepId::new(), StepId::new());
        let mut account = Account::default();
        for id in [kept, gone] {
            account.hear(&event(EventKind::StepCompleted, task, json!({ "step": id, "logical_bytes": 10 })), Instant::now());
        }
        let line = BTreeMap::from([(task, vec![step(kept, task, attempt, 1)])]);
        assert_eq!(account.judge(&line, &line), Verdict { steps: 2, lost: 1, double: 0 });
        assert_eq!(account.bytes_logical(), 20);
    }

    #[test]
    fn a_demo_that_lost_or_repeated_something_or_killed_nobody_ends_badly() {
        let good = Figures {
            steps: 24,
            lost_steps: 0,
            double_steps: 0,
            model_calls_repeated: Some(0),
            kills: 1,
            resumed_in_ms: vec![37],
            result_branch: "helix/demo".to_owned(),
            tests_passed: Some(true),
            bytes_logical: 1,
            bytes_stored: 1,
        };
        assert_eq!(good.judge(Killer::Auto), Ok(()));
        let bad = |change: fn(&mut Figures), killer| {
            let mut figures = good.clone();
            change(&mut figures);
            figures.judge(killer).is_err()
        };
        assert!(bad(|figures| figures.lost_steps = 1, Killer::Ask) && bad(|figures| figures.double_steps = 1, Killer::Ask));
        assert!(bad(|figures| figures.model_calls_repeated = Some(1), Killer::Ask));
        assert!(bad(|figures| figures.tests_passed = Some(false), Killer::Ask));
        assert!(bad(|figures| figures.kills = 0, Killer::Auto) && !bad(|figures| figures.kills = 0, Killer::Ask));
        assert!(bad(|figures| figures.resumed_in_ms.clear(), Killer::Auto));
    }

    #[test]
    fn a_turn_that_was_committed_twice_is_double() {
        let (task, attempt) = (TaskId::new(), AttemptId::new());
        let all = BTreeMap::from([(task, vec![step(StepId::new(), task, attempt, 1), step(StepId::new(), task, attempt, 1)])]);
        assert_eq!(Account::default().judge(&all, &all), Verdict { steps: 0, lost: 0, double: 1 });
    }

    #[test]
    fn resuming_is_measured_from_the_kill_to_the_next_tool_call_of_the_moved_task_only() {
        let (moved, other, worker, start) = (TaskId::new(), TaskId::new(), WorkerId::new(), Instant::now());
        let later = |millis| start + Duration::from_millis(millis);
        let mut account = Account::default();
        account.killed(worker, start);
        let mut reassigned = event(EventKind::TaskReassigned, moved, json!({}));
        reassigned.event.worker = Some(worker);
        account.hear(&reassigned, later(5));
        account.hear(&event(EventKind::ToolStarted, other, json!({})), later(10));
        account.hear(&event(EventKind::ToolStarted, moved, json!({})), later(70));
        account.hear(&event(EventKind::ToolStarted, moved, json!({})), later(90));
        assert_eq!(account.resumed(), [Duration::from_millis(70)]);
    }
}
