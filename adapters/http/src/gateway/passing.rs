//! Passing bytes on to a provider that speaks the client's format, and the answer's bytes back.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures::StreamExt;
use helix_ports::{ProviderError, RawAnswer, RawCall, RawOperation};
use helix_protocol::{Failure, WireFormat};

use super::Gateway;
use super::answer::refused;
use super::keys::{Refusal, Reservation};
use super::requests::{Asked, document, on_behalf};

/// What became of a request.
pub(crate) enum Passed {
    /// It was passed on, and this is the answer.
    Answered(HttpResponse),
    /// Whoever answers it speaks another format.
    NotSpoken(Box<Asked>, Option<Reservation>),
}

/// Passes a request on where somebody speaks its format.
pub(crate) async fn pass(
    gateway: &web::Data<Gateway>,
    mut asked: Asked,
    reservation: Option<Reservation>,
) -> Result<Passed, Refusal> {
    // Few of those who speak responses count them; who does not is asked as for any other format.
    let counts = asked.operation == RawOperation::CountTokens && asked.format.wire() == WireFormat::OpenaiResponses;
    if !asked.format.passes() || counts {
        return Ok(Passed::NotSpoken(Box::new(asked), reservation));
    }
    let call = RawCall {
        operation: asked.operation,
        model: asked.model.clone(),
        headers: asked.headers.clone(),
        body: asked.bytes.clone(),
    };
    let models = gateway.models.on_behalf(on_behalf(&asked));
    let (session, wire) = (asked.session.clone(), asked.format.wire());
    let (format, body) = (Arc::clone(&asked.format), Arc::clone(&asked.body));
    let read = Box::new(move || format.measure(&body).0);
    let is_large = asked.body.room.is_some();
    if is_large {
        // Only its bytes wait for the answer.
        asked.body = Arc::default();
    }
    let answer = gateway.run(async move { Ok(models.forward(session, wire, call, read).await) }).await;
    match answer.map_err(|failure| Refusal::new(503, failure))? {
        Ok(Some(answer)) => Ok(Passed::Answered(respond(gateway, answer, asked.operation, reservation))),
        Ok(None) => {
            if is_large {
                match document(gateway, &asked.bytes).await {
                    Ok(body) => asked.body = Arc::new(body),
                    Err(refused) => {
                        // Nobody was asked.
                        reservation.into_iter().for_each(Reservation::free);
                        return Err(refused);
                    }
                }
            }
            Ok(Passed::NotSpoken(Box::new(asked), reservation))
        }
        Err(error) => {
            if !matches!(error, ProviderError::Uncertain(_))
                && let Some(reservation) = reservation
            {
                reservation.free();
            }
            Err(refused(&error))
        }
    }
}

/// The answer as it came. Its body is read only as fast as the client takes it, and dropped with the client.
fn respond(gateway: &Gateway, answer: RawAnswer, operation: RawOperation, reservation: Option<Reservation>) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::build(status);
    for (name, value) in &answer.headers {
        response.insert_header((name.as_str(), value.as_str()));
    }
    let uncertain = matches!(answer.fault, Some(ProviderError::Uncertain(_)));
    if uncertain {
        // Clients repeat such a status by themselves, and it may have been billed.
        response.insert_header(("x-should-retry", "false"));
    }
    // What may have been billed counts in full.
    if let Some(reservation) = reservation.filter(|_| !uncertain) {
        if answer.fault.is_some() {
            reservation.free();
        } else if operation != RawOperation::CountTokens {
            let ended = answer.ended;
            gateway.runtime().spawn(async move {
                // Cut or unreadable: what was set aside counts as spent.
                if let Some(Ok(usage)) = ended.await {
                    reservation.settle(&usage);
                }
            });
        }
    }
    let body = answer.body.map(|chunk| chunk.map_err(|error| CutOff(error.into())));
    response.streaming(body)
}

/// Why an answer that had begun was cut.
#[derive(Debug, Clone)]
struct CutOff(Failure);

impl std::fmt::Display for CutOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for CutOff {}
