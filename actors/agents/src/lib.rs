//! The agent loop: a model with tools, one turn a step.
//!
//! [`AgentKind`] is the task kind `agent`; [`ExternalKind`] has agents of other people's making do the same, a turn of theirs a
//! step. [`AttemptsKind`] has a piece of work done several times and takes the best. A kind keeps nothing: a step is made from the
//! conversation that the host has, and ends as the messages that are committed with it. So a repeated step, on whatever worker,
//! asks the same questions in the same order, and the journal answers those that were answered before.
//!
//! What always holds of a conversation that a step leaves behind:
//! - It is append-only. What a model was told once is never changed, so its prompt cache stays valid; where it becomes too long,
//!   a step adds a new beginning, and models are shown what follows that.
//! - Every call of a tool has its answer, in order, be it that it was cut, malformed or unknown. The last turn's may still wait:
//!   for a person's approval, or for tasks that it made.
//! - No assistant message is empty, and every tool name in it is one that providers accept.

mod approvals;
mod arguments;
mod attempts;
mod calls;
mod children;
mod compaction;
mod conversation;
mod endings;
mod external;
mod families;
mod instructions;
mod kind;
mod limits;
mod prompt;
mod reasoning;
mod repetition;
mod summary;
#[cfg(test)]
mod tests;
mod toolset;
mod tree;
mod web;

pub use attempts::AttemptsKind;
pub use external::ExternalKind;
pub use kind::AgentKind;
pub use limits::{AgentLimits, ModelLimits};
