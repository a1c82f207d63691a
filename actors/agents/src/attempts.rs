//! Attempts at one thing: tasks of their own, made and waited for without a worker being held, of which one is taken. Trees of
//! thoughts have theirs forked from a step; the task kind `attempts` has the same work done several times and takes the best.
//!
//! Where completing says that an attempt is good (it is checked, or its commands have run), the first that completes is taken and
//! the others are given up at once. Else all are waited for, and a model compares those that completed.

use async_trait::async_trait;
use helix_ports::{ChildEnd, SnapshotNote, StepHost, StepResult, TaskKind, TurnEnd};
use helix_protocol::{
    AgentSpec, AttemptsSpec, Code, ExternalSpec, Failure, Message, ModelRequest, ModelTraffic, Role, TaskId, TaskRecord, TaskSpec,
    TaskStatus, TaskWork, Thinking,
};

use crate::children::belonging;
use crate::summary::shortened;
use crate::{AgentLimits, ModelLimits};

const JUDGE: &str = "\
You compare attempts at one task. Judge by what the task asks: whether it is done, whether it is right, whether the change is \
small and clean. An attempt that says that it could not finish is worse than one that did. Answer with your reasons in a few \
sentences and then, on a line of its own, `BEST:` and the attempt's number.";

/// A judge is shown so many of an attempt's files: a step carries what git ignores too, which may be tens of thousands.
const MOST_PATHS: usize = 100;
/// And so many characters of what it says, where the model takes as much of all attempts.
const MOST_SAID: usize = 8_000;
/// And so many of its patches.
const MOST_PATCHED: usize = 60_000;

/// What says that an attempt is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// That it completed.
    Completed,
    /// Only a comparison of all.
    Judged,
}

/// Where the attempts stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attempts {
    Waiting {
        tasks: Vec<TaskId>,
        ended: usize,
    },
    Ended(Vec<ChildEnd>),
    /// One passed the gate.
    Won(usize, ChildEnd),
}

/// Makes the attempts, which are known by their names, and looks how they stand. Once one has passed the gate
/// the others are given up. Each gets an equal share of what is left of the budget, of which the task keeps `kept` shares for what
/// it asks of models itself.
pub(crate) async fn carry_on(
    host: &mut dyn StepHost,
    attempts: Vec<(String, TaskSpec)>,
    gate: Gate,
    kept: u32,
) -> Result<Attempts, Failure> {
    let (mut ends, mut waiting) = (Vec::new(), Vec::new());
    let all = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
    for (at, ((name, spec), to_make)) in attempts.into_iter().zip((1..=all).rev()).enumerate() {
        let task = host.child(&name, spec, to_make.saturating_add(kept)).await?;
        match host.child_end(task).await? {
            Some(end) => ends.push((at, end)),
            None => waiting.push(task),
        }
    }
    let passed = ends.iter().find(|(_, end)| end.status == TaskStatus::Completed);
    if let (Gate::Completed, Some((at, end))) = (gate, passed.cloned()) {
        for task in waiting {
            host.cancel_child(task).await?;
        }
        return Ok(Attempts::Won(at, end));
    }
    if waiting.is_empty() {
        Ok(Attempts::Ended(ends.into_iter().map(|(_, end)| end).collect()))
    } else {
        Ok(Attempts::Waiting { tasks: waiting, ended: ends.len() })
    }
}

/// Who compares attempts, and by what.
pub(crate) struct Judge<'a> {
    pub task: &'a str,
    pub provider: Option<&'a str>,
    pub model: Option<&'a str>,
    /// Of the model.
    pub limits: ModelLimits,
    pub thinking: Thinking,
}

impl Judge<'_> {
    /// The best of those that completed, with the reason; by a model where there are several.
    pub async fn choose(&self, host: &mut dyn StepHost, ends: &[ChildEnd]) -> Result<Option<(usize, String)>, Failure> {
        let completed: Vec<usize> =
            ends.iter().enumerate().filter(|(_, end)| end.status == TaskStatus::Completed).map(|(at, _)| at).collect();
        match completed.as_slice() {
            [] => return Ok(None),
            [at] => return Ok(Some((*at, "it alone was completed".to_owned()))),
            _ => {}
        }
        let first = |why: &str| Ok(Some((completed[0], why.to_owned())));
        match self.compare(host, ends, &completed).await {
            Err(failure) if failure.code == Code::ModelUnavailable => {
                first("it completed, and no model is there to compare it with the others")
            }
            Err(failure) if failure.code == Code::ContextOverflow => {
                first("it completed, and no model can take as much as comparing it takes")
            }
            other => other.map(Some),
        }
    }

    /// The best of several, by a model.
    async fn compare(&self, host: &mut dyn StepHost, ends: &[ChildEnd], completed: &[usize]) -> Result<(usize, String), Failure> {
        let mut question = format!("The task:\n{}\n", self.task);
        let changed: Vec<String> = completed.iter().map(|at| listed(&ends[*at].changed)).collect();
        let named = question.len() + changed.iter().map(String::len).sum::<usize>();
        // As characters: a token of digits, hashes or signs may be one.
        let room = usize::try_from(self.limits.room()).unwrap_or(usize::MAX);
        let share = room.saturating_sub(named) / completed.len();
        let said = MOST_SAID.min(share / 2);
        let patched = MOST_PATCHED.min(share - said);
        for (at, changed) in completed.iter().zip(changed) {
            let end = &ends[*at];
            let says = beginning(&end.answer, said);
            question.push_str(&format!("\nAttempt {} changed {changed} and says:\n{says}\n", at + 1));
            let patches = match end.snapshot {
                Some(snapshot) => host.patches(snapshot).await?,
                None => String::new(),
            };
            if !patches.is_empty() {
                question.push_str(&format!("\nIts changes:\n{}\n", beginning(&patches, patched)));
            }
        }
        let request = ModelRequest {
            provider: self.provider.map(str::to_owned),
            model: self.model.map(str::to_owned),
            messages: vec![Message::text(Role::System, JUDGE), Message::text(Role::User, question)],
            // A model that thinks before it judges must not have used them up by then.
            max_tokens: self.limits.max_tokens,
            thinking: self.thinking,
            ..ModelRequest::default()
        };
        let reply = host.model(request).await?;
        let text = Message { role: Role::Assistant, blocks: reply.blocks }.as_text();
        let named = text.lines().rev().find_map(|line| {
            let number = line.trim().trim_matches(['*', '`']).strip_prefix("BEST:")?;
            number.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().ok()
        });
        let at = named.and_then(|number| number.checked_sub(1)).filter(|at| completed.contains(at));
        // A judge that names none has not judged: the first that was completed is as good as any.
        Ok(at.map_or((completed[0], "the judge named none".to_owned()), |at| (at, shortened(&text))))
    }
}

fn listed(paths: &[String]) -> String {
    let shown = paths.iter().take(MOST_PATHS).map(String::as_str).collect::<Vec<_>>().join(", ");
    match paths.len() {
        0 => "no file".to_owned(),
        count if count > MOST_PATHS => format!("{shown} and {} more files", count - MOST_PATHS),
        _ => shown,
    }
}

/// A text's first characters.
fn beginning(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Makes the steps of such tasks. Holds the models' sizes.
#[derive(Clone, Debug)]
pub struct AttemptsKind {
    limits: AgentLimits,
}

impl AttemptsKind {
    /// The kind over the configured models.
    pub fn new(limits: AgentLimits) -> Self {
        Self { limits }
    }
}

#[async_trait]
impl TaskKind for AttemptsKind {
    fn name(&self) -> &str {
        "attempts"
    }

    fn check(&self, work: &TaskWork) -> Result<(), Failure> {
        let TaskWork::Attempts(AttemptsSpec { count, work }) = work else { return Ok(()) };
        let refused = |message: String, hint: &str| Err(Failure::new(Code::InvalidRequest, message).hint(hint));
        if !(AttemptsSpec::LEAST..=AttemptsSpec::MOST).contains(count) {
            let hint = format!("from {} to {}; for one leave `attempts` out", AttemptsSpec::LEAST, AttemptsSpec::MOST);
            return refused(format!("a task of {count} attempts makes no sense"), &hint);
        }
        if matches!(**work, TaskWork::Attempts(_)) {
            return refused("attempts at attempts are none".to_owned(), "name the work itself");
        }
        Ok(())
    }

    async fn step(&self, host: &mut dyn StepHost) -> Result<StepResult, Failure> {
        let TaskWork::Attempts(spec) = host.task().spec.work.clone() else {
            return Err(Failure::new(Code::Internal, "this is no task of several attempts"));
        };
        host.note(SnapshotNote::NoFiles);
        let (gate, of, attempts) = (gate(&spec.work), spec.count, attempts(host.task(), &spec));
        // Where a model compares them, the task pays for that.
        match carry_on(host, attempts, gate, u32::from(gate == Gate::Judged)).await? {
            Attempts::Waiting { tasks, ended: 0 } => Ok(ended(format!("makes {of} attempts"), TurnEnd::Await { tasks })),
            Attempts::Waiting { tasks, ended: count } => {
                Ok(ended(format!("{count} of {of} attempts have ended"), TurnEnd::Await { tasks }))
            }
            Attempts::Won(at, end) => promote(host, at, of, &end, "it passed first").await,
            Attempts::Ended(ends) => match chosen(host, &self.limits, &spec.work, &ends).await? {
                Some((at, why)) => promote(host, at, of, &ends[at], &why).await,
                None => Ok(none(&ends)),
            },
        }
    }
}

/// Every attempt by its name.
fn attempts(task: &TaskRecord, spec: &AttemptsSpec) -> Vec<(String, TaskSpec)> {
    let attempt = |at: u32| {
        let title = format!("{} · attempt {at}", task.spec.title);
        let attempt = belonging(&task.spec, title, (*spec.work).clone());
        (format!("attempt {at}"), TaskSpec { group: Some(task.id), fork_files: task.spec.fork_files, ..attempt })
    };
    (1..=spec.count).map(attempt).collect()
}

fn gate(work: &TaskWork) -> Gate {
    match work {
        TaskWork::Agent(AgentSpec { verify: None, .. }) | TaskWork::External(ExternalSpec { verify: None, .. }) => Gate::Judged,
        _ => Gate::Completed,
    }
}

/// The best, by a model where there are several: the agent's own, and for an agent of somebody else's making the node's default one
/// unless its calls go through this node.
async fn chosen(
    host: &mut dyn StepHost,
    limits: &AgentLimits,
    work: &TaskWork,
    ends: &[ChildEnd],
) -> Result<Option<(usize, String)>, Failure> {
    let (task, provider, model, thinking) = match work {
        TaskWork::Agent(agent) => (&agent.prompt, agent.provider.as_deref(), agent.model.as_deref(), agent.thinking),
        TaskWork::External(agent) => {
            let model = agent.model.as_deref().filter(|_| agent.models == ModelTraffic::Gateway);
            (&agent.prompt, None, model, Thinking::Default)
        }
        // The gate of any other has told already.
        _ => return Ok(None),
    };
    let judge = Judge { task, provider, model, limits: limits.of(provider, model), thinking };
    judge.choose(host, ends).await
}

/// The files of an attempt become the task's. Its conversation stays where it is, for whoever goes on from it.
async fn promote(host: &mut dyn StepHost, at: usize, of: u32, end: &ChildEnd, why: &str) -> Result<StepResult, Failure> {
    if let Some(snapshot) = end.snapshot {
        host.take_files(snapshot).await?;
    }
    let says = if end.answer.is_empty() { String::new() } else { format!(": {}", shortened(&end.answer)) };
    Ok(ended(format!("attempt {} of {of} ({}){says}", at + 1, shortened(why)), TurnEnd::Finished))
}

fn none(ends: &[ChildEnd]) -> StepResult {
    let reasons: Vec<String> =
        ends.iter().enumerate().map(|(at, end)| format!("attempt {} {}: {}", at + 1, end.status, end.reason)).collect();
    let failure = Failure::new(Code::TaskFailed, format!("no attempt succeeded; {}", reasons.join("; ")))
        .hint("`helix task show` lists them; `helix task retry` on one of them goes on there, and then on this task takes it");
    ended("no attempt succeeded".to_owned(), TurnEnd::Failed(failure))
}

fn ended(summary: String, end: TurnEnd) -> StepResult {
    StepResult { summary, messages: Vec::new(), exits: Vec::new(), end }
}
