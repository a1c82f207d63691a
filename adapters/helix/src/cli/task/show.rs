//! `helix task show`

use clap::Args;
use helix_adapter_http::api::{Artifact, ArtifactList, AttemptList, AttemptView, QuestionList, StepList, TaskBudget};
use helix_protocol::{
    Base, Budget, Environment, Failure, ModelTraffic, Question, SkipReason, SkippedFile, Spent, Subject, TaskRecord, TaskWork,
    Timestamp,
};
use serde::Serialize;

use super::{Which, because};
use crate::cli::Context;
use crate::cli::style::{Style, Table, age, bytes, dollars, grouped, span};

/// Show what is known of a task
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  helix task show 3f2a91c0\n  helix task show 3f2a91c0 --json")]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    which: Which,
}

#[derive(Serialize)]
struct Shown {
    task: TaskRecord,
    questions: Vec<Question>,
    attempts: AttemptList,
    artifacts: Vec<Artifact>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<SkippedFile>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    torn: Vec<String>,
    /// What its own tasks hold of its budget.
    #[serde(skip_serializing_if = "is_nothing")]
    held: Spent,
}

fn is_nothing(spent: &Spent) -> bool {
    *spent == Spent::default()
}

impl Show {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let task: TaskRecord = client.get(&self.which.path("")).await?;
        let questions = client.get::<QuestionList>(&format!("/tasks/{}/questions", task.id)).await?.questions;
        let attempts = client.get::<AttemptList>(&format!("/tasks/{}/attempts", task.id)).await?;
        let held = client.get::<TaskBudget>(&format!("/tasks/{}/budget", task.id)).await?.held;
        let artifacts = client.get::<ArtifactList>(&format!("/tasks/{}/artifacts", task.id)).await?.artifacts;
        let last = client.get::<StepList>(&format!("/tasks/{}/steps", task.id)).await?.steps.pop();
        let (skipped, torn) = last.map(|step| (step.skipped, step.torn)).unwrap_or_default();
        context.print(&Shown { task, questions, attempts, artifacts, skipped, torn, held }, |shown| {
            let Shown { task, questions, attempts, held, .. } = shown;
            let mut out = render(task, questions, *held, Timestamp::now(), context.style);
            out.push_str(&files(shown, context.style));
            if !attempts.attempts.is_empty() {
                out.push_str(&format!("\n{}", self::attempts(attempts, context.style)));
            }
            out
        })
    }
}

fn render(task: &TaskRecord, questions: &[Question], held: Spent, now: Timestamp, style: Style) -> String {
    let mut table = Table::bare();
    let mut row = |key: &str, value: String| table.row([style.dim(key), value]);
    row("task", format!("{} ({})", style.bold(task.id.short()), task.id));
    row("title", task.spec.title.clone());
    row("state", format!("{}{}", style.status(task.status), because(&task.reason)));
    for (i, line) in task.hint.lines().enumerate() {
        row(if i == 0 { "next" } else { "" }, line.to_owned());
    }
    if let TaskWork::Attempts(attempts) = &task.spec.work {
        row("attempts", format!("{}, the best one's files are taken", attempts.count));
    }
    match task.spec.work.attempted() {
        TaskWork::Agent(agent) => {
            row(
                "kind",
                agent.model.as_ref().map_or_else(|| "agent, the default model".to_owned(), |model| format!("agent, model {model}")),
            );
            for (i, line) in agent.prompt.lines().enumerate() {
                row(if i == 0 { "prompt" } else { "" }, line.to_owned());
            }
            if let Some(verify) = &agent.verify {
                row("verified by", verify.clone());
            }
        }
        TaskWork::Command(command) => {
            for (i, line) in command.commands.iter().enumerate() {
                row(if i == 0 { "commands" } else { "" }, line.clone());
            }
        }
        TaskWork::External(agent) => {
            let model = agent.model.as_ref().map_or_else(String::new, |model| format!(", model {model}"));
            let keys = if agent.models == ModelTraffic::Own { ", with keys of its own" } else { "" };
            row("kind", format!("the agent {}{model}{keys}", agent.agent));
            for (i, line) in agent.prompt.lines().enumerate() {
                row(if i == 0 { "prompt" } else { "" }, line.to_owned());
            }
            if let Some(verify) = &agent.verify {
                row("verified by", verify.clone());
            }
        }
        TaskWork::Attempts(_) | TaskWork::Custom { .. } => row("kind", task.spec.work.attempted().kind().to_owned()),
    }
    row("files from", base(&task.spec.base));
    row("sandbox", sandbox(&task.spec.environment, style));
    for (i, secret) in task.spec.environment.secrets.iter().enumerate() {
        row(if i == 0 { "secrets" } else { "" }, secret.to_string());
    }
    row("steps", format!("{}, epoch {}", task.steps, task.epoch));
    row("spent", format!("{}, {} tokens{}", dollars(task.spent), grouped(task.tokens), limits(task)));
    if !is_nothing(&held) {
        let verb = if task.spec.budget == Budget::default() { "spent" } else { "hold of that" };
        row("own tasks", format!("{verb} {}, {} tokens", dollars(held.money), grouped(held.tokens)));
    }
    if task.retries > 0 {
        row("retries", format!("{} of {}", task.retries, task.spec.allowed_retries()));
    }
    if !task.spec.depends_on.is_empty() {
        let ids: Vec<String> = task.spec.depends_on.iter().map(helix_protocol::TaskId::short).collect();
        row("waits for", ids.join(" "));
    }
    row("made", format!("{} ago", age(task.created_at, now)));
    if let Some(at) = task.finished_at {
        row("took", span(at.0 - task.created_at.0));
    }
    for question in questions {
        let (verb, short) = (if matches!(question.subject, Subject::Children { .. }) { "why" } else { "answer" }, task.id.short());
        let answer = match &question.answer {
            Some(answer) => format!("answered {answer:?}"),
            None if question.is_open() => format!("open: helix task {verb} {short}"),
            None => "closed".to_owned(),
        };
        row("question", format!("{} ({answer})", question.text));
    }
    table.render()
}

/// The artifacts, and what the last step does not carry.
fn files(shown: &Shown, style: Style) -> String {
    const MOST: usize = 10;
    let mut table = Table::bare();
    let mut rows = |heading: &str, lines: Vec<String>| {
        let more = lines.len().saturating_sub(MOST);
        let more = (more > 0).then(|| format!("and {} more", grouped(more as u64)));
        for (i, line) in lines.into_iter().take(MOST).chain(more).enumerate() {
            table.row([style.dim(if i == 0 { heading } else { "" }), line]);
        }
    };
    rows("artifacts", shown.artifacts.iter().map(|kept| format!("{} ({})", kept.path, bytes(kept.size))).collect());
    let left = shown.skipped.iter().filter(|file| file.reason != SkipReason::Cache);
    rows("not carried", left.map(|file| style.yellow(file.to_string())).collect());
    rows("changed while read", shown.torn.iter().map(|path| style.yellow(path)).collect());
    table.render()
}

/// What every attempt came to, and what they cost together.
pub(in crate::cli) fn attempts(list: &AttemptList, style: Style) -> String {
    let mut table = Table::new(style, &["ATTEMPT", "TASK", "STATE", "STEPS", "SPENT", "TOKENS", "WRITTEN", ""]);
    for attempt in &list.attempts {
        let AttemptView { task, number, status, reason, steps, spent, tokens, bytes: written, taken } = attempt;
        let note = if *taken { style.green("taken") } else { reason.lines().next().unwrap_or_default().to_owned() };
        table.row([
            number.to_string(),
            task.short(),
            style.status(*status),
            steps.to_string(),
            dollars(*spent),
            grouped(*tokens),
            bytes(*written),
            note,
        ]);
    }
    let AttemptList { spent, tokens, bytes: written, .. } = list;
    format!("{}together  {}, {} tokens, {} written\n", table.render(), dollars(*spent), grouped(*tokens), bytes(*written))
}

fn sandbox(environment: &Environment, style: Style) -> String {
    let text = environment.sandbox();
    let also = if environment.writable.is_empty() {
        String::new()
    } else {
        format!("; also writable: {}", environment.writable.join(" "))
    };
    if environment.isolation().is_sandboxed() { format!("{text}{also}") } else { style.yellow(text) }
}

fn limits(task: &TaskRecord) -> String {
    let money = task.spec.budget.money.map(dollars);
    let tokens = task.spec.budget.tokens.map(|tokens| format!("{} tokens", grouped(tokens)));
    let limits: Vec<String> = [money, tokens].into_iter().flatten().collect();
    if limits.is_empty() { String::new() } else { format!(" of at most {}", limits.join(" and ")) }
}

fn base(base: &Base) -> String {
    match base {
        Base::Empty => "nothing".to_owned(),
        Base::Task { task } => format!("the end of task {}", task.short()),
        Base::Snapshot { snapshot, git_commit, repository } => {
            let commit = git_commit
                .as_ref()
                .map_or_else(String::new, |commit| format!(" at {}", commit.chars().take(12).collect::<String>()));
            repository.as_ref().map_or_else(|| format!("snapshot {}", snapshot.short()), |path| format!("{path}{commit}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::TaskStatus;

    use super::super::tests::task;
    use super::*;

    #[test]
    fn a_task_that_asks_reads_like_this() {
        let mut task = task(0xa1b2_c3d4, "fix the parser\nand its tests", TaskStatus::WaitingForInput);
        task.reason = "the budget is used up".to_owned();
        task.spec.title = "fix the parser".to_owned();
        task.spec.budget.money = Some(helix_protocol::Money(50_000));
        let text = "the next call could exceed $0.05; raise the budget?";
        let question = Question::new(task.id, Subject::Budget, text, Vec::new(), Timestamp(0));
        insta::assert_snapshot!(render(&task, &[question], Spent::default(), Timestamp(300_000_000), Style::Plain));
        let held = Spent { money: helix_protocol::Money(20_000), tokens: 1_234 };
        let shown = render(&task, &[], held, Timestamp(300_000_000), Style::Plain);
        assert!(shown.contains("own tasks   hold of that $0.0200, 1,234 tokens\n"), "{shown}");
    }
}
