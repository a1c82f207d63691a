//! The live tree as data, for `helix tree` and the API.

use helix_protocol::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Restart, Strategy};

/// One actor or supervisor of the live tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNode {
    /// Its name, unique among its siblings.
    pub name: String,
    /// Whether something can be below it.
    pub kind: TreeKind,
    /// A supervisor's strategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// When it is started again.
    pub restart: Restart,
    /// What it does now.
    pub state: TreeState,
    /// How often it was started again since its supervisor started.
    pub restarts: u64,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// Why it failed last, if it ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// How many messages wait for it.
    pub waiting: usize,
    /// How many may.
    pub limit: usize,
    /// What is below it, in the order of starting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<TreeNode>,
}

impl TreeNode {
    /// The direct child of that name.
    pub fn child(&self, name: &str) -> Option<&TreeNode> {
        self.children.iter().find(|child| child.name == name)
    }
}

/// Whether something can be below a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TreeKind {
    /// Nothing.
    Actor,
    /// Its children.
    Supervisor,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TreeState {
    /// It runs.
    Running,
    /// It starts, or waits to be started again.
    Restarting,
    /// It has ended in order, or is about to.
    Stopped,
    /// It failed and is not started again.
    Failed,
}
