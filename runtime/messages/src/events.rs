//! Live events: what was recorded, as soon as it is durable, and what is only shown.

use helix_protocol::{Event, EventId, NewEvent, Timestamp};
use tokio::sync::broadcast;

/// The version of the event shape written today.
const SCHEMA: u32 = 1;

/// Where events are published and watched. A watcher that falls more than `capacity` events behind is told how many
/// it missed, and reads them from the records.
#[derive(Clone, Debug)]
pub struct Events {
    sender: broadcast::Sender<Event>,
}

impl Events {
    /// A stream that keeps up to `capacity` events for slow watchers.
    pub fn new(capacity: usize) -> Self {
        Self { sender: broadcast::Sender::new(capacity) }
    }

    /// Publishes recorded events. Only the writer actor calls it, after the commit.
    pub fn publish(&self, events: &[Event]) {
        for event in events {
            // An error means that nobody watches.
            let _ = self.sender.send(event.clone());
        }
    }

    /// Shows an event that is not kept (its sequence is 0): a tool began, a model was called.
    pub fn show(&self, event: NewEvent) {
        let event = Event { id: EventId::new(), sequence: 0, task_sequence: 0, schema: SCHEMA, at: Timestamp::now(), event };
        let _ = self.sender.send(event);
    }

    /// Everything from now on.
    pub fn watch(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }
}
