//! `helix task log`

use std::collections::HashSet;
use std::time::Duration;

use clap::Args;
use helix_adapter_http::api::{LogCall, LogPage, LogStep, RunOutput, RunningCommand};
use helix_protocol::{Code, Failure, RunId, SkipReason, SkippedFile, TaskRecord};
use serde_json::{Value, json};

use super::{Which, because};
use crate::cli::Context;
use crate::cli::context::out;
use crate::cli::style::{Style, grouped};
use crate::client::Client;

/// Between two looks at a task that is followed, while no command of it runs.
const PAUSE: Duration = Duration::from_millis(300);
/// Lines of a tool's answer that are shown where not the whole of it is asked for.
const ANSWER_LINES: usize = 8;

/// Show what a task's steps said and wrote
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix task log 3f2a91c0
  helix task log 3f2a91c0 --follow           live, until it ends
  helix task log 3f2a91c0 --step 12          that step alone
  helix task log 3f2a91c0 --after 12         steps 13 and later
  helix task log 3f2a91c0 --whole            long output whole, not only its end
  helix task log 3f2a91c0 --thinking         also what the model thought, where its provider shows that
  helix task log 3f2a91c0 --json             one step on a line; with --follow also pieces of running commands' output

What a command writes is shown while it runs; what an agent's tools write, once their step is committed.")]
pub(in crate::cli) struct Log {
    #[command(flatten)]
    which: Which,
    /// Only steps after this number
    #[arg(long, value_name = "STEP", default_value_t = 0)]
    after: u64,
    /// Only the step of this number
    #[arg(long, value_name = "STEP", conflicts_with_all = ["after", "follow"])]
    step: Option<u64>,
    #[command(flatten)]
    amount: Amount,
    /// Go on with what running commands write and with further steps, until the task ends
    #[arg(long, short)]
    follow: bool,
}

/// How much of a step is shown.
#[derive(Clone, Copy, Debug, Default, Args)]
struct Amount {
    /// Long output whole
    #[arg(long)]
    whole: bool,
    /// What the model thought, where its provider shows that
    #[arg(long)]
    thinking: bool,
}

impl Log {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        if let Some(step) = self.step {
            return self.one(context, &client, step).await;
        }
        let mut reading =
            Reading { context, client: &client, which: &self.which, amount: self.amount, after: self.after, seen: HashSet::new() };
        if !self.follow {
            let before = reading.after;
            let running = reading.committed().await?;
            return reading.what_else(running.is_some(), reading.after > before).await;
        }
        tokio::select! {
            ended = reading.follow() => ended,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    }

    async fn one(&self, context: &Context, client: &Client, step: u64) -> Result<(), Failure> {
        let missing = || {
            Failure::new(Code::NotFound, format!("task {} has no step {step}", self.which.task))
                .hint("`helix task steps` lists its steps")
        };
        let after = step.checked_sub(1).ok_or_else(missing)?.to_string();
        let page: LogPage = client.query(&self.which.path("log"), &[("after", &after), ("whole", word(self.amount.whole))]).await?;
        let found = page.steps.iter().find(|found| found.ordinal == step).ok_or_else(missing)?;
        show(context, found, self.amount, &HashSet::new())
    }
}

/// How far a log was read.
struct Reading<'a> {
    context: &'a Context,
    client: &'a Client,
    which: &'a Which,
    amount: Amount,
    after: u64,
    /// Commands whose output was shown while they ran.
    seen: HashSet<RunId>,
}

impl Reading<'_> {
    /// Shows the steps there are, and answers with the command that runs.
    async fn committed(&mut self) -> Result<Option<RunningCommand>, Failure> {
        loop {
            let query = [("after", self.after.to_string()), ("whole", word(self.amount.whole).to_owned())];
            let query = query.each_ref().map(|(key, value)| (*key, value.as_str()));
            let page: LogPage = self.client.query(&self.which.path("log"), &query).await?;
            for step in &page.steps {
                show(self.context, step, self.amount, &self.seen)?;
            }
            self.after = page.last;
            if !page.more {
                return Ok(page.running);
            }
        }
    }

    /// Says what no committed step can show.
    async fn what_else(&self, runs: bool, shown: bool) -> Result<(), Failure> {
        let task: TaskRecord = self.client.get(&self.which.path("")).await?;
        let (short, next) = (task.id.short(), task.steps + 1);
        if runs || (task.status.is_active() && !shown) {
            self.context.say(&format!("step {next} is running; `helix task log {short} --follow` shows what it writes"));
        } else if !shown && task.steps == 0 {
            let why = if task.status.is_final() { "made no step" } else { "has no step yet" };
            self.context.say(&format!("task {short} {why}; `helix task why {short}` says more"));
        }
        Ok(())
    }

    async fn follow(&mut self) -> Result<(), Failure> {
        loop {
            // Asked first: what a task that has ended committed is there by then.
            let task: TaskRecord = self.client.get(&self.which.path("")).await?;
            match self.committed().await? {
                Some(running) if !self.seen.contains(&running.run) => self.live(running).await?,
                _ if task.status.is_final() => {
                    let reason = because(&task.reason);
                    self.context.say(&format!("task {} {}{reason}", task.id.short(), task.status));
                    return Ok(());
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Shows what a command writes until it ends, or until its worker cannot be asked.
    async fn live(&mut self, running: RunningCommand) -> Result<(), Failure> {
        let RunningCommand { run, command } = running;
        self.seen.insert(run);
        if !self.context.json() {
            self.context.show_content(&format!("{}\n", self.context.style.cyan(format!("$ {command}"))))?;
        }
        let (mut offset, mut line_ended) = (0, true);
        loop {
            let query = [("run", run.to_string()), ("offset", offset.to_string())];
            let query = query.each_ref().map(|(key, value)| (*key, value.as_str()));
            let output: RunOutput = match self.client.query(&self.which.path("log"), &query).await {
                Ok(output) => output,
                // It ended, or goes on elsewhere: the committed step has the rest.
                Err(failure) if failure.code == Code::NodeUnreachable => return Err(failure),
                Err(_) => {
                    self.seen.remove(&run);
                    tokio::time::sleep(PAUSE).await;
                    return Ok(());
                }
            };
            if self.context.json() {
                if !output.text.is_empty() {
                    out(&format!("{}\n", json!({ "run": run, "offset": offset, "text": output.text })))?;
                }
            } else {
                line_ended = if output.text.is_empty() { line_ended } else { output.text.ends_with('\n') };
                self.context.show_content(&output.text)?;
            }
            offset = output.next;
            if output.ended {
                return if line_ended { Ok(()) } else { out("\n") };
            }
        }
    }
}

fn word(whole: bool) -> &'static str {
    if whole { "true" } else { "false" }
}

fn show(context: &Context, step: &LogStep, amount: Amount, seen: &HashSet<RunId>) -> Result<(), Failure> {
    if context.json() {
        let line = serde_json::to_string(step).map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        return out(&format!("{line}\n"));
    }
    context.show_content(&render(step, amount, seen, context.style))
}

/// A call and what the tool said: whole, or on a line with the end of the answer.
fn called(call: &LogCall, whole: bool, style: Style, text: &mut String) {
    let waits = if call.answer.is_none() { ", not made by this step" } else { "" };
    if whole {
        text.push_str(&format!("{}\n", style.cyan(format!("› {}{waits}", call.name))));
        arguments(&call.input, text);
    } else {
        let subject = ["command", "path", "pattern", "url", "query", "title", "question", "run"].iter();
        let subject = subject.filter_map(|key| call.input.get(key)?.as_str()).next().unwrap_or_default();
        let line = subject.trim().lines().next().unwrap_or_default();
        let more = if line.len() < subject.trim().len() { "…" } else { "" };
        text.push_str(&format!("{}\n", style.cyan(format!("› {} {line}{more}{waits}", call.name))));
    }
    let Some(answer) = &call.answer else { return };
    let lines: Vec<&str> = answer.text.trim_end_matches('\n').lines().collect();
    let shown = if whole { lines.len() } else { lines.len().min(ANSWER_LINES) };
    if shown < lines.len() || answer.bytes > answer.text.len() as u64 {
        text.push_str(&format!("{}\n", style.dim(format!("  … the end of {} bytes; --whole shows them", grouped(answer.bytes)))));
    }
    for line in &lines[lines.len() - shown..] {
        text.push_str(&format!("  {}\n", if answer.is_error { style.red(line) } else { (*line).to_owned() }));
    }
}

/// Every character of a call's arguments.
fn arguments(input: &Value, text: &mut String) {
    let Some(fields) = input.as_object() else {
        text.push_str(&format!("  {input}\n"));
        return;
    };
    for (key, value) in fields {
        match value.as_str() {
            Some(value) if value.contains('\n') => {
                text.push_str(&format!("  {key}:\n"));
                text.extend(value.lines().map(|line| format!("    {line}\n")));
            }
            Some(value) => text.push_str(&format!("  {key}: {value}\n")),
            None => text.push_str(&format!("  {key}: {value}\n")),
        }
    }
}

fn render(step: &LogStep, amount: Amount, seen: &HashSet<RunId>, style: Style) -> String {
    let mut text = format!("{} {}\n", style.bold(format!("step {}", step.ordinal)), style.dim(&step.summary));
    if let Some(sandbox) = step.sandbox {
        text.push_str(&format!("{}\n", style.dim(format!("ran under: {sandbox}"))));
    }
    if amount.thinking {
        text.extend(step.thought.trim_end().lines().map(|line| format!("{}\n", style.dim(format!("  {line}")))));
    } else if !step.thought.is_empty() {
        let length = grouped(step.thought.chars().count() as u64);
        text.push_str(&format!("{}\n", style.dim(format!("… thought {length} characters; --thinking shows them"))));
    }
    if !step.said.is_empty() {
        text.push_str(&format!("{}\n", step.said.trim_end()));
    }
    step.calls.iter().for_each(|call| called(call, amount.whole, style, &mut text));
    for run in &step.runs {
        if !seen.contains(&run.run) {
            text.push_str(&format!("{}\n", style.cyan(format!("$ {}", run.command))));
            if run.cut {
                let shown = run.output.len() as u64;
                let hidden = run.output_bytes.saturating_sub(shown);
                text.push_str(&format!("{}\n", style.dim(format!("… {} bytes before this; --whole shows them", grouped(hidden)))));
            }
            if !run.output.is_empty() {
                text.push_str(&format!("{}\n", run.output.trim_end_matches('\n')));
            }
        }
        if run.exit_code != 0 {
            text.push_str(&format!("{}\n", style.red(format!("exit code {}", run.exit_code))));
        }
    }
    for line in carried(step) {
        text.push_str(&format!("{}\n", style.yellow(line)));
    }
    if !step.artifacts.is_empty() {
        let paths = named(&step.artifacts);
        text.push_str(&format!("{}\n", style.dim(format!("artifacts: {paths}"))));
    }
    text
}

/// What of the workspace the step does not have, or not as of one moment.
fn carried(step: &LogStep) -> Vec<String> {
    let left: Vec<&SkippedFile> = step.skipped.iter().filter(|file| file.reason != SkipReason::Cache).collect();
    let mut lines = Vec::new();
    if !left.is_empty() {
        lines.push(format!("not carried: {}", named(&left)));
    }
    if !step.torn.is_empty() {
        lines.push(format!("changed while they were read: {}", named(&step.torn)));
    }
    lines
}

/// The first few, and how many more.
fn named<T: ToString>(all: &[T]) -> String {
    const SHOWN: usize = 10;
    let shown = all.iter().take(SHOWN).map(T::to_string).collect::<Vec<_>>().join(", ");
    if all.len() > SHOWN { format!("{shown} and {} more", grouped((all.len() - SHOWN) as u64)) } else { shown }
}

#[cfg(test)]
mod tests {
    use helix_adapter_http::api::{LogAnswer, LogRun};
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
            thought: "They may fail.\nThen I see why.".to_owned(),
            calls: Vec::new(),
            runs: vec![run],
            skipped: vec![
                SkippedFile { path: "core".to_owned(), reason: SkipReason::TooLarge, size: 100 << 20 },
                SkippedFile { path: "target".to_owned(), reason: SkipReason::Cache, size: 0 },
            ],
            torn: vec!["log.txt".to_owned()],
            artifacts: vec!["report.xml".to_owned()],
            sandbox: None,
        };
        let shown = |amount| render(&step, amount, &HashSet::new(), Style::Plain);
        insta::assert_snapshot!(shown(Amount::default()));
        let thinking = shown(Amount { thinking: true, ..Amount::default() });
        assert!(thinking.contains("\n  They may fail.\n  Then I see why.\nLet me run the tests.\n"), "{thinking}");
    }

    #[test]
    fn a_call_is_shown_with_the_end_of_its_answer_and_whole_on_demand() {
        let told = |input: Value, answer: Option<(String, bool)>, whole: bool| {
            let answer = answer.map(|(text, is_error)| LogAnswer { bytes: text.len() as u64, text, is_error });
            let mut text = String::new();
            called(&LogCall { name: "shell".to_owned(), input, answer }, whole, Style::Plain, &mut text);
            text
        };
        let long: String = (1..=12).map(|line| format!("line {line}\n")).collect();
        let end: String = (5..=12).map(|line| format!("  line {line}\n")).collect();
        let make = json!({"command": "make test\nmake install"});
        let short = format!("› shell make test…\n  … the end of 87 bytes; --whole shows them\n{end}");
        assert_eq!(told(make.clone(), Some((long.clone(), false)), false), short);
        assert_eq!(told(make, Some((long, true)), true).lines().count(), 4 + 12);
        let waits = told(json!({"path": "a", "content": "one\ntwo\n", "all": true}), None, true);
        assert_eq!(waits, "› shell, not made by this step\n  path: a\n  content:\n    one\n    two\n  all: true\n");
    }
}
