//! The node's own state.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use helix_messages::{TaskFilter, WorkerView};
use helix_protocol::{Budget, Failure, OwnerId, Payer, ProjectId, Spent};

use crate::HttpArgs;
use crate::api::{Health, ProjectDay, ProviderList, SystemStatus};
use crate::problem::Problem;
use crate::server::Node;

/// GET /health: `ok` while the records answer, else their failure.
pub(crate) async fn health(node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    let records = node.args.records.clone();
    node.run(async move { Ok(records.read().now().await?) }).await?;
    Ok(HttpResponse::Ok().json(Health { status: "ok".to_owned() }))
}

/// GET /system/status
pub(crate) async fn status(node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    let args = node.args.clone();
    Ok(HttpResponse::Ok().json(node.run(async move { read_status(args).await }).await?))
}

async fn read_status(args: HttpArgs) -> Result<SystemStatus, Failure> {
    let workers = args.fleet.list().await?;
    let circuits = args.models.circuits().await?;
    let (recorded, records_failure) = match recorded(&args, &workers).await {
        Ok(recorded) => (recorded, None),
        Err(failure) => (Recorded::default(), Some(failure)),
    };
    let Recorded { tasks, held, today, project } = recorded;
    Ok(SystemStatus {
        node: args.info,
        tasks,
        workers,
        held,
        spent_today: today.money,
        tokens_today: today.tokens,
        daily: args.spending.limits().owner,
        project,
        circuits,
        records_failure,
    })
}

/// What of the status stands in the records.
#[derive(Default)]
struct Recorded {
    tasks: BTreeMap<String, u64>,
    held: BTreeMap<String, u64>,
    today: Spent,
    project: Option<ProjectDay>,
}

async fn recorded(args: &HttpArgs, workers: &[WorkerView]) -> Result<Recorded, Failure> {
    let records = args.records.read();
    let now = records.now().await?;
    let spent = async |payer| -> Result<Spent, Failure> {
        let (money, tokens) = records.spent_since(payer, now.day_start()).await?;
        Ok(Spent { money, tokens })
    };
    let today = spent(Payer::Owner(OwnerId::LOCAL)).await?;
    let project = match args.spending.limits().project {
        daily if daily == Budget::default() => None,
        daily => Some(ProjectDay { spent: spent(Payer::Project(ProjectId::DEFAULT)).await?, daily }),
    };
    let (mut tasks, mut held) = (BTreeMap::new(), BTreeMap::new());
    for task in records.tasks(TaskFilter::default()).await? {
        *tasks.entry(task.status.as_str().to_owned()).or_default() += 1;
        let holder = task.worker.filter(|_| task.status.is_active());
        if let Some(view) = holder.and_then(|id| workers.iter().find(|view| view.record.id == id)) {
            *held.entry(view.record.name.clone()).or_default() += 1;
        }
    }
    Ok(Recorded { tasks, held, today, project })
}

/// GET /system/tree
pub(crate) async fn tree(node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    let tree = node.args.tree.clone();
    Ok(HttpResponse::Ok().json(node.run(async move { tree.tree().await }).await?))
}

/// GET /models
pub(crate) async fn models(node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    let models = node.args.models.clone();
    let providers = node.run(async move { models.list().await }).await?;
    Ok(HttpResponse::Ok().json(ProviderList { providers }))
}
