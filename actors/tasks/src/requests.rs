//! What people ask of tasks, done on the records. The scheduler is told afterwards.
//!
//! A write whose answer was lost may have happened, and then the scheduler has to know of it: so every write is repeated until the
//! records answer, while its asker is answered by a time-out and may ask again.

use std::collections::{HashMap, HashSet};

use helix_config::TasksConfig;
use helix_database::Write;
use helix_messages::{CreateTask, ForkTask, ResumeTask, RetryTask, Say, TasksMsg};
use helix_protocol::link::AGENT_TURNS;
use helix_protocol::{
    AttemptId, AttemptsSpec, Base, Capability, Checkpoint, Code, EventKind, Failure, ModelTraffic, Network, Principal, Question,
    QuestionId, Remark, StepId, TaskId, TaskRecord, TaskSpec, TaskStatus, TaskWork,
};
use serde_json::{Value, json};

use crate::commit::task_of;
use crate::drive::read_task;
use crate::failing::delay_in_words;
use crate::machine::Happening;
use crate::shared::Shared;
use crate::telling::Next;
use crate::{children, dependencies, gateway, secrets, telling};

/// Most that is said at once.
const SAID_BYTES: usize = 32 * 1024;
/// How long the cancelling of a task may take that another one made.
const CHILD: std::time::Duration = std::time::Duration::from_secs(10);

/// Records a task.
pub(crate) async fn create(shared: &Shared, create: CreateTask) -> Result<TaskRecord, Failure> {
    let CreateTask { mut spec, principal, project, idempotency_key } = create;
    // Only a task makes tasks of its own; one that is made from the spec of such a task is nobody's.
    spec.parent = None;
    check(shared, &spec).await?;
    if let Base::Task { task } = spec.base
        && !spec.depends_on.contains(&task)
    {
        spec.depends_on.push(task);
    }
    let id = TaskId::new();
    refuse_circle(shared, id, &spec.depends_on).await?;
    spec.max_retries.get_or_insert(shared.args.tasks.max_retries);
    settle_sandbox(&mut spec, &shared.args.tasks)?;
    if matches!(spec.work.attempted(), TaskWork::External(_)) {
        spec.needs.capabilities.push(Capability(AGENT_TURNS.to_owned()));
    }
    let (attempt, spec) = (AttemptId::new(), Box::new(spec));
    let write = Write::CreateTask { id, attempt, spec, principal, project, idempotency_key, paused: None };
    task_of(shared.write(write).await?)
}

/// Fills in what nobody said of the sandbox, so that the task's record says what it runs under whatever the
/// node is configured to later.
fn settle_sandbox(spec: &mut TaskSpec, config: &TasksConfig) -> Result<(), Failure> {
    let granted = match spec.work.attempted() {
        TaskWork::Command(_) => config.command_network,
        _ => config.network,
    };
    let environment = &mut spec.environment;
    environment.isolation.get_or_insert(config.isolation);
    if !environment.isolation().is_sandboxed() {
        if environment.network == Some(Network::None) {
            let message = "a task without a sandbox cannot be kept off the network";
            return Err(Failure::new(Code::InvalidRequest, message).hint("use `workspace`, or leave the network out"));
        }
        environment.network = Some(Network::Host);
        return Ok(());
    }
    let network = *environment.network.get_or_insert(granted);
    if let (TaskWork::External(agent), Network::None) = (spec.work.attempted(), network)
        && agent.models == ModelTraffic::Own
    {
        let message = "an agent that calls its models with keys of its own needs the network, and the task has none";
        return Err(Failure::new(Code::InvalidRequest, message).hint("add --network host, or leave --own-models out"));
    }
    let more = config.writable.iter().filter(|path| !environment.writable.contains(path)).cloned().collect::<Vec<_>>();
    environment.writable.extend(more);
    if let Some(wrong) = environment.writable.iter().find(|path| !path.starts_with('/') && *path != "~" && !path.starts_with("~/"))
    {
        return Err(Failure::new(Code::InvalidRequest, format!("{wrong:?} is no folder that can be made writable"))
            .hint("give an absolute path on the worker, or one below its user's home as ~/NAME"));
    }
    Ok(())
}

async fn check(shared: &Shared, spec: &TaskSpec) -> Result<(), Failure> {
    let refuse = |message: String, hint: &str| Err(Failure::new(Code::InvalidRequest, message).hint(hint));
    gateway::check(&shared.args.gateway, spec.work.attempted())?;
    let kind = shared.kind(spec.work.kind());
    if let Some(kind) = &kind {
        kind.check(&spec.work)?;
        if let TaskWork::Attempts(AttemptsSpec { work, .. }) = &spec.work {
            shared.kind(work.kind()).map_or(Ok(()), |kind| kind.check(work))?;
        }
    } else {
        let kinds: Vec<&str> = shared.args.kinds.iter().map(|kind| kind.name()).collect();
        return refuse(
            format!("no kind of task is called {:?}", spec.work.kind()),
            &format!("this node knows {}", kinds.join(", ")),
        );
    }
    if spec.timeout_ms == Some(0) {
        return refuse("a task with a time-out of 0 ms could never begin".to_owned(), "leave it out for no limit");
    }
    match spec.work.attempted() {
        TaskWork::Command(command) if command.commands.iter().any(|line| line.trim().is_empty()) => {
            return refuse("one of the commands is empty".to_owned(), "leave it out; a task without any command does nothing");
        }
        TaskWork::Agent(agent) if agent.prompt.trim().is_empty() => {
            return refuse("the prompt is empty".to_owned(), "say what the agent shall do");
        }
        _ => {}
    }
    for capability in &spec.needs.capabilities {
        capability.0.parse::<Capability>()?;
    }
    for secret in &spec.environment.secrets {
        secrets::check(secret)?;
    }
    if spec.fork_files.is_some() && spec.fork_of.is_none() {
        return refuse("`fork_files` is given without `fork_of`".to_owned(), "name the step to go on from, or use `base`");
    }
    let base = match spec.base {
        Base::Snapshot { snapshot, .. } => Some(snapshot),
        Base::Empty | Base::Task { .. } => None,
    };
    for snapshot in base.into_iter().chain(spec.fork_files) {
        let missing = shared.on_store(move |store| Ok(store.missing(&[snapshot.0])?)).await?;
        if !missing.is_empty() {
            let message = format!("there is no snapshot {}", snapshot.0.short());
            return Err(Failure::new(Code::NotFound, message).hint("import the repository again"));
        }
    }
    Ok(())
}

/// Follows the dependencies of a task that is to be made, through everything that has not completed.
async fn refuse_circle(shared: &Shared, id: TaskId, depends_on: &[TaskId]) -> Result<(), Failure> {
    let mut edges: HashMap<TaskId, Vec<TaskId>> = HashMap::from([(id, depends_on.to_vec())]);
    let (mut open, mut seen): (Vec<TaskId>, HashSet<TaskId>) = (depends_on.to_vec(), HashSet::new());
    while let Some(task) = open.pop() {
        if !seen.insert(task) {
            continue;
        }
        let record = shared.args.records.read().task(task).await?;
        let record = record.ok_or_else(|| {
            Failure::new(Code::NotFound, format!("there is no task {} to wait for", task.short()))
                .hint("`helix task list` shows what exists")
        })?;
        if record.status != TaskStatus::Completed {
            open.extend(&record.spec.depends_on);
            edges.insert(task, record.spec.depends_on);
        }
    }
    match dependencies::circle(id, &edges) {
        None => Ok(()),
        Some(circle) => {
            let message = format!("the tasks would wait for each other: {}", dependencies::in_words(&circle));
            Err(Failure::new(Code::DependencyCycle, message).hint("remove one of these dependencies"))
        }
    }
}

/// Continues a step as a new task.
pub(crate) async fn fork(shared: &Shared, fork: ForkTask) -> Result<TaskRecord, Failure> {
    let step = shared.args.records.read().step(fork.step).await?;
    let step = step.ok_or_else(|| {
        Failure::new(Code::NotFound, format!("there is no step {}", fork.step.short()))
            .hint("`helix task steps` lists a task's steps")
    })?;
    let origin = read_task(shared, step.step.task).await?;
    let mut spec = origin.spec;
    spec.title = fork.title.unwrap_or(spec.title);
    spec.fork_of = Some(fork.step);
    spec.fork_files = None;
    spec.parent = None;
    spec.depends_on = Vec::new();
    if let Some(prompt) = fork.prompt {
        // What was attempted several times goes on once.
        spec.work = spec.work.attempted().clone();
        match &mut spec.work {
            TaskWork::Agent(agent) => agent.prompt = prompt,
            TaskWork::External(agent) => agent.prompt = prompt,
            other => {
                let message = format!("a task of kind {:?} takes no prompt", other.kind());
                return Err(Failure::new(Code::InvalidRequest, message).hint("fork it without one"));
            }
        }
    }
    if let Some(most) = fork.max_steps {
        grant_steps(&mut spec.work, most, step.step.ordinal)?;
    }
    let write = Write::CreateTask {
        id: TaskId::new(),
        attempt: AttemptId::new(),
        spec: Box::new(spec),
        principal: fork.principal,
        project: origin.project,
        idempotency_key: None,
        paused: None,
    };
    task_of(shared.write(write).await?)
}

/// Another limit of steps for an agent that goes on after step `made`.
fn grant_steps(work: &mut TaskWork, most: u32, made: u64) -> Result<(), Failure> {
    let limit = match work {
        TaskWork::Agent(agent) => &mut agent.max_steps,
        TaskWork::External(agent) => &mut agent.max_steps,
        other => {
            let message = format!("a task of kind {:?} has no limit of steps", other.kind());
            return Err(Failure::new(Code::InvalidRequest, message).hint("fork it without one"));
        }
    };
    if u64::from(most) <= made {
        let message = format!("a limit of {most} steps leaves none to make after step {made}");
        return Err(Failure::new(Code::InvalidRequest, message).hint("the steps of the line it goes on from count too"));
    }
    *limit = most;
    Ok(())
}

async fn change(
    shared: &Shared,
    change: helix_database::StatusChange,
    event: helix_protocol::NewEvent,
) -> Result<TaskRecord, Failure> {
    task_of(shared.write(Write::Status { change: Box::new(change), events: vec![event] }).await?)
}

/// Gives a task up. Whoever owns it is stale from then on.
pub(crate) async fn cancel(shared: &Shared, task: TaskId, principal: &Principal) -> Result<TaskRecord, Failure> {
    Happening::Cancel.check(task, read_task(shared, task).await?.status)?;
    let own = children::waited_for(shared, task).await?.map(|(_, tasks)| tasks).unwrap_or_default();
    let reason = format!("cancelled by {}", principal.actor);
    let event = telling::by(EventKind::TaskCancelled, task, &principal.actor, reason.clone(), Value::Null);
    let cancelled = change(shared, Happening::Cancel.change(task, None, reason), event).await?;
    // Whoever drives it is stopped in the middle of the turn, and would not do it.
    if matches!(cancelled.spec.work, TaskWork::External(_))
        && let Err(failure) = gateway::forget(shared, task).await
    {
        tracing::warn!(%task, "keys of a turn that was cancelled end by themselves: {failure}");
    }
    give_up(shared, own, principal);
    Ok(cancelled)
}

/// Cancels tasks that a task made and does not wait for any more, without waiting for that.
fn give_up(shared: &Shared, own: Vec<TaskId>, principal: &Principal) {
    for child in own {
        let (door, principal) = (shared.args.address.clone(), principal.clone());
        tokio::spawn(async move {
            let cancel = door.ask(CHILD, |reply| TasksMsg::Cancel { task: child, principal, reply }).await;
            if let Err(failure) = cancel.map(drop)
                && failure.code != Code::InvalidState
            {
                tracing::warn!(task = %child, "a task that nobody waits for any more goes on: {failure}");
            }
        });
    }
}

/// Parks a task that nobody drives.
pub(crate) async fn pause(shared: &Shared, task: TaskId, principal: &Principal) -> Result<TaskRecord, Failure> {
    let record = read_task(shared, task).await?;
    if record.status == TaskStatus::Paused {
        return Ok(record);
    }
    Happening::Pause.check(task, record.status)?;
    let reason = format!("paused by {}", principal.actor);
    let event = telling::by(EventKind::TaskPaused, task, &principal.actor, reason.clone(), Value::Null);
    let mut pause = Happening::Pause.change(task, Some(record.epoch), reason);
    pause.fence = true;
    change(shared, pause, event).await
}

/// Continues a parked task. One that was parked while it waited for an answer waits for it again, unless it is given here.
pub(crate) async fn resume(
    shared: &Shared,
    task: TaskId,
    resume: ResumeTask,
    principal: &Principal,
) -> Result<TaskRecord, Failure> {
    let record = read_task(shared, task).await?;
    Happening::Resume.check(task, record.status)?;
    let mut happening = Happening::Resume;
    if let Some((question, answer)) = answer_with(shared, &record, resume.answer).await? {
        let answered = record_answer(shared, question, answer, principal).await?;
        if answered.status == TaskStatus::Pending {
            if resume.budget.is_none() {
                return Ok(answered);
            }
            happening = Happening::NewBudget;
        }
    }
    let event = telling::by(EventKind::TaskResumed, task, &principal.actor, format!("resumed by {}", principal.actor), Value::Null);
    let mut go_on = happening.change(task, None, "");
    go_on.budget = resume.budget;
    go_on.retries = Some(0);
    go_on.not_before = Some(None);
    change(shared, go_on, event).await
}

/// Which question a resumption answers, and how: with what was given, and with yes to one that going on answers.
async fn answer_with(shared: &Shared, task: &TaskRecord, answer: Option<String>) -> Result<Option<(QuestionId, String)>, Failure> {
    let id = task.id.short();
    let Some(question) = open_question(shared, task.id).await? else {
        return match answer {
            None => Ok(None),
            Some(_) => Err(Failure::new(Code::InvalidState, format!("task {id} asks nothing that could be answered"))
                .hint("leave the answer out and it goes on")),
        };
    };
    let waits = task.status == TaskStatus::WaitingForInput;
    if waits || answer.is_some() {
        children::check_asks_a_person(&question)?;
    }
    if let Some(answer) = &answer {
        check_choice(&question, answer)?;
    }
    let answer = answer.or_else(|| question.subject.is_answered_by_going_on().then(|| "yes".to_owned()));
    if answer.is_none() && waits {
        return Err(Failure::new(Code::InvalidState, format!("task {id} waits for an answer: {}", question.text))
            .hint("give the answer with the request"));
    }
    Ok(answer.map(|answer| (question.id, answer)))
}

/// The question that a task waits with.
pub(crate) async fn open_question(shared: &Shared, task: TaskId) -> Result<Option<Question>, Failure> {
    let questions = shared.read(|records| async move { records.read().questions(task).await }).await?;
    Ok(questions.into_iter().find(Question::is_open))
}

/// Tries an ended task again from its last step.
pub(crate) async fn retry(shared: &Shared, task: TaskId, retry: RetryTask, principal: &Principal) -> Result<TaskRecord, Failure> {
    Happening::Retry.check(task, read_task(shared, task).await?.status)?;
    if let Some(question) = open_question(shared, task).await?.filter(|question| question.subject.is_answered_by_going_on()) {
        record_answer(shared, question.id, "yes".to_owned(), principal).await?;
    }
    let event =
        telling::by(EventKind::TaskResumed, task, &principal.actor, format!("tried again by {}", principal.actor), Value::Null);
    let mut again = Happening::Retry.change(task, None, "");
    again.budget = retry.budget;
    again.retries = Some(0);
    again.not_before = Some(None);
    change(shared, again, event).await
}

/// What means a step, or the files before the first one, wherever a step is named.
const STEP_WORDS: [&str; 2] = ["head", "base"];

/// Names a step of a task.
pub(crate) async fn checkpoint(shared: &Shared, task: TaskId, step: Option<StepId>, name: String) -> Result<Checkpoint, Failure> {
    let record = read_task(shared, task).await?;
    if name.trim().is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
        return Err(Failure::new(Code::InvalidRequest, format!("{name:?} is no name for a checkpoint"))
            .hint("one line of at most 100 characters"));
    }
    if name.parse::<u64>().is_ok() || STEP_WORDS.contains(&name.as_str()) {
        return Err(Failure::new(Code::InvalidRequest, format!("{name:?} is no name for a checkpoint: it means a step already"))
            .hint("numbers are steps, `head` is the last one and `base` what the task began with; add a letter"));
    }
    let step = step.or(record.head).ok_or_else(|| {
        Failure::new(Code::InvalidState, format!("task {} has no step yet that could be named", task.short()))
            .hint("wait for its first step")
    })?;
    let known = shared.args.records.read().step(step).await?;
    if known.is_none_or(|known| known.step.task != task) {
        return Err(Failure::new(Code::NotFound, format!("task {} has no step {}", task.short(), step.short()))
            .hint("`helix task steps` lists them"));
    }
    let checkpoint = Checkpoint { task, step, name, created_at: shared.now() };
    shared.write(Write::Checkpoint(checkpoint.clone())).await?;
    Ok(checkpoint)
}

/// Moves a head back. What waited there for tasks of its own makes others, so that those are given up.
pub(crate) async fn rollback(shared: &Shared, task: TaskId, step: StepId, principal: &Principal) -> Result<TaskRecord, Failure> {
    Happening::Rollback.check(task, read_task(shared, task).await?.status)?;
    let own = children::waited_for(shared, task).await?.map(|(_, tasks)| tasks).unwrap_or_default();
    let message = format!("rolled back to step {} by {}", step.short(), principal.actor);
    let event = telling::by(EventKind::TaskRolledBack, task, &principal.actor, message, json!({"step": step}));
    let write = Write::Rollback { task, step, attempt: AttemptId::new(), events: vec![event] };
    let rolled_back = task_of(shared.write(write).await?)?;
    // Going back to where it is leaves it waiting for them.
    if children::waited_for(shared, task).await?.is_none() {
        give_up(shared, own, principal);
    }
    Ok(rolled_back)
}

/// Answers a question that a person is asked.
pub(crate) async fn answer(
    shared: &Shared,
    question: QuestionId,
    answer: String,
    principal: &Principal,
) -> Result<TaskRecord, Failure> {
    // One that is not there is refused by the write.
    if let Some(asked) = shared.read(|records| async move { records.read().question(question).await }).await? {
        children::check_asks_a_person(&asked)?;
        check_choice(&asked, &answer)?;
    }
    record_answer(shared, question, answer, principal).await
}

/// Refuses an answer in words that nobody would read.
fn check_choice(question: &Question, answer: &str) -> Result<(), Failure> {
    if question.subject.takes_words() || question.choices.iter().any(|choice| choice == answer) {
        return Ok(());
    }
    Err(Failure::new(Code::InvalidRequest, format!("{answer:?} is not among the choices"))
        .hint(format!("one of: {}", question.choices.join(", "))))
}

/// Records the answer to a question, whoever gives it.
pub(crate) async fn record_answer(
    shared: &Shared,
    question: QuestionId,
    answer: String,
    principal: &Principal,
) -> Result<TaskRecord, Failure> {
    let message = format!("answered by {}", principal.actor);
    let event =
        helix_protocol::NewEvent::info(EventKind::TaskResumed, &principal.actor, message).detail(json!({"question": question}));
    task_of(shared.write(Write::Answer { question, answer, events: vec![event] }).await?)
}

/// Records what a person says to a task, for the next step that begins.
pub(crate) async fn say(shared: &Shared, say: Say, principal: &Principal) -> Result<TaskRecord, Failure> {
    let Say { task, id, text } = say;
    let record = read_task(shared, task).await?;
    let kind = record.spec.work.kind();
    if !shared.kind(kind).is_some_and(|kind| kind.hears()) {
        return Err(Failure::new(Code::InvalidRequest, format!("task {} is of kind {kind:?}, which hears nobody", task.short()))
            .hint("only agents can be spoken to"));
    }
    if text.trim().is_empty() || text.len() > SAID_BYTES {
        return Err(Failure::new(Code::InvalidRequest, format!("what is said has 1 to {SAID_BYTES} bytes"))
            .hint("put longer texts into a file of the repository, or fork the task with another prompt"));
    }
    if record.status.is_final() {
        return Err(Failure::new(Code::InvalidState, format!("task {} is {}, and nobody listens", task.short(), record.status))
            .hint(format!("`helix task fork {} --prompt TEXT` goes on from its last step", task.short())));
    }
    let remark = Remark { id, task, text, actor: principal.actor.clone(), created_at: shared.now(), step: None };
    let events = vec![telling::said(&remark)];
    task_of(shared.write(Write::Say { remark: Box::new(remark), events }).await?)
}

/// Records that driving a task failed outside its steps: a retry, or its end.
pub(crate) async fn broken(shared: &Shared, task: TaskId, reason: &str) -> Result<TaskRecord, Failure> {
    let record = read_task(shared, task).await?;
    if record.status.is_final() || matches!(record.status, TaskStatus::Paused | TaskStatus::WaitingForInput) {
        return Ok(record);
    }
    let failure = Failure::new(Code::Internal, reason);
    if record.retries >= record.spec.allowed_retries() || !record.status.is_active() {
        return crate::failing::fail_unstarted(shared, &record, &failure).await;
    }
    let delay = shared.backoff.delay(record.retries, rand::random());
    let mut again = Happening::TryAgain.change(
        task,
        Some(record.epoch),
        format!("retry {} of {}: {reason}", record.retries + 1, record.spec.allowed_retries()),
    );
    again.retries = Some(record.retries + 1);
    again.not_before = Some(Some(shared.now().after(delay)));
    let what = format!("tried again in {}", delay_in_words(delay));
    let event = telling::step_failed(task, record.steps + 1, &failure, Next::Again(&what));
    task_of(shared.write(Write::Status { change: Box::new(again), events: vec![event] }).await?)
}

#[cfg(test)]
mod tests {
    use helix_protocol::AgentSpec;

    use super::*;

    #[test]
    fn an_agent_is_granted_more_steps_than_it_has_made_or_none() {
        let mut work = TaskWork::Agent(AgentSpec::new("mend it"));
        for (most, made, granted) in [(9, 8, true), (8, 8, false), (1, 0, true)] {
            assert_eq!(grant_steps(&mut work, most, made).is_ok(), granted, "{most} after {made}");
        }
        assert!(matches!(work, TaskWork::Agent(AgentSpec { max_steps: 1, .. })));
    }
}
