//! The one writer of the records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use helix_database::{Applied, RecordError, RecordStore, Write};
use helix_kernel::{Address, Reply};
use helix_protocol::{Event, Failure};

/// What the writer can be asked.
pub enum RecordsMsg {
    /// Applies one write in the next group and answers when it is durable. Refused as the write's own documentation
    /// says; `database_unavailable` where the database stayed away for longer than the writer retries.
    /// Sent by tasks and fleet.
    Write {
        /// The change.
        write: Box<Write>,
        /// Its answer.
        reply: Reply<Applied>,
    },
    /// The group under way came to its end. Sent by the writer's own work.
    GroupApplied {
        /// Each member's answer, or why nothing is known to have happened.
        answers: Result<Vec<Result<Applied, RecordError>>, RecordError>,
        /// Where the outcome of an earlier try is unknown: its events are in no answer.
        untold: Option<Untold>,
    },
    /// Events that could not be read are tried again, where no group did that meanwhile. Sent by the writer's own work.
    TellUntold,
}

/// What was recorded since the last events that were published.
pub struct Untold {
    /// Oldest first.
    pub events: Vec<Event>,
    /// False where some cannot be read yet.
    pub complete: bool,
}

/// The records: reads at once, writes through the writer.
#[derive(Clone)]
pub struct Records {
    writer: Address<RecordsMsg>,
    store: Arc<dyn RecordStore>,
    timeout: Duration,
    key_changes: Arc<AtomicU64>,
}

impl Records {
    /// A handle. `timeout` bounds the wait for a write.
    pub fn new(writer: Address<RecordsMsg>, store: Arc<dyn RecordStore>, timeout: Duration) -> Self {
        Self { writer, store, timeout, key_changes: Arc::default() }
    }

    /// Applies a write durably.
    pub async fn write(&self, write: Write) -> Result<Applied, Failure> {
        let of_keys = matches!(write, Write::CreateKey(_) | Write::RevokeKey(_) | Write::RemoveKey(_));
        let answer = self.writer.ask(self.timeout, |reply| RecordsMsg::Write { write: Box::new(write), reply }).await;
        if of_keys {
            // Also where the answer was lost: the write may stand.
            self.key_changes.fetch_add(1, Ordering::Release);
        }
        answer
    }

    /// Changes with every key of the gateway that is made, revoked or removed through this handle or a clone of it.
    pub fn key_changes(&self) -> u64 {
        self.key_changes.load(Ordering::Acquire)
    }

    /// The read side.
    pub fn read(&self) -> &dyn RecordStore {
        &*self.store
    }
}
