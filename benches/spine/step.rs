//! The steps that are committed: one that holds nothing, and one as an agent makes it.

use helix_protocol::{
    AskedModel, Block, Change, ChangeKind, EventKind, Message, Money, NewEvent, NewStep, ObjectId, Role, SnapshotId, Spend, StepId,
    StepOutcome, StopReason, TaskRecord, Timestamp,
};
use serde_json::json;

/// What a model writes into a file, in lines.
const WRITTEN: usize = 60;
/// What a tool answers, in lines; 8 KB.
const ANSWERED: usize = 125;

/// What a step holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Empty,
    /// What one turn of an agent leaves.
    Agent,
}

impl Content {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "an empty step",
            Self::Agent => "an agent's step",
        }
    }

    /// What is in it, to be read after something else.
    pub fn holds(self) -> &'static str {
        match self {
            Self::Empty => "",
            Self::Agent => "; a call of 4 KB, its answer of 8 KB, spend, three changed files, two events",
        }
    }

    /// The next step of a task, and what is told with it.
    pub fn step_on(self, task: &TaskRecord) -> (NewStep, Vec<NewEvent>) {
        let mut step = empty(task);
        if self == Self::Empty {
            return (step, Vec::new());
        }
        let seed = task.id.to_string();
        let call = format!("call-{}", step.ordinal);
        let path = format!("src/parser/rules_{}.rs", step.ordinal);
        let words = "The rules for nested lists are read twice, so I move them into a file of their own and run the tests.";
        let input = json!({"path": path, "content": lines(&seed, step.ordinal, WRITTEN)});
        let wants = Block::ToolUse { id: call.clone(), name: "write".to_owned(), input, extra: None };
        let content = lines(&seed, step.ordinal + 1_000_000, ANSWERED);
        let answer = Block::ToolResult { id: call, content, images: Vec::new(), is_error: false, extra: None };
        step.messages = vec![
            Message { role: Role::Assistant, blocks: vec![Block::text(words), wants] },
            Message { role: Role::User, blocks: vec![answer] },
        ];
        step.summary = format!("write {path}");
        step.spend = Spend { model_calls: 1, tokens: 14_250, money: Money(21_400), uncertain_calls: 0 };
        let changed = |path: &str, kind, size| Change { path: path.to_owned(), kind, size };
        step.changes = vec![
            changed(&path, ChangeKind::Added, 4_120),
            changed("src/parser/mod.rs", ChangeKind::Modified, 11_873),
            changed("tests/lists.rs", ChangeKind::Modified, 6_204),
        ];
        let hash = |word: &str| helix_objects::hash(format!("{seed} {word}").as_bytes()).to_string()[..16].to_owned();
        step.asked = vec![AskedModel {
            system: hash("system"),
            tools: hash("tools"),
            messages: hash(&path),
            settings: hash("settings"),
            stop: StopReason::ToolUse,
            reply: None,
        }];
        let told = |kind, message: String, detail| NewEvent::info(kind, "bench", message).task(task.id).detail(detail);
        let completed = json!({
            "step": step.id, "ordinal": step.ordinal, "snapshot": step.snapshot, "files_changed": step.changes.len(),
            "tokens": step.spend.tokens, "money": step.spend.money, "epoch": step.epoch, "outcome": step.outcome,
        });
        let events = vec![
            told(EventKind::ToolFinished, format!("write: {path}"), json!({"tool": "write", "path": path, "is_error": false})),
            told(EventKind::StepCompleted, format!("step {}: {}", step.ordinal, step.summary), completed),
        ];
        (step, events)
    }
}

/// Lines that differ, as code and logs do: what they compress to is not nothing.
fn lines(seed: &str, ordinal: u64, count: usize) -> String {
    let line = |at: usize| {
        let hash = helix_objects::hash(format!("{seed} {ordinal} {at}").as_bytes()).to_string();
        format!("line {at:>4}: case {} takes {} of {}\n", &hash[..12], &hash[12..24], &hash[24..40])
    };
    (0..count).map(line).collect()
}

fn empty(task: &TaskRecord) -> NewStep {
    let tree = ObjectId([7; 32]);
    NewStep {
        id: StepId::new(),
        task: task.id,
        epoch: task.epoch,
        attempt: task.attempt,
        parent: task.head,
        ordinal: task.steps + 1,
        outcome: StepOutcome::Continue,
        summary: "a step".to_owned(),
        tree,
        snapshot: SnapshotId(tree),
        store_sequence: 0,
        changes: Vec::new(),
        skipped: Vec::new(),
        torn: Vec::new(),
        messages: Vec::new(),
        long_messages: None,
        exits: Vec::new(),
        artifacts: Vec::new(),
        heard: Vec::new(),
        asked: Vec::new(),
        spend: Spend::default(),
        worker: task.worker,
        confinement: None,
        started_at: Timestamp::now(),
    }
}
