//! Ids as people type them: whole, or the first or last digits, or a name.

use helix_messages::{Records, TaskFilter, WorkerView};
use helix_protocol::{Code, Failure, Question, QuestionId, StepId, TaskId, TaskRecord, TaskStatus};
use uuid::Uuid;

/// Fewer digits fit too much by accident.
const SHORTEST: usize = 4;
/// Of what digits fit, so many are named.
const NAMED: usize = 5;

/// The task of that id.
pub(crate) async fn task(records: &Records, text: &str) -> Result<TaskRecord, Failure> {
    let absent = || missing("task", text, "`helix task list` shows what exists");
    let found = match text.parse::<TaskId>() {
        Ok(id) => vec![id],
        Err(_) => records.read().tasks_like(&digits(text).ok_or_else(absent)?).await?,
    };
    if let [id] = found[..] {
        return records.read().task(id).await?.ok_or_else(absent);
    }
    let mut labels = Vec::new();
    for id in found.iter().take(NAMED) {
        let task = records.read().task(*id).await?.ok_or_else(absent)?;
        labels.push(format!("{} ({})", task.id, task.spec.title));
    }
    Err(if found.is_empty() { absent() } else { ambiguous("task", text, found.len(), &labels) })
}

/// A step of a task: its number on the task's line, a checkpoint's name, `head`, or an id.
pub(crate) async fn step(records: &Records, task: &TaskRecord, text: &str) -> Result<StepId, Failure> {
    let hint = "`helix task steps` lists numbers, ids and checkpoints";
    if text == "head" {
        return head(task);
    }
    let steps = records.read().steps(task.id).await?;
    let mut line = match task.head {
        Some(head) => records.read().lineage(head).await?,
        None => Vec::new(),
    };
    if let Some(found) = text.parse::<u64>().ok().and_then(|ordinal| line.iter().find(|step| step.ordinal == ordinal)) {
        return Ok(found.id);
    }
    let named = records.read().checkpoints(task.id).await?;
    if let Some(found) = named.iter().find(|checkpoint| checkpoint.name == text) {
        return Ok(found.step);
    }
    line.extend(steps);
    line.sort_by_key(|step| step.id);
    line.dedup_by_key(|step| step.id);
    one("step", text, hint, line.into_iter().map(|step| (step.id.0, format!("{} ({})", step.id, step.summary), step.id)))
}

/// The task's head.
pub(crate) fn head(task: &TaskRecord) -> Result<StepId, Failure> {
    task.head.ok_or_else(|| {
        Failure::new(Code::InvalidState, format!("task {} has no step yet", task.id.short()))
            .hint("wait for its first step; `helix task why` says what it waits for")
    })
}

/// A worker's name or id.
pub(crate) fn worker(workers: Vec<WorkerView>, text: &str) -> Result<WorkerView, Failure> {
    if let Some(found) = workers.iter().find(|view| view.record.name == text) {
        return Ok(found.clone());
    }
    let labelled = workers.into_iter().map(|view| (view.record.id.0, format!("{} ({})", view.record.id, view.record.name), view));
    one("worker", text, "`helix worker list` shows what exists", labelled)
}

/// An open question.
pub(crate) async fn question(records: &Records, text: &str) -> Result<QuestionId, Failure> {
    if let Ok(id) = text.parse::<QuestionId>() {
        return Ok(id);
    }
    let filter = TaskFilter { status: vec![TaskStatus::WaitingForInput], limit: None };
    let mut open = Vec::new();
    for task in records.read().tasks(filter).await? {
        let questions = records.read().questions(task.id).await?;
        open.extend(questions.into_iter().filter(Question::is_open));
    }
    let labelled = open.into_iter().map(|question| (question.id.0, format!("{} ({})", question.id, question.text), question.id));
    one("open question", text, "`helix task show` shows a task's questions", labelled)
}

/// The one candidate that `text` is the beginning or the end of.
fn one<T>(what: &str, text: &str, hint: &str, candidates: impl Iterator<Item = (Uuid, String, T)>) -> Result<T, Failure> {
    let digits = digits(text).ok_or_else(|| missing(what, text, hint))?;
    let mut found: Vec<(String, T)> = candidates
        .filter(|(id, ..)| {
            let simple = id.simple().to_string();
            simple.ends_with(&digits) || simple.starts_with(&digits)
        })
        .map(|(_, label, candidate)| (label, candidate))
        .collect();
    match found.len() {
        0 => Err(missing(what, text, hint)),
        1 => Ok(found.remove(0).1),
        several => {
            let labels: Vec<String> = found.into_iter().take(NAMED).map(|(label, _)| label).collect();
            Err(ambiguous(what, text, several, &labels))
        }
    }
}

/// The digits that were typed, without hyphens and in lower case; `None` where they are too few, or none.
fn digits(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != '-').collect::<String>().to_lowercase();
    (digits.len() >= SHORTEST && digits.chars().all(|c| c.is_ascii_hexdigit())).then_some(digits)
}

fn ambiguous(what: &str, text: &str, fit: usize, labels: &[String]) -> Failure {
    Failure::new(Code::AmbiguousId, format!("{text} fits {fit} {what}s: {}", labels.join(", ")))
        .hint("type more of its last digits")
}

fn missing(what: &str, text: &str, hint: &str) -> Failure {
    Failure::new(Code::NotFound, format!("there is no {what} {text}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(text: &str) -> Result<usize, Failure> {
        let ids = [
            "0190aaaa-0000-7000-8000-00000000beef",
            "0190aaaa-0000-7000-8000-11110000beef",
            "0190bbbb-0000-7000-8000-2222000012ab",
        ];
        let ids = ids.map(|id| Uuid::parse_str(id).expect("an id"));
        one("task", text, "look", ids.into_iter().enumerate().map(|(i, id)| (id, format!("task {i}"), i)))
    }

    #[test]
    fn the_last_or_first_digits_suffice_where_they_fit_one() {
        assert_eq!(among("12ab"), Ok(2));
        assert_eq!(among("000012AB"), Ok(2));
        assert_eq!(among("0190bbbb-0000"), Ok(2));
        assert_eq!(among("00000000beef"), Ok(0));
    }

    #[test]
    fn digits_that_fit_several_list_them() {
        let failure = among("beef").expect_err("two end so");
        assert_eq!(failure.code, Code::AmbiguousId);
        assert_eq!(failure.message, "beef fits 2 tasks: task 0, task 1");
    }

    #[test]
    fn what_fits_nothing_or_is_no_id_is_not_found() {
        for text in ["dead", "ab", "", "nobody", "../x"] {
            assert_eq!(among(text).expect_err(text).code, Code::NotFound, "{text}");
        }
    }
}
