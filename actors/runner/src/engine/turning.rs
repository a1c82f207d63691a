//! Turns of agents: told to the process that drives one, with the connections that it may make, and answered with its report.

use std::io;
use std::net::ToSocketAddrs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use helix_kernel::Secrets;
use helix_protocol::link::Response;
use helix_protocol::{AgentEnd, AgentTurn, Block, CallKey, Code, Epoch, Failure, Network, RunId, TaskId, TurnReport};
use tokio::sync::Semaphore;

use super::running::{Command, Own};
use super::{Answer, Engine};
use crate::sandbox::receive;
use crate::turn::{Said, tell};
use crate::workspace::{Opening, Workspace};

/// Connections to the gateway that a turn may have at once.
const CONNECTIONS: usize = 64;
/// How much of a failed agent's output its failure repeats, in characters.
const QUOTED: usize = 2_000;

impl Engine {
    pub(super) async fn call_turn(
        self: &Arc<Self>,
        task: TaskId,
        epoch: Epoch,
        key: CallKey,
        run: RunId,
        turn: AgentTurn,
    ) -> Answer {
        let (workspace, opening) = self.workspace(task, epoch)?;
        let (engine, opened, run_key) = (Arc::clone(self), Arc::clone(&workspace), key.clone());
        let result = self.once(task, key, async move { engine.turn(&opened, opening, &run_key, run, turn).await });
        self.answer_of(result.await, &workspace, epoch)
    }

    async fn turn(
        self: &Arc<Self>,
        workspace: &Arc<Workspace>,
        opening: Opening,
        key: &CallKey,
        run: RunId,
        turn: AgentTurn,
    ) -> Answer {
        self.refuse_without_way(workspace, &turn)?;
        let failed = |error: io::Error| Failure::new(Code::Internal, format!("an agent's turn cannot be begun: {error}"));
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let heard = ours.try_clone().map_err(failed)?;
        let secret = turn.gateway.as_ref().map(|gateway| gateway.key.clone());
        let secrets = {
            let state = workspace.state.lock();
            Secrets::new(state.secrets.iter().map(|(_, value)| value.as_str()).chain(secret.as_deref()))
        };
        let text = format!("agent {}", turn.agent);
        let engine = Arc::clone(self);
        let listening = tokio::task::spawn_blocking(move || listen(&engine, &heard, &turn));
        let own = Own { arguments: vec!["agent".to_owned()], input: OwnedFd::from(theirs), secret };
        let ran = self.run_command(workspace, opening, key, Command { run, text, timeout_ms: None, own: Some(own) }).await;
        // Whatever still holds the other end is not listened to any more.
        let _ = ours.shutdown(std::net::Shutdown::Both);
        let said = listening.await.unwrap_or(None);
        let report = ran?.report;
        match said {
            Some(Ok(turn)) => Ok(Response::Turned { turn: Box::new(masked(*turn, &secrets)), report }),
            Some(Err(failure)) => {
                let failure = Failure { message: secrets.mask(failure.message), ..failure };
                Err(with_output(failure, &report.tail))
            }
            None => {
                let message = format!("{} ended with exit code {} in the middle of its turn", report.command, report.exit_code);
                Err(with_output(Failure::new(Code::AgentFailed, message), &report.tail))
            }
        }
    }

    /// An agent that is to reach the gateway needs a loopback, or a network, on which it can.
    fn refuse_without_way(&self, workspace: &Workspace, turn: &AgentTurn) -> Result<(), Failure> {
        let Some(gateway) = &turn.gateway else { return Ok(()) };
        let environment = workspace.state.lock().environment.clone();
        let confinement = self.sandboxes.confinement(&environment)?;
        let carried = gateway.url.starts_with("http://");
        if confinement.network == Network::Host || (carried && confinement.has_own_loopback()) {
            return Ok(());
        }
        let why = if carried {
            "this worker has no namespaces, so a task without a network has no loopback on which its agent could reach the gateway"
        } else {
            "the gateway is on the network, and the task has none"
        };
        Err(Failure::new(Code::IsolationUnavailable, why).hint("run it with --network host"))
    }
}

/// What the agent said and did, without the task's secrets and the turn's key.
fn masked(mut turn: TurnReport, secrets: &Secrets) -> TurnReport {
    for block in turn.messages.iter_mut().flat_map(|message| &mut message.blocks) {
        match block {
            Block::Text { text, .. } | Block::Thinking { text, .. } | Block::ToolResult { content: text, .. } => {
                *text = secrets.mask(std::mem::take(text));
            }
            Block::ToolUse { input, .. } => mask_value(input, secrets),
            _ => {}
        }
    }
    if let AgentEnd::Asks { permission, detail } = &mut turn.end {
        permission.title = secrets.mask(std::mem::take(&mut permission.title));
        *detail = secrets.mask(std::mem::take(detail));
    }
    turn
}

fn mask_value(value: &mut serde_json::Value, secrets: &Secrets) {
    match value {
        serde_json::Value::String(text) => *text = secrets.mask(std::mem::take(text)),
        serde_json::Value::Array(values) => values.iter_mut().for_each(|value| mask_value(value, secrets)),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|value| mask_value(value, secrets)),
        _ => {}
    }
}

/// A failure of the agent's, with the end of what it printed. The output comes from the worker's own record, so
/// secrets are masked in it.
fn with_output(mut failure: Failure, output: &str) -> Failure {
    let skipped = output.chars().count().saturating_sub(QUOTED);
    let tail: String = output.chars().skip(skipped).collect();
    if matches!(failure.code, Code::AgentFailed | Code::AgentNotStarted | Code::ProgramMissing) && !tail.trim().is_empty() {
        failure.message = format!("{}; its output ended with:\n{}", failure.message, tail.trim());
    }
    failure
}

/// Tells the turn, carries connections, and answers with how it ended; `None` where the process ended without saying so. Blocks.
fn listen(engine: &Arc<Engine>, socket: &UnixStream, turn: &AgentTurn) -> Option<Result<Box<TurnReport>, Failure>> {
    tell(socket, turn, None).ok()?;
    let gateway = turn.gateway.as_ref().and_then(|gateway| gateway.url.strip_prefix("http://"));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        match receive::<Said>(socket) {
            Ok(Some((Said::Connected, descriptors))) => {
                let (Some(far), Some(gateway)) = (descriptors.into_iter().next(), gateway) else { continue };
                // Dropped where it may not be carried: the agent sees its connection closed.
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                if engine.lease.check().is_err() {
                    continue;
                }
                let (gateway, engine) = (gateway.trim_end_matches('/').to_owned(), Arc::clone(engine));
                tokio::runtime::Handle::current().spawn(async move {
                    if let Err(error) = carry(far, &gateway).await {
                        tracing::debug!(%error, gateway, incarnation = engine.incarnation, "a connection to the gateway ended");
                    }
                    drop(permit);
                });
            }
            Ok(Some((Said::Done(report), _))) => return Some(report),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Moves bytes between an agent and the gateway until either has said everything.
async fn carry(far: OwnedFd, gateway: &str) -> io::Result<()> {
    let far = UnixStream::from(far);
    far.set_nonblocking(true)?;
    let mut far = tokio::net::UnixStream::from_std(far)?;
    let address = gateway.to_owned();
    let addresses = tokio::task::spawn_blocking(move || address.to_socket_addrs()).await.map_err(io::Error::other)??;
    let addresses: Vec<_> = addresses.collect();
    let mut near = tokio::net::TcpStream::connect(addresses.as_slice()).await?;
    near.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut far, &mut near).await.map(drop)
}
