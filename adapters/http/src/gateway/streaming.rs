//! Answers in pieces, translated into the client's format.
//!
//! The pieces wait in a channel of [`AHEAD`] and the model's connection is read only as fast as the client takes them. A client
//! that goes away drops the stream, and with it the call. While nothing can be shown (a model thinks unseen, or nobody answers yet)
//! the client gets signs of life, or it and the proxies before it would give up a call that is billed.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures::{Stream, stream};
use helix_ports::{ClientStream, ProviderError};
use helix_protocol::{Code, Failure, ModelDelta, ModelReply, ModelRequest};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::Gateway;
use super::answer::{refused, settled};
use super::keys::{Refusal, Reservation};
use super::requests::Asked;

/// How many pieces a client may be behind.
const AHEAD: usize = 32;
/// How long a response waits for its first piece: what fails before has a status of its own.
const HELD: Duration = Duration::from_secs(1);
/// How often a client that waits gets a sign of life. Proxies give up after half a minute at the soonest.
const QUIET: Duration = Duration::from_secs(15);

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

/// Answers with a stream. What fails before the first piece and within [`HELD`] is a refusal with a status of its own.
pub(crate) async fn stream(
    gateway: &web::Data<Gateway>,
    asked: Asked,
    request: ModelRequest,
    reservation: Option<Reservation>,
) -> Result<HttpResponse, Refusal> {
    let (deltas, pieces) = mpsc::channel(AHEAD);
    let call = settled(gateway, &asked, request, Some(deltas), reservation);
    let mut running = Running { pieces, end: AbortOnDropHandle::new(gateway.runtime().spawn(call)) };
    let first = timeout(HELD, running.pieces.recv()).await;
    let mut encoder = asked.format.stream(&asked.body, &asked.head);
    let mut begun = encoder.start();
    let state = match first {
        Ok(Some(piece)) => {
            begun.push_str(&encoder.push(&piece));
            State::Pieces(running, encoder)
        }
        Err(_) => {
            begun.push_str(&encoder.keep_alive());
            State::Pieces(running, encoder)
        }
        Ok(None) => {
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
        let Ok(next) = timeout(QUIET, running.pieces.recv()).await else {
            return Some((Ok(Bytes::from(encoder.keep_alive())), State::Pieces(running, encoder)));
        };
        let Some(piece) = next else {
            let last = match running.ended().await {
                Ok(reply) => encoder.finish(&reply),
                Err(error) => encoder.error(refused(&error).status, error.failure()),
            };
            return Some((Ok(Bytes::from(last)), State::Over));
        };
        let mut text = encoder.push(&piece);
        // What waits already goes with it: fewer writes, and none of them later. No more than that: a provider that is faster than
        // this would be read on and on.
        for _ in 0..AHEAD {
            let Ok(piece) = running.pieces.try_recv() else { break };
            text.push_str(&encoder.push(&piece));
        }
        Some((Ok(Bytes::from(text)), State::Pieces(running, encoder)))
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use helix_ports::AnswerHead;
    use helix_protocol::{StopReason, Usage, WireFormat};
    use serde_json::json;

    use super::*;

    /// What a client of a format gets of an answer that thinks for so long before it says a word.
    async fn after(thinking: Duration, wire: WireFormat) -> Vec<(Duration, String)> {
        let formats = helix_adapter_models::client_formats();
        let format = formats.iter().find(|format| format.wire() == wire).expect("it is served");
        let head = AnswerHead { id: "1".to_owned(), created: 0, model: "m".to_owned() };
        let (deltas, pieces) = mpsc::channel(AHEAD);
        let call = tokio::spawn(async move {
            tokio::time::sleep(thinking).await;
            drop(deltas.send(ModelDelta::Text { text: "hello".to_owned() }).await);
            Ok(ModelReply { model: "m".to_owned(), blocks: Vec::new(), stop: StopReason::EndTurn, usage: Usage::default() })
        });
        let running = Running { pieces, end: AbortOnDropHandle::new(call) };
        let began = tokio::time::Instant::now();
        let told = rest(State::Pieces(running, format.stream(&json!({}), &head))).map(move |text| {
            let text = text.map(|text| String::from_utf8_lossy(&text).into_owned());
            (began.elapsed(), text.unwrap_or_default())
        });
        told.filter(|(_, text)| std::future::ready(!text.is_empty())).collect().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_gets_signs_of_life_for_as_long_as_nothing_can_be_shown() {
        for (wire, sign) in [(WireFormat::OpenaiChat, ": keep-alive\n\n"), (WireFormat::Anthropic, "event: ping\n")] {
            let told = after(3 * QUIET + HELD, wire).await;
            for (at, expected) in [QUIET, 2 * QUIET, 3 * QUIET].into_iter().enumerate() {
                assert!(told[at].0 == expected && told[at].1.starts_with(sign), "{wire:?} {told:?}");
            }
            assert!(told[3].1.contains("hello") && told[3].0 == 3 * QUIET + HELD, "{wire:?} {told:?}");
        }
        let told = after(3 * QUIET, WireFormat::Ollama).await;
        assert!(told[0].1.contains("hello"), "{told:?}");
    }
}
