//! Workers: one vocabulary for what a machine has and what a task needs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Failure, Sandboxing, Timestamp, WorkerId};

/// Something a machine can do. The same words are detected on workers and asked for by tasks, so
/// the two can match: lower case, for example `linux`, `x86_64`, `docker`, `cuda`, `cargo`, `python3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capability(pub String);

impl Capability {
    /// The words that a worker's own detection can give, beside its operating system and architecture.
    /// A program on the worker's PATH gives its own name.
    pub const PROGRAMS: &[&str] = &[
        "git", "cargo", "rustc", "python3", "pip", "node", "npm", "pnpm", "yarn", "go", "java", "mvn", "gradle", "gcc", "g++",
        "clang", "make", "cmake", "docker", "podman", "bwrap", "nvcc",
    ];
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Capability {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._+-".contains(c);
        if !text.is_empty() && text.len() <= 64 && text.chars().all(fits) {
            return Ok(Self(text.to_owned()));
        }
        Err(Failure::new(crate::Code::InvalidRequest, format!("{text:?} is not a capability"))
            .hint("lower-case letters, digits and . _ + - only, for example `docker` or `python3`"))
    }
}

/// A language toolchain found on a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// The program.
    pub name: String,
    /// The first line of its version.
    pub version: String,
}

/// What a machine has, and what of it is free now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Cores.
    pub cores: u32,
    /// Load average of the last minute.
    pub load: f64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Of it free for programs.
    pub memory_free_mib: u64,
    /// Disk in MiB where workspaces are.
    pub disk_mib: u64,
    /// Of it free.
    pub disk_free_mib: u64,
    /// GPUs.
    pub gpus: u32,
}

/// What a worker says of itself when a connection opens, and now and then afterwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerFacts {
    /// `linux`, `macos`.
    pub os: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// The host's name.
    pub hostname: String,
    /// Everything detected, sorted.
    pub capabilities: Vec<Capability>,
    /// Toolchains with versions.
    pub toolchains: Vec<Toolchain>,
    /// Machine sizes.
    pub resources: Resources,
    /// What it can put around commands.
    #[serde(default)]
    pub sandbox: Sandboxing,
}

/// How a worker is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "transport")]
pub enum WorkerTarget {
    /// A process on the node's machine.
    Local {
        /// The worker's folder.
        folder: String,
    },
    /// The system's `ssh`, so that aliases, agents and ProxyJump work as the person has them.
    Ssh {
        /// An alias or host as `ssh` takes it.
        destination: String,
    },
    /// The SSH client built in.
    Russh {
        /// The user.
        user: String,
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The private key's file on the node's machine.
        key: String,
        /// The host key's fingerprint as `SHA256:…`, pinned when the worker was added.
        host_key: String,
    },
}

impl fmt::Display for WorkerTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { .. } => f.write_str("local"),
            Self::Ssh { destination } => write!(f, "ssh {destination}"),
            Self::Russh { user, host, port, .. } => write!(f, "ssh://{user}@{host}:{port}"),
        }
    }
}

/// Whether a connection is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    /// Connected, its heartbeats arrive.
    Active,
    /// Not connected at present; its lease may still run.
    Inactive,
    /// Cordoned or draining.
    Maintenance,
    /// It could not be installed or refused us.
    Failed,
    /// Its process is known to be dead, or its lease has ended.
    Offline,
}

/// How it is doing. Any of processor, memory or disk above 90 % is unhealthy, above 70 % degraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerHealth {
    /// All below 70 %.
    Healthy,
    /// Something above 70 %, or a heartbeat is late.
    Degraded,
    /// Something above 90 %.
    Unhealthy,
    /// Nothing heard yet.
    Unknown,
}

impl WorkerHealth {
    /// By how much of something is in use, from 0 to 1; more than 1 where more is wanted than there is.
    pub fn of(share: f64) -> Self {
        match share {
            share if share > 0.9 => Self::Unhealthy,
            share if share > 0.7 => Self::Degraded,
            _ => Self::Healthy,
        }
    }
}

/// What a machine under strain is short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shortage {
    /// Memory.
    Memory,
    /// Disk where workspaces are.
    Disk,
    /// Only the processor is busy, which is no fault of the machine.
    Processor,
}

impl Shortage {
    /// By the shares in use. A busy processor hides no memory or disk that is as bad.
    pub fn of(memory: f64, disk: f64, processor: f64) -> Option<Self> {
        let (worst, which) = if disk > memory { (disk, Self::Disk) } else { (memory, Self::Memory) };
        match (WorkerHealth::of(worst), WorkerHealth::of(processor)) {
            (WorkerHealth::Healthy, WorkerHealth::Healthy) => None,
            (WorkerHealth::Healthy, _) | (WorkerHealth::Degraded, WorkerHealth::Unhealthy) => Some(Self::Processor),
            _ => Some(which),
        }
    }
}

/// What the operator wants of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// It gets tasks.
    #[default]
    Open,
    /// It gets no new ones.
    Cordoned,
    /// Its tasks move away at their next step boundary.
    Draining,
}

/// A worker as the database has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Its id.
    pub id: WorkerId,
    /// Its name: unique, chosen by the operator or taken from the target.
    pub name: String,
    /// How it is reached.
    pub target: WorkerTarget,
    /// How many tasks it may hold at once.
    pub slots: u32,
    /// What the operator wants.
    pub lifecycle: Lifecycle,
    /// Whether it is connected.
    pub status: WorkerStatus,
    /// How it is doing.
    pub health: WorkerHealth,
    /// What it last said of itself.
    pub facts: Option<WorkerFacts>,
    /// Why it is as it is, for people.
    pub reason: String,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was last heard.
    pub last_seen_at: Option<Timestamp>,
    /// Grows with every change of the row.
    pub version: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_processor_is_named_only_where_nothing_else_is_as_bad() {
        for (memory, disk, processor, short) in [
            (0.6, 0.6, 0.7, None),
            (0.6, 0.6, 4.0, Some(Shortage::Processor)),
            (0.6, 0.97, 4.0, Some(Shortage::Disk)),
            (0.95, 0.8, 4.0, Some(Shortage::Memory)),
            (0.6, 0.8, 4.0, Some(Shortage::Processor)),
            (0.6, 0.8, 0.8, Some(Shortage::Disk)),
        ] {
            assert_eq!(Shortage::of(memory, disk, processor), short, "{memory} {disk} {processor}");
        }
    }
}
