//! The client's side of the Agent Client Protocol, version 1 (<https://agentclientprotocol.com>): one turn of an agent.
//!
//! The agent reads and writes files and runs commands by itself, held by the sandbox that it is in: the client's file system and
//! terminals, which the protocol has for editors, are declared absent. What it asks to be allowed is decided by the task's policy;
//! where that is a person's to say, the turn is cancelled, so that nothing waits in memory for somebody who may come in days.

#[cfg(any(test, feature = "testing"))]
pub mod fuzzing;
mod lines;
mod peer;
mod turn;
mod wire;

use std::path::Path;
use std::time::Duration;

use helix_protocol::{AgentEnd, AgentTurn, Began, Code, Failure, TurnReport};
use serde_json::json;

use crate::life::Life;
use crate::program::Program;
use crate::session::Session;
use peer::{Patience, Peer, Refused};
use turn::Turn;
use wire::{Initialized, Prompted, Session as WireSession};

/// The version of the protocol.
const VERSION: u16 = 1;
/// How often an agent is started that says nothing before it has a session: the machine may have been busy, or frozen.
const STARTS: u32 = 2;
/// How long an agent may take to end a turn that was cancelled.
const CANCELLING: Duration = Duration::from_secs(10);

/// Makes a turn to its end.
pub(crate) async fn take_turn(
    turn: &AgentTurn,
    workspace: &Path,
    program: &Program,
    life: &Life,
    session: &mut Session,
) -> Result<TurnReport, Failure> {
    let mut starts = 0;
    loop {
        let mut peer = Peer::new(program.start(&turn.program.command, &[], life)?, life.clone());
        starts += 1;
        let made = make(&mut peer, turn, workspace, session).await;
        match made {
            Ok(report) => {
                // It may write its session down only as it leaves.
                peer.leave().await;
                return Ok(report);
            }
            Err(Stopped::Failed(failure)) => return Err(failure),
            Err(Stopped::Mute(failure)) if starts == STARTS => return Err(failure),
            Err(Stopped::Mute(_)) => eprintln!("[it said nothing; it is started once more]"),
            Err(Stopped::Gone(stage)) => return Err(peer.ended(stage).await),
        }
    }
}

/// How far a turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    TakingUp,
    Beginning,
    Working,
}

impl Stage {
    /// What a failure in it is: before there is a session the agent would fail in the same way again.
    fn code(self) -> Code {
        if self == Self::Working { Code::AgentFailed } else { Code::AgentNotStarted }
    }

    fn when(self) -> &'static str {
        match self {
            Self::Starting => "as it was started",
            Self::TakingUp => "as it took its session up",
            Self::Beginning => "as its session was begun",
            Self::Working => "in the middle of its turn",
        }
    }
}

/// Why a turn cannot go on.
enum Stopped {
    Failed(Failure),
    /// It was silent, and has no session yet.
    Mute(Failure),
    /// The program's output has ended.
    Gone(Stage),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

async fn make(peer: &mut Peer, turn: &AgentTurn, workspace: &Path, session: &mut Session) -> Result<TurnReport, Stopped> {
    let starting = Patience::ForWords(Duration::from_millis(turn.limits.start_ms));
    let mut shown = std::io::stdout();
    let mut state = Turn::new(turn, &mut shown);
    let initialize = json!({
        "protocolVersion": VERSION,
        "clientCapabilities": { "fs": { "readTextFile": false, "writeTextFile": false }, "terminal": false },
        "clientInfo": { "name": "helix", "title": "Helix", "version": env!("CARGO_PKG_VERSION") },
    });
    let begun = peer.call::<Initialized>("initialize", &initialize, &mut state, starting).await;
    let about = begun.map_err(|refused| refused.into_stopped(&turn.agent, Stage::Starting))?;
    if about.protocol_version != VERSION {
        let message = format!(
            "the agent {} speaks version {} of the Agent Client Protocol, and this client {VERSION}",
            turn.agent, about.protocol_version
        );
        return Err(Failure::new(Code::VersionMismatch, message).hint("install a version of the agent that speaks it").into());
    }
    let (id, began) = open(peer, turn, workspace, session, &about, &mut state, starting).await?;
    session.keep(&turn.agent, &id)?;

    let text = if began == Began::Resumed { turn.prompt.clone() } else { crate::told(turn) };
    let prompt = json!({ "sessionId": id, "prompt": [{ "type": "text", "text": text }] });
    state.listen(&id);
    let silent = Patience::ForLife(Duration::from_millis(turn.limits.silent_ms));
    let prompted = peer.call::<Prompted>("session/prompt", &prompt, &mut state, silent).await;
    let end = match (prompted, state.asked()) {
        // Whatever it says of a turn that we cancelled: what was asked is what counts.
        (Ok(_) | Err(Refused::Answered(_) | Refused::Late), Some((permission, detail))) => AgentEnd::Asks { permission, detail },
        (Ok(Prompted { stop_reason }), None) => ending(&stop_reason),
        (Err(refused), _) => return Err(refused.into_stopped(&turn.agent, Stage::Working)),
    };
    Ok(TurnReport { program: about.name(&turn.agent), began, messages: state.into_messages(), end })
}

fn ending(stop: &str) -> AgentEnd {
    match stop {
        "max_tokens" | "max_turn_requests" => AgentEnd::Cut,
        "refusal" => AgentEnd::Refused,
        "cancelled" => AgentEnd::Stopped,
        _ => AgentEnd::Done,
    }
}

/// Takes the session up that the workspace has, where the agent can; begins one otherwise.
async fn open(
    peer: &mut Peer,
    turn: &AgentTurn,
    workspace: &Path,
    session: &Session,
    about: &Initialized,
    state: &mut Turn<'_>,
    starting: Patience,
) -> Result<(String, Began), Stopped> {
    let cwd = workspace.display().to_string();
    let way = match () {
        () if about.agent_capabilities.session_capabilities.resume.is_some() => Some("session/resume"),
        () if about.agent_capabilities.load_session => Some("session/load"),
        () => None,
    };
    if let (Some(id), Some(way)) = (session.id(), way) {
        // What it replays of earlier turns is not this one's: nothing is listened to before the prompt.
        let params = json!({ "sessionId": id, "cwd": cwd, "mcpServers": [] });
        match peer.call::<serde_json::Value>(way, &params, state, starting).await {
            Ok(_) => return Ok((id.to_owned(), Began::Resumed)),
            Err(Refused::Answered(error)) => eprintln!("[its session {id} cannot be taken up: {}]", error.message),
            Err(refused) => return Err(refused.into_stopped(&turn.agent, Stage::TakingUp)),
        }
    }
    let began = if turn.before.is_empty() { Began::New } else { Began::Told };
    let params = json!({ "cwd": cwd, "mcpServers": [] });
    match peer.call::<WireSession>("session/new", &params, state, starting).await {
        Ok(made) => Ok((made.session_id, began)),
        Err(Refused::Answered(error)) if error.code == wire::AUTH_REQUIRED => {
            let ways: Vec<&str> = about.auth_methods.iter().map(|method| method.name.as_str()).collect();
            let message = format!("the agent {} wants a login: {}", turn.agent, error.message);
            let hint = format!(
                "give it a key in its environment (`agents.programs.{}.environment`, or a secret of the task); it offers: {}",
                turn.agent,
                if ways.is_empty() { "nothing".to_owned() } else { ways.join(", ") }
            );
            Err(Failure::new(Code::InvalidConfig, message).hint(hint).into())
        }
        Err(refused) => Err(refused.into_stopped(&turn.agent, Stage::Beginning)),
    }
}
