//! What must hold once the faults have stopped: everything ended as if nothing had happened.

use std::collections::BTreeMap;

use futures::FutureExt as _;
use helix_database::{MemoryStore, RecordStore as _, TaskFilter};
use helix_protocol::{Money, StepId, StepOutcome, StepSummary, TaskId, TaskRecord, TaskStatus};

use crate::models::ModelLog;
use crate::node::Ground;
use crate::oracle::Oracle;
use crate::work::Wanted;
use crate::workspaces::{Files, load};

/// What the records in memory answer: they never wait.
fn now<T>(answer: impl Future<Output = Result<T, helix_database::RecordError>>) -> T {
    answer.now_or_never().expect("nobody else has the tables between two ticks").expect("memory answers")
}

/// Every task there is, by its title.
pub fn tasks(records: &MemoryStore) -> BTreeMap<String, TaskRecord> {
    now(records.tasks(TaskFilter::default())).into_iter().map(|task| (task.spec.title.clone(), task)).collect()
}

/// A task's steps, and which of them lead to its head.
fn steps(records: &MemoryStore, task: &TaskRecord) -> (Vec<StepSummary>, Vec<StepSummary>) {
    let line = task.head.map(|head| now(records.lineage(head))).unwrap_or_default();
    (now(records.steps(task.id)), line)
}

fn in_words(files: &Files) -> Vec<(&str, String)> {
    files.iter().map(|(name, bytes)| (name.as_str(), String::from_utf8_lossy(bytes).into_owned())).collect()
}

fn lost_steps(oracle: &Oracle, task: TaskId, line: &[StepSummary]) -> Vec<StepId> {
    oracle.acknowledged(task).into_iter().filter(|step| line.iter().all(|on| on.id != *step)).collect()
}

/// Everything that is not as it must be.
pub fn judge(records: &MemoryStore, ground: &Ground, wanted: &[Wanted]) -> Vec<String> {
    let mut wrong = ground.oracle.wrong();
    let ended = tasks(records);
    let (mut uncertain, mut calls) = (0, 0);
    for wish in wanted {
        let title = &wish.spec.title;
        let Some(task) = ended.get(title) else {
            wrong.push(format!("{title} was never made"));
            continue;
        };
        if task.status != TaskStatus::Completed {
            wrong.push(format!("{title} is {} ({}) under epoch {} at the end", task.status, task.reason, task.epoch));
            continue;
        }
        let (all, line) = steps(records, task);
        let lost = lost_steps(&ground.oracle, task.id, &line);
        if !lost.is_empty() {
            wrong.push(format!("{title}: {} acknowledged steps are not on its line", lost.len()));
        }
        if all.len() != line.len() {
            wrong.push(format!("{title}: {} steps were committed and {} are on its line", all.len(), line.len()));
        }
        let turns: Vec<u64> = line.iter().filter(|step| step.outcome != StepOutcome::Unfinished).map(|step| step.ordinal).collect();
        if turns != (1..=wish.turns).collect::<Vec<_>>() {
            wrong.push(format!("{title}: its turns are {turns:?} and not 1 to {}", wish.turns));
        }
        if line.windows(2).any(|pair| pair[0].epoch > pair[1].epoch) {
            wrong.push(format!("{title}: an epoch went back along its line"));
        }
        let files = line.last().map(|step| load(&*ground.objects, step.tree)).transpose();
        if files != Ok(Some(wish.files.clone())) {
            let found = files.as_ref().map(|files| files.as_ref().map(in_words));
            wrong.push(format!("{title}: its files are {found:?} and not {:?}", in_words(&wish.files)));
        }
        let lost_calls: u32 = line.iter().map(|step| step.spend.uncertain_calls).sum();
        let spent: Money = line.iter().map(|step| step.spend.money).sum();
        if task.spent != spent || spent != Money(10 * wish.calls + 100 * i64::from(lost_calls)) {
            wrong.push(format!("{title}: it spent {:?}, its steps {spent:?}, {lost_calls} of them uncertain", task.spent));
        }
        uncertain += lost_calls;
        calls += wish.calls;
    }
    wrong.extend(judge_calls(&ground.models, uncertain, calls));
    wrong
}

fn judge_calls(models: &ModelLog, uncertain: u32, calls: i64) -> Vec<String> {
    let asked = models.asked();
    let repeated: u32 = asked.values().map(|times| times - 1).sum();
    let mut wrong = Vec::new();
    if repeated > uncertain {
        wrong.push(format!("{repeated} model calls were repeated and {uncertain} were charged as uncertain"));
    }
    if asked.len() as i64 != calls {
        wrong.push(format!("{} model calls were asked for, and {calls} were to be made", asked.len()));
    }
    wrong
}
