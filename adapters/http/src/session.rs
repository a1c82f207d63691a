//! One watcher's session: an actor that lives as long as its socket.
//!
//! Its mailbox holds [`MAILBOX`] frames; who feeds it waits when it is full, so a slow watcher slows its own replay and
//! nothing else. Never restarted: the watcher comes back by itself.

use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, AtomicResponse, Context, Handler, Message, WrapFuture};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// How many frames may wait.
pub(crate) const MAILBOX: usize = 64;
/// A silent line is told this often that it still stands.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How many frames the socket takes ahead.
const BODY: usize = 8;

/// The session of one response body.
pub(crate) struct Session {
    body: mpsc::Sender<Bytes>,
}

impl Session {
    /// Starts a session on this thread; the receiver is the response's body.
    pub fn open() -> (Addr<Self>, mpsc::Receiver<Bytes>) {
        let (body, frames) = mpsc::channel(BODY);
        let address = Self::create(|context| {
            context.set_mailbox_capacity(MAILBOX);
            Self { body }
        });
        (address, frames)
    }
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let body = self.body.clone();
        let gone = async move { body.closed().await }.into_actor(self).map(|(), _, context: &mut Self::Context| context.stop());
        context.spawn(gone);
        context.run_interval(KEEP_ALIVE, |session, context| {
            // A full body means that the line is not silent.
            if let Err(TrySendError::Closed(_)) = session.body.try_send(Bytes::from_static(b": keep-alive\n\n")) {
                context.stop();
            }
        });
    }
}

/// Bytes for the watcher. Answered once the socket's buffer has taken them.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Frame(pub Bytes);

impl Handler<Frame> for Session {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, frame: Frame, _: &mut Self::Context) -> Self::Result {
        let body = self.body.clone();
        let sent = async move {
            // A closed body ends the session by itself.
            let _ = body.send(frame.0).await;
        };
        AtomicResponse::new(Box::pin(sent.into_actor(self)))
    }
}

/// Nothing more comes: the body ends after what was sent.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct End;

impl Handler<End> for Session {
    type Result = ();

    fn handle(&mut self, _: End, context: &mut Self::Context) {
        context.stop();
    }
}
