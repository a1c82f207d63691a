//! `helix task why`

use clap::Args;
use helix_messages::TaskWhy;
use helix_protocol::Failure;

use super::{Which, because};
use crate::cli::Context;
use crate::cli::style::{Style, Table};

/// Say why a task stands where it stands, and what could be done
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  helix task why 3f2a91c0")]
pub(in crate::cli) struct Why {
    #[command(flatten)]
    which: Which,
}

impl Why {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let why: TaskWhy = context.client()?.get(&self.which.path("why")).await?;
        context.print(&why, |why| render(why, context.style))
    }
}

/// Why a task stands where it does, in lines.
pub(in crate::cli) fn render(why: &TaskWhy, style: Style) -> String {
    let reason = because(&why.reason);
    let mut out = format!("{}{reason}\n", style.status(why.status));
    for (task, status) in &why.waits_for {
        out.push_str(&format!("  waits for task {}, which is {}\n", task.short(), style.status(*status)));
    }
    if !why.workers.is_empty() {
        let mut table = Table::bare();
        for worker in &why.workers {
            let reason = if worker.reason.is_empty() { style.green("could take it") } else { worker.reason.clone() };
            table.row([format!("  {}", style.bold(&worker.worker)), reason]);
        }
        out.push_str(&table.render());
    }
    for next in &why.next {
        out.push_str(&format!("{} {next}\n", style.dim("→")));
    }
    out
}

#[cfg(test)]
mod tests {
    use helix_messages::WorkerReason;
    use helix_protocol::TaskStatus;

    use super::*;

    #[test]
    fn a_task_that_fits_nobody_reads_like_this() {
        let reason =
            |worker: &str, reason: &str| WorkerReason { worker: worker.to_owned(), reason: reason.to_owned(), lacks: Vec::new() };
        let why = TaskWhy {
            status: TaskStatus::WaitingForWorker,
            reason: "no worker has docker".to_owned(),
            waits_for: Vec::new(),
            workers: vec![reason("alpha", "lacks docker"), reason("buildbox", "is cordoned")],
            next: vec!["helix worker uncordon buildbox".to_owned()],
        };
        insta::assert_snapshot!(render(&why, Style::Plain));
    }
}
