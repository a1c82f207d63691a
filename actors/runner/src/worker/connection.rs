//! One connection: the handshake, heartbeats, and a task per request.

use std::sync::Arc;
use std::time::Duration;

use helix_kernel::Address;
use helix_link::{Asked, Event, Link, LinkHandle, Options, accept_as_worker, boot_clock};
use helix_protocol::link::{Notice, Request, Response, Welcome};
use helix_protocol::{Code, Failure};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use super::{ASK, WorkerMsg};
use crate::engine::{Engine, Wipe};

/// Requests of one connection that may be worked on at once.
const AT_ONCE: usize = 1024;

/// Serves a connection to its end. Fails where no node was admitted on it.
pub(super) async fn serve<IO>(engine: &Arc<Engine>, address: &Address<WorkerMsg>, io: IO) -> Result<(), Failure>
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let greeting = accept_as_worker(io, Options { clock: boot_clock(), ..Options::default() }).await?;
    let hello = greeting.hello().clone();
    let admitted = async {
        let version = greeting.version()?;
        address.ask(ASK, |reply| WorkerMsg::Hello { hello: hello.clone(), reply }).await?;
        Ok::<_, Failure>(version)
    };
    let version = match admitted.await {
        Ok(version) => version,
        Err(failure) => {
            greeting.refuse(failure.clone()).await?;
            return Err(failure);
        }
    };
    engine.keep_served().await;
    let connection = hello.connection;
    let welcome = Welcome {
        version,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        incarnation: engine.incarnation(),
        pid: std::process::id(),
        facts: engine.inspector().known(),
        holds: engine.holds(),
    };
    let served = match greeting.welcome(welcome).await {
        Ok(link) => {
            address.tell(WorkerMsg::Connected { connection, handle: link.handle.clone() })?;
            let beating = tokio::spawn(beat(
                Arc::clone(engine),
                link.handle.clone(),
                connection,
                Duration::from_millis(hello.lease.heartbeat_ms.max(1)),
            ));
            hear(engine, address, link, connection).await;
            beating.abort();
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    address.tell(WorkerMsg::Gone { connection })?;
    served
}

/// Sends heartbeats until the connection ends.
async fn beat(engine: Arc<Engine>, handle: LinkHandle, connection: u64, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for sequence in 1.. {
        ticks.tick().await;
        let beat = engine.inspector().heartbeat(sequence);
        engine.lease().sent(connection, sequence);
        if handle.heartbeat(beat).await.is_err() {
            return;
        }
    }
}

async fn hear(engine: &Arc<Engine>, address: &Address<WorkerMsg>, mut link: Link, connection: u64) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        match link.incoming.next().await {
            Event::Request(asked) => {
                // Whoever asks on this connection has received its welcome. One who takes a workspace away grants nothing by it: a
                // node begins so with a worker that it had given up.
                if !matches!(asked.body, Request::Close { .. }) {
                    engine.lease().acknowledged(connection, 0);
                }
                match Arc::clone(&room).try_acquire_owned() {
                    Ok(permit) => {
                        let (engine, address, handle) = (Arc::clone(engine), address.clone(), link.handle.clone());
                        tokio::spawn(async move {
                            answer(&engine, &address, &handle, asked).await;
                            drop(permit);
                        });
                    }
                    Err(_) => {
                        let failure = Failure::new(
                            Code::Overloaded,
                            format!("the worker works on {AT_ONCE} requests of this connection already"),
                        );
                        asked.reply.send(Err(failure.hint("try again in a moment"))).await;
                    }
                }
            }
            Event::HeartbeatAck(ack) => engine.lease().acknowledged(connection, ack.sequence),
            Event::Heartbeat(_) | Event::Notice(_) => {
                tracing::warn!("the node sent what only workers send");
                link.handle.abort();
            }
            Event::Closed(how) => {
                tracing::info!(connection, ?how, "the node's connection ended");
                return;
            }
        }
    }
}

async fn answer(engine: &Arc<Engine>, address: &Address<WorkerMsg>, handle: &LinkHandle, asked: Asked) {
    let Asked { body, reply, .. } = asked;
    if let Request::Stop { wipe } = body {
        reply.send(Ok(Response::Stopping)).await;
        if let Err(failure) = address.tell(WorkerMsg::Stop { wipe: if wipe { Wipe::Yes } else { Wipe::No } }) {
            tracing::error!(%failure, "a stop was not heard");
        }
        return;
    }
    let abandonable = matches!(body, Request::ReadOutput { .. } | Request::Inspect | Request::Missing { .. });
    let result = if abandonable {
        tokio::select! {
            result = engine.answer(handle, body) => result,
            () = reply.abandoned() => return,
        }
    } else {
        engine.answer(handle, body).await
    };
    if let Err(Failure { code: Code::DiskFull, message, .. }) = &result {
        // Told beside the answer: whoever places tasks must know of it, too.
        let _ = handle.notify(Notice::DiskFull { message: message.clone() }).await;
    }
    reply.send(result).await;
}
