//! What is known of tasks.

use actix_web::http::header::ETAG;
use actix_web::{HttpResponse, web};
use helix_messages::{DiffTrees, LineToExport, TaskFilter, held};
use helix_protocol::link::{Request, Response};
use helix_protocol::{
    Base, Block, Code, ExitReport, Failure, Message, NewStep, ObjectId, Role, RunId, Spent, TaskRecord, TaskStatus,
};
use serde::Deserialize;

use crate::api::{
    CheckpointList, LogAnswer, LogCall, LogPage, LogRun, LogStep, QuestionList, RemarkList, RunOutput, StepList, TaskBudget,
    TaskList,
};
use crate::body::invalid;
use crate::problem::Problem;
use crate::rebase::Origin;
use crate::running::Running;
use crate::server::Node;
use crate::{HttpArgs, rebase, resolve};

/// How many steps a page of the log has.
const LOG_PAGE: usize = 50;
/// How much of a tool's answer is given where not the whole of it is asked for, in bytes.
const ANSWER_END: usize = 4 * 1024;
/// Most bytes of one command's output that are given whole.
const WHOLE_OUTPUT: u64 = 8 * 1024 * 1024;
/// Most bytes of what one step said.
const LONGEST_TALK: u64 = 64 * 1024 * 1024;
/// How long a read of a running command's output waits for more, in milliseconds.
const OUTPUT_WAIT_MS: u64 = 1_000;

type Id = web::Path<String>;

/// A task under its version.
pub(crate) fn tagged(task: &TaskRecord) -> HttpResponse {
    HttpResponse::Ok().insert_header((ETAG, format!("\"{}\"", task.version))).json(task)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    status: Option<String>,
    limit: Option<u32>,
}

/// GET /tasks?status=running,pending&limit=20
pub(crate) async fn list(node: web::Data<Node>, query: web::Query<ListQuery>) -> Result<HttpResponse, Problem> {
    let mut status = Vec::new();
    for word in query.status.iter().flat_map(|words| words.split(',')).filter(|word| !word.is_empty()) {
        let parsed = serde_json::from_value::<TaskStatus>(word.into());
        status.push(parsed.map_err(|_| {
            let states = "pending, waiting_for_dependencies, assigned, running, paused, waiting_for_input, waiting_for_worker, \
                          completed, failed or cancelled";
            invalid(format!("{word:?} is not a state of a task")).hint(format!("one or several of {states}"))
        })?);
    }
    let (records, filter) = (node.args.records.clone(), TaskFilter { status, limit: query.limit });
    let tasks = node.run(async move { Ok(records.read().tasks(filter).await?) }).await?;
    Ok(HttpResponse::Ok().json(TaskList { tasks }))
}

/// GET /tasks/{id}
pub(crate) async fn show(node: web::Data<Node>, id: Id) -> Result<HttpResponse, Problem> {
    let records = node.args.records.clone();
    let task = node.run(async move { resolve::task(&records, &id).await }).await?;
    Ok(tagged(&task))
}

/// GET /tasks/{id}/why
pub(crate) async fn why(node: web::Data<Node>, id: Id) -> Result<HttpResponse, Problem> {
    let args = node.args.clone();
    let why = node.run(async move { args.tasks.why(resolve::task(&args.records, &id).await?.id).await }).await?;
    Ok(HttpResponse::Ok().json(why))
}

/// GET /tasks/{id}/replay: the recorded conversation played again; no model is asked.
pub(crate) async fn replay(node: web::Data<Node>, id: Id) -> Result<HttpResponse, Problem> {
    let args = node.args.clone();
    let replayed = node.run(async move { args.tasks.replay(resolve::task(&args.records, &id).await?.id).await }).await?;
    Ok(HttpResponse::Ok().json(replayed))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepsQuery {
    #[serde(default)]
    all: bool,
}

/// GET /tasks/{id}/steps: the line to the head, or with `?all=true` every step, rolled back ones included.
pub(crate) async fn steps(node: web::Data<Node>, id: Id, query: web::Query<StepsQuery>) -> Result<HttpResponse, Problem> {
    let (records, all) = (node.args.records.clone(), query.all);
    let steps = node
        .run(async move {
            let task = resolve::task(&records, &id).await?;
            Ok(match task.head {
                _ if all => records.read().steps(task.id).await?,
                Some(head) => records.read().lineage(head).await?,
                None => Vec::new(),
            })
        })
        .await?;
    Ok(HttpResponse::Ok().json(StepList { steps }))
}

/// GET /tasks/{id}/budget
pub(crate) async fn budget(node: web::Data<Node>, id: Id) -> Result<HttpResponse, Problem> {
    let records = node.args.records.clone();
    let read = async move {
        let task = resolve::task(&records, &id).await?;
        let below = records.read().descendants(task.id).await?;
        let spent = Spent { money: task.spent, tokens: task.tokens };
        Ok(TaskBudget { budget: task.spec.budget, spent, held: held(task.id, &below) })
    };
    Ok(HttpResponse::Ok().json(node.run(read).await?))
}

/// GET /tasks/{id}/checkpoints
pub(crate) async fn checkpoints(node: web::Data<Node>, id: Id) -> Result<HttpResponse, Problem> {
    let records = node.args.records.clone();
    let read = async move { Ok(records.read().checkpoints(resolve::task(&records, &id).await?.id).await?) };
    Ok(HttpResponse::Ok().json(CheckpointList { checkpoints: node.run(read).await? }))
}

/// GET /tasks/{id}/questions
pub(crate) async fn questions(node: web::Data<Node>, id: Id) -> Result<HttpResponse, Problem> {
    let records = node.args.records.clone();
    let read = async move { Ok(records.read().questions(resolve::task(&records, &id).await?.id).await?) };
    Ok(HttpResponse::Ok().json(QuestionList { questions: node.run(read).await? }))
}

/// GET /tasks/{id}/remarks
pub(crate) async fn remarks(node: web::Data<Node>, id: Id) -> Result<HttpResponse, Problem> {
    let records = node.args.records.clone();
    let read = async move { Ok(records.read().remarks(resolve::task(&records, &id).await?.id).await?) };
    Ok(HttpResponse::Ok().json(RemarkList { remarks: node.run(read).await? }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiffQuery {
    from: Option<String>,
    to: Option<String>,
    #[serde(default)]
    all: bool,
}

/// GET /tasks/{id}/diff?from=&to=&all=: what git ignores is marked, and has patches only where `all` asks for them. Steps by
/// number, id or checkpoint. From what the task began with to its head where nothing is said; `from=base` says it.
pub(crate) async fn diff(node: web::Data<Node>, id: Id, query: web::Query<DiffQuery>) -> Result<HttpResponse, Problem> {
    let (args, query) = (node.args.clone(), query.into_inner());
    let files = node
        .run(async move {
            let task = resolve::task(&args.records, &id).await?;
            let to = tree(&args, &task, query.to.as_deref().unwrap_or("head")).await?;
            let from = match query.from.as_deref() {
                None | Some("base") => base(&args, &task).await?,
                Some(step) => Some(tree(&args, &task, step).await?),
            };
            let export = line(&args, &task, query.to.as_deref()).await?;
            args.versions.diff(DiffTrees { from, to, export, all: query.all }).await
        })
        .await?;
    Ok(HttpResponse::Ok().json(files))
}

/// What an export of the task up to that step would be made of.
async fn line(args: &HttpArgs, task: &TaskRecord, to: Option<&str>) -> Result<LineToExport, Failure> {
    let head = resolve::step(&args.records, task, to.unwrap_or("head")).await?;
    let carried = rebase::carried(args, task).await?;
    let Origin { repository, git_commit, .. } = rebase::origin(args, task).await?;
    Ok(LineToExport { repository, parent: git_commit, head: Some(head), carried })
}

async fn tree(args: &HttpArgs, task: &TaskRecord, step: &str) -> Result<ObjectId, Failure> {
    rebase::files(args, task, resolve::step(&args.records, task, step).await?).await
}

/// What the task's first step was made on. A snapshot's id stands for its tree.
async fn base(args: &HttpArgs, task: &TaskRecord) -> Result<Option<ObjectId>, Failure> {
    let head = match (&task.spec.fork_of, &task.spec.base) {
        (Some(step), _) if task.spec.fork_files.is_none() => Some(*step),
        (_, Base::Empty) => return Ok(None),
        (_, Base::Snapshot { snapshot, .. }) => return Ok(Some(snapshot.0)),
        (_, Base::Task { task }) => args.records.read().task(*task).await?.and_then(|task| task.head),
    };
    match head {
        Some(step) => Ok(args.records.read().step(step).await?.map(|record| record.step.tree)),
        None => Ok(None),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    whole: bool,
    run: Option<RunId>,
    #[serde(default)]
    offset: u64,
}

/// GET /tasks/{id}/log?after=&whole=: what committed steps said and wrote. With `?run=&offset=`: what a running command
/// wrote so far, asked of its worker.
pub(crate) async fn log(node: web::Data<Node>, id: Id, query: web::Query<LogQuery>) -> Result<HttpResponse, Problem> {
    let (args, query) = (node.args.clone(), query.into_inner());
    match query.run {
        Some(run) => {
            let output = node.run(async move { running(&args, &id, run, query.offset).await }).await?;
            Ok(HttpResponse::Ok().json(output))
        }
        None => {
            let running = node.running.clone();
            let page = node.run(async move { committed(&args, &running, &id, query.after, query.whole).await }).await?;
            Ok(HttpResponse::Ok().json(page))
        }
    }
}

async fn committed(args: &HttpArgs, running: &Running, id: &str, after: u64, whole: bool) -> Result<LogPage, Failure> {
    // Asked before the records: what ended in between is among the steps, not lost.
    let found = resolve::task(&args.records, id).await?.id;
    let running = running.of(found);
    let task = resolve::task(&args.records, &found.to_string()).await?;
    let line = match task.head {
        Some(head) => args.records.read().lineage(head).await?,
        None => Vec::new(),
    };
    // The step before is looked at, too: its calls may have waited for an answer, and are made here.
    let mut wanted = line.iter().filter(|step| step.ordinal >= after);
    let mut page = LogPage { steps: Vec::new(), last: after, more: false, running };
    let mut open = Vec::new();
    for summary in wanted.by_ref().take(LOG_PAGE) {
        let Some(mut record) = args.records.read().step(summary.id).await? else { continue };
        let messages = messages(args, &mut record.step).await?;
        let of_the_model = || messages.iter().filter(|message| message.role == Role::Assistant);
        let said = of_the_model().map(Message::as_text).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n");
        let thought = of_the_model().flat_map(|message| &message.blocks).filter_map(|block| match block {
            Block::Thinking { text, .. } if !text.is_empty() => Some(text.as_str()),
            _ => None,
        });
        let thought = thought.collect::<Vec<_>>().join("\n");
        let calls = calls(&messages, &mut open, whole);
        if summary.ordinal <= after {
            continue;
        }
        let mut runs = Vec::new();
        for exit in std::mem::take(&mut record.step.exits) {
            runs.push(log_run(args, exit, whole).await?);
        }
        let (step, ordinal, sandbox) = (summary.id, summary.ordinal, record.step.confinement);
        let NewStep { summary, skipped, torn, artifacts, .. } = record.step;
        page.steps.push(LogStep { step, ordinal, summary, said, thought, calls, runs, skipped, torn, artifacts, sandbox });
        page.last = ordinal;
    }
    page.more = wanted.next().is_some();
    Ok(page)
}

/// The calls that a step asked for or answered. `open` has those of earlier steps that nothing answered yet, with their ids.
fn calls(messages: &[Message], open: &mut Vec<(String, LogCall)>, whole: bool) -> Vec<LogCall> {
    let mut calls = Vec::new();
    for block in messages.iter().flat_map(|message| &message.blocks) {
        match block {
            Block::ToolUse { id, name, input, .. } => {
                open.push((id.clone(), LogCall { name: name.clone(), input: input.clone(), answer: None }));
            }
            Block::ToolResult { id, content, is_error, .. } => {
                let Some(at) = open.iter().position(|(call, _)| call == id) else { continue };
                let (_, call) = open.remove(at);
                let from = if whole { 0 } else { content.floor_char_boundary(content.len().saturating_sub(ANSWER_END)) };
                let answer = LogAnswer { text: content[from..].to_owned(), bytes: content.len() as u64, is_error: *is_error };
                calls.push(LogCall { answer: Some(answer), ..call });
            }
            _ => {}
        }
    }
    calls.extend(open.iter().map(|(_, call)| call.clone()));
    calls
}

/// What a step said, wherever it is kept.
async fn messages(args: &HttpArgs, step: &mut NewStep) -> Result<Vec<Message>, Failure> {
    let Some(object) = step.long_messages else { return Ok(std::mem::take(&mut step.messages)) };
    let text = args.versions.read_object(object, LONGEST_TALK).await?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::new(Code::CorruptObject, format!("object {object} is not what a step said: {error}")))
}

async fn log_run(args: &HttpArgs, exit: ExitReport, whole: bool) -> Result<LogRun, Failure> {
    let ExitReport { run, command, exit_code, tail, output: object, output_bytes } = exit;
    let (output, cut) = match object {
        Some(object) if whole && output_bytes <= WHOLE_OUTPUT => {
            (String::from_utf8_lossy(&args.versions.read_object(object, WHOLE_OUTPUT).await?).into_owned(), false)
        }
        Some(_) => (tail, true),
        None => (tail, false),
    };
    Ok(LogRun { run, command, exit_code, output, output_bytes, cut, object })
}

async fn running(args: &HttpArgs, id: &str, run: RunId, offset: u64) -> Result<RunOutput, Failure> {
    let task = resolve::task(&args.records, id).await?;
    let Some(worker) = task.worker else {
        return Err(Failure::new(Code::InvalidState, format!("task {} runs on no worker at present", task.id.short()))
            .hint("its committed steps are in the log without `run`"));
    };
    let limit = u32::try_from(helix_protocol::link::MAX_CHUNK).unwrap_or(u32::MAX);
    let request = Request::ReadOutput { run, offset, limit, wait_ms: OUTPUT_WAIT_MS };
    let wait = std::time::Duration::from_millis(OUTPUT_WAIT_MS + 10_000);
    match args.fleet.request(worker, request, Some(wait)).await? {
        Response::Output { data, ended } => {
            let whole = if ended { data.len() } else { whole_characters(&data) };
            let (data, next) = (&data[..whole], offset + whole as u64);
            Ok(RunOutput { text: String::from_utf8_lossy(data).into_owned(), next, ended })
        }
        other => Err(Failure::new(Code::ProtocolError, format!("the worker answered a read of output with {other:?}"))),
    }
}

/// How many bytes of `data` end with a whole character: the beginning of another one at the end is left for the next page.
fn whole_characters(data: &[u8]) -> usize {
    let last = data.utf8_chunks().last();
    let cut = last.map_or(0, |chunk| chunk.invalid().len());
    // A longer rest, or one that no byte can complete, is no text at all.
    let begun = std::str::from_utf8(&data[data.len() - cut..]).is_err_and(|error| error.error_len().is_none());
    if begun && cut < data.len() { data.len() - cut } else { data.len() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_of_output_ends_with_a_whole_character() {
        assert_eq!(
            ["ab".as_bytes(), "aé".as_bytes(), b"a\xc3", b"a\xe2\x82", b"a\xff", b"\xc3", b""].map(whole_characters),
            [2, 3, 1, 1, 2, 1, 0]
        );
    }

    #[test]
    fn a_call_that_waited_is_shown_with_its_answer_in_the_step_that_made_it() {
        let said = |role: Role, blocks: Vec<Block>| Message { role, blocks };
        let call = |id: &str| Block::ToolUse { id: id.into(), name: "shell".into(), input: json!({"command": id}), extra: None };
        let answer = |id: &str, content: &str| Block::ToolResult {
            id: id.into(),
            content: content.into(),
            images: Vec::new(),
            is_error: false,
            extra: None,
        };
        let mut open = Vec::new();
        let asks = calls(
            &[said(Role::Assistant, vec![call("a"), call("b")]), said(Role::User, vec![answer("a", "done")])],
            &mut open,
            false,
        );
        let shown = |calls: &[LogCall]| -> Vec<(String, Option<String>)> {
            let text = |call: &LogCall| call.answer.as_ref().map(|answer| answer.text.clone());
            calls.iter().map(|call| (call.input["command"].as_str().unwrap_or_default().to_owned(), text(call))).collect()
        };
        assert_eq!(shown(&asks), [("a".to_owned(), Some("done".to_owned())), ("b".to_owned(), None)]);
        let long = "ä".repeat(ANSWER_END);
        let made = calls(&[said(Role::User, vec![answer("b", &long), answer("unknown", "x")])], &mut open, false);
        assert_eq!(shown(&made), [("b".to_owned(), Some("ä".repeat(ANSWER_END / 2)))]);
        assert_eq!((made[0].answer.as_ref().map(|answer| answer.bytes), open), (Some(long.len() as u64), Vec::new()));
    }
}
