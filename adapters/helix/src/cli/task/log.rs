//! `helix task log`

use clap::Args;
use helix_adapter_http::api::{LogPage, LogStep};
use helix_protocol::Failure;

use super::Which;
use crate::cli::Context;
use crate::cli::context::out;
use crate::cli::style::{Style, grouped};

/// Show what a task's steps said and wrote
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task log 3f2a91c0
  helix task log 3f2a91c0 --after 12         steps 13 and later
  helix task log 3f2a91c0 --whole            long output whole, not only its end
  helix task log 3f2a91c0 --json             one step on a line")]
pub(in crate::cli) struct Log {
    #[command(flatten)]
    which: Which,
    /// Only steps after this number
    #[arg(long, value_name = "STEP", default_value_t = 0)]
    after: u64,
    /// Long output whole
    #[arg(long)]
    whole: bool,
}

impl Log {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let (mut after, whole) = (self.after, if self.whole { "true" } else { "false" });
        loop {
            let page: LogPage = client.query(&self.which.path("log"), &[("after", &after.to_string()), ("whole", whole)]).await?;
            for step in &page.steps {
                if context.json() {
                    let line = serde_json::to_string(step)
                        .map_err(|error| Failure::new(helix_protocol::Code::Internal, error.to_string()))?;
                    out(&format!("{line}\n"))?;
                } else {
                    out(&render(step, context.style))?;
                }
            }
            if !page.more {
                return Ok(());
            }
            after = page.last;
        }
    }
}

fn render(step: &LogStep, style: Style) -> String {
    let mut text = format!("{} {}\n", style.bold(format!("step {}", step.ordinal)), style.dim(&step.summary));
    if !step.said.is_empty() {
        text.push_str(&format!("{}\n", step.said.trim_end()));
    }
    for run in &step.runs {
        text.push_str(&format!("{}\n", style.cyan(format!("$ {}", run.command))));
        if run.cut {
            let shown = run.output.len() as u64;
            let hidden = run.output_bytes.saturating_sub(shown);
            text.push_str(&format!("{}\n", style.dim(format!("… {} bytes before this; --whole shows them", grouped(hidden)))));
        }
        if !run.output.is_empty() {
            text.push_str(&format!("{}\n", run.output.trim_end_matches('\n')));
        }
        if run.exit_code != 0 {
            text.push_str(&format!("{}\n", style.red(format!("exit code {}", run.exit_code))));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use helix_adapter_http::api::LogRun;
    use helix_protocol::{RunId, StepId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_step_with_a_failing_command_reads_like_this() {
        let run = LogRun {
            run: RunId(Uuid::from_u128(1)),
            command: "cargo test".to_owned(),
            exit_code: 101,
            output: "test a ... FAILED\n".to_owned(),
            output_bytes: 40_018,
            cut: true,
            object: None,
        };
        let step = LogStep {
            step: StepId(Uuid::from_u128(1)),
            ordinal: 3,
            summary: "ran the tests".to_owned(),
            said: "Let me run the tests.".to_owned(),
            runs: vec![run],
        };
        insta::assert_snapshot!(render(&step, Style::Plain));
    }
}
