//! The link between node and worker, either end of it, on any byte stream.
//!
//! [`connect_as_node`] and [`accept_as_worker`] shake hands and give a [`Link`]: a [`LinkHandle`] that
//! asks and a stream of [`Event`]s to answer. Two tasks serve each connection. The writer takes control
//! frames before bulk ones, so a heartbeat waits behind one chunk at most; the reader never waits for
//! the writer, so two busy ends cannot lock each other up. Whatever cannot be understood closes the
//! connection with `protocol_error`.

mod bulk;
mod codec;
mod connection;
mod event;
mod handshake;
mod objects;
mod outbox;
mod reader;

pub use bulk::{BulkReader, BulkWriter};
pub use connection::{Clock, Link, LinkHandle, Options, Side, boot_clock, open};
pub use event::{Asked, Closed, Event, Incoming, Replier};
pub use handshake::{Greeting, accept_as_worker, connect_as_node};
pub use objects::{MAX_OBJECT, ObjectReader, ObjectWriter};

#[cfg(test)]
mod tests;
