//! The store trait.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use helix_protocol::{Code, Epoch, Failure, ObjectId, TaskId};

use crate::{Family, hash};

/// When a write may be acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Handed to the operating system: survives the death of the process, not of the machine.
    /// What git gives by default.
    NoSync,
    /// On disk, in one sync shared with whoever commits at the same time.
    #[default]
    Group,
    /// On disk, in a sync of its own.
    Sync,
}

/// A store's sequence number: everything written up to it was written before. It only grows, and
/// survives restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub u64);

/// Bytes to be stored, with their hash. Made only by hashing or by checking, so a store never
/// holds bytes under another id than their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewObject {
    id: ObjectId,
    bytes: Bytes,
}

impl NewObject {
    /// Hashes `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { id: hash(&bytes), bytes }
    }

    /// Checks that `bytes` have the hash somebody else says they have.
    pub fn checked(id: ObjectId, bytes: Bytes) -> Result<Self, ObjectError> {
        let found = hash(&bytes);
        if found == id { Ok(Self { id, bytes }) } else { Err(ObjectError::Corrupt { id, found }) }
    }

    /// The id.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Why objects are kept although no step names them yet: an owner is still making its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin {
    /// The task.
    pub task: TaskId,
    /// The epoch under which they were sent. Released when the step is committed or the epoch has passed.
    pub epoch: Epoch,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Objects.
    pub objects: u64,
    /// Their bytes as given.
    pub logical_bytes: u64,
    /// Bytes on disk, or in memory for a memory store.
    pub stored_bytes: u64,
}

/// An object store's failures.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The store lacks an object that something names.
    #[error("object {0} is missing")]
    Missing(ObjectId),
    /// Bytes do not have the hash they are kept or were sent under.
    #[error("object {id} is damaged: its bytes hash to {found}")]
    Corrupt {
        /// The id they are kept under.
        id: ObjectId,
        /// The hash they have.
        found: ObjectId,
    },
    /// The folder belongs to a newer format.
    #[error("{path} has format {found}, and this version knows formats up to {known}")]
    NewerFormat {
        /// The folder.
        path: String,
        /// Its format.
        found: u32,
        /// The newest known one.
        known: u32,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was read or written.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The database underneath refused.
    #[error("the content store failed: {0}")]
    Backend(String),
    /// What the database underneath has on disk is not what it wrote.
    #[error("the content store is damaged: {0}")]
    Damaged(String),
    /// Another process (or another store of this one) has the folder open.
    #[error("{path} is in use by another process")]
    InUse {
        /// The folder.
        path: String,
    },
    /// A record is not what its change expected.
    #[error("{} {} is not what it was", .family.name(), String::from_utf8_lossy(.key))]
    Moved {
        /// The record's family.
        family: Family,
        /// The record's key.
        key: Bytes,
    },
    /// Not now.
    #[error("not now: {0}")]
    Busy(String),
    /// The store was closed.
    #[error("the content store is closed")]
    Closed,
    /// Acknowledged writes are not there any more.
    #[error("the content store holds writes up to mark {}, but writes up to mark {} were acknowledged", .recovered.0, .acknowledged.0)]
    LostWrites {
        /// What is there.
        recovered: Mark,
        /// What was promised.
        acknowledged: Mark,
    },
    /// What says how far writes were acknowledged is damaged or gone.
    #[error("{path} {reason}: nobody knows how far writes were acknowledged")]
    Unmarked {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl ObjectError {
    /// An error of the file system at `path`.
    pub fn io(path: &std::path::Path, source: impl Into<std::io::Error>) -> Self {
        Self::Io { path: path.display().to_string(), source: source.into() }
    }
}

/// Hints name no program: what can be done about a store that is damaged or lost writes is known to the one that opened it.
impl From<ObjectError> for Failure {
    fn from(error: ObjectError) -> Self {
        let message = error.to_string();
        match error {
            ObjectError::Missing(_) => Failure::new(Code::ObjectsMissing, message),
            ObjectError::Corrupt { .. } | ObjectError::Damaged(_) => {
                Failure::new(Code::CorruptObject, message).hint("check the store; a backup brings it back")
            }
            ObjectError::NewerFormat { .. } => Failure::new(Code::NewerFormat, message).hint("install the newer version again"),
            ObjectError::Io { path, source } => Failure::io(path, &source),
            ObjectError::Backend(reason) if reason.contains("No space left") => {
                Failure::new(Code::DiskFull, message).hint("free some space on that disk; work goes on by itself")
            }
            ObjectError::Backend(_) => Failure::new(Code::StorageFailed, message),
            ObjectError::InUse { .. } => {
                Failure::new(Code::NodeRunning, message).hint("use the process that has it, stop it, or name another folder")
            }
            ObjectError::Moved { .. } => Failure::new(Code::InvalidState, message).hint("look at what it is now, then try again"),
            ObjectError::Busy(_) => Failure::new(Code::TimedOut, message).hint("nothing was changed; try again in a moment"),
            ObjectError::Closed => Failure::new(Code::ShuttingDown, message).hint("try again when it is open"),
            ObjectError::LostWrites { .. } | ObjectError::Unmarked { .. } => {
                Failure::new(Code::StorageFailed, message).hint("restore the content store from its backup")
            }
        }
    }
}

/// Where objects live. Synchronous: callers on an async runtime use a blocking thread, except for
/// reads that memory answers. Every method may be called from any thread.
pub trait ObjectStore: Send + Sync + 'static {
    /// The bytes of an object, checked against its id where they come from a disk.
    fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError>;

    /// Which of `ids` the store lacks, in the order asked.
    fn missing(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, ObjectError>;

    /// Stores objects in one batch and returns the mark that covers them. Objects that are there
    /// already cost nothing. With [`Durability::NoSync`] the mark is durable after [`sync`](Self::sync). Nothing, put
    /// with [`Durability::Sync`], waits until everything written before is on disk.
    fn put(&self, objects: &[NewObject], durability: Durability) -> Result<Mark, ObjectError>;

    /// Returns once everything up to `mark` is on disk; concurrent callers share one sync. Returns at
    /// once where it already is.
    fn sync(&self, mark: Mark) -> Result<(), ObjectError>;

    /// Returns once everything that was written is on disk.
    fn sync_all(&self) -> Result<(), ObjectError> {
        self.put(&[], Durability::Sync).map(drop)
    }

    /// Keeps `ids` alive for an owner until [`unpin`](Self::unpin). Pins survive a restart.
    fn pin(&self, pin: Pin, ids: &[ObjectId]) -> Result<(), ObjectError>;

    /// Releases every pin of the task up to and including this epoch.
    fn unpin(&self, up_to: Pin) -> Result<(), ObjectError>;

    /// What is pinned at present: roots for garbage collection.
    fn pinned(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError>;

    /// Sizes. May be a little behind.
    fn stats(&self) -> Result<StoreStats, ObjectError>;

    /// What was removed on purpose, whether or not some of it is back: whoever lacks such content leaves it out and goes on.
    fn purged(&self) -> Result<HashSet<ObjectId>, ObjectError> {
        Ok(HashSet::new())
    }

    /// Writes what is buffered and closes. Further calls fail.
    fn close(&self) -> Result<(), ObjectError>;

    /// True of a store that never waits for a disk: its callers need no thread for it.
    fn never_blocks(&self) -> bool {
        false
    }

    /// The bytes of several objects, in the order asked. Stores that can read many at once do so.
    fn get_many(&self, ids: &[ObjectId]) -> Result<Vec<Option<Bytes>>, ObjectError> {
        ids.iter().map(|id| self.get(*id)).collect()
    }

    /// The bytes of an object that must be there.
    fn read(&self, id: ObjectId) -> Result<Bytes, ObjectError> {
        self.get(id)?.ok_or(ObjectError::Missing(id))
    }
}

/// A shared store is a store.
impl<S: ObjectStore + ?Sized> ObjectStore for Arc<S> {
    fn get(&self, id: ObjectId) -> Result<Option<Bytes>, ObjectError> {
        (**self).get(id)
    }

    fn missing(&self, ids: &[ObjectId]) -> Result<Vec<ObjectId>, ObjectError> {
        (**self).missing(ids)
    }

    fn put(&self, objects: &[NewObject], durability: Durability) -> Result<Mark, ObjectError> {
        (**self).put(objects, durability)
    }

    fn sync(&self, mark: Mark) -> Result<(), ObjectError> {
        (**self).sync(mark)
    }

    fn sync_all(&self) -> Result<(), ObjectError> {
        (**self).sync_all()
    }

    fn pin(&self, pin: Pin, ids: &[ObjectId]) -> Result<(), ObjectError> {
        (**self).pin(pin, ids)
    }

    fn unpin(&self, up_to: Pin) -> Result<(), ObjectError> {
        (**self).unpin(up_to)
    }

    fn pinned(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError> {
        (**self).pinned()
    }

    fn stats(&self) -> Result<StoreStats, ObjectError> {
        (**self).stats()
    }

    fn purged(&self) -> Result<HashSet<ObjectId>, ObjectError> {
        (**self).purged()
    }

    fn close(&self) -> Result<(), ObjectError> {
        (**self).close()
    }

    fn never_blocks(&self) -> bool {
        (**self).never_blocks()
    }

    fn get_many(&self, ids: &[ObjectId]) -> Result<Vec<Option<Bytes>>, ObjectError> {
        (**self).get_many(ids)
    }
}
