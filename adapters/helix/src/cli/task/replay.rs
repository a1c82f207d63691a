//! `helix task replay`

use std::process::ExitCode;

use clap::Args;
use helix_messages::{Difference, Differs, Replayed};
use helix_protocol::Failure;

use super::Which;
use crate::cli::Context;
use crate::cli::style::{Style, cut};

/// Most characters of a side of a difference.
const SIDE: usize = 160;
/// Differences of a step that are shown.
const SHOWN: usize = 6;

/// Play an agent's recorded conversation again, offline, and show where today's agent would differ
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task replay 3f2a91c0              each step: the same, or in what it differs
  helix task replay 3f2a91c0 --json       the differences whole

No model is asked, nothing runs and nothing is written: replies and the answers of tools come from the record. Each step is made on
what was recorded before it. The exit code is 0 where all is the same and 1 where something differs.")]
pub(in crate::cli) struct Replay {
    #[command(flatten)]
    which: Which,
}

impl Replay {
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let client = context.client()?;
        let replayed: Replayed = client.get(&self.which.path("replay")).await?;
        context.print(&replayed, |replayed| render(replayed, context.style))?;
        Ok(if replayed.differs { ExitCode::from(1) } else { ExitCode::SUCCESS })
    }
}

fn render(replayed: &Replayed, style: Style) -> String {
    let mut out = String::new();
    for step in &replayed.steps {
        let word = if step.differences.is_empty() { style.green("same   ") } else { style.red("differs") };
        out.push_str(&format!("step {:<4} {word}  {}\n", step.ordinal, cut(&step.summary, 100)));
        for difference in step.differences.iter().take(SHOWN) {
            out.push_str(&shown(difference, style));
        }
        if step.differences.len() > SHOWN {
            out.push_str(&format!("  {} more; --json has them all\n", step.differences.len() - SHOWN));
        }
        for unknown in &step.unknown {
            out.push_str(&style.dim(format!("  not compared: {unknown}\n")));
        }
    }
    let different = replayed.steps.iter().filter(|step| !step.differences.is_empty()).count();
    out.push_str(&match (replayed.steps.len(), different) {
        (0, _) => "there is no step to play again yet\n".to_owned(),
        (all, 0) => format!("{all} steps, all the same; no model was asked\n"),
        (all, different) => format!("{different} of {all} steps differ; no model was asked\n"),
    });
    out
}

/// The difference's first line that is not the same on both sides.
fn shown(difference: &Difference, style: Style) -> String {
    let what = match difference.what {
        Differs::SystemPrompt => "system prompt",
        Differs::Tools => "tools offered",
        Differs::Conversation => "conversation sent",
        Differs::Settings => "settings of the request",
        Differs::Message => "said",
        Differs::Call => "asked for",
        Differs::End => "end",
    };
    let (then, today) = first_difference(&difference.then, &difference.today);
    let side = |text: &str| if text.is_empty() { "nothing".to_owned() } else { cut(text, SIDE) };
    format!("  {what}\n    {} {}\n    {} {}\n", style.dim("then "), side(then), style.dim("today"), side(today))
}

fn first_difference<'a>(then: &'a str, today: &'a str) -> (&'a str, &'a str) {
    let (mut one, mut other) = (then.lines(), today.lines());
    loop {
        match (one.next(), other.next()) {
            (Some(then), Some(today)) if then == today => {}
            (then, today) => return (then.unwrap_or_default(), today.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use helix_messages::ReplayedStep;
    use helix_protocol::{StepId, TaskId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_replay_that_differs_reads_like_this() {
        let step = |ordinal, summary: &str, differences, unknown| ReplayedStep {
            step: StepId(Uuid::from_u128(u128::from(ordinal))),
            ordinal,
            summary: summary.to_owned(),
            differences,
            unknown,
        };
        let differs = |what, then: &str, today: &str| Difference { what, then: then.to_owned(), today: today.to_owned() };
        let first = vec![
            differs(Differs::SystemPrompt, "You are an engineer.\nLook first.", "You are an engineer.\nAct first."),
            differs(Differs::Tools, "request 0011223344556677", "request 8899aabbccddeeff"),
        ];
        let last = vec![differs(Differs::End, "finished", "goes on"), differs(Differs::Call, "", "runs `make test`")];
        let steps = vec![
            step(1, "read README.md", first, Vec::new()),
            step(2, "shell make", Vec::new(), vec!["what the model was asked: the step was made before that was kept".to_owned()]),
            step(3, "done: fixed", last, Vec::new()),
        ];
        insta::assert_snapshot!(render(&Replayed { task: TaskId(Uuid::nil()), steps, differs: true }, Style::Plain));
    }
}
