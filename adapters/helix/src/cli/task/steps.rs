//! `helix task steps`

use clap::Args;
use helix_adapter_http::api::StepList;
use helix_protocol::{Failure, SkipReason, StepOutcome, StepSummary, Timestamp};

use super::Which;
use crate::cli::Context;
use crate::cli::style::{Style, Table, age, cut, dollars, grouped, span};

/// List a task's steps
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task steps 3f2a91c0
  helix task steps 3f2a91c0 --all      rolled back ones too
  helix task steps 3f2a91c0 --json     with the files that a step does not carry, and its artifacts

The number in the first column names a step wherever one is asked for, as do its id and its checkpoints.")]
pub(in crate::cli) struct Steps {
    #[command(flatten)]
    which: Which,
    /// Rolled back steps too
    #[arg(long)]
    all: bool,
}

impl Steps {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let all = if self.all { "true" } else { "false" };
        let list: StepList = context.client()?.query(&self.which.path("steps"), &[("all", all)]).await?;
        context.print(&list.steps, |steps| context.fit(render(steps, Timestamp::now(), context.style)))
    }
}

fn render(steps: &[StepSummary], now: Timestamp, style: Style) -> String {
    if steps.is_empty() {
        return "no steps yet\n".to_owned();
    }
    let mut table = Table::new(style, &["STEP", "ID", "SNAPSHOT", "EPOCH", "FILES", "TOKENS", "SPENT", "TOOK", "AGE", "WHAT"]);
    for step in steps {
        let mut what = cut(&step.summary, 60);
        match step.outcome {
            StepOutcome::Unfinished => what = format!("{} {what}", style.yellow("unfinished:")),
            StepOutcome::Failed => what = format!("{} {what}", style.red("failed:")),
            StepOutcome::Continue | StepOutcome::Finished => {}
        }
        let left = step.skipped.iter().filter(|file| file.reason != SkipReason::Cache).count();
        for (count, word) in [(left, "not carried"), (step.torn.len(), "changed while read")] {
            if count > 0 {
                what = format!("{} {what}", style.yellow(format!("({count} {word})")));
            }
        }
        for name in &step.checkpoints {
            what = format!("{} {what}", style.cyan(format!("[{name}]")));
        }
        table.row([
            style.bold(step.ordinal.to_string()),
            step.id.short(),
            step.snapshot.short(),
            step.epoch.to_string(),
            step.files_changed.to_string(),
            grouped(step.spend.tokens),
            dollars(step.spend.money),
            span(step.committed_at.0 - step.started_at.0),
            age(step.committed_at, now),
            what,
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use helix_protocol::{AttemptId, Epoch, Money, ObjectId, SnapshotId, Spend, StepId, TaskId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn steps_read_like_this() {
        let step = |ordinal: u64, outcome, summary: &str, checkpoints: &[&str]| StepSummary {
            id: StepId(Uuid::from_u128(0x1111_0000 + u128::from(ordinal))),
            task: TaskId(Uuid::from_u128(1)),
            attempt: AttemptId(Uuid::from_u128(1)),
            parent: None,
            ordinal,
            epoch: Epoch(1),
            outcome,
            summary: summary.to_owned(),
            tree: ObjectId([1; 32]),
            snapshot: SnapshotId(ObjectId([0xab; 32])),
            files_changed: ordinal,
            skipped: vec![helix_protocol::SkippedFile { path: "core".to_owned(), reason: SkipReason::TooLarge, size: 1 }],
            torn: if ordinal == 2 { vec!["log".to_owned()] } else { Vec::new() },
            artifacts: Vec::new(),
            spend: Spend { model_calls: 1, tokens: 1_234 * ordinal, money: Money(12_345), uncertain_calls: 0 },
            worker: None,
            checkpoints: checkpoints.iter().map(|&name| name.to_owned()).collect(),
            started_at: Timestamp(0),
            committed_at: Timestamp(2_000_000),
        };
        let steps =
            [step(1, StepOutcome::Continue, "read parser.py", &[]), step(2, StepOutcome::Finished, "edited parser.py", &["green"])];
        insta::assert_snapshot!(render(&steps, Timestamp(60_000_000), Style::Plain));
    }
}
