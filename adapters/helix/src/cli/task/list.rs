//! `helix task list`

use std::collections::HashMap;

use clap::Args;
use helix_adapter_http::api::{TaskList, WorkerList};
use helix_protocol::{Failure, TaskRecord, Timestamp, WorkerId};

use crate::cli::Context;
use crate::cli::style::{Style, Table, age, cut, dollars};

/// List tasks, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task list
  helix task list --status running,waiting_for_worker
  helix task list --all --json | jq -r '.[].id'")]
pub(in crate::cli) struct List {
    /// Only those in these states, separated by commas
    #[arg(long, value_name = "STATES")]
    status: Option<String>,
    /// At most this many
    #[arg(long, short = 'n', default_value_t = 30)]
    limit: u32,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl List {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let limit = self.limit.to_string();
        let mut query = vec![("status", self.status.as_deref().unwrap_or_default())];
        if !self.all {
            query.push(("limit", &limit));
        }
        let tasks = client.query::<TaskList>("/tasks", &query).await?.tasks;
        let workers = client.get::<WorkerList>("/workers").await?.workers;
        let names = workers.into_iter().map(|view| (view.record.id, view.record.name)).collect();
        context.print(&tasks, |tasks| match &self.status {
            Some(states) if tasks.is_empty() => format!("no task is {}\n", states.replace(',', " or ")),
            _ => context.fit(render(tasks, &names, Timestamp::now(), context.style)),
        })
    }
}

fn render(tasks: &[TaskRecord], names: &HashMap<WorkerId, String>, now: Timestamp, style: Style) -> String {
    if tasks.is_empty() {
        return "no tasks: `helix run` makes one\n".to_owned();
    }
    let mut table = Table::new(style, &["TASK", "STATE", "KIND", "STEPS", "WORKER", "SPENT", "AGE", "TITLE"]);
    for task in tasks {
        let worker = task.worker.map_or_else(|| "-".to_owned(), |id| names.get(&id).cloned().unwrap_or_else(|| id.short()));
        table.row([
            style.bold(task.id.short()),
            style.status(task.status),
            task.spec.work.kind().to_owned(),
            task.steps.to_string(),
            worker,
            dollars(task.spent),
            age(task.created_at, now),
            cut(&task.spec.title, 60),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use helix_protocol::TaskStatus;
    use uuid::Uuid;

    use super::super::tests::task;
    use super::*;

    #[test]
    fn a_listing_reads_like_this() {
        let alpha = WorkerId(Uuid::from_u128(1));
        let mut running = task(0xa1b2_c3d4, "fix the parser", TaskStatus::Running);
        running.worker = Some(alpha);
        let tasks =
            [running, task(0x0011_2233, "port it", TaskStatus::WaitingForInput), task(0x4455_6677, "clean", TaskStatus::Failed)];
        insta::assert_snapshot!(render(&tasks, &HashMap::from([(alpha, "alpha".to_owned())]), Timestamp(90_000_000), Style::Plain));
    }
}
