//! The agent's program as a peer of JSON-RPC: one request of ours at a time, whatever it sends meanwhile handled as it comes.

use std::time::Duration;

use agent_client_protocol_schema::v1::Error;
use helix_protocol::{Code, Failure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStdout;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::lines::{Line, Lines};
use super::turn::{Heard, Turn};
use super::wire::{self, Incoming};
use super::{Stage, Stopped};
use crate::life::{Life, fell_silent};
use crate::program::Running;

/// The longest message of an agent, in bytes.
const LONGEST: u64 = 32 << 20;
/// Messages that may wait to be handled.
const WAITING: usize = 64;

/// The program, and what comes from it.
pub struct Peer {
    running: Running,
    life: Life,
    incoming: mpsc::Receiver<Result<Incoming, String>>,
    next: i64,
}

/// How long an agent may be silent while a request waits for its answer.
#[derive(Clone, Copy)]
pub enum Patience {
    /// Words of the protocol count alone: one that has no session yet has nothing else to do.
    ForWords(Duration),
    /// Whatever is seen of it counts.
    ForLife(Duration),
}

/// Why a request has no answer of the form that was expected.
pub enum Refused {
    /// The agent says no.
    Answered(Error),
    /// It says nothing for too long.
    Silent(Duration),
    /// It did not end a cancelled turn.
    Late,
    /// Its output has ended.
    Gone,
    /// What it says cannot be understood.
    Garbage(String),
}

impl Refused {
    pub fn into_stopped(self, agent: &str, stage: Stage) -> Stopped {
        let when = stage.when();
        let failed = |message: String| Failure::new(stage.code(), message);
        Stopped::Failed(match self {
            Self::Answered(error) => failed(format!("the agent {agent} failed {when}: {}", wire::text(&error))),
            Self::Silent(limit) if matches!(stage, Stage::Starting | Stage::Beginning) => {
                let seconds = limit.as_secs();
                let message = format!(
                    "the agent {agent} said nothing for {seconds} s {when}: does it speak ACP on its standard input and output? \
                     (`speaks: command` is for one that is run once for each turn)"
                );
                let hint = "`agents.programs` in helix.yaml says how it is run, and `agents.start_ms` how long it may be silent";
                return Stopped::Mute(failed(message).hint(hint));
            }
            // A machine may be busy, or have been frozen: another try may go better.
            Self::Silent(limit) if stage == Stage::TakingUp => {
                Failure::new(Code::TimedOut, format!("the agent {agent} said nothing for {} s {when}", limit.as_secs()))
                    .hint("`agents.start_ms` in helix.yaml says how long it may")
            }
            Self::Silent(limit) => fell_silent(agent, limit),
            Self::Late => failed(format!("the agent {agent} did not end a turn that was cancelled")),
            Self::Garbage(what) => failed(format!("the agent {agent} does not speak the Agent Client Protocol: {what}"))
                .hint("its command may need an option for that, or print something else first; `helix task log` shows it"),
            Self::Gone => return Stopped::Gone(stage),
        })
    }
}

impl Peer {
    pub fn new(mut running: Running, life: Life) -> Self {
        let (heard, incoming) = mpsc::channel(WAITING);
        if let Some(output) = running.child.stdout.take() {
            tokio::spawn(read(output, heard));
        }
        Self { running, life, incoming, next: 0 }
    }

    /// Asks, and handles what comes until the answer does.
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        method: &str,
        params: impl Serialize,
        turn: &mut Turn<'_>,
        patience: Patience,
    ) -> Result<T, Refused> {
        self.next += 1;
        let id = self.next;
        self.life.sign();
        self.send(&wire::request(id, method, params)).await?;
        let mut cancelled = None;
        loop {
            let silence = async {
                match (cancelled, patience) {
                    (Some(until), _) => {
                        sleep_until(until).await;
                        Refused::Late
                    }
                    (None, Patience::ForWords(limit)) => {
                        sleep(limit).await;
                        Refused::Silent(limit)
                    }
                    (None, Patience::ForLife(limit)) => {
                        self.life.silent(limit).await;
                        Refused::Silent(limit)
                    }
                }
            };
            let heard = tokio::select! {
                biased;
                heard = self.incoming.recv() => heard.ok_or(Refused::Gone)?.map_err(Refused::Garbage)?,
                refused = silence => return Err(refused),
            };
            self.life.sign();
            match turn.hear(heard, id) {
                Heard::Nothing => {}
                Heard::Asked { answers, cancels } => {
                    for answer in &answers {
                        self.send(answer).await?;
                    }
                    if cancels {
                        cancelled.get_or_insert(Instant::now() + super::CANCELLING);
                    }
                }
                Heard::Answer(Err(error)) => return Err(Refused::Answered(error)),
                Heard::Answer(Ok(result)) => {
                    return serde_json::from_value(result)
                        .map_err(|error| Refused::Garbage(format!("its answer to {method} is none: {error}")));
                }
            }
        }
    }

    async fn send(&mut self, message: &Value) -> Result<(), Refused> {
        let mut line = message.to_string();
        line.push('\n');
        let Some(input) = &mut self.running.child.stdin else { return Err(Refused::Gone) };
        let sent = async {
            input.write_all(line.as_bytes()).await?;
            input.flush().await
        };
        sent.await.map_err(|_| Refused::Gone)
    }

    /// Lets the program leave.
    pub async fn leave(self) {
        self.running.leave().await;
    }

    /// Why its output has ended.
    pub async fn ended(self, stage: Stage) -> Failure {
        self.running.ended(stage.code(), stage.when()).await
    }
}

/// Reads messages, a line each. What is none is shown as output.
async fn read(output: ChildStdout, heard: mpsc::Sender<Result<Incoming, String>>) {
    let (mut output, mut lines) = (BufReader::new(output), Lines::default());
    loop {
        let mut line = Vec::new();
        match (&mut output).take(LONGEST).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let message = if line.len() as u64 >= LONGEST {
            Err(format!("a message of it is longer than {} MiB", LONGEST >> 20))
        } else {
            match lines.read(&line) {
                Line::Blank => continue,
                Line::Message(message) => Ok(*message),
                Line::Printed(text) => {
                    println!("{text}");
                    if !lines.are_no_agents() {
                        continue;
                    }
                    Err(format!("it says {:?}", crate::transcript::cut(&text, 200)))
                }
            }
        };
        let over = message.is_err();
        if heard.send(message).await.is_err() || over {
            return;
        }
    }
}
