//! Agents that people already have, driven from within a workspace.
//!
//! [`take_turn`] runs in a process of its own on the worker, in the task's sandbox, as a command of the workspace. The agent is its
//! child. It is told one turn and answers with one report; what must survive is in the workspace, in [`Session`]'s folder, so it is
//! committed with the step's files and comes back with them, on whatever worker.
//!
//! The Agent Client Protocol (`acp`) is spoken in the types of its official schema crate. The SDK's connection above them is not
//! used: it has an executor of its own, and here silence, a cancelled turn's end and output that is no message all have a limit.

mod acp;
#[cfg(any(test, feature = "testing"))]
pub mod fuzzing;
mod life;
mod program;
mod session;
mod single;
mod transcript;

use std::path::Path;

use helix_protocol::{AgentTurn, Failure, Speaks, TurnReport};

pub use life::Life;
pub use session::FOLDER;
use session::Session;

/// The agent's way to the gateway.
#[derive(Clone, Debug)]
pub struct Way {
    /// The address under which it is reached, without a path.
    pub address: String,
    /// Where the agent's connections to it are noted; `None` where it calls there by itself and nobody sees it.
    pub seen: Option<Life>,
}

impl Way {
    /// True where the agent has certainly asked the gateway nothing so far.
    fn is_untouched(&self) -> bool {
        self.seen.as_ref().is_some_and(Life::is_untouched)
    }
}

/// Makes a turn to its end. `gateway` is how the agent reaches the gateway, where it has access to it.
pub async fn take_turn(turn: &AgentTurn, workspace: &Path, gateway: Option<&Way>) -> Result<TurnReport, Failure> {
    let mut session = Session::open(workspace, turn)?;
    let program = program::Program::new(turn, workspace, session.folder(), gateway.map(|way| way.address.as_str()));
    program.write_files()?;
    let life = gateway.and_then(|way| way.seen.clone()).unwrap_or_default();
    match turn.program.speaks {
        Speaks::Acp => acp::take_turn(turn, workspace, &program, &life, &mut session).await,
        Speaks::Command => single::take_turn(turn, &program, gateway, &life, &mut session).await,
    }
}

/// What an agent is told where it does not know what was said before.
fn told(turn: &AgentTurn) -> String {
    if turn.before.is_empty() {
        return turn.prompt.clone();
    }
    format!(
        "You are taking over work that was begun in another session. The files are as that session left them. What was said so far:\n\n\
         {}\n\nGo on with this:\n\n{}",
        turn.before, turn.prompt
    )
}
