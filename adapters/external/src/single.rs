//! Agents that are run once for each turn: the prompt goes in, the answer comes out, and the program ends.

use std::time::Duration;

use helix_protocol::{AgentEnd, AgentTurn, Began, Code, Failure, TurnReport};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::program::{Program, code};
use crate::session::Session;
use crate::transcript::{Transcript, cut};

/// How much a program may print in a turn, in bytes.
const MOST: usize = 32 << 20;

/// Makes a turn to its end.
pub(crate) async fn take_turn(turn: &AgentTurn, program: &Program, session: &mut Session) -> Result<TurnReport, Failure> {
    let known = session.id().filter(|_| !turn.program.resume.is_empty()).map(str::to_owned);
    if let Some(id) = known {
        let ran = run(turn, program, session, &turn.program.resume, &id, &turn.prompt).await?;
        if ran.code == 0 || ran.answer.is_some() {
            return ran.report(turn, session, &id, Began::Resumed);
        }
        println!("[its session {id} cannot be taken up: exit code {}]", ran.code);
    }
    let id = uuid::Uuid::now_v7().to_string();
    let began = if turn.before.is_empty() { Began::New } else { Began::Told };
    let ran = run(turn, program, session, &turn.program.command, &id, &crate::told(turn)).await?;
    ran.report(turn, session, &id, began)
}

/// A program that has ended.
struct Ran {
    code: i32,
    printed: String,
    answer: Option<String>,
    session: Option<String>,
}

impl Ran {
    fn report(self, turn: &AgentTurn, session: &mut Session, id: &str, began: Began) -> Result<TurnReport, Failure> {
        let agent = &turn.agent;
        match self.code {
            0 => {}
            127 => {
                let message = format!("the program of the agent {agent} is not on this worker");
                return Err(Failure::new(Code::ProgramMissing, message).hint(
                    "install it there; docs/agents.md says how each is run, and `agents.programs` in helix.yaml changes it",
                ));
            }
            code => {
                let message = format!("the agent {agent} ended with exit code {code}");
                return Err(Failure::new(Code::AgentFailed, message).hint("`helix task log` shows all it printed"));
            }
        }
        session.keep(agent, self.session.as_deref().unwrap_or(id))?;
        let mut transcript = Transcript::default();
        transcript.say(self.answer.as_deref().unwrap_or(&self.printed).trim());
        Ok(TurnReport { program: agent.clone(), began, messages: transcript.into_messages(), end: AgentEnd::Done })
    }
}

async fn run(
    turn: &AgentTurn,
    program: &Program,
    session: &Session,
    command: &str,
    id: &str,
    prompt: &str,
) -> Result<Ran, Failure> {
    let file = session.folder().join("prompt.md");
    std::fs::write(&file, prompt).map_err(|error| Failure::io(file.display(), &error))?;
    let file = file.display().to_string();
    let mut variables = vec![("HELIX_PROMPT_FILE", file.as_str()), ("HELIX_SESSION", id)];
    variables.extend(turn.model.as_deref().map(|model| ("HELIX_MODEL", model)));
    let mut running = program.start(command, &variables)?;
    let (mut input, output) = (running.child.stdin.take(), running.child.stdout.take());
    let prompt = prompt.to_owned();
    // Beside the reading: a program may print before it has read everything.
    let writing = tokio::spawn(async move {
        if let Some(input) = &mut input {
            // One that does not read it has the file.
            let _ = input.write_all(prompt.as_bytes()).await;
        }
    });
    let mut printed = Vec::new();
    let silent = Duration::from_millis(turn.limits.silent_ms);
    if let Some(mut output) = output {
        let mut piece = vec![0; 64 << 10];
        loop {
            let read = tokio::time::timeout(silent, output.read(&mut piece)).await;
            let read = read.map_err(|_| {
                let message = format!("the agent {} printed nothing for {} s", turn.agent, silent.as_secs());
                Failure::new(Code::AgentFailed, message).hint("`agents.silent_ms` in helix.yaml says how long it may")
            })?;
            let length = read.map_err(|error| Failure::io(format!("the output of the agent {}", turn.agent), &error))?;
            if length == 0 {
                break;
            }
            use std::io::Write;
            let _ = std::io::stdout().write_all(&piece[..length]);
            let room = MOST.saturating_sub(printed.len());
            printed.extend_from_slice(&piece[..length.min(room)]);
        }
    }
    let status = running.child.wait().await.map_err(|error| Failure::io(format!("the agent {}", turn.agent), &error))?;
    writing.abort();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    let answer = last(&printed, &turn.program.answer);
    let session = last(&printed, &turn.program.session);
    Ok(Ran { code: code(status), printed, answer, session })
}

/// The last text that a JSON pointer finds in lines of JSON, or in the whole.
fn last(printed: &str, pointer: &str) -> Option<String> {
    if pointer.is_empty() {
        return None;
    }
    let of = |text: &str| {
        let value: Value = serde_json::from_str(text).ok()?;
        value.pointer(pointer)?.as_str().map(str::to_owned)
    };
    printed.lines().rev().find_map(of).or_else(|| of(cut(printed, MOST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_in_lines_and_in_one_document() {
        let lines =
            "starting\n{\"thread_id\": \"t\"}\n{\"item\": {\"text\": \"one\"}}\n{\"item\": {\"text\": \"two\"}}\n{\"usage\": {}}\n";
        assert_eq!(last(lines, "/item/text").as_deref(), Some("two"));
        assert_eq!(last(lines, "/thread_id").as_deref(), Some("t"));
        assert_eq!(last("{\n \"response\": \"yes\"\n}\n", "/response").as_deref(), Some("yes"));
        assert_eq!(last(lines, "/absent"), None);
        assert_eq!(last(lines, ""), None);
    }
}
