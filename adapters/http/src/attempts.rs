//! GET /tasks/{id}/attempts: what the attempts of a task came to, and what they cost.

use actix_web::{HttpResponse, web};
use helix_messages::{Records, TaskFilter};
use helix_protocol::{Failure, TaskRecord};

use crate::api::{AttemptList, AttemptView};
use crate::problem::Problem;
use crate::resolve;
use crate::server::Node;

/// Attempts at the task's work, or approaches to it: those that share its id.
pub(crate) async fn list(node: web::Data<Node>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let records = node.args.records.clone();
    let read = async move {
        let task = resolve::task(&records, &id).await?;
        read(&records, &task).await
    };
    Ok(HttpResponse::Ok().json(node.run(read).await?))
}

async fn read(records: &Records, task: &TaskRecord) -> Result<AttemptList, Failure> {
    let all = records.read().tasks(TaskFilter::default()).await?;
    let its = |other: &TaskRecord| other.spec.group == Some(task.id) && other.spec.parent == Some(task.id);
    let mut attempts: Vec<(u64, TaskRecord)> =
        all.into_iter().filter(its).map(|attempt| (number(&attempt.spec.title), attempt)).collect();
    attempts.sort_by_key(|(number, attempt)| (*number, attempt.id));
    let taken = match task.head.filter(|_| task.status.is_final()) {
        Some(head) => records.read().step(head).await?.and_then(|record| taken(&record.step.summary)),
        None => None,
    };
    let mut list = AttemptList::default();
    for (number, attempt) in attempts {
        let bytes = written(records, &attempt).await?;
        list.spent += attempt.spent;
        list.tokens += attempt.tokens;
        list.bytes += bytes;
        list.attempts.push(AttemptView {
            task: attempt.id,
            number,
            status: attempt.status,
            reason: attempt.reason,
            steps: attempt.steps,
            spent: attempt.spent,
            tokens: attempt.tokens,
            bytes,
            taken: taken == Some(number),
        });
    }
    Ok(list)
}

/// What a task's own steps wrote into files.
async fn written(records: &Records, task: &TaskRecord) -> Result<u64, Failure> {
    let Some(head) = task.head else { return Ok(0) };
    let line = records.read().conversation(head).await?;
    let own = line.iter().filter(|record| record.step.task == task.id);
    Ok(own.flat_map(|record| &record.step.changes).map(|change| change.size).sum())
}

/// The number at the end of an attempt's title.
fn number(title: &str) -> u64 {
    title.rsplit(' ').next().and_then(|last| last.parse().ok()).unwrap_or_default()
}

/// Which one was taken, as the last step of its task says: `attempt 2 of 3 …`, `approach 2 of 3 …`.
fn taken(summary: &str) -> Option<u64> {
    let rest = summary.strip_prefix("attempt ").or_else(|| summary.strip_prefix("approach "))?;
    let (number, rest) = rest.split_once(' ')?;
    rest.starts_with("of ").then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_known_by_its_number_and_the_taken_one_by_the_last_step() {
        assert_eq!(["mend it · attempt 12", "think · approach 2", "mend it"].map(number), [12, 2, 0]);
        let taken = ["attempt 2 of 3 (it passed first): done", "approach 1 of 2: an index", "attempt 2 failed", "makes 3 attempts"]
            .map(taken);
        assert_eq!(taken, [Some(2), Some(1), None, None]);
    }
}
