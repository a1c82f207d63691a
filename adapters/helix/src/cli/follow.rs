//! Following tasks live until they end, or until the person leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::Duration;

use helix_adapter_http::api::{AnswerRequest, QuestionList, WorkerList};
use helix_messages::TaskWhy;
use helix_ports::OUTPUT;
use helix_protocol::{Base, Code, Event, EventKind, Failure, NewEvent, Question, Subject, TaskId, TaskRecord, TaskStatus};

use super::Context;
use super::context::out;
use super::live::Live;
use super::style::{dollars, grouped, span};
use super::task::{is_bare_no, meant, tell, why};
use super::timeline::Timeline;
use super::typed::Typed;
use super::words::Spoken;
use crate::client::{Client, Hears, Watch};

/// A task's end and the event of it carry the same time, give or take the clocks of node and database.
const SAME_END_MICROS: i64 = 1_000_000;

/// After this time a task that nobody works on is explained.
const QUIET: Duration = Duration::from_secs(3);

/// How following ended.
pub(super) enum Followed {
    /// Every task reached its end, as they then were.
    Ended(Vec<TaskRecord>),
    /// The person left; the tasks go on.
    Left,
}

/// What `watch` brings first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// What happens from now on. The tasks that are followed were made after it began, so it brings the whole of them.
    Now,
    /// The task's whole history, the event of its end included.
    Beginning,
}

/// What is to be heard of one agent that is followed: what its model says goes to a terminal, and elsewhere where that is asked for.
pub(super) fn hears(asked: bool) -> Hears {
    match asked {
        true => Hears::Words,
        false if std::io::stdout().is_terminal() => Hears::WordsIfTold,
        false => Hears::Events,
    }
}

/// Shows events until every task of `tasks` has ended; for ever where there is none. With `live`, what that
/// task's commands write as well.
pub(super) async fn follow(
    context: &Context,
    client: &Client,
    watch: &mut Watch,
    tasks: &[TaskId],
    start: Start,
    mut typed: Option<Typed>,
    mut live: Option<Live<'_>>,
) -> Result<Followed, Failure> {
    let mut view = View::new(context, client, tasks).await?;
    let mut leave = std::pin::pin!(tokio::signal::ctrl_c());
    let mut quiet = std::pin::pin!(tokio::time::sleep(QUIET));
    let (mut away, mut explained) = (None, start != Start::Now || tasks.len() != 1);
    loop {
        if !tasks.is_empty() && view.open.is_empty() {
            return Ok(Followed::Ended(view.ended.into_values().collect()));
        }
        let line = async {
            match typed.as_mut() {
                Some(typed) => typed.next().await,
                None => std::future::pending().await,
            }
        };
        let output = async {
            match live.as_mut() {
                Some(live) => live.next().await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            event = watch.next() => event,
            line = line => {
                view.say(&line).await;
                continue;
            }
            shown = output => {
                shown?;
                continue;
            }
            () = &mut quiet, if !explained => {
                explained = true;
                view.explain().await;
                continue;
            }
            _ = &mut leave => return Ok(Followed::Left),
        };
        match event {
            Ok(event) => {
                if let Some(what) = away.take() {
                    context.say(&format!("the {what} is back"));
                }
                if let Some(live) = live.as_mut() {
                    live.before(&event).await?;
                }
                view.show(&event).await?;
                if let Some(live) = live.as_mut() {
                    live.after(&event);
                }
            }
            Err(failure) if matches!(failure.code, Code::NodeUnreachable | Code::ShuttingDown | Code::DatabaseUnavailable) => {
                let what = if failure.code == Code::DatabaseUnavailable { "database" } else { "node" };
                view.end_line()?;
                if away.replace(what) != Some(what) {
                    context.say(&gone(&failure));
                }
                // What ended while the line was down is seen when it is back.
                view.look_again().await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// What somebody is told whose events stop for a while.
fn gone(failure: &Failure) -> String {
    match failure.code {
        Code::DatabaseUnavailable => {
            let Failure { message, hint, .. } = failure;
            format!("{}: {message}\n  hint: {hint}\nWaiting for it to come back (Ctrl-C leaves)", failure.code.as_str())
        }
        _ => "the node went away; workers go on meanwhile. Waiting for it to come back (Ctrl-C leaves)".to_owned(),
    }
}

struct View<'a> {
    context: &'a Context,
    client: &'a Client,
    timeline: Timeline,
    /// What the model of the task says whose words are shown: one, because those of several would be mixed.
    spoken: Option<(TaskId, Spoken)>,
    followed: BTreeSet<TaskId>,
    open: BTreeSet<TaskId>,
    ended: BTreeMap<TaskId, TaskRecord>,
}

impl<'a> View<'a> {
    async fn new(context: &'a Context, client: &'a Client, tasks: &[TaskId]) -> Result<Self, Failure> {
        let mut timeline = Timeline::new(context.style);
        for view in client.get::<WorkerList>("/workers").await?.workers {
            timeline.name_worker(view.record.id, view.record.name);
        }
        let followed: BTreeSet<TaskId> = tasks.iter().copied().collect();
        let spoken = if let [task] = tasks { Some((*task, Spoken::new(context.style))) } else { None };
        Ok(Self { context, client, timeline, spoken, open: followed.clone(), followed, ended: BTreeMap::new() })
    }

    /// Asks for the open tasks: an end that was told while nobody listened counts too.
    async fn look_again(&mut self) {
        for task in self.open.clone() {
            if let Ok(record) = self.client.get::<TaskRecord>(&format!("/tasks/{task}")).await {
                self.note(record);
            }
        }
    }

    /// Says why the task that is followed is not at work.
    async fn explain(&self) {
        let Some(task) = self.open.first() else { return };
        if let Ok(found) = self.client.get::<TaskWhy>(&format!("/tasks/{task}/why")).await
            && matches!(found.status, TaskStatus::Pending | TaskStatus::WaitingForWorker | TaskStatus::WaitingForDependencies)
        {
            self.context.say(why::render(&found, self.context.style).trim_end());
        }
    }

    fn note(&mut self, record: TaskRecord) {
        if record.status.is_final() {
            self.open.remove(&record.id);
            self.ended.insert(record.id, record);
        }
    }

    /// True where the event is about a followed task or the worker that holds one; of everything where none is followed.
    fn concerns(&self, event: &Event) -> bool {
        if self.followed.is_empty() {
            return true;
        }
        match (event.event.task, event.event.worker) {
            (Some(task), _) => self.followed.contains(&task),
            (None, Some(worker)) => self.timeline.concerns(worker),
            (None, None) => event.event.kind == EventKind::SystemShutdown,
        }
    }

    async fn show(&mut self, event: &Event) -> Result<(), Failure> {
        if !self.concerns(event) {
            return Ok(());
        }
        if event.event.kind == EventKind::ModelSaid && self.spoken.as_ref().is_none_or(|(task, _)| event.event.task != Some(*task))
        {
            return Ok(());
        }
        if self.context.json() {
            let line = serde_json::to_string(event)
                .map_err(|error| Failure::new(Code::Internal, format!("an event is no JSON: {error}")))?;
            out(&format!("{line}\n"))?;
        } else if event.event.kind == EventKind::ModelSaid {
            self.hear(event)?;
        } else if let Some(line) = self.line(event) {
            self.end_line()?;
            self.context.show(&format!("{}\n", self.context.fit(line)))?;
        }
        let Some(task) = event.event.task else { return Ok(()) };
        match event.event.kind {
            EventKind::TaskCompleted | EventKind::TaskFailed | EventKind::TaskCancelled if self.open.contains(&task) => {
                let record = self.client.get::<TaskRecord>(&format!("/tasks/{task}")).await?;
                // In a replayed history a task may have ended, been retried, and ended again: only the last end counts.
                if record.finished_at.is_some_and(|at| event.at.0 + SAME_END_MICROS >= at.0) {
                    self.note(record);
                }
            }
            EventKind::TaskAsked => self.question(task).await?,
            _ => {}
        }
        Ok(())
    }

    /// Shows what a model says, as far as it has said it.
    fn hear(&mut self, words: &Event) -> Result<(), Failure> {
        let heading = self.timeline.line(words).unwrap_or_default();
        let Some((_, spoken)) = &mut self.spoken else { return Ok(()) };
        self.context.show_content(&spoken.hear(&words.event.detail, &heading))
    }

    /// The event's line, without the words that stand above it already.
    fn line(&mut self, event: &Event) -> Option<String> {
        let Some((task, spoken)) = &mut self.spoken else { return self.timeline.line(event) };
        let is_end = matches!(event.event.kind, EventKind::ModelReplied | EventKind::StepCompleted | EventKind::StepFailed);
        if event.event.task != Some(*task) || !is_end {
            return self.timeline.line(event);
        }
        spoken.end();
        let ordinal = event.event.detail["ordinal"].as_u64().filter(|_| event.event.kind == EventKind::StepCompleted);
        let Some(ordinal) = ordinal else { return self.timeline.line(event) };
        let said = event.event.message.strip_prefix(&format!("step {ordinal}: ")).unwrap_or(&event.event.message);
        let message = spoken.without_words(ordinal, said).to_owned();
        self.timeline.line(&Event { event: NewEvent { message, ..event.event.clone() }, ..event.clone() })
    }

    /// Ends a line that a model's words left open.
    fn end_line(&mut self) -> Result<(), Failure> {
        self.spoken.as_mut().map_or(Ok(()), |(_, spoken)| out(spoken.end_line()))
    }

    /// Says a line to the task that is followed, or answers the question that it waits with. What is refused is
    /// told, and watching goes on.
    async fn say(&self, line: &str) {
        let Some(task) = self.open.first() else { return };
        let said = async {
            let asked: QuestionList = self.client.get(&format!("/tasks/{task}/questions")).await?;
            let open = asked.questions.into_iter().find(Question::is_open);
            if let Some(open) = open.as_ref().filter(|open| is_bare_no(open, line)) {
                return Err(Failure::new(Code::InvalidRequest, "the question cannot be answered so, and the task goes on waiting")
                    .hint(format!("one of: {}", open.choices.join(", "))));
            }
            let answers = open.filter(|open| !matches!(open.subject, Subject::Children { .. } | Subject::Budget));
            match answers.and_then(|open| Some((open.id, meant(&open, line)?))) {
                Some((question, answer)) => {
                    self.client.post(&format!("/questions/{question}/answer"), &AnswerRequest { answer }).await
                }
                None => tell(self.client, &format!("/tasks/{task}/say"), line).await,
            }
        };
        if let Err(failure) = said.await {
            let hint = if failure.hint.is_empty() { String::new() } else { format!("; {}", failure.hint) };
            self.context.say(&format!("not said: {}{hint}", failure.message));
        }
    }

    async fn question(&mut self, task: TaskId) -> Result<(), Failure> {
        let asked: QuestionList = self.client.get(&format!("/tasks/{task}/questions")).await?;
        if let Some(open) = asked.questions.iter().find(|question| question.is_open()) {
            let short = task.short();
            let (next, code) = match &open.subject {
                Subject::Children { tasks } => {
                    // Nobody has to answer: what it waits for is shown instead.
                    self.followed.extend(tasks);
                    return Ok(());
                }
                Subject::Budget => {
                    (format!("helix task resume {short} --budget USD (or --budget-tokens N)"), Some(Code::BudgetExhausted))
                }
                Subject::Model => (format!("helix task resume {short}"), Some(Code::ModelRefused)),
                _ => {
                    let choices = if open.choices.is_empty() { "TEXT".to_owned() } else { open.choices.join("|") };
                    (format!("helix task answer {short} {choices}"), None)
                }
            };
            if let Some(code) = code.filter(|_| self.open.len() == 1 && !std::io::stdin().is_terminal()) {
                return Err(Failure::new(code, format!("task {short} waits: {}", open.text)).hint(format!("`{next}`")));
            }
            self.context.say(&format!("{}\n  from another terminal: {next}", open.text));
        }
        Ok(())
    }
}

/// What is said once tasks have ended; a task that failed is a failure of the command.
pub(super) fn conclude(context: &Context, ended: &[TaskRecord]) -> Result<(), Failure> {
    for task in ended {
        let took = task.finished_at.map(|at| span(at.0 - task.created_at.0)).unwrap_or_default();
        let steps = if task.steps == 1 { "1 step".to_owned() } else { format!("{} steps", task.steps) };
        let cost =
            if task.tokens > 0 { format!(", {} tokens, {}", grouped(task.tokens), dollars(task.spent)) } else { String::new() };
        let short = task.id.short();
        context.say(&format!("\ntask {short} {} in {took}: {steps}{cost}", task.status));
        match task.status {
            TaskStatus::Completed => {
                let export = match task.spec.base {
                    Base::Empty | Base::Snapshot { repository: None, .. } => String::new(),
                    _ => format!("\n  helix task export {short}    as a git branch"),
                };
                context.say(&format!(
                    "  helix task log {short}       what it wrote\n  helix task diff {short}      what it changed{export}"
                ));
            }
            // What is to be done about it is told below.
            _ if !task.hint.is_empty() => context.say(&format!("  helix task log {short}       what happened")),
            _ => context.say(&format!(
                "  helix task log {short}       what happened\n  helix task retry {short}     go on from its last step"
            )),
        }
    }
    let failed: Vec<&TaskRecord> = ended.iter().filter(|task| task.status != TaskStatus::Completed).collect();
    match failed.first() {
        // Of several attempts one that succeeds is enough.
        Some(first) if failed.len() == ended.len() => {
            let told = without_output(&first.reason);
            let reason = if told.is_empty() { String::new() } else { format!(": {told}") };
            let code = if first.status == TaskStatus::Cancelled { Code::Cancelled } else { Code::TaskFailed };
            let named = reason_code(&first.reason);
            let explain = named.map_or_else(String::new, |code| format!("`helix explain {code}` says more, "));
            let (short, hint) = (first.id.short(), &first.hint);
            let hint = if hint.is_empty() {
                let retry = format!("`helix task retry {short}` goes on from its last step");
                format!("{explain}`helix task log {short}` has its output, {retry}")
            } else {
                format!("{hint}; {explain}`helix task log {short}` has its output")
            };
            Err(Failure::new(code, format!("task {short} {}{reason}", first.status)).hint(hint))
        }
        _ => Ok(()),
    }
}

/// Why a task failed, without the end of its command's output: `helix task log` has all of it, and it was shown as it was written.
pub(super) fn without_output(reason: &str) -> &str {
    reason.split_once(OUTPUT).map_or(reason, |(what, _)| what)
}

/// The failure's code that a task's reason ends with, in brackets.
fn reason_code(reason: &str) -> Option<&str> {
    let word = reason.strip_suffix(')')?.rsplit_once('(')?.1;
    Code::ALL.iter().map(|code| code.as_str()).find(|code| *code == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_reason_is_told_from_other_words_in_brackets() {
        assert_eq!(reason_code("no model is named (model_unavailable)"), Some("model_unavailable"));
        assert_eq!(["it failed (twice)", "model_unavailable", "", ")"].map(reason_code), [None; 4]);
    }

    #[test]
    fn a_database_that_is_away_is_not_called_the_node() {
        let failure = Failure::new(Code::DatabaseUnavailable, "the database does not answer").hint("see that it runs");
        let said = "database_unavailable: the database does not answer\n  hint: see that it runs\n\
                    Waiting for it to come back (Ctrl-C leaves)";
        assert_eq!(gone(&failure), said);
        assert!(gone(&Failure::new(Code::NodeUnreachable, "the line is cut")).starts_with("the node went away"));
    }
}
