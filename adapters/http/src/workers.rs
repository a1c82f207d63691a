//! The fleet's routes.

use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use helix_messages::AddWorker;
use helix_protocol::{Code, Failure, Lifecycle};
use serde::Deserialize;

use crate::api::WorkerList;
use crate::problem::Problem;
use crate::server::Node;
use crate::{body, resolve};

/// GET /workers
pub(crate) async fn list(node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    let fleet = node.args.fleet.clone();
    let workers = node.run(async move { fleet.list().await }).await?;
    Ok(HttpResponse::Ok().json(WorkerList { workers }))
}

/// POST /workers: answers when the worker is ready.
pub(crate) async fn add(node: web::Data<Node>, bytes: Bytes) -> Result<HttpResponse, Problem> {
    let (asked, fleet) = (body::read::<AddWorker>(&bytes)?, node.args.fleet.clone());
    let view = node.run(async move { fleet.add(asked).await }).await?;
    Ok(HttpResponse::Created().insert_header((LOCATION, format!("/api/v1/workers/{}", view.record.id))).json(view))
}

/// GET /workers/{id}
pub(crate) async fn show(node: web::Data<Node>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let fleet = node.args.fleet.clone();
    let view = node.run(async move { resolve::worker(fleet.list().await?, &id) }).await?;
    Ok(HttpResponse::Ok().json(view))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveQuery {
    #[serde(default)]
    force: bool,
}

/// DELETE /workers/{id}?force=
pub(crate) async fn remove(
    node: web::Data<Node>,
    id: web::Path<String>,
    query: web::Query<RemoveQuery>,
) -> Result<HttpResponse, Problem> {
    let (fleet, force) = (node.args.fleet.clone(), query.force);
    let removed = node.run(async move {
        let worker = resolve::worker(fleet.list().await?, &id)?.record.id;
        fleet.remove(worker, force).await
    });
    removed.await?;
    Ok(HttpResponse::NoContent().finish())
}

/// POST /workers/{id}/{cordon,drain,uncordon}
pub(crate) async fn set_lifecycle(node: web::Data<Node>, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (id, word) = path.into_inner();
    let lifecycle = match word.as_str() {
        "cordon" => Lifecycle::Cordoned,
        "drain" => Lifecycle::Draining,
        "uncordon" => Lifecycle::Open,
        other => return Err(Failure::new(Code::NotFound, format!("a worker cannot be told to {other}")).into()),
    };
    let fleet = node.args.fleet.clone();
    let changed = node.run(async move {
        let worker = resolve::worker(fleet.list().await?, &id)?.record.id;
        fleet.set_lifecycle(worker, lifecycle).await
    });
    Ok(HttpResponse::Ok().json(changed.await?))
}
