//! Identifiers. Every id is a UUIDv7, so it sorts by the time it was made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, ordered after every id this process made before.
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The last eight hexadecimal digits: the random end, which is what people type.
            pub fn short(&self) -> String {
                let text = self.0.simple().to_string();
                text[text.len() - 8..].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id!(
    /// A unit of durable work.
    TaskId
);
id!(
    /// One line of steps of a task: the original, a fork, or one of `--attempts N`.
    AttemptId
);
id!(
    /// One committed turn of a task.
    StepId
);
id!(
    /// A machine that runs commands. Chosen once, when the worker is added; it survives restarts.
    WorkerId
);
id!(
    /// One data folder's node.
    NodeId
);
id!(
    /// One database of records, whatever its address. Content belongs to the records that name it.
    RecordsId
);
id!(
    /// One execution of a command on a worker.
    RunId
);
id!(
    /// A key of the gateway.
    KeyId
);
id!(
    /// One entry of the ledger of model calls.
    ModelCallId
);
id!(
    /// One recorded event.
    EventId
);
id!(
    /// A question that parks a task until somebody answers.
    QuestionId
);
id!(
    /// Something a person said to a task.
    RemarkId
);
id!(
    /// Who owns a row.
    OwnerId
);
id!(
    /// The project a row belongs to.
    ProjectId
);

impl OwnerId {
    /// The person at the socket of a node without accounts.
    pub const LOCAL: OwnerId = OwnerId(Uuid::from_u128(1));
}

impl ProjectId {
    /// The project of everything that named none.
    pub const DEFAULT: ProjectId = ProjectId(Uuid::from_u128(1));
}

/// On whose behalf a request is made. Carried by every request that changes something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The account.
    pub owner: OwnerId,
    /// What is written into events and logs as the actor, for example `cli`, `node` or a user's name.
    pub actor: String,
}

impl Principal {
    /// The person at this machine's socket.
    pub fn local(actor: impl Into<String>) -> Self {
        Self { owner: OwnerId::LOCAL, actor: actor.into() }
    }
}

/// Counts the owners of a task. It only grows; a writer that holds a smaller one than the
/// database's is a stale owner, and nothing it writes is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one external effect or tool call for good: the same call repeated after a crash carries
/// the same key, so the far side can recognise it. Sixty-four hexadecimal digits: a BLAKE3 hash
/// of (task, attempt, step ordinal, call ordinal).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallKey(pub String);

impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
