//! Content addresses and what a snapshot says about files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bytes_in_words;

/// The BLAKE3 hash (32 bytes) of an object's bytes. In text formats it is 64 hexadecimal digits, in
/// binary ones 32 raw bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 32]);

impl ObjectId {
    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({})", self.short())
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an object id: 64 hexadecimal digits are expected")]
pub struct ParseObjectIdError(String);

impl FromStr for ObjectId {
    type Err = ParseObjectIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseObjectIdError(text.chars().take(80).collect());
        if text.len() != 64 || !text.is_ascii() {
            return Err(refuse());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refuse())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refuse())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for ObjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
            let bytes = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| D::Error::custom("an object id is 32 bytes"))?;
            Ok(Self(bytes))
        }
    }
}

/// The id of a snapshot object: a tree with its parents, author, time and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(pub ObjectId);

impl SnapshotId {
    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What kind of entry a tree holds. Other permission bits are not kept, as in git.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileMode {
    /// An ordinary file.
    Regular,
    /// A file with the executable bit.
    Executable,
    /// A symbolic link; its object is the target's bytes.
    Symlink,
    /// A directory; its object is a tree.
    Directory,
}

/// How a path differs between two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Only in the newer tree.
    Added,
    /// In both, with other content or mode.
    Modified,
    /// Only in the older tree.
    Removed,
}

/// One path that differs between two trees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The path from the workspace's root, `/`-separated; bytes that are not UTF-8 are shown as U+FFFD.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
    /// The size in bytes in the newer tree; 0 where it was removed.
    pub size: u64,
}

/// Why a file is in the workspace and not in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// It lies in a folder that the project file names as a cache.
    Cache,
    /// It is larger than the cap.
    TooLarge,
    /// It could not be read.
    Unreadable,
    /// It is a socket, a pipe or a device.
    Special,
}

/// A file (or a whole cache folder) that a step does not carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedFile {
    /// The path from the workspace's root.
    pub path: String,
    /// Why.
    pub reason: SkipReason,
    /// Its size in bytes where known.
    pub size: u64,
}

impl std::fmt::Display for SkippedFile {
    /// `disk.img (100 GiB, too large)`, `pipe (no regular file)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, reason, size } = self;
        match reason {
            SkipReason::Cache => write!(f, "{path} (a cache)"),
            SkipReason::TooLarge => write!(f, "{path} ({}, too large)", bytes_in_words(*size)),
            SkipReason::Unreadable => write!(f, "{path} (cannot be read)"),
            SkipReason::Special => write!(f, "{path} (no regular file)"),
        }
    }
}
