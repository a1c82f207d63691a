//! Agents that people already have: how one is run, what a turn of it is asked, and what came of it.
//!
//! A turn travels from the node to the worker that holds the workspace, and its report back, so what is here is part of the link.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Approval, Message};

/// A task that an agent of somebody else's making works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalSpec {
    /// The agent's name in the node's table of agents.
    pub agent: String,
    /// What it is asked to do.
    pub prompt: String,
    /// The model, as a client of the gateway names it; `None` leaves it to the agent.
    #[serde(default)]
    pub model: Option<String>,
    /// The task ends as failed after this many turns.
    #[serde(default = "ExternalSpec::default_max_steps")]
    pub max_steps: u32,
    /// A command that must exit with 0 before the agent's "done" is believed.
    #[serde(default)]
    pub verify: Option<String>,
    /// What it may do without being allowed to each time, as far as it asks.
    #[serde(default)]
    pub approval: Approval,
    /// How it is run; `None` where the table says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<AgentProgram>,
    /// Whose keys its model is called with.
    #[serde(default)]
    pub models: ModelTraffic,
}

impl ExternalSpec {
    fn default_max_steps() -> u32 {
        20
    }

    /// An agent of the table that is asked to do this, with every default.
    pub fn new(agent: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self {
            agent: agent.into(),
            prompt: prompt.into(),
            model: None,
            max_steps: Self::default_max_steps(),
            verify: None,
            approval: Approval::default(),
            program: None,
            models: ModelTraffic::default(),
        }
    }
}

/// Whose keys an agent's model is called with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelTraffic {
    /// The node's: calls go through its gateway under a key that lasts as long as the turn.
    #[default]
    Gateway,
    /// Its own: the node sees no call, so no budget holds and nothing is in the ledger.
    Own,
}

/// How an agent's program is run. In its variables `{session}` is the folder of its session files in the workspace, `{workspace}`
/// the workspace, `{home}` the home of the worker's user, `{model}` the model, `{gateway}` the gateway's address without a path,
/// `{key}` the key for it, and `{sandboxed}` is `1` in a sandbox. A variable whose placeholder has no value in a turn is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentProgram {
    /// What is spoken with it.
    pub speaks: Speaks,
    /// For `sh -c` in the workspace, with the program's standard input and output as `speaks` says.
    pub command: String,
    /// The same for going on with a session, where that is another command. Only where `speaks` is `command`.
    pub resume: String,
    /// Variables it is started with.
    pub environment: BTreeMap<String, String>,
    /// Files of its configuration, by path below `{session}`, with the same placeholders. Written before each turn.
    pub files: BTreeMap<String, String>,
    /// Where in each line of JSON that it prints its answer is, as a JSON pointer; empty: everything it prints is the answer. Only
    /// where `speaks` is `command`.
    pub answer: String,
    /// The same for the id of its session. Empty: `$HELIX_SESSION`, a number of ours that it is started with, is its id.
    pub session: String,
    /// What `resume` prints where the session is not there to be taken up, and nothing was done; `$HELIX_SESSION` stands for its
    /// id. Only where `speaks` is `command`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
}

/// What is spoken with an agent's program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaks {
    /// The Agent Client Protocol, version 1, over standard input and output.
    #[default]
    Acp,
    /// Nothing: it is run once for each turn, with the prompt on standard input and in the file `$HELIX_PROMPT_FILE`.
    Command,
}

/// One turn that a worker shall have an agent make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentTurn {
    /// The agent's name, for people.
    pub agent: String,
    /// How it is run.
    pub program: AgentProgram,
    /// What it is told.
    pub prompt: String,
    /// What was said before, told in front of the prompt where its own session cannot be taken up. Empty at a task's beginning.
    pub before: String,
    /// The model.
    pub model: Option<String>,
    /// Whether it runs in a sandbox.
    #[serde(default)]
    pub sandboxed: bool,
    /// The program's own `lost`, which is empty there: a worker of before refuses a program with a field that it does not know.
    #[serde(default)]
    pub lost: Vec<String>,
    /// What it may do without being allowed to.
    pub approval: Approval,
    /// What a person allowed beyond that.
    pub allowed: Vec<Permission>,
    /// What a person refused.
    pub refused: Vec<Permission>,
    /// How it reaches models; `None` where it uses keys of its own.
    pub gateway: Option<GatewayAccess>,
    /// How long it may take to start, and to say nothing, in milliseconds.
    pub limits: TurnLimits,
}

/// How long an agent may be silent, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnLimits {
    /// From its start until its session stands.
    pub start_ms: u64,
    /// Between two things that are seen of it while it works.
    pub silent_ms: u64,
}

/// The way to the gateway, for one turn.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayAccess {
    /// Its address as a worker reaches it, without a path: `http://HOST:PORT` is carried into the sandbox by the worker,
    /// `https://…` is called by the agent itself.
    pub url: String,
    /// The key.
    pub key: String,
}

impl fmt::Debug for GatewayAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayAccess").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What an agent asks to be allowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Permission {
    /// The kind of call: `read`, `edit`, `delete`, `move`, `search`, `execute`, `think`, `fetch` or `other`.
    pub kind: String,
    /// The call in a line, for people.
    pub title: String,
    /// A hash of all that tells the call from others. `None` where everything of the kind is meant, which has no title either, and
    /// from a worker or a record of before calls had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
}

impl Permission {
    /// Everything of a kind.
    pub fn of_kind(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), title: String::new(), call: None }
    }

    /// True where `asked` is what this speaks of. A title alone is no call: many can have the same one.
    pub fn covers(&self, asked: &Self) -> bool {
        let same = if self.call.is_some() { self.call == asked.call } else { self.title.is_empty() };
        self.kind == asked.kind && same
    }
}

/// What came of a turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnReport {
    /// The program, as it calls itself.
    pub program: String,
    /// Where the turn began.
    pub began: Began,
    /// What the agent said and did, in order.
    pub messages: Vec<Message>,
    /// Why it ended.
    pub end: AgentEnd,
}

/// What an agent knew when its turn began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Began {
    /// Nothing: it is the first turn.
    New,
    /// Everything: it took its own session up.
    Resumed,
    /// What it was told of the earlier turns, because its own session could not be taken up.
    Told,
}

/// Why an agent's turn ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end")]
pub enum AgentEnd {
    /// It says that it is done.
    Done,
    /// Its answer, or its number of requests, was at its limit.
    Cut,
    /// Its model refused to go on.
    Refused,
    /// It stopped by itself as if somebody had asked it to.
    Stopped,
    /// It asked to be allowed something that the policy does not allow by itself, and was stopped.
    Asks {
        /// What.
        permission: Permission,
        /// What it shows of it.
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(title: &str, call: Option<&str>) -> Permission {
        Permission { title: title.to_owned(), call: call.map(str::to_owned), ..Permission::of_kind("execute") }
    }

    #[test]
    fn a_permission_is_for_a_call_or_for_a_kind_and_never_for_a_title() {
        let asked = call("make", Some("1"));
        assert!(asked.covers(&asked) && Permission::of_kind("execute").covers(&asked));
        assert!(!call("make", Some("2")).covers(&asked) && !Permission::of_kind("edit").covers(&asked));
        let of_before: Permission = serde_json::from_str(r#"{"kind":"execute","title":"make"}"#).expect("read");
        assert_eq!(of_before, call("make", None));
        assert!(!of_before.covers(&asked) && !of_before.covers(&of_before));
    }
}
