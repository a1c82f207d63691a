//! `helix worker drain`

use std::time::Duration;

use clap::Args;
use helix_adapter_http::api::TaskList;
use helix_messages::WorkerView;
use helix_protocol::{Code, Failure, Lifecycle, WorkerId};
use serde_json::json;

use crate::cli::Context;
use crate::client::{Client, segment};

/// What need not be explained.
const MOMENT: Duration = Duration::from_secs(1);
/// How often is looked whether it holds a task still.
const GLANCE: Duration = Duration::from_millis(500);

/// Move a worker's tasks away at their next step boundary, and give it no new ones
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix worker drain buildbox               wait until it holds no task
  helix worker drain buildbox --detach      do not wait

`helix worker uncordon` takes it back: what has not left by then stays.")]
pub(in crate::cli) struct Drain {
    /// Its name or id
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    worker: String,
    /// Return at once; its tasks leave at their next step boundary
    #[arg(long, short)]
    detach: bool,
}

impl Drain {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let mut view: WorkerView = client.post(&format!("/workers/{}/drain", segment(&self.worker)), &json!({})).await?;
        if !self.detach {
            view = emptied(context, &client, view).await?;
        }
        let tasks = if self.detach { "its own go elsewhere at their next step" } else { "holds none" };
        context.print(&view, |view| format!("{} takes no new tasks, and {tasks}", context.style.bold(&view.record.name)))
    }
}

/// Waits until the worker holds no task, and says so where it takes longer than a moment.
async fn emptied(context: &Context, client: &Client, view: WorkerView) -> Result<WorkerView, Failure> {
    let (worker, name) = (view.record.id, view.record.name);
    let mut emptied = std::pin::pin!(async {
        loop {
            match held(client, worker, &name).await {
                Ok((view, 0)) => return Ok(view),
                // It is away for a moment, and the wait may be for hours.
                Ok(_) | Err(Failure { code: Code::DatabaseUnavailable, .. }) => {}
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(GLANCE).await;
        }
    });
    if let Ok(emptied) = tokio::time::timeout(MOMENT, &mut emptied).await {
        return emptied;
    }
    let what = match held(client, worker, &name).await?.1 {
        0 | 1 => "waiting for the present step of 1 task".to_owned(),
        held => format!("waiting for the present steps of {held} tasks"),
    };
    context.say(&format!("{what}; it drains whether or not it is waited for"));
    context.waiting(&what, emptied).await
}

/// The worker, and how many tasks it holds. Refused where it drains no more.
async fn held(client: &Client, worker: WorkerId, name: &str) -> Result<(WorkerView, usize), Failure> {
    let view: WorkerView = client.get(&format!("/workers/{worker}")).await?;
    if view.record.lifecycle != Lifecycle::Draining {
        let message = format!("worker {name} drains no more: somebody took that back");
        return Err(Failure::new(Code::InvalidState, message).hint(format!("`helix worker drain {name}` drains it again")));
    }
    let active: TaskList = client.query("/tasks", &[("status", "assigned,running")]).await?;
    let held = active.tasks.iter().filter(|task| task.worker == Some(worker)).count();
    Ok((view, held))
}
