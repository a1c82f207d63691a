//! What can be done to tasks.

use std::future::Future;

use actix_web::http::StatusCode;
use actix_web::http::header::{IF_MATCH, LOCATION};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use helix_messages::{ExportGit, ForkTask, ResumeTask, RetryTask, Say};
use helix_protocol::{Code, Failure, RemarkId, StepId, TaskRecord};

use crate::api::{AnswerRequest, CheckpointRequest, ExportRequest, ForkRequest, RollbackRequest, SayRequest, default_branch};
use crate::body::{self, invalid};
use crate::peer::principal;
use crate::problem::Problem;
use crate::server::Node;
use crate::task_reads::tagged;
use crate::{HttpArgs, rebase, resolve};

type Id = web::Path<String>;

/// Finds the task, holds it against `If-Match`, and does something with it on the node's threads.
pub(crate) async fn with<T, F>(
    node: &Node,
    id: Id,
    request: &HttpRequest,
    act: impl FnOnce(HttpArgs, TaskRecord) -> F,
) -> Result<T, Problem>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let records = node.args.records.clone();
    let task = node.run(async move { resolve::task(&records, &id).await }).await?;
    unchanged(request, &task)?;
    Ok(node.run(act(node.args.clone(), task)).await?)
}

/// `If-Match` names the version the caller saw; another one means that somebody was faster.
fn unchanged(request: &HttpRequest, task: &TaskRecord) -> Result<(), Problem> {
    let Some(expected) = request.headers().get(IF_MATCH) else { return Ok(()) };
    let current = format!("\"{}\"", task.version);
    let expected = expected.to_str().unwrap_or_default();
    if expected == "*" || expected.split(',').any(|tag| tag.trim() == current) {
        return Ok(());
    }
    let failure =
        Failure::new(Code::InvalidState, format!("task {} is at version {}, not at {expected}", task.id.short(), task.version))
            .hint("read it again and decide anew");
    Err(Problem::with_status(failure, StatusCode::PRECONDITION_FAILED))
}

fn nothing_in(bytes: &[u8]) -> Result<(), Failure> {
    body::read::<serde_json::Map<String, serde_json::Value>>(bytes)
        .and_then(|fields| fields.keys().next().map_or(Ok(()), |field| Err(invalid(format!("there is no field {field}")))))
}

/// POST /tasks/{id}/cancel
pub(crate) async fn cancel(node: web::Data<Node>, id: Id, bytes: Bytes, request: HttpRequest) -> Result<HttpResponse, Problem> {
    nothing_in(&bytes)?;
    let who = principal(&request);
    Ok(tagged(&with(&node, id, &request, |args, task| async move { args.tasks.cancel(task.id, who).await }).await?))
}

/// POST /tasks/{id}/pause: answers when the task is parked.
pub(crate) async fn pause(node: web::Data<Node>, id: Id, bytes: Bytes, request: HttpRequest) -> Result<HttpResponse, Problem> {
    nothing_in(&bytes)?;
    let who = principal(&request);
    Ok(tagged(&with(&node, id, &request, |args, task| async move { args.tasks.pause(task.id, who).await }).await?))
}

/// POST /tasks/{id}/resume
pub(crate) async fn resume(node: web::Data<Node>, id: Id, bytes: Bytes, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (resume, who) = (body::read::<ResumeTask>(&bytes)?, principal(&request));
    Ok(tagged(&with(&node, id, &request, |args, task| async move { args.tasks.resume(task.id, resume, who).await }).await?))
}

/// POST /tasks/{id}/retry
pub(crate) async fn retry(node: web::Data<Node>, id: Id, bytes: Bytes, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (retry, who) = (body::read::<RetryTask>(&bytes)?, principal(&request));
    Ok(tagged(&with(&node, id, &request, |args, task| async move { args.tasks.retry(task.id, retry, who).await }).await?))
}

/// POST /tasks/{id}/checkpoint
pub(crate) async fn checkpoint(node: web::Data<Node>, id: Id, bytes: Bytes, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let CheckpointRequest { name, step } = body::read(&bytes)?;
    if name.trim().is_empty() || name.len() > 200 {
        let failure = invalid("a checkpoint's name has 1 to 200 characters".to_owned());
        return Err(failure.hint("name it by what the step reached, for example tests-pass").into());
    }
    let named = with(&node, id, &request, |args, task| async move {
        let step = optional_step(&args, &task, step).await?;
        let taken = |failure: Failure| match failure.code {
            Code::InvalidState if failure.hint.is_empty() => {
                failure.hint("choose another name, or see `helix task steps` for what is named already")
            }
            _ => failure,
        };
        args.tasks.checkpoint(task.id, step, name).await.map_err(taken)
    });
    Ok(HttpResponse::Ok().json(named.await?))
}

async fn optional_step(args: &HttpArgs, task: &TaskRecord, step: Option<String>) -> Result<Option<StepId>, Failure> {
    match step {
        Some(text) => resolve::step(&args.records, task, &text).await.map(Some),
        None => Ok(None),
    }
}

/// POST /tasks/{id}/rollback
pub(crate) async fn rollback(node: web::Data<Node>, id: Id, bytes: Bytes, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (RollbackRequest { step }, who) = (body::read(&bytes)?, principal(&request));
    let moved = with(&node, id, &request, |args, task| async move {
        let step = resolve::step(&args.records, &task, &step).await?;
        args.tasks.rollback(task.id, step, who).await
    });
    Ok(tagged(&moved.await?))
}

/// POST /tasks/{id}/fork
pub(crate) async fn fork(node: web::Data<Node>, id: Id, bytes: Bytes, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (ForkRequest { step, prompt, title, max_steps }, principal) = (body::read(&bytes)?, principal(&request));
    let forked = with(&node, id, &request, |args, task| async move {
        let step = match optional_step(&args, &task, step).await? {
            Some(step) => step,
            None => resolve::head(&task)?,
        };
        args.tasks.fork(ForkTask { step, prompt, title, max_steps, principal }).await
    });
    let task = forked.await?;
    Ok(HttpResponse::Created().insert_header((LOCATION, format!("/api/v1/tasks/{}", task.id))).json(task))
}

/// POST /tasks/{id}/export
pub(crate) async fn export(node: web::Data<Node>, id: Id, bytes: Bytes, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let asked: ExportRequest = body::read(&bytes)?;
    let exported = with(&node, id, &request, |args, task| async move {
        let head = match optional_step(&args, &task, asked.step).await? {
            Some(step) => step,
            None => resolve::head(&task)?,
        };
        let from = if task.head == Some(head) { task.clone() } else { rebase::maker(&args, head).await?.unwrap_or(task.clone()) };
        let carried = rebase::carried(&args, &from).await?;
        let origin = rebase::origin(&args, &from).await?;
        let repository = asked.repository.or(origin.repository).ok_or_else(|| {
            Failure::new(Code::InvalidRequest, format!("task {} was not made from a git repository", task.id.short()))
                .hint("name one with `repository` (`--repo` on the command line)")
        })?;
        let branch = asked.branch.unwrap_or_else(|| default_branch(&task));
        args.versions.export_git(ExportGit { repository, branch, head, parent: origin.git_commit, carried }).await
    });
    Ok(HttpResponse::Ok().json(exported.await?))
}

/// POST /tasks/{id}/say: the next step that begins hears it.
pub(crate) async fn say(node: web::Data<Node>, id: Id, bytes: Bytes, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (SayRequest { text, id: remark }, who) = (body::read(&bytes)?, principal(&request));
    let said = with(&node, id, &request, |args, task| async move {
        args.tasks.say(Say { task: task.id, id: remark.unwrap_or_else(RemarkId::new), text }, who).await
    });
    Ok(tagged(&said.await?))
}

/// POST /questions/{id}/answer
pub(crate) async fn answer(node: web::Data<Node>, id: Id, bytes: Bytes, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (AnswerRequest { answer }, who, args) = (body::read(&bytes)?, principal(&request), node.args.clone());
    let answered = node.run(async move {
        let question = resolve::question(&args.records, &id).await?;
        args.tasks.answer(question, answer, who).await
    });
    Ok(tagged(&answered.await?))
}
