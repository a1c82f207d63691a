//! Who holds the writer's lock: writing a batch, and coming back from a full disk.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use helix_objects::{Mark, ObjectError};
use rocksdb::WriteBatch;

use super::{RocksStore, State};
use crate::engine::{Engine, Head};

/// Whether there is room is looked at so many times while as much is written as must stay free.
const CHECKS_PER_RESERVE: u64 = 128;
/// Room for an ordinary commit.
const BATCH_BYTES: usize = 16 << 10;
/// What only one at a time may change.
pub(super) struct Writer {
    pub(super) head: Head,
    /// Bytes written since somebody looked how much room there is.
    unchecked: u64,
    /// A write or a sync failed: the database takes no more until it is opened again.
    pub(super) failed: bool,
}

impl Writer {
    pub(super) fn new(head: Head) -> Self {
        Self { head, unchecked: 0, failed: false }
    }
}

/// Whether a write is refused while less than the reserve is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It is.
    Takes,
    /// It is not: it makes room.
    Frees,
}

impl RocksStore {
    /// Writes under the writer's lock. An error of the database leaves it failed until the next write
    /// opens it again.
    pub(super) fn write(
        &self,
        room: Room,
        fill: impl FnMut(&Engine, &mut WriteBatch, &mut Head) -> Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        self.write_locked(&mut self.writer.lock(), room, 0, fill)
    }

    /// Writes a batch of about so many bytes. An error of the database may be an old one, of tables written in the background. So
    /// it is opened again, and the batch tried once more.
    pub(super) fn write_locked(
        &self,
        writer: &mut Writer,
        room: Room,
        bytes: usize,
        mut fill: impl FnMut(&Engine, &mut WriteBatch, &mut Head) -> Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        let mut tried = None;
        loop {
            self.recover(writer)?;
            if tried.is_some_and(|(before, after): (Head, Head)| before != after && after == writer.head) {
                // It was refused, and is there all the same.
                return Ok(());
            }
            let mut head = writer.head;
            let outcome = self.with(|engine| {
                let mut batch = WriteBatch::with_capacity_bytes(BATCH_BYTES.max(bytes));
                fill(engine, &mut batch, &mut head)?;
                if batch.is_empty() {
                    return Ok(Ok(()));
                }
                self.check_batch(writer, room, batch.size_in_bytes() as u64)?;
                if head != writer.head {
                    engine.add_head(&mut batch, head);
                }
                let written = engine.write(batch);
                #[cfg(feature = "testing")]
                self.copies.take(&self.path, engine)?;
                Ok(written)
            })?;
            match outcome {
                Ok(()) => {
                    writer.head = head;
                    self.written.store(head.ordinal, Ordering::Release);
                    return Ok(());
                }
                Err(error) => {
                    writer.failed = true;
                    if tried.is_some() {
                        return Err(error);
                    }
                    tracing::warn!(path = %self.path.display(), %error, "the content store's database refused a write");
                    tried = Some((writer.head, head));
                }
            }
        }
    }

    /// Opens the database again after it failed, once there is room for it. What was handed out must
    /// be there again.
    fn recover(&self, writer: &mut Writer) -> Result<(), ObjectError> {
        if !writer.failed {
            return Ok(());
        }
        // What is in the log only becomes tables.
        let buffers = self.options.write_buffer_bytes as u64 * u64::from(self.options.write_buffers);
        self.check_space(self.options.reserve_bytes.max(buffers))?;
        let mut state = self.engine.write();
        if matches!(*state, State::Closed) {
            return Err(ObjectError::Closed);
        }
        // The old one must be gone before its lock can be taken again.
        *state = State::Broken("the database is being opened again".to_owned());
        let head = match Engine::open(&self.path.join("db"), &self.options).and_then(|engine| Ok((engine.head()?, engine))) {
            Ok((head, engine)) => {
                *state = State::Open(Box::new(engine));
                head
            }
            Err(error) => {
                // Reading goes on.
                *state = Engine::open_read_only(&self.path.join("db"), &self.options)
                    .map_or_else(|_| State::Broken(error.to_string()), |engine| State::Open(Box::new(engine)));
                return Err(error);
            }
        };
        drop(state);
        if head.ordinal < writer.head.ordinal {
            return Err(ObjectError::LostWrites { recovered: Mark(head.ordinal), acknowledged: Mark(writer.head.ordinal) });
        }
        tracing::info!(path = %self.path.display(), ordinal = head.ordinal, "the content store writes again");
        *writer = Writer::new(head);
        self.written.store(head.ordinal, Ordering::Release);
        Ok(())
    }

    /// Looks whether there is room for a batch, if it is time to.
    fn check_batch(&self, writer: &mut Writer, room: Room, bytes: u64) -> Result<(), ObjectError> {
        let written = writer.unchecked + bytes;
        if room == Room::Takes && written > self.options.reserve_bytes / CHECKS_PER_RESERVE {
            self.check_space(bytes + self.options.reserve_bytes)?;
            writer.unchecked = 0;
        } else {
            writer.unchecked = written;
        }
        Ok(())
    }

    /// Bytes that are free on the store's disk.
    pub(super) fn free_bytes(&self) -> Result<u64, ObjectError> {
        let stat = rustix::fs::statvfs(&self.path).map_err(|error| ObjectError::io(&self.path, error))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    pub(super) fn check_space(&self, needed: u64) -> Result<(), ObjectError> {
        if self.free_bytes()? < needed {
            return Err(ObjectError::io(&self.path, std::io::Error::from(ErrorKind::StorageFull)));
        }
        Ok(())
    }
}
