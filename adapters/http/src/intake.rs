//! POST /tasks: a repository taken in, its project file applied, and one task for each attempt.

use std::collections::VecDeque;
use std::sync::Arc;

use actix_web::http::header::{ETAG, LOCATION};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use helix_messages::{CreateTask, Imported};
use helix_protocol::{
    AgentSpec, AttemptsSpec, Base, Code, Environment, ExternalSpec, Failure, ModelRequest, Principal, ProjectId, SecretRef,
    TaskSpec, TaskWork,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::api::{CreateTaskRequest, CreatedTasks, default_title};
use crate::body::{self, invalid};
use crate::peer::principal;
use crate::problem::Problem;
use crate::server::Node;
use crate::{HttpArgs, api};

/// Longest idempotency key.
const LONGEST_KEY: usize = 255;

/// Makes tasks. With an `Idempotency-Key` a repetition of the same request is answered as the first was.
pub(crate) async fn create(node: web::Data<Node>, bytes: Bytes, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let key = idempotency_key(&request)?;
    if let Some(created) = key.as_deref().map(|key| node.recent.answer(key, &bytes)).transpose()?.flatten() {
        return Ok(answer(&created));
    }
    let asked = read(&bytes)?;
    let (args, principal, made_key) = (node.args.clone(), principal(&request), key.clone());
    let created = Arc::new(node.run(async move { make(&args, asked, principal, made_key).await }).await?);
    if let Some(key) = key {
        node.recent.keep(key, bytes, Arc::clone(&created));
    }
    Ok(answer(&created))
}

fn answer(created: &CreatedTasks) -> HttpResponse {
    let mut response = HttpResponse::Created();
    if let Some(first) = created.tasks.first() {
        response.insert_header((LOCATION, format!("/api/v1/tasks/{}", first.id)));
        response.insert_header((ETAG, format!("\"{}\"", first.version)));
    }
    response.json(created)
}

fn idempotency_key(request: &HttpRequest) -> Result<Option<String>, Failure> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= LONGEST_KEY => Ok(Some(key.to_owned())),
        _ => Err(invalid(format!("the Idempotency-Key must have 1 to {LONGEST_KEY} visible ASCII characters"))),
    }
}

/// Reads the body; a spec may leave out its title and its base.
fn read(bytes: &[u8]) -> Result<CreateTaskRequest, Failure> {
    let mut value = body::value(bytes)?;
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        spec.entry("title").or_insert_with(|| json!(""));
        spec.entry("base").or_insert_with(|| json!({ "from": "empty" }));
    }
    let mut asked: CreateTaskRequest = body::from_value(value)?;
    if asked.attempts == 0 || asked.attempts > AttemptsSpec::MOST {
        return Err(invalid(format!("attempts is {}", asked.attempts)).hint(format!("from 1 to {}", AttemptsSpec::MOST)));
    }
    if asked.import.is_some() && asked.spec.base != Base::Empty {
        return Err(invalid("import and spec.base both say where the files come from".to_owned()).hint("leave one of them out"));
    }
    if let TaskWork::Agent(AgentSpec { prompt, .. }) | TaskWork::External(ExternalSpec { prompt, .. }) = &asked.spec.work
        && prompt.trim().is_empty()
    {
        return Err(invalid("spec.work.prompt is empty".to_owned()).hint("say what the agent shall do"));
    }
    if asked.spec.title.trim().is_empty() {
        asked.spec.title = default_title(&asked.spec.work);
    }
    Ok(asked)
}

async fn make(
    args: &HttpArgs,
    asked: CreateTaskRequest,
    principal: Principal,
    key: Option<String>,
) -> Result<CreatedTasks, Failure> {
    let CreateTaskRequest { mut spec, import, attempts, secrets } = asked;
    if let TaskWork::Agent(agent) = &spec.work {
        // Who has not named a model or set a key yet is told at once, and has no failed task to look into.
        let turn = ModelRequest { provider: agent.provider.clone(), model: agent.model.clone(), ..ModelRequest::default() };
        args.models.quote(turn).await?;
    }
    let imported = match import {
        Some(import) => Some(args.versions.import_git(import).await?),
        None => None,
    };
    let project = imported.as_ref().map(|imported| imported.environment.secrets.as_slice()).unwrap_or_default();
    Grants { sources: &args.secrets, variables: &secrets, own: &spec.environment.secrets }.hold(project)?;
    if let Some(imported) = &imported {
        apply(&mut spec, imported);
    }
    if attempts > 1 {
        spec.work = TaskWork::Attempts(AttemptsSpec { count: attempts, work: Box::new(spec.work) });
    }
    let create = CreateTask { spec, principal, project: ProjectId::DEFAULT, idempotency_key: key };
    Ok(CreatedTasks { tasks: vec![args.tasks.create(create).await?], imported })
}

/// Which secrets of a project file a task may have. A repository names variables and sources; whoever runs the node, or asks for
/// the task, grants them, or it could take any file of theirs into its commands.
struct Grants<'a> {
    /// Sources that the node's configuration allows.
    sources: &'a [String],
    /// Variables that the request allows.
    variables: &'a [String],
    /// The request's own, which stand in for the project's of the same variable.
    own: &'a [SecretRef],
}

impl Grants<'_> {
    /// Refuses what is not granted, and a grant of what nobody names.
    fn hold(&self, project: &[SecretRef]) -> Result<(), Failure> {
        let has = |secret: &SecretRef| {
            self.sources.contains(&secret.source)
                || self.variables.contains(&secret.variable)
                || self.own.iter().any(|own| own.variable == secret.variable)
        };
        let refused: Vec<&SecretRef> = project.iter().filter(|secret| !has(secret)).collect();
        if !refused.is_empty() {
            let list = |of: fn(&SecretRef) -> String, between: &str| {
                refused.iter().map(|secret| of(secret)).collect::<Vec<_>>().join(between)
            };
            let message = format!("helix.project.yaml asks for secrets that nobody allowed: {}", list(SecretRef::to_string, ", "));
            return Err(Failure::new(Code::InvalidRequest, message).hint(format!(
                "allow them for this task with {} (`secrets` of a request), or for every task with `tasks: {{ secrets: [{}] }}` \
                 in the node's helix.yaml",
                list(|secret| format!("--secret {}", secret.variable), " "),
                list(|secret| format!("{:?}", secret.source), ", "),
            )));
        }
        match self.variables.iter().find(|variable| project.iter().all(|secret| secret.variable != **variable)) {
            None => Ok(()),
            Some(variable) => Err(invalid(format!("the repository's helix.project.yaml names no secret {variable}"))
                .hint("name what stands there under `secrets` as `variable`, or leave it out")),
        }
    }
}

/// The snapshot becomes the base; the project file fills what the spec left open.
fn apply(spec: &mut TaskSpec, imported: &Imported) {
    spec.base = Base::Snapshot {
        snapshot: imported.snapshot,
        git_commit: imported.git_commit.clone(),
        repository: Some(imported.repository.display().to_string()),
    };
    let asked = std::mem::replace(&mut spec.environment, imported.environment.clone());
    overlay(&mut spec.environment, asked);
    if let TaskWork::Agent(AgentSpec { verify, .. }) | TaskWork::External(ExternalSpec { verify, .. }) = &mut spec.work
        && verify.is_none()
    {
        verify.clone_from(&imported.verify);
    }
}

/// What a request names wins over the project file; variables and secrets are added to it.
fn overlay(project: &mut Environment, asked: Environment) {
    let nothing = Environment::default();
    project.variables.extend(asked.variables);
    project.secrets.retain(|secret| asked.secrets.iter().all(|other| other.variable != secret.variable));
    project.secrets.extend(asked.secrets);
    if asked.setup.is_some() {
        project.setup = asked.setup;
        project.lockfiles = asked.lockfiles;
    }
    if !asked.caches.is_empty() {
        project.caches = asked.caches;
    }
    if asked.ports != nothing.ports {
        project.ports = asked.ports;
    }
    if asked.isolation.is_some() {
        (project.isolation, project.at_most.isolation) = (asked.isolation, None);
    }
    if asked.network.is_some() {
        (project.network, project.at_most.network) = (asked.network, None);
    }
    project.writable = asked.writable;
}

/// Answers given lately, by idempotency key. Taking a repository in makes another snapshot each time, so the records
/// alone would call an honest repetition a conflict. Lost with the server: a repetition after that may be refused, and is
/// never carried out twice.
#[derive(Default)]
pub(crate) struct Recent {
    given: Mutex<VecDeque<(String, Bytes, Arc<api::CreatedTasks>)>>,
}

impl Recent {
    /// How many answers are kept.
    const KEPT: usize = 256;

    fn answer(&self, key: &str, bytes: &Bytes) -> Result<Option<Arc<CreatedTasks>>, Failure> {
        match self.given.lock().iter().find(|(known, ..)| known == key) {
            None => Ok(None),
            Some((_, body, created)) if body == bytes => Ok(Some(Arc::clone(created))),
            Some(_) => Err(Failure::new(
                Code::IdempotencyConflict,
                format!("the idempotency key {key:?} was used before with another request"),
            )
            .hint("use a new key")),
        }
    }

    fn keep(&self, key: String, bytes: Bytes, created: Arc<CreatedTasks>) {
        let mut given = self.given.lock();
        if given.len() == Self::KEPT {
            given.pop_front();
        }
        given.push_back((key, bytes, created));
    }
}
