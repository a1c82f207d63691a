//! Every route on one page.

use actix_web::error::{PathError, QueryPayloadError};
use actix_web::{HttpRequest, HttpResponse, web};

use crate::body::invalid;
use crate::gateway::Gateway;
use crate::problem::{Problem, no_route};
use crate::{artifacts, attempts, events, gateway, intake, rebase, system, task_actions, task_reads, workers};

pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.app_data(web::QueryConfig::default().error_handler(|error, _| refused_query(&error).into()))
        .app_data(web::PathConfig::default().error_handler(|error, _| refused_path(&error).into()))
        .route("/health", web::get().to(system::health))
        .configure(gateway::configure)
        .service(
            web::scope("/api/v1")
                .configure(gateway::configure_admin)
                .route("/health", web::get().to(system::health))
                .service(web::resource("/tasks").get(task_reads::list).post(intake::create))
                .service(web::scope("/tasks/{id}").configure(task))
                .route("/questions/{id}/answer", web::post().to(task_actions::answer))
                .service(web::resource("/workers").get(workers::list).post(workers::add))
                .service(web::resource("/workers/{id}").get(workers::show).delete(workers::remove))
                .route("/workers/{id}/{lifecycle:cordon|drain|uncordon}", web::post().to(workers::set_lifecycle))
                .route("/system/status", web::get().to(system::status))
                .route("/system/tree", web::get().to(system::tree))
                .route("/models", web::get().to(system::models))
                .route("/llm/providers", web::get().to(system::models))
                .route("/events", web::get().to(events::watch)),
        )
        .default_service(web::to(nowhere));
}

fn task(scope: &mut web::ServiceConfig) {
    scope
        .route("", web::get().to(task_reads::show))
        .route("/why", web::get().to(task_reads::why))
        .route("/replay", web::get().to(task_reads::replay))
        .route("/steps", web::get().to(task_reads::steps))
        .route("/log", web::get().to(task_reads::log))
        .route("/diff", web::get().to(task_reads::diff))
        .route("/artifacts", web::get().to(artifacts::list))
        .route("/artifacts/{object}", web::get().to(artifacts::content))
        .route("/attempts", web::get().to(attempts::list))
        .route("/budget", web::get().to(task_reads::budget))
        .route("/checkpoints", web::get().to(task_reads::checkpoints))
        .route("/questions", web::get().to(task_reads::questions))
        .route("/remarks", web::get().to(task_reads::remarks))
        .route("/say", web::post().to(task_actions::say))
        .route("/cancel", web::post().to(task_actions::cancel))
        .route("/pause", web::post().to(task_actions::pause))
        .route("/resume", web::post().to(task_actions::resume))
        .route("/retry", web::post().to(task_actions::retry))
        .route("/checkpoint", web::post().to(task_actions::checkpoint))
        .route("/rollback", web::post().to(task_actions::rollback))
        .route("/fork", web::post().to(task_actions::fork))
        .route("/rebase", web::post().to(rebase::rebase))
        .route("/export", web::post().to(task_actions::export));
}

async fn nowhere(gateway: web::Data<Gateway>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    if gateway::is_of_a_format(request.path()) {
        return Ok(gateway::nowhere(gateway, request).await);
    }
    Err(no_route(&format!("{} {}", request.method(), request.path())))
}

fn refused_query(error: &QueryPayloadError) -> Problem {
    invalid(format!("the query cannot be used: {error}")).into()
}

fn refused_path(error: &PathError) -> Problem {
    invalid(format!("the path cannot be used: {error}")).into()
}
