//! Files that a task keeps as artifacts.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use helix_protocol::{Code, Failure, ObjectId, StepSummary};

use crate::api::{Artifact, ArtifactList};
use crate::problem::Problem;
use crate::server::Node;
use crate::{HttpArgs, resolve};

/// GET /tasks/{id}/artifacts
pub(crate) async fn list(node: web::Data<Node>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let args = node.args.clone();
    let artifacts = node.run(async move { kept(&args, &id).await }).await?;
    Ok(HttpResponse::Ok().json(ArtifactList { artifacts }))
}

/// GET /tasks/{id}/artifacts/{object}: the bytes of one of them.
pub(crate) async fn content(node: web::Data<Node>, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (args, (id, object)) = (node.args.clone(), path.into_inner());
    let bytes = node
        .run(async move {
            let missing = || {
                Failure::new(Code::NotFound, format!("no artifact of task {id} has the content {object}"))
                    .hint(format!("`helix task artifacts {id}` lists them"))
            };
            let wanted: ObjectId = object.parse().map_err(|_| missing())?;
            let known = kept(&args, &id).await?;
            let artifact = known.iter().find(|artifact| artifact.object == wanted).ok_or_else(missing)?;
            // It was carried, so it is no larger than files may be.
            args.versions.read_object(artifact.object, artifact.size).await
        })
        .await?;
    Ok(HttpResponse::Ok().content_type("application/octet-stream").body(bytes))
}

async fn kept(args: &HttpArgs, id: &str) -> Result<Vec<Artifact>, Failure> {
    let task = resolve::task(&args.records, id).await?;
    let line = match task.head {
        Some(head) => args.records.read().lineage(head).await?,
        None => Vec::new(),
    };
    let mut by_path: BTreeMap<String, Artifact> = BTreeMap::new();
    for StepSummary { id: step, ordinal, tree, artifacts, .. } in line {
        if artifacts.is_empty() {
            continue;
        }
        for found in args.versions.find_files(tree, artifacts).await? {
            let (mode, size, object) = (found.mode, found.size, found.object);
            by_path.insert(found.path.clone(), Artifact { path: found.path, step, ordinal, mode, size, object });
        }
    }
    Ok(by_path.into_values().collect())
}
