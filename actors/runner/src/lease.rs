//! The lease as the worker lives it: the fence on the machine's clock, and the guard that is told.

use std::time::Duration;

use helix_link::Clock;
use helix_protocol::{Code, Failure};
use parking_lot::Mutex;

use crate::fence::{Fence, Standing};
use crate::guard::Guard;

/// Asked before every effect.
pub struct Lease {
    clock: Clock,
    fence: Mutex<Fence>,
    guard: Guard,
}

impl Lease {
    /// A lease nobody has granted yet.
    pub fn new(clock: Clock, guard: Guard) -> Self {
        Self { clock, fence: Mutex::default(), guard }
    }

    /// The clock's reading.
    pub fn now(&self) -> Duration {
        (self.clock)()
    }

    /// A connection stands and its welcome is about to be sent.
    pub fn connected(&self, connection: u64, lasts: Duration) {
        let now = self.now();
        self.fence.lock().connected(connection, lasts, now);
    }

    /// A heartbeat is about to be sent.
    pub fn sent(&self, connection: u64, sequence: u64) {
        let now = self.now();
        self.fence.lock().sent(connection, sequence, now);
    }

    /// The node heard a heartbeat, or proved with a request that it has the welcome (sequence 0).
    pub fn acknowledged(&self, connection: u64, sequence: u64) {
        if let Some(until) = self.fence.lock().acknowledged(connection, sequence) {
            self.guard.renew(until);
        }
    }

    /// Whether the worker may act.
    pub fn standing(&self) -> Standing {
        let now = self.now();
        self.fence.lock().standing(now)
    }

    /// Refuses with `lease_expired` where it may not.
    pub fn check(&self) -> Result<(), Failure> {
        match self.standing() {
            Standing::Live { .. } => Ok(()),
            Standing::Unowned => Err(Failure::new(Code::LeaseExpired, "no node has granted this worker a lease yet")),
            Standing::Fenced { since } => {
                let ago = self.now().saturating_sub(since).as_millis();
                Err(Failure::new(Code::LeaseExpired, format!("the worker's lease ended {ago} ms ago, so it has fenced itself"))
                    .hint("it goes on by itself once its heartbeats are acknowledged again"))
            }
        }
    }
}
