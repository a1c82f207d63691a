//! Reading the bodies of requests: none is too large, none too slow, and all that are being read fit into memory together.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use helix_protocol::{Code, Failure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::keys::Refusal;

/// In so long a body must end, or [`LEAST`] of it must come. A connection that lost packets is back long before.
const WINDOW: Duration = Duration::from_secs(30);
/// What comes over a line of 140 kbit/s meanwhile. Long conversations are a few of it.
const LEAST: usize = 512 * 1024;
/// So many requests of the largest size can be read at once. Usual ones are a hundredth of that.
const LARGEST_AT_ONCE: usize = 4;
/// What may be read at once however small the largest request is: hundreds of usual ones.
const ROOM: usize = 256 << 20;
/// When there is room again: bodies that come as fast as usual are read in less.
const SOON: Duration = Duration::from_secs(1);

/// The bodies that are being read.
pub(crate) struct Bodies {
    /// Of one, in bytes.
    largest: usize,
    /// What all of them may take, in bytes.
    room: Arc<Semaphore>,
}

impl Bodies {
    /// For requests of at most so many bytes.
    pub fn new(largest: usize) -> Self {
        let room = largest.saturating_mul(LARGEST_AT_ONCE).clamp(ROOM, Semaphore::MAX_PERMITS);
        Self { largest, room: Arc::new(Semaphore::new(room)) }
    }

    /// The whole body. Refused with 413 where it is too large, with 408 where it comes too slowly, and with 503 where it finds no room.
    pub async fn read<E: Display>(&self, mut body: impl Stream<Item = Result<Bytes, E>> + Unpin) -> Result<Bytes, Refusal> {
        let mut read = Vec::new();
        let mut room: Option<OwnedSemaphorePermit> = None;
        let (mut window, mut at_its_start) = (Instant::now() + WINDOW, 0);
        loop {
            let chunk = match timeout_at(window, body.next()).await {
                Err(_) if read.len() - at_its_start < LEAST => return Err(slow(read.len() - at_its_start)),
                Err(_) => {
                    (window, at_its_start) = (window + WINDOW, read.len());
                    continue;
                }
                Ok(None) => return Ok(read.into()),
                Ok(Some(chunk)) => chunk.map_err(|error| unreadable(&error))?,
            };
            if read.len() + chunk.len() > self.largest {
                return Err(self.large());
            }
            // A chunk is what one read of a connection brings.
            let bytes = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            let more = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| crowded())?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
            read.extend_from_slice(&chunk);
        }
    }

    fn large(&self) -> Refusal {
        let failure = Failure::new(Code::InvalidRequest, format!("the request is larger than {} bytes", self.largest));
        Refusal::new(413, failure.hint("send less, or raise `gateway.body_mib`"))
    }
}

fn unreadable(error: &impl Display) -> Refusal {
    Refusal::new(400, Failure::new(Code::InvalidRequest, format!("the body could not be read: {error}")))
}

fn slow(bytes: usize) -> Refusal {
    let message = format!("only {bytes} bytes of the body came within {} s", WINDOW.as_secs());
    Refusal::new(408, Failure::new(Code::TimedOut, message).hint("send the whole body at once"))
}

fn crowded() -> Refusal {
    let message = "the requests that are being read take all the memory there is for them";
    let failure = Failure::new(Code::Overloaded, message).hint("ask again in a moment");
    Refusal { retry_after: Some(SOON), ..Refusal::new(503, failure) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;

    use super::*;

    const CHUNK: usize = 64 * 1024;

    /// A body of so many chunks, one after each of these pauses.
    fn body(chunks: usize, pause: Duration) -> impl Stream<Item = Result<Bytes, Infallible>> + Unpin {
        let chunks = stream::iter(0..chunks).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok(Bytes::from(vec![b' '; CHUNK]))
        });
        chunks.boxed()
    }

    /// A body that stops after so many chunks and does not end.
    fn stopping(chunks: usize) -> impl Stream<Item = Result<Bytes, Infallible>> + Unpin {
        body(chunks, Duration::ZERO).chain(stream::pending())
    }

    fn status(read: Result<Bytes, Refusal>) -> Result<usize, u16> {
        read.map(|body| body.len()).map_err(|refused| refused.status)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_or_drips_is_given_up_and_a_slow_one_is_read() {
        let bodies = Bodies::new(64 << 20);
        for stopped in [0, 1, 100] {
            let began = Instant::now();
            assert_eq!(status(bodies.read(stopping(stopped)).await), Err(408));
            assert!(began.elapsed() <= 2 * WINDOW, "{:?}", began.elapsed());
        }
        assert_eq!(status(bodies.read(body(1_000, Duration::from_secs(5))).await), Err(408), "13 KiB/s");
        assert_eq!(status(bodies.read(body(100, Duration::from_secs(3))).await), Ok(100 * CHUNK), "21 KiB/s");
        assert_eq!(status(bodies.read(body(1, WINDOW - SOON)).await), Ok(CHUNK), "it ends in time");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_read_fits_together_and_leaves_its_room_however_it_ends() {
        let bodies = Bodies { largest: 8 * CHUNK, room: Arc::new(Semaphore::new(12 * CHUNK)) };
        let (held, refused) = tokio::join!(bodies.read(stopping(8)), async {
            tokio::time::sleep(SOON).await;
            bodies.read(body(8, Duration::ZERO)).await
        });
        assert_eq!(status(held), Err(408));
        let refused = refused.expect_err("there is room for half of it");
        assert_eq!((refused.status, refused.retry_after), (503, Some(SOON)));
        for _ in 0..2 {
            assert_eq!(status(bodies.read(body(9, Duration::ZERO)).await), Err(413));
            assert_eq!(status(bodies.read(body(8, Duration::ZERO)).await), Ok(8 * CHUNK));
        }
    }
}
