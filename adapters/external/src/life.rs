//! Signs of life of an agent at work: what it prints, on either output, and what moves between it and its model. Many print nothing
//! before their answer, which may take hours, so silence of one of them says nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use helix_protocol::{Code, Failure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// What was seen of an agent. Every clone is about the same one.
#[derive(Clone, Debug)]
pub struct Life(Arc<Seen>);

#[derive(Debug)]
struct Seen {
    began: Instant,
    /// The last sign, in milliseconds after it began.
    last_ms: AtomicU64,
    /// How many connections it made to the gateway.
    connections: AtomicUsize,
}

impl Default for Life {
    fn default() -> Self {
        Self(Arc::new(Seen { began: Instant::now(), last_ms: AtomicU64::new(0), connections: AtomicUsize::new(0) }))
    }
}

impl Life {
    /// It does something now.
    pub fn sign(&self) {
        self.0.last_ms.store(millis(self.0.began.elapsed()), Ordering::SeqCst);
    }

    /// It connects to the gateway.
    pub fn connect(&self) {
        self.0.connections.fetch_add(1, Ordering::SeqCst);
        self.sign();
    }

    /// True where it has certainly asked the gateway nothing so far.
    pub(crate) fn is_untouched(&self) -> bool {
        self.0.connections.load(Ordering::SeqCst) == 0
    }

    /// Moves what is said between it and the gateway until both have said everything, or one has left.
    pub async fn carry(&self, agent: impl AsyncRead + AsyncWrite, gateway: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let ((from_agent, to_agent), (from_gateway, to_gateway)) = (tokio::io::split(agent), tokio::io::split(gateway));
        tokio::try_join!(self.pass(from_agent, to_gateway), self.pass(from_gateway, to_agent)).map(drop)
    }

    async fn pass(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut piece = vec![0; 16 << 10];
        loop {
            let length = from.read(&mut piece).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            self.sign();
            to.write_all(&piece[..length]).await?;
        }
    }

    /// Ends once there was no sign for so long.
    pub(crate) async fn silent(&self, limit: Duration) {
        loop {
            let last = self.0.began + Duration::from_millis(self.0.last_ms.load(Ordering::SeqCst));
            if last.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until(last + limit).await;
        }
    }
}

/// What becomes of the turn of an agent that gave no sign of life for so long.
pub(crate) fn fell_silent(agent: &str, limit: Duration) -> Failure {
    let seconds = limit.as_secs();
    let message = format!(
        "the agent {agent} said nothing for {seconds} s in the middle of its turn, neither on its outputs nor over the gateway"
    );
    Failure::new(Code::TimedOut, message)
        .hint("`agents.silent_ms` in helix.yaml says how long it may; `helix task retry` makes the turn again")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_moves_either_way_is_a_sign_and_silence_counts_from_the_last() {
        let life = Life::default();
        let limit = Duration::from_secs(10);
        let ((mut agent, near), (far, mut gateway)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let carried = tokio::spawn({
            let life = life.clone();
            async move { life.carry(near, far).await }
        });
        let began = Instant::now();
        let silence = tokio::spawn({
            let life = life.clone();
            async move { life.silent(limit).await }
        });
        let mut heard = [0; 1];
        for from_agent in [true, false, true] {
            tokio::time::sleep(Duration::from_secs(9)).await;
            let (from, to) = if from_agent { (&mut agent, &mut gateway) } else { (&mut gateway, &mut agent) };
            from.write_all(b"x").await.expect("it is carried");
            to.read_exact(&mut heard).await.expect("it came");
        }
        silence.await.expect("no panic");
        assert_eq!(began.elapsed().as_secs(), 27 + 10);
        drop((agent, gateway));
        carried.await.expect("no panic").expect("both left");
    }
}
