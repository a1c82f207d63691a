//! The timeline: events as lines that a person reads while it happens.
//!
//! Pure: a line depends on the event and on those before it (who holds a task, since when it has been without a worker),
//! never on a clock.

use std::collections::HashMap;

use helix_protocol::{Event, EventKind, Money, Severity, TaskId, Timestamp, WorkerId};
use serde_json::Value;

use super::follow::without_output;
use super::style::{Style, cut, dollars, grouped, time_of_day};

/// Widest text of a line's last column.
const TEXT: usize = 110;

/// Turns events into lines.
#[derive(Clone, Debug)]
pub struct Timeline {
    style: Style,
    workers: HashMap<WorkerId, String>,
    tasks: HashMap<TaskId, Held>,
}

/// What is known of a task from its events.
#[derive(Clone, Debug, Default)]
struct Held {
    worker: Option<WorkerId>,
    worker_name: String,
    epoch: u64,
    /// When it lost its worker; cleared by the first sign of work elsewhere.
    lost_at: Option<Timestamp>,
}

impl Timeline {
    /// An empty timeline.
    pub fn new(style: Style) -> Self {
        Self { style, workers: HashMap::new(), tasks: HashMap::new() }
    }

    /// Names a worker, so that lines need not show its id.
    pub fn name_worker(&mut self, worker: WorkerId, name: impl Into<String>) {
        self.workers.insert(worker, name.into());
    }

    /// True where the worker holds a task that this timeline was shown.
    pub fn concerns(&self, worker: WorkerId) -> bool {
        self.tasks.values().any(|held| held.worker == Some(worker))
    }

    /// The event's line; `None` for events that a timeline does not show.
    pub fn line(&mut self, event: &Event) -> Option<String> {
        let style = self.style;
        let at = style.dim(time_of_day(event.at));
        let task = event.event.task.map_or_else(|| " ".repeat(8), |task| style.bold(task.short()));
        let (word, text) = self.describe(event)?;
        let padded = format!("{word:<9}");
        let word = match event.event.kind {
            EventKind::StepCompleted if has_failed(&event.event.detail) => style.red(padded),
            EventKind::StepCompleted | EventKind::TaskCompleted => style.green(padded),
            EventKind::WorkerLost | EventKind::TaskFailed | EventKind::StepFailed | EventKind::SystemError => style.red(padded),
            EventKind::TaskReassigned | EventKind::TaskAsked | EventKind::TaskPaused => style.yellow(padded),
            EventKind::TaskAssigned | EventKind::TaskResumed | EventKind::TaskSaid => style.cyan(padded),
            _ if event.event.severity >= Severity::Error => style.red(padded),
            _ if event.event.severity == Severity::Warning => style.yellow(padded),
            _ => style.dim(padded),
        };
        Some(format!("{at}  {task}  {word}  {text}").trim_end().to_owned())
    }

    fn describe(&mut self, event: &Event) -> Option<(String, String)> {
        let kind = event.event.kind;
        let detail = &event.event.detail;
        let said = cut(&event.event.message, TEXT);
        if let Some(worker) = event.event.worker
            && let Some(name) = detail.get("worker").and_then(Value::as_str).filter(|name| name.parse::<WorkerId>().is_err())
        {
            self.workers.insert(worker, name.to_owned());
        }
        let line = |word: &str, text: String| Some((word.to_owned(), text));
        match kind {
            EventKind::TaskCreated => line("created", self.created(detail, said)),
            EventKind::TaskAssigned => {
                let text = self.assigned(event);
                line("assigned", text)
            }
            EventKind::TaskStarted => None,
            EventKind::StepCompleted => {
                // A command's begin has no event of its own.
                let resumed = self.since_loss(event, "ended", "after the loss");
                line(&format!("step {}", number(detail, "ordinal")), format!("{}{resumed}", self.step(event, &said)))
            }
            // What ends the task is told by the line of its end.
            EventKind::StepFailed if detail.get("ends").and_then(Value::as_bool) == Some(true) => None,
            EventKind::StepFailed => {
                let reason = text(detail, "message").map_or(said, |reason| cut(without_output(&reason), TEXT));
                line("failed", text(detail, "next").map_or(reason.clone(), |next| format!("{reason}; {next}")))
            }
            EventKind::ToolStarted => {
                let resumed = self.since_loss(event, "resumed after", "");
                line("tool", format!("{}{resumed}", tool(detail).unwrap_or(said)))
            }
            EventKind::ToolFinished if detail.get("is_error").and_then(Value::as_bool) == Some(true) => line(
                "tool",
                format!("{} failed after {} ms", text(detail, "tool").unwrap_or_default(), number(detail, "duration_ms")),
            ),
            EventKind::ToolFinished | EventKind::ModelCalled => None,
            EventKind::ModelSaid => line("says", String::new()),
            EventKind::ModelReplied => line("model", format!("{} tokens, {}", grouped(number(detail, "tokens")), money(detail))),
            EventKind::WorkerLost => line("LOST", self.lost(event)),
            EventKind::TaskReassigned => {
                let text = self.reassigned(event, &said);
                line("moved", text)
            }
            EventKind::TaskCompleted => line("completed", if said == "completed" { String::new() } else { said }),
            EventKind::TaskFailed => line("FAILED", cut(without_output(&event.event.message), TEXT)),
            EventKind::TaskAsked => line("asks", said),
            EventKind::TaskSaid => line("said", format!("{}: {said}", event.event.actor)),
            EventKind::TaskPaused => line("paused", said),
            EventKind::TaskResumed => line("resumed", said),
            EventKind::TaskCancelled => line("cancelled", said),
            EventKind::TaskRolledBack => line("rollback", said),
            EventKind::WorkerConnected
            | EventKind::WorkerDisconnected
            | EventKind::WorkerHeartbeatMissed
            | EventKind::WorkerHealthDegraded => line("worker", self.of_worker(event, &said)),
            EventKind::WorkerLifecycleChanged => line("worker", self.of_worker(event, &text(detail, "lifecycle").unwrap_or(said))),
            EventKind::SystemStartup | EventKind::SystemShutdown | EventKind::SystemError => line("node", said),
            _ => line(kind.as_str(), said),
        }
    }

    /// The title, and the sandbox that its commands run in. That there is none must not be overlooked.
    fn created(&self, detail: &Value, said: String) -> String {
        match text(detail, "sandbox") {
            Some(none) if none.starts_with("none") => format!("{said}  {}", self.style.yellow("UNSANDBOXED")),
            Some(sandbox) => format!("{said}  {}", self.style.dim(format!("sandbox: {sandbox}"))),
            None => said,
        }
    }

    fn name(&self, worker: Option<WorkerId>) -> String {
        worker.map_or_else(|| "a worker".to_owned(), |id| self.workers.get(&id).cloned().unwrap_or_else(|| id.short()))
    }

    fn assigned(&mut self, event: &Event) -> String {
        let name = self.name(event.event.worker);
        let epoch = number(&event.event.detail, "epoch");
        if let Some(task) = event.event.task {
            let held = self.tasks.entry(task).or_default();
            held.worker = event.event.worker;
            held.worker_name.clone_from(&name);
            held.epoch = epoch;
        }
        format!("{}, epoch {epoch}", self.style.bold(name))
    }

    /// `  resumed after 412 ms` at the first work after a loss.
    fn since_loss(&mut self, event: &Event, before: &str, behind: &str) -> String {
        let lost = event.event.task.and_then(|task| self.tasks.get_mut(&task)).and_then(|held| held.lost_at.take());
        lost.map_or_else(String::new, |lost| {
            let ms = (event.at.0 - lost.0).max(0) / 1_000;
            format!("  {}", self.style.green(format!("{before} {ms} ms {behind}").trim_end()))
        })
    }

    /// What was done comes first: a narrow terminal cuts the end.
    fn step(&self, event: &Event, said: &str) -> String {
        let detail = &event.event.detail;
        let (mut parts, mut at) = (Vec::new(), Vec::new());
        let held = event.event.task.and_then(|task| self.tasks.get(&task));
        let worker = text(detail, "worker").or_else(|| held.map(|held| held.worker_name.clone()));
        let epoch = detail.get("epoch").and_then(Value::as_u64).or_else(|| held.map(|held| held.epoch));
        match (worker.filter(|name| !name.is_empty()), epoch) {
            (Some(worker), Some(epoch)) => at.push(format!("{worker} e{epoch}")),
            (Some(worker), None) => at.push(worker),
            (None, _) if event.event.worker.is_some() => at.push(self.name(event.event.worker)),
            (None, _) => {}
        }
        if let Some(snapshot) = text(detail, "snapshot") {
            at.push(snapshot.chars().take(12).collect());
        }
        let files = number(detail, "files_changed");
        parts.push(format!("{files} {}", if files == 1 { "file" } else { "files" }));
        for (key, what) in [("skipped", "not carried"), ("torn", "changed while read")] {
            let count = number(detail, key);
            if count > 0 {
                parts.push(self.style.yellow(format!("{count} {what}")));
            }
        }
        let tokens = number(detail, "tokens");
        if tokens > 0 {
            parts.push(format!("{} tokens", grouped(tokens)));
            parts.push(money(detail));
        }
        parts.extend(at);
        let facts = self.style.dim(parts.join(" · "));
        // The number stands in its own column already.
        let said = said.strip_prefix(&format!("step {}: ", number(detail, "ordinal"))).unwrap_or(said);
        if said.is_empty() || has_failed(detail) { facts } else { format!("{said}  {facts}") }
    }

    fn lost(&mut self, event: &Event) -> String {
        for held in self.tasks.values_mut().filter(|held| held.worker.is_some() && held.worker == event.event.worker) {
            held.lost_at = Some(event.at);
            held.worker = None;
        }
        let proof = proof(&event.event.detail).unwrap_or_else(|| event.event.message.clone());
        let silent = event.event.detail.get("silent_ms").and_then(Value::as_u64);
        let silent = silent.map_or_else(String::new, |ms| self.style.dim(format!("  (last heard {ms} ms before)")));
        format!("worker {}: {}{silent}", self.style.bold(self.name(event.event.worker)), cut(&proof, TEXT))
    }

    fn reassigned(&mut self, event: &Event, said: &str) -> String {
        let mut said = if said.is_empty() { "waits for another worker".to_owned() } else { said.to_owned() };
        let Some(held) = event.event.task.and_then(|task| self.tasks.get_mut(&task)) else { return said };
        held.worker = None;
        // Who watches one task is not shown its worker's loss, so the proof is told here.
        if held.lost_at.replace(held.lost_at.unwrap_or(event.at)).is_none()
            && let Some(proof) = proof(&event.event.detail).filter(|proof| !said.contains(proof.as_str()))
        {
            said = format!("{said}: {}", cut(&proof, TEXT));
        }
        said
    }

    fn of_worker(&self, event: &Event, said: &str) -> String {
        let name = self.name(event.event.worker);
        let said = said.strip_prefix("worker ").unwrap_or(said);
        if said.contains(name.as_str()) { said.to_owned() } else { format!("{name}: {said}") }
    }
}

/// True of a step that failed: why is told by the line of that.
fn has_failed(detail: &Value) -> bool {
    detail.get("outcome").and_then(Value::as_str) == Some("failed")
}

fn number(detail: &Value, key: &str) -> u64 {
    detail.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn text(detail: &Value, key: &str) -> Option<String> {
    detail.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn money(detail: &Value) -> String {
    dollars(Money(detail.get("money").and_then(Value::as_i64).unwrap_or(0)))
}

/// The proof of a death, in words: a text, or a `DeathProof` as JSON.
fn proof(detail: &Value) -> Option<String> {
    let proof = detail.get("proof")?;
    if let Some(words) = proof.as_str() {
        return Some(words.to_owned());
    }
    serde_json::from_value::<helix_ports::DeathProof>(proof.clone()).ok().map(|proof| proof.to_string())
}

/// `shell: cargo test`: the tool and what it was asked.
fn tool(detail: &Value) -> Option<String> {
    let name = text(detail, "tool")?;
    let input = detail.get("input").unwrap_or(&Value::Null);
    let asked = match input {
        Value::String(asked) => asked.clone(),
        Value::Object(fields) => {
            let main = ["command", "path", "pattern", "query"].iter().find_map(|key| fields.get(*key).and_then(Value::as_str));
            main.map_or_else(|| input.to_string(), str::to_owned)
        }
        Value::Null => String::new(),
        other => other.to_string(),
    };
    Some(if asked.is_empty() { name } else { cut(&format!("{name}: {asked}"), TEXT) })
}

#[cfg(test)]
mod tests {
    use helix_protocol::{EventId, NewEvent};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    const TASK: TaskId = TaskId(Uuid::from_u128(0xa1b2_c3d4));
    const ALPHA: WorkerId = WorkerId(Uuid::from_u128(0xaaaa_0001));
    const BETA: WorkerId = WorkerId(Uuid::from_u128(0xbbbb_0002));

    fn event(ms: i64, kind: EventKind, message: &str, worker: Option<WorkerId>, detail: Value) -> Event {
        let mut event = NewEvent::info(kind, "node", message).detail(detail);
        event.worker = worker;
        if kind != EventKind::WorkerLost {
            event.task = Some(TASK);
        }
        Event { id: EventId(Uuid::nil()), sequence: 1, task_sequence: 1, schema: 1, at: Timestamp(ms * 1_000), event }
    }

    fn story() -> Vec<Event> {
        use EventKind::*;
        vec![
            event(1_000, TaskCreated, "fix the parser's tests (agent)", None, json!({"sandbox": "workspace, no network"})),
            event(1_020, TaskAssigned, "", Some(ALPHA), json!({"epoch": 1, "worker": "alpha"})),
            event(1_030, TaskStarted, "started", Some(ALPHA), Value::Null),
            event(1_400, ModelReplied, "", None, json!({"tokens": 1234, "money": 12_300})),
            event(1_500, ToolStarted, "", Some(ALPHA), json!({"tool": "shell", "input": {"command": "python3 -m unittest"}})),
            event(1_900, ToolFinished, "", Some(ALPHA), json!({"tool": "shell", "is_error": true, "duration_ms": 400})),
            event(
                2_000,
                StepCompleted,
                "step 1: ran the tests",
                Some(ALPHA),
                json!({"step": "x", "ordinal": 1, "snapshot": "4f2a91c0d7e3aaaaaaaa", "files_changed": 1, "tokens": 1234, "money": 12_300}),
            ),
            event(
                2_500,
                WorkerLost,
                "",
                Some(ALPHA),
                json!({"proof": {"proof": "wait_status", "status": "signal 9"}, "silent_ms": 312}),
            ),
            event(2_510, TaskReassigned, "alpha is gone", None, json!({"worker": "alpha"})),
            event(2_600, TaskAssigned, "", Some(BETA), json!({"epoch": 2, "worker": "beta"})),
            event(2_912, ToolStarted, "", Some(BETA), json!({"tool": "edit", "input": {"path": "parser.py", "old": "a"}})),
            event(
                3_000,
                StepCompleted,
                "edited parser.py",
                Some(BETA),
                json!({"ordinal": 2, "snapshot": "99aa", "files_changed": 2, "skipped": 1, "torn": 2, "epoch": 2, "worker": "beta"}),
            ),
            event(
                3_050,
                StepFailed,
                "",
                None,
                json!({"message": "`make` ended with exit code 2; its output ended with:\nboom", "next": "tried again in 250 ms", "ends": false}),
            ),
            event(3_060, StepFailed, "", None, json!({"message": "told by the line of its end", "ends": true})),
            event(3_100, TaskCompleted, "done in 2 steps", None, Value::Null),
        ]
    }

    #[test]
    fn a_worker_that_dies_in_the_middle_reads_like_this() {
        let mut timeline = Timeline::new(Style::Plain);
        let lines: Vec<String> = story().iter().filter_map(|event| timeline.line(event)).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn the_time_to_resume_is_told_once_and_counted_from_the_loss() {
        let mut timeline = Timeline::new(Style::Plain);
        let lines: Vec<String> = story().iter().filter_map(|event| timeline.line(event)).collect();
        let told: Vec<&String> = lines.iter().filter(|line| line.contains("resumed after")).collect();
        assert_eq!(told.len(), 1);
        assert!(told[0].ends_with("edit: parser.py  resumed after 412 ms"), "{told:?}");
    }

    #[test]
    fn text_from_a_task_cannot_move_the_cursor() {
        let mut timeline = Timeline::new(Style::Plain);
        let line = timeline.line(&event(1, EventKind::TaskCreated, "a\x1b[2Jb\r\nc", None, Value::Null)).expect("it is shown");
        assert!(!line.contains(['\x1b', '\r', '\n']), "{line:?}");
    }
}
