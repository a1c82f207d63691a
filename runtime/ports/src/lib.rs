//! What the core asks of the outside, as traits.
//!
//! An adapter implements a port and knows no actor; an actor uses a port and knows no adapter.
//! adapters/helix is the only place where the two meet.

mod client_format;
mod provider;
mod task_kind;
mod transport;
mod web;

pub use client_format::{AnswerHead, ClientFormat, ClientStream, Extent};
pub use provider::{
    Availability, DeltaSink, FaultScope, ModelCapabilities, ModelInfo, Provider, ProviderError, ProviderHealth, RateLimits,
    RateWindow, RawAnswer, RawCall, RawOperation, TokenPrice,
};
pub use task_kind::{ChildEnd, OUTPUT, SnapshotNote, StepHost, StepResult, TaskKind, TurnEnd};
pub use transport::{ConnectError, DeathProof, Duplex, InstallReport, WorkerTransport};
pub use web::{WebAccess, WebHit, WebPage};
