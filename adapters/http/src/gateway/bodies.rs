//! Reading the bodies of requests: none is too large, none too slow, and all that are being read, or are held by a call and not
//! small, fit into memory together.

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
/// So many requests of the largest size have room at once. Usual ones are a hundredth of that.
const LARGEST_AT_ONCE: usize = 8;
/// The room there is however small the largest request is: for hundreds of usual ones.
const ROOM: usize = 512 << 20;
/// Up to here a body takes no room while its call goes on, and is read where it arrives: what that takes, connections limit.
pub(crate) const SMALL: usize = 256 << 10;
/// When there is room again: bodies that come as fast as usual are read in less.
const SOON: Duration = Duration::from_secs(1);

/// The bodies of all requests.
pub(crate) struct Bodies {
    /// Of one, in bytes.
    largest: usize,
    pub room: Room,
}

/// The memory that they may take together.
#[derive(Clone)]
pub(crate) struct Room {
    bytes: Arc<Semaphore>,
    all: usize,
}

impl Room {
    /// For so many bytes.
    pub fn new(bytes: usize) -> Self {
        let all = bytes.min(Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(all)), all }
    }

    /// Room for so many bytes beside those that the same request `has`. Refused with 413 where that is more than all there is, and
    /// with 503 where others have it.
    pub fn take(&self, bytes: usize, has: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        // A permit counts in 32 bits.
        let most = u32::try_from(self.all).unwrap_or(u32::MAX);
        match u32::try_from(bytes) {
            Ok(more) if has.saturating_add(bytes) <= most as usize => {
                Arc::clone(&self.bytes).try_acquire_many_owned(more).map_err(|_| crowded())
            }
            _ => Err(vast(most)),
        }
    }

    /// Room for nothing, which more can be added to.
    pub fn nothing(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.bytes).try_acquire_many_owned(0).expect("it is never closed, and nothing fits always")
    }

    /// In bytes.
    #[cfg(test)]
    pub fn left(&self) -> usize {
        self.bytes.available_permits()
    }
}

/// Bytes that give their room back with the last copy of them.
struct Charged {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    /// For requests of at most so many bytes.
    pub fn new(largest: usize) -> Self {
        Self { largest, room: Room::new(largest.saturating_mul(LARGEST_AT_ONCE).max(ROOM)) }
    }

    /// The whole body. Refused with 413 where it is too large, with 408 where it comes too slowly, and with
    /// 503 where it finds no room.
    pub async fn read<E: Display>(&self, mut body: impl Stream<Item = Result<Bytes, E>> + Unpin) -> Result<Bytes, Refusal> {
        let mut read = Vec::new();
        let mut room = self.room.nothing();
        let (mut window, mut at_its_start) = (Instant::now() + WINDOW, 0);
        loop {
            let chunk = match timeout_at(window, body.next()).await {
                Err(_) if read.len() - at_its_start < LEAST => return Err(slow(read.len() - at_its_start)),
                Err(_) => {
                    (window, at_its_start) = (window + WINDOW, read.len());
                    continue;
                }
                Ok(None) => break,
                Ok(Some(chunk)) => chunk.map_err(|error| unreadable(&error))?,
            };
            if read.len() + chunk.len() > self.largest {
                return Err(self.large());
            }
            // A chunk is what one read of a connection brings.
            room.merge(self.room.take(chunk.len(), room.num_permits())?);
            read.extend_from_slice(&chunk);
        }
        if read.len() <= SMALL {
            return Ok(read.into());
        }
        // What passes is written anew where the model has another name there.
        room.merge(self.room.take(read.len(), room.num_permits())?);
        read.shrink_to_fit();
        Ok(Bytes::from_owner(Charged { bytes: read, _room: room }))
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

fn vast(most: u32) -> Refusal {
    let message = format!("the request takes more than {} MiB of memory once it is read", most >> 20);
    Refusal::new(413, Failure::new(Code::InvalidRequest, message).hint("send less, or fewer and longer values"))
}

fn crowded() -> Refusal {
    let message = "the requests that are being read and answered take all the memory there is for them";
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
        let bodies = Bodies { largest: 8 * CHUNK, room: Room::new(16 * CHUNK) };
        let (held, refused) = tokio::join!(bodies.read(stopping(8)), async {
            tokio::time::sleep(SOON).await;
            bodies.read(body(8, Duration::ZERO)).await.map(drop)
        });
        assert_eq!(status(held), Err(408));
        let refused = refused.expect_err("there is room for one copy of it");
        assert_eq!((refused.status, refused.retry_after), (503, Some(SOON)));
        for _ in 0..2 {
            assert_eq!(status(bodies.read(body(9, Duration::ZERO)).await), Err(413));
            assert_eq!(status(bodies.read(body(8, Duration::ZERO)).await), Ok(8 * CHUNK));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_has_its_room_for_as_long_as_its_bytes_are_held_and_a_small_one_only_while_it_is_read() {
        let bodies = Bodies { largest: 64 * CHUNK, room: Room::new(64 * CHUNK) };
        let small = bodies.read(body(SMALL / CHUNK, Duration::ZERO)).await.expect("there is room");
        assert_eq!(bodies.room.left(), 64 * CHUNK);
        let large = bodies.read(body(20, Duration::ZERO)).await.expect("there is room");
        let passed_on = large.slice(1..);
        drop((large, small));
        assert_eq!(bodies.room.left(), 24 * CHUNK);
        assert_eq!(status(bodies.read(body(20, Duration::ZERO)).await), Err(503));
        drop(passed_on);
        assert_eq!(bodies.room.left(), 64 * CHUNK);
        assert_eq!(status(bodies.read(body(20, Duration::ZERO)).await), Ok(20 * CHUNK));
        // However much room there is, one body has what a permit can count.
        let room = Room::new(16 << 30);
        let taken = room.take(3 << 30, 0).expect("there is room");
        assert_eq!(room.take(2 << 30, taken.num_permits()).map(drop).map_err(|refused| refused.status), Err(413));
        assert!(room.take(2 << 30, 0).is_ok());
    }
}
