//! Answers in pieces, translated into the client's format.
//!
//! The pieces wait in a channel of [`AHEAD`] and the model's connection is read only as fast as the client takes them. A client that
//! goes away drops the stream, and with it the call.

use std::convert::Infallible;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures::{Stream, stream};
use helix_ports::{ClientStream, ProviderError};
use helix_protocol::{Code, Failure, ModelDelta, ModelReply, ModelRequest};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::Gateway;
use super::answer::{refused, settled};
use super::keys::{Refusal, Reservation};
use super::requests::Asked;

/// How many pieces a client may be behind.
const AHEAD: usize = 32;

type Ended = Result<ModelReply, ProviderError>;

/// An answer on its way.
struct Running {
    pieces: mpsc::Receiver<ModelDelta>,
    end: AbortOnDropHandle<Ended>,
}

impl Running {
    /// How it ended, once no piece is left.
    async fn ended(&mut self) -> Ended {
        (&mut self.end).await.unwrap_or_else(|error| {
            Err(ProviderError::Uncertain(Failure::new(Code::Internal, format!("the call ended early: {error}"))))
        })
    }
}

/// Answers with a stream. What fails before the first piece is a refusal with a status of its own.
pub(crate) async fn stream(
    gateway: &web::Data<Gateway>,
    asked: Asked,
    request: ModelRequest,
    reservation: Option<Reservation>,
) -> Result<HttpResponse, Refusal> {
    let (deltas, pieces) = mpsc::channel(AHEAD);
    let call = settled(gateway, &asked, request, Some(deltas), reservation);
    let mut running = Running { pieces, end: AbortOnDropHandle::new(gateway.runtime().spawn(call)) };
    let first = running.pieces.recv().await;
    let mut encoder = asked.format.stream(&asked.body, &asked.head);
    let mut begun = encoder.start();
    let state = match first {
        Some(piece) => {
            begun.push_str(&encoder.push(&piece));
            State::Pieces(running, encoder)
        }
        None => {
            let reply = running.ended().await.map_err(|error| refused(&error))?;
            begun.push_str(&encoder.finish(&reply));
            State::Over
        }
    };
    let begun = stream::iter([Ok::<Bytes, Infallible>(Bytes::from(begun))]);
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, asked.format.stream_type())).insert_header((CACHE_CONTROL, "no-cache"));
    Ok(response.streaming(futures::StreamExt::chain(begun, rest(state))))
}

enum State {
    Pieces(Running, Box<dyn ClientStream>),
    Over,
}

fn rest(state: State) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(state, |state| async move {
        let State::Pieces(mut running, mut encoder) = state else { return None };
        let Some(piece) = running.pieces.recv().await else {
            let last = match running.ended().await {
                Ok(reply) => encoder.finish(&reply),
                Err(error) => encoder.error(refused(&error).status, error.failure()),
            };
            return Some((Ok(Bytes::from(last)), State::Over));
        };
        let mut text = encoder.push(&piece);
        // What waits already goes with it: fewer writes, and none of them later. No more than that: a provider that is faster than this
        // would be read on and on.
        for _ in 0..AHEAD {
            let Ok(piece) = running.pieces.try_recv() else { break };
            text.push_str(&encoder.push(&piece));
        }
        Some((Ok(Bytes::from(text)), State::Pieces(running, encoder)))
    })
}
