//! Whole answers, and refusals in the client's own format.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use helix_ports::{ClientFormat, DeltaSink, ProviderError};
use helix_protocol::{Code, Failure, ModelReply, ModelRequest};

use super::Gateway;
use super::bodies::SMALL;
use super::keys::{Refusal, Reservation};
use super::requests::{Asked, on_behalf};

impl Gateway {
    /// Runs `work` on the node's own threads. It ends when this future is dropped: the client has gone away.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let running = tokio_util::task::AbortOnDropHandle::new(self.runtime.spawn(work));
        match running.await {
            Ok(answer) => answer,
            Err(ended) if ended.is_cancelled() => Err(Failure::new(Code::ShuttingDown, "the node is stopping")),
            Err(ended) => Err(Failure::new(Code::Internal, format!("the request ended by a panic: {ended}"))),
        }
    }

    /// Does what takes long with a body of many bytes: at once with a small one, else on a thread that serves nobody meanwhile.
    pub async fn work<T: Send + 'static>(&self, bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        if bytes <= SMALL {
            return Ok(work());
        }
        let done = self.runtime.spawn_blocking(work).await;
        done.map_err(|ended| Refusal::new(500, Failure::new(Code::Internal, format!("the request was not read: {ended}"))))
    }

    /// The node's own threads.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }
}

/// Answers with one document.
pub(crate) async fn whole(
    gateway: &web::Data<Gateway>,
    mut asked: Asked,
    request: ModelRequest,
    reservation: Option<Reservation>,
) -> Result<HttpResponse, Refusal> {
    let call = settled(gateway, &asked, request, None, reservation);
    asked.let_go();
    let answer = gateway.run(async move { Ok(call.await) }).await.map_err(|failure| Refusal::new(503, failure))?;
    let reply = answer.map_err(|error| refused(&error))?;
    Ok(HttpResponse::Ok().json(asked.format.encode(&reply, &asked.head)))
}

/// Makes a call for a client and settles what was set aside by how it ended; what may have been billed stays spent.
pub(crate) fn settled(
    gateway: &Gateway,
    asked: &Asked,
    request: ModelRequest,
    deltas: Option<DeltaSink>,
    reservation: Option<Reservation>,
) -> impl Future<Output = Result<ModelReply, ProviderError>> + Send + use<> {
    let (models, room) = (gateway.models.on_behalf(on_behalf(asked)), asked.body.room.clone());
    async move {
        let answer = models.generate(request, deltas).await;
        drop(room);
        match (reservation, &answer) {
            (None, _) => {}
            (Some(reservation), Ok(reply)) => reservation.settle(&reply.usage),
            (Some(reservation), Err(ProviderError::Uncertain(_))) => drop(reservation),
            (Some(reservation), Err(_)) => reservation.free(),
        }
        answer
    }
}

/// What an error of a call is to a client.
pub(crate) fn refused(error: &ProviderError) -> Refusal {
    let failure = error.failure().clone();
    let (status, retry_after) = match error {
        ProviderError::Retryable { retry_after, .. } if failure.code == Code::Overloaded => (429, *retry_after),
        ProviderError::Retryable { retry_after, .. } => (503, *retry_after),
        ProviderError::Uncertain(_) | ProviderError::Elsewhere(_) => (502, None),
        ProviderError::Final(_) => match failure.code {
            Code::ModelUnavailable | Code::NotFound => (404, None),
            Code::ModelFailed | Code::ModelGarbage | Code::Internal => (502, None),
            _ => (400, None),
        },
    };
    Refusal { status, failure, retry_after }
}

/// A refusal as a response. A call that may have been billed says that clients shall not repeat it by themselves.
pub(crate) fn refusal(format: Option<&dyn ClientFormat>, refused: &Refusal) -> HttpResponse {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    if let Some(after) = refused.retry_after {
        response.insert_header(("retry-after", whole_seconds(after).to_string()));
    }
    if refused.status == 502 {
        response.insert_header(("x-should-retry", "false"));
    }
    if status == StatusCode::REQUEST_TIMEOUT {
        // The rest of its body is not waited for.
        response.force_close();
    }
    match format {
        Some(format) => response.json(format.error(refused.status, &refused.failure)),
        None => response.json(serde_json::json!({"error": {"message": refused.failure.message, "hint": refused.failure.hint}})),
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use helix_ports::FaultScope;

    use super::*;

    #[test]
    fn a_client_is_told_what_it_can_do_about_an_error() {
        let failure = |code| Failure::new(code, "x");
        let status = |error: ProviderError| refused(&error).status;
        let again = ProviderError::Retryable {
            failure: failure(Code::ModelFailed),
            retry_after: Some(Duration::from_millis(1_200)),
            scope: FaultScope::Provider,
        };
        assert_eq!(refused(&again).status, 503);
        let response = refusal(None, &refused(&again));
        assert_eq!(response.headers().get("retry-after").and_then(|value| value.to_str().ok()), Some("2"));
        assert_eq!(status(ProviderError::Final(failure(Code::ContextOverflow))), 400);
        assert_eq!(status(ProviderError::Final(failure(Code::ModelUnavailable))), 404);
        assert_eq!(status(ProviderError::Elsewhere(failure(Code::ModelRefused))), 502);
        let uncertain = refusal(None, &refused(&ProviderError::Uncertain(failure(Code::ModelFailed))));
        assert_eq!(uncertain.headers().get("x-should-retry").and_then(|value| value.to_str().ok()), Some("false"));
        let kept_open = [408, 413].map(|status| refusal(None, &Refusal::new(status, failure(Code::TimedOut))).head().keep_alive());
        assert_eq!(kept_open, [false, true]);
    }
}
