//! Live events: what was recorded, as soon as it is durable, and what is only shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use helix_protocol::{Event, EventId, NewEvent, Timestamp};
use tokio::sync::broadcast;

/// The version of the event shape written today.
const SCHEMA: u32 = 1;

/// How many pieces of models' words wait for a slow watcher.
const WORDS_KEPT: usize = 1_024;

/// Where events are published and watched. A watcher that falls more than `capacity` events behind is told how many
/// it missed, and reads them from the records.
#[derive(Clone, Debug)]
pub struct Events {
    sender: broadcast::Sender<Event>,
    /// Apart, because a model that says much must not take other events' room.
    words: broadcast::Sender<Event>,
    /// One more than the greatest sequence that was published; 0 while nothing is known.
    next: Arc<AtomicU64>,
}

impl Events {
    /// A stream that keeps up to `capacity` events for slow watchers.
    pub fn new(capacity: usize) -> Self {
        let words = broadcast::Sender::new(capacity.min(WORDS_KEPT));
        Self { sender: broadcast::Sender::new(capacity), words, next: Arc::default() }
    }

    /// Publishes recorded events. Only the writer actor calls it, after the commit.
    pub fn publish(&self, events: &[Event]) {
        for event in events {
            self.begin_after(event.sequence);
            // An error means that nobody watches.
            let _ = self.sender.send(event.clone());
        }
    }

    /// The greatest sequence that was published, or [recorded before](Self::begin_after); `None` while nothing is known.
    pub fn published(&self) -> Option<u64> {
        self.next.load(Ordering::Acquire).checked_sub(1)
    }

    /// Nothing up to this sequence is published: it was recorded before the node began.
    pub fn begin_after(&self, sequence: u64) {
        self.next.fetch_max(sequence.saturating_add(1), Ordering::AcqRel);
    }

    /// Shows an event that is not kept (its sequence is 0): a tool began, a model was called.
    pub fn show(&self, event: NewEvent) {
        let _ = self.sender.send(unkept(event));
    }

    /// Shows words of a model to those who listen for them; whoever is slow misses some. Never waits.
    pub fn say(&self, words: NewEvent) {
        let _ = self.words.send(unkept(words));
    }

    /// Everything from now on.
    pub fn watch(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    /// The words of models from now on.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.words.subscribe()
    }
}

/// An event without a place among those that are kept.
fn unkept(event: NewEvent) -> Event {
    Event { id: EventId::new(), sequence: 0, task_sequence: 0, schema: SCHEMA, at: Timestamp::now(), event }
}
