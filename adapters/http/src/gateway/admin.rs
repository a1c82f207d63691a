//! Keys and the ledger, over the node's own API.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use helix_messages::LedgerFilter;
use helix_protocol::{Failure, GatewayKey, KeyId, ProjectId, Spent, TaskWork, Timestamp};
use serde::Deserialize;

use super::Gateway;
use crate::api::{CreateKeyRequest, CreatedKey, KeyList, KeyView, Ledger};
use crate::body::{self, invalid};
use crate::peer;
use crate::problem::Problem;

/// Calls of one page of the ledger where the query does not say.
const PAGE: u32 = 100;

/// Everything under `/api/v1` that is about the gateway.
pub(crate) fn configure(scope: &mut web::ServiceConfig) {
    scope
        .service(web::resource("/keys").get(list).post(create))
        .route("/keys/{id}", web::delete().to(revoke))
        .route("/llm/ledger", web::get().to(ledger))
        .route("/llm/models", web::get().to(models));
}

/// POST /keys. The key itself is told here and never again.
async fn create(gateway: web::Data<Gateway>, request: HttpRequest, bytes: Bytes) -> Result<HttpResponse, Problem> {
    let asked: CreateKeyRequest = body::read(&bytes)?;
    if asked.name.trim().is_empty() {
        return Err(invalid("`name` is missing".to_owned()).hint("say what the key is for").into());
    }
    if let Some(task) = asked.task {
        let records = gateway.records.clone();
        let found = gateway.run(async move { Ok(records.read().task(task).await?) }).await?;
        if found.is_some_and(|task| matches!(task.spec.work, TaskWork::External(_))) {
            let message = "this task's agent gets a key with each of its turns, and what those spend is the task's".to_owned();
            return Err(invalid(message).hint("make one that is for no task").into());
        }
    }
    let (secret, hash) = helix_messages::new_key_secret();
    let now = Timestamp::now();
    let key = GatewayKey {
        id: KeyId::new(),
        name: asked.name,
        hash,
        owner: peer::principal(&request).owner,
        project: ProjectId::DEFAULT,
        task: asked.task,
        step: None,
        models: asked.models,
        budget: asked.budget,
        daily: asked.daily,
        requests_per_minute: asked.requests_per_minute,
        created_at: now,
        expires_at: asked.valid_ms.map(|valid| now.after(Duration::from_millis(valid))),
        revoked_at: None,
    };
    let (records, made) = (gateway.records.clone(), key.clone());
    gateway.run(async move { records.write(helix_messages::Write::CreateKey(Box::new(made))).await }).await?;
    Ok(HttpResponse::Created().json(CreatedKey { secret, key: KeyView::new(key, Spent::default()) }))
}

/// GET /keys
async fn list(gateway: web::Data<Gateway>) -> Result<HttpResponse, Problem> {
    let records = gateway.records.clone();
    let read = async move {
        let mut keys = Vec::new();
        for key in records.read().gateway_keys().await? {
            let spent = records.read().ledger_spent(LedgerFilter { key: Some(key.id), ..LedgerFilter::default() }).await?;
            keys.push(KeyView::new(key, spent));
        }
        Ok(KeyList { keys })
    };
    Ok(HttpResponse::Ok().json(gateway.run(read).await?))
}

/// DELETE /keys/{id}: refused from now on.
async fn revoke(gateway: web::Data<Gateway>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let id: KeyId = id.parse().map_err(|_| invalid(format!("{:?} is not the id of a key", id.as_str())))?;
    let records = gateway.records.clone();
    gateway.run(async move { records.write(helix_messages::Write::RevokeKey(id)).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// What is looked for in the ledger.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerQuery {
    task: Option<helix_protocol::TaskId>,
    key: Option<KeyId>,
    /// In microseconds since 1970.
    since: Option<i64>,
    limit: Option<u32>,
}

/// GET /llm/ledger
async fn ledger(gateway: web::Data<Gateway>, query: web::Query<LedgerQuery>) -> Result<HttpResponse, Problem> {
    let LedgerQuery { task, key, since, limit } = query.into_inner();
    let filter = LedgerFilter { task, key, since: Timestamp(since.unwrap_or(0)), limit: limit.unwrap_or(PAGE).min(1_000) };
    let records = gateway.records.clone();
    let read = async move {
        let calls = records.read().ledger(filter).await.map_err(Failure::from)?;
        let spent = records.read().ledger_spent(filter).await.map_err(Failure::from)?;
        Ok(Ledger { calls, spent })
    };
    Ok(HttpResponse::Ok().json(gateway.run(read).await?))
}

/// GET /llm/models: the names that a request may give.
async fn models(gateway: web::Data<Gateway>) -> Result<HttpResponse, Problem> {
    let models = gateway.models.clone();
    let names = gateway.run(async move { models.offered().await }).await?;
    Ok(HttpResponse::Ok().json(crate::api::ModelNames { models: names }))
}
