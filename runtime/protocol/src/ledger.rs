//! Keys of the gateway, and the ledger of model calls.

use serde::{Deserialize, Serialize};

use crate::{Budget, Code, KeyId, ModelCallId, Money, OwnerId, ProjectId, TaskId, Timestamp, Usage};

impl GatewayKey {
    /// What every key begins with, so that scanners for leaked secrets know one.
    pub const PREFIX: &str = "helix-";
}

/// A key with which a client calls models through the gateway. The key itself is known only to whoever was given it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayKey {
    /// Its id.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// The BLAKE3 hash of the key, in hexadecimal digits. A key is 256 random bits, so a slow hash would add nothing.
    pub hash: String,
    /// Who pays.
    pub owner: OwnerId,
    /// For which project.
    pub project: ProjectId,
    /// The task it was made for; it ends with it.
    #[serde(default)]
    pub task: Option<TaskId>,
    /// The models it may name, by the name a client gives; empty for all.
    #[serde(default)]
    pub models: Vec<String>,
    /// Most that it may spend in all.
    #[serde(default)]
    pub budget: Budget,
    /// Most that it may spend in a UTC day.
    #[serde(default)]
    pub daily: Budget,
    /// Most requests in a minute; `None` is no limit.
    #[serde(default)]
    pub requests_per_minute: Option<u32>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Since when it is refused.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

/// How a model call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// With an answer.
    Answered,
    /// With the answer that an equal request had before: nobody was asked.
    Reused,
    /// Without an answer, and nothing was billed.
    Failed,
    /// It may have been billed: nobody knows what it used, and the most that it could have is charged.
    Uncertain,
}

/// One entry of the ledger: a call as it was asked for, whoever answered it after however many tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCall {
    /// Its id.
    pub id: ModelCallId,
    /// When it ended.
    pub at: Timestamp,
    /// Who pays.
    pub owner: OwnerId,
    /// Who asked: a program or a user.
    pub actor: String,
    /// The task it was made for.
    #[serde(default)]
    pub task: Option<TaskId>,
    /// The step of the task, by its number.
    #[serde(default)]
    pub step: Option<u64>,
    /// The gateway's key it was made with. Only such calls count here against budgets: those of steps are in the steps.
    #[serde(default)]
    pub key: Option<KeyId>,
    /// Who answered; who was asked first where nobody did.
    pub provider: String,
    /// With which model.
    pub model: String,
    /// What was used, and what it cost.
    pub usage: Usage,
    /// From the request to the end of the answer, in milliseconds.
    pub latency_ms: u64,
    /// How it ended.
    pub outcome: CallOutcome,
    /// Why it failed.
    #[serde(default)]
    pub code: Option<Code>,
}

/// What was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// In money.
    pub money: Money,
    /// In tokens.
    pub tokens: u64,
}
