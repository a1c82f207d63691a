//! A task at a limit of the day: parked with a question that can be answered and does not have to be.
//!
//! `yes` lets the task go on over the limit until the day turns (`Spending::admit_for`). Unanswered, the question is answered by
//! this node once the day has turned, and when the node starts: it may have been given higher limits.

use std::time::Duration;

use helix_protocol::{Failure, Principal, Subject, TaskId, TaskRecord};

use crate::drive::{End, read_task};
use crate::failing::park;
use crate::host::Host;
use crate::requests::{self, open_question};
use crate::shared::Shared;
use crate::telling;

/// The longest that a day can still take, whatever the wall clock was set to.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A machine that was suspended is late by no more than this.
const LOOK: Duration = Duration::from_secs(60);

/// Parks the task at its last step and asks whether it may pass the limit. The journal stays, so what was paid for is not paid
/// again.
pub(crate) async fn ask(host: &Host, failure: &Failure) -> Result<End, Failure> {
    // The turn that was refused may have ended after its day.
    let refused_at = host.shared.args.spending.take_refused_at(host.task.id).unwrap_or_else(|| host.shared.now());
    let until = refused_at.day_start().after(DAY);
    let text =
        format!("{}; may it go on today, over the limit? Unanswered, it goes on by itself after midnight UTC", failure.message);
    park(host, Subject::Day { until }, &text, &["yes".to_owned()]).await
}

/// Where a task waits at a limit of the day, waits with it and lets it go on; `at_once` does not wait.
pub(crate) async fn wait(shared: &Shared, task: TaskId, at_once: bool) -> Result<Option<TaskRecord>, Failure> {
    let Some((question, Subject::Day { until })) = open_question(shared, task).await?.map(|open| (open.id, open.subject)) else {
        return Ok(None);
    };
    if !at_once {
        let clock = &shared.args.clock;
        let due = clock.boottime().after(until.since(shared.now()).min(DAY));
        loop {
            let left = due.since(clock.boottime());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
        if open_question(shared, task).await?.is_none_or(|open| open.id != question) {
            return Ok(None);
        }
    }
    let principal = Principal { owner: read_task(shared, task).await?.owner, actor: telling::NODE.to_owned() };
    let answer = if at_once { "tried again, as the limits may be others" } else { "the day has turned" };
    requests::record_answer(shared, question, answer.to_owned(), &principal).await.map(Some)
}
