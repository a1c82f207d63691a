//! `helix task`

mod answer;
mod artifacts;
mod cancel;
mod checkpoint;
mod diff;
mod export;
mod fork;
mod list;
mod log;
mod pause;
mod push;
mod rebase;
mod replay;
mod resume;
mod retry;
mod rollback;
mod say;
mod show;
mod steps;
pub(super) mod why;

pub(super) use show::attempts;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use helix_protocol::{Budget, Code, Failure, Money, TaskRecord};

pub(super) use self::answer::{is_bare_no, meant};
pub(super) use self::say::tell;
use super::Context;
use crate::client::segment;

/// Look at tasks and decide about them
#[derive(Debug, Subcommand)]
pub(super) enum Task {
    List(list::List),
    Show(show::Show),
    Why(why::Why),
    Steps(steps::Steps),
    Log(log::Log),
    Diff(diff::Diff),
    Artifacts(artifacts::Artifacts),
    Cancel(cancel::Cancel),
    Pause(pause::Pause),
    Resume(resume::Resume),
    Retry(retry::Retry),
    Checkpoint(checkpoint::Checkpoint),
    Rollback(rollback::Rollback),
    Fork(fork::Fork),
    Export(export::Export),
    Push(push::Push),
    Rebase(rebase::Rebase),
    Replay(replay::Replay),
    Answer(answer::Answer),
    Say(say::Say),
}

impl Task {
    pub async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let done = match self {
            Self::Replay(command) => return command.run(context).await,
            Self::List(command) => command.run(context).await,
            Self::Show(command) => command.run(context).await,
            Self::Why(command) => command.run(context).await,
            Self::Steps(command) => command.run(context).await,
            Self::Log(command) => command.run(context).await,
            Self::Diff(command) => command.run(context).await,
            Self::Artifacts(command) => command.run(context).await,
            Self::Cancel(command) => command.run(context).await,
            Self::Pause(command) => command.run(context).await,
            Self::Resume(command) => command.run(context).await,
            Self::Retry(command) => command.run(context).await,
            Self::Checkpoint(command) => command.run(context).await,
            Self::Rollback(command) => command.run(context).await,
            Self::Fork(command) => command.run(context).await,
            Self::Export(command) => command.run(context).await,
            Self::Push(command) => command.run(context).await,
            Self::Rebase(command) => command.run(context).await,
            Self::Answer(command) => command.run(context).await,
            Self::Say(command) => command.run(context).await,
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// The task that a command is about.
#[derive(Debug, Args)]
struct Which {
    /// The task; its last digits suffice
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    task: String,
}

impl Which {
    fn path(&self, below: &str) -> String {
        let below = if below.is_empty() { String::new() } else { format!("/{below}") };
        format!("/tasks/{}{below}", segment(&self.task))
    }
}

/// A new budget.
#[derive(Debug, Args)]
struct NewBudget {
    /// A new limit of money for the whole task, in US dollars
    #[arg(long = "budget", alias = "budget-usd", value_name = "USD", value_parser = super::amounts::parse_dollars)]
    money: Option<Money>,
    /// A new limit of tokens for the whole task
    #[arg(long = "budget-tokens", value_name = "N")]
    tokens: Option<u64>,
}

impl NewBudget {
    /// `None` leaves the old one; a limit that is not named stays as `old` has it.
    fn over(&self, old: Budget) -> Option<Budget> {
        let named = self.money.is_some() || self.tokens.is_some();
        named.then(|| Budget { money: self.money.or(old.money), tokens: self.tokens.or(old.tokens) })
    }
}

/// Why a task with a used up budget does not simply go on: a plain yes would only be asked again.
fn without_budget(task: &str) -> Failure {
    Failure::new(Code::InvalidRequest, format!("task {task} has used up its budget and would ask again"))
        .hint(format!("`helix task resume {task} --budget USD` (or --budget-tokens N) sets a new limit for the whole task"))
}

/// Why a task stands where it does, behind its state; empty where nothing needs saying.
pub(super) fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// Prints a task as a command left it.
fn changed(context: &Context, task: &TaskRecord) -> Result<(), Failure> {
    context.print(task, |task| {
        let reason = because(&task.reason);
        format!("task {} is {}{reason}", context.style.bold(task.id.short()), context.style.status(task.status))
    })
}

#[cfg(test)]
mod tests {
    use helix_protocol::{
        AgentSpec, AttemptId, Base, Epoch, OwnerId, ProjectId, TaskId, TaskSpec, TaskStatus, TaskWork, Timestamp,
    };
    use uuid::Uuid;

    use super::*;

    /// A task for tests of what a person sees.
    pub(super) fn task(id: u128, title: &str, status: TaskStatus) -> TaskRecord {
        let work = TaskWork::Agent(AgentSpec::new(title));
        let mut spec = TaskSpec::new(title, work);
        spec.base = Base::Empty;
        TaskRecord {
            id: TaskId(Uuid::from_u128(id)),
            owner: OwnerId::LOCAL,
            project: ProjectId::DEFAULT,
            spec,
            status,
            reason: String::new(),
            hint: String::new(),
            epoch: Epoch(2),
            attempt: AttemptId(Uuid::from_u128(id)),
            head: None,
            steps: 3,
            node: None,
            worker: None,
            retries: 0,
            not_before: None,
            spent: Money(42_000),
            tokens: 12_345,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            finished_at: None,
            version: 7,
        }
    }

    #[test]
    fn a_budget_that_names_one_limit_leaves_the_other() {
        let old = Budget { money: Some(Money(1)), tokens: Some(10) };
        assert_eq!(
            NewBudget { money: Some(Money(5)), tokens: None }.over(old),
            Some(Budget { money: Some(Money(5)), tokens: Some(10) })
        );
        assert_eq!(NewBudget { money: None, tokens: None }.over(old), None);
    }
}
