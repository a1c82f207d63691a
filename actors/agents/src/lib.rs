//! The agent loop: a model with tools, one turn a step.
//!
//! [`AgentKind`] is the task kind `agent`. It keeps nothing: a step is made from the conversation that the host has, and
//! ends as the messages that are committed with it. So a repeated step, on whatever worker, asks the same questions in
//! the same order, and the journal answers those that were answered before.
//!
//! What always holds of a conversation that a step leaves behind:
//! - It is append-only. What a model was told once is never changed, so its prompt cache stays valid.
//! - Every call of a tool has its answer, in order, be it that it was cut, malformed or unknown.
//! - No assistant message is empty, and every tool name in it is one that providers accept.

mod arguments;
mod calls;
mod conversation;
mod endings;
mod kind;
mod limits;
mod prompt;
mod repetition;
mod summary;
#[cfg(test)]
mod tests;

pub use kind::AgentKind;
pub use limits::{AgentLimits, ModelLimits};
