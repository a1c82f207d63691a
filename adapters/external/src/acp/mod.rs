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

use agent_client_protocol_schema::ProtocolVersion;
use agent_client_protocol_schema::v1::{
    AGENT_METHOD_NAMES, ErrorCode, Implementation, InitializeRequest, InitializeResponse, LoadSessionRequest, NewSessionRequest,
    NewSessionResponse, PromptRequest, ResumeSessionRequest, SessionId,
};
use helix_protocol::{AgentEnd, AgentTurn, Began, Code, Failure, TurnReport};
use serde_json::Value;

use crate::life::Life;
use crate::program::Program;
use crate::session::Session;
use peer::{Patience, Peer, Refused};
use turn::Turn;
use wire::Prompted;

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
    let client = Implementation::new("helix", env!("CARGO_PKG_VERSION")).title("Helix".to_owned());
    let initialize = InitializeRequest::new(ProtocolVersion::V1).client_info(client);
    let begun = peer.call::<InitializeResponse>(AGENT_METHOD_NAMES.initialize, initialize, &mut state, starting).await;
    let about = begun.map_err(|refused| refused.into_stopped(&turn.agent, Stage::Starting))?;
    if about.protocol_version != ProtocolVersion::V1 {
        let message = format!(
            "the agent {} speaks version {} of the Agent Client Protocol, and this client {}",
            turn.agent,
            about.protocol_version.as_u16(),
            ProtocolVersion::V1.as_u16()
        );
        return Err(Failure::new(Code::VersionMismatch, message).hint("install a version of the agent that speaks it").into());
    }
    let (id, began) = open(peer, turn, workspace, session, &about, &mut state, starting).await?;
    session.keep(&turn.agent, &id.0)?;

    let text = if began == Began::Resumed { turn.prompt.clone() } else { crate::told(turn) };
    let prompt = PromptRequest::new(id.clone(), vec![text.into()]);
    state.listen(id);
    let silent = Patience::ForLife(Duration::from_millis(turn.limits.silent_ms));
    let prompted = peer.call::<Prompted>(AGENT_METHOD_NAMES.session_prompt, prompt, &mut state, silent).await;
    let end = match (prompted, state.asked()) {
        // Whatever it says of a turn that we cancelled: what was asked is what counts.
        (Ok(_) | Err(Refused::Answered(_) | Refused::Late), Some((permission, detail))) => AgentEnd::Asks { permission, detail },
        (Ok(prompted), None) => prompted.end(),
        (Err(refused), _) => return Err(refused.into_stopped(&turn.agent, Stage::Working)),
    };
    Ok(TurnReport { program: wire::name(&about, &turn.agent), began, messages: state.into_messages(), end })
}

/// Takes the session up that the workspace has, where the agent can; begins one otherwise.
async fn open(
    peer: &mut Peer,
    turn: &AgentTurn,
    workspace: &Path,
    session: &Session,
    about: &InitializeResponse,
    state: &mut Turn<'_>,
    starting: Patience,
) -> Result<(SessionId, Began), Stopped> {
    let cwd = workspace.display().to_string();
    if let Some(id) = session.id().map(SessionId::new) {
        // What it replays of earlier turns is not this one's: nothing is listened to before the prompt.
        let can = &about.agent_capabilities;
        let taken_up = if can.session_capabilities.resume.is_some() {
            let resume = ResumeSessionRequest::new(id.clone(), &cwd);
            Some(peer.call::<Value>(AGENT_METHOD_NAMES.session_resume, resume, state, starting).await)
        } else if can.load_session {
            let load = LoadSessionRequest::new(id.clone(), &cwd);
            Some(peer.call::<Value>(AGENT_METHOD_NAMES.session_load, load, state, starting).await)
        } else {
            None
        };
        match taken_up {
            Some(Ok(_)) => return Ok((id, Began::Resumed)),
            Some(Err(Refused::Answered(error))) => eprintln!("[its session {id} cannot be taken up: {}]", error.message),
            Some(Err(refused)) => return Err(refused.into_stopped(&turn.agent, Stage::TakingUp)),
            None => {}
        }
    }
    let began = if turn.before.is_empty() { Began::New } else { Began::Told };
    match peer.call::<NewSessionResponse>(AGENT_METHOD_NAMES.session_new, NewSessionRequest::new(cwd), state, starting).await {
        Ok(made) => Ok((made.session_id, began)),
        Err(Refused::Answered(error)) if error.code == ErrorCode::AuthRequired => {
            let ways: Vec<&str> = about.auth_methods.iter().map(|method| method.name()).collect();
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
