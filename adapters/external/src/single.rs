//! Agents that are run once for each turn: the prompt goes in, the answer comes out, and the program ends.

use std::time::Duration;

use helix_protocol::{AgentEnd, AgentProgram, AgentTurn, Began, Code, Failure, Message, TurnReport};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Way;
use crate::life::{Life, fell_silent};
use crate::program::{NO_SUCH_PROGRAM, Program, code};
use crate::session::Session;
use crate::transcript::{Transcript, cut};

/// How much a program may print in a turn, in bytes.
const MOST: usize = 32 << 20;

/// Makes a turn to its end.
///
/// A resumed run that failed is made anew only where it certainly did nothing: it says that its session is not there, or it ended
/// without having asked the gateway anything. Whatever else went wrong is the turn's failure, because the files may be half-changed
/// and the model paid.
pub(crate) async fn take_turn(
    turn: &AgentTurn,
    program: &Program,
    gateway: Option<&Way>,
    life: &Life,
    session: &mut Session,
) -> Result<TurnReport, Failure> {
    let known = session.id().filter(|_| !turn.program.resume.is_empty()).map(str::to_owned);
    if let Some(id) = known {
        let start = Start { command: &turn.program.resume, id: &id, prompt: &turn.prompt, lost: &turn.lost };
        let ran = run(turn, program, life, session, start).await?;
        let did_nothing = ran.is_lost || (is_led(turn) && gateway.is_some_and(Way::is_untouched));
        if matches!(ran.code, 0 | NO_SUCH_PROGRAM) || ran.said.answer.is_some() || !did_nothing {
            return ran.report(turn, session, &id, Began::Resumed);
        }
        println!("[its session {id} cannot be taken up: exit code {}]", ran.code);
    }
    let id = uuid::Uuid::now_v7().to_string();
    let began = if turn.before.is_empty() { Began::New } else { Began::Told };
    let start = Start { command: &turn.program.command, id: &id, prompt: &crate::told(turn), lost: &[] };
    let ran = run(turn, program, life, session, start).await?;
    ran.report(turn, session, &id, began)
}

/// Whether the program is told of the gateway at all: one that is not reaches its models in its own way, unseen.
fn is_led(turn: &AgentTurn) -> bool {
    let program = &turn.program;
    program.environment.values().chain(program.files.values()).any(|text| text.contains("{gateway}"))
}

/// What is run, and with what.
struct Start<'a> {
    command: &'a str,
    /// The session's id.
    id: &'a str,
    prompt: &'a str,
    /// The words for a session that is not there, with a placeholder for its id.
    lost: &'a [String],
}

/// A program that has ended.
struct Ran {
    code: i32,
    said: Said,
    /// It said that the session is not there.
    is_lost: bool,
}

/// What a program printed, and what of it the program's description finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    printed: String,
    pub answer: Option<String>,
    /// What it calls its session.
    pub session: Option<String>,
}

impl Said {
    pub fn new(printed: String, program: &AgentProgram) -> Self {
        let answer = last(&printed, &program.answer);
        // It comes back to the program in a variable, which holds no such characters.
        let named = |session: &String| !session.is_empty() && !session.contains(char::is_control);
        let session = last(&printed, &program.session).filter(named);
        Self { printed, answer, session }
    }

    /// As messages of ours.
    pub fn into_messages(self) -> Vec<Message> {
        let mut transcript = Transcript::default();
        transcript.say(self.answer.as_deref().unwrap_or(&self.printed).trim());
        transcript.into_messages()
    }
}

impl Ran {
    fn report(self, turn: &AgentTurn, session: &mut Session, id: &str, began: Began) -> Result<TurnReport, Failure> {
        let agent = &turn.agent;
        match self.code {
            0 => {}
            NO_SUCH_PROGRAM => {
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
        session.keep(agent, self.said.session.as_deref().unwrap_or(id))?;
        Ok(TurnReport { program: agent.clone(), began, messages: self.said.into_messages(), end: AgentEnd::Done })
    }
}

async fn run(turn: &AgentTurn, program: &Program, life: &Life, session: &Session, start: Start<'_>) -> Result<Ran, Failure> {
    let Start { command, id, prompt, lost } = start;
    let file = session.folder().join("prompt.md");
    std::fs::write(&file, prompt).map_err(|error| Failure::io(file.display(), &error))?;
    let file = file.display().to_string();
    let mut variables = vec![("HELIX_PROMPT_FILE", file.as_str()), ("HELIX_SESSION", id)];
    variables.extend(turn.model.as_deref().map(|model| ("HELIX_MODEL", model)));
    let mut running = program.start(command, &variables, life)?;
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
            let read = tokio::select! {
                read = output.read(&mut piece) => read,
                () = life.silent(silent) => return Err(fell_silent(&turn.agent, silent)),
            };
            let length = read.map_err(|error| Failure::io(format!("the output of the agent {}", turn.agent), &error))?;
            if length == 0 {
                break;
            }
            life.sign();
            use std::io::Write;
            let _ = std::io::stdout().write_all(&piece[..length]);
            let room = MOST.saturating_sub(printed.len());
            printed.extend_from_slice(&piece[..length.min(room)]);
        }
    }
    let status = tokio::select! {
        status = running.child.wait() => status,
        () = life.silent(silent) => return Err(fell_silent(&turn.agent, silent)),
    };
    let status = status.map_err(|error| Failure::io(format!("the agent {}", turn.agent), &error))?;
    writing.abort();
    let said = Said::new(String::from_utf8_lossy(&printed).into_owned(), &turn.program);
    let complained = running.complained().await;
    let is_lost = lost.iter().map(|words| words.replace("$HELIX_SESSION", id)).any(|words| {
        let says = |text: &str| text.contains(&words);
        says(&said.printed) || says(&complained)
    });
    Ok(Ran { code: code(status), said, is_lost })
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

    #[test]
    fn a_session_that_no_variable_can_hold_is_none() {
        let program = AgentProgram { session: "/session_id".to_owned(), ..AgentProgram::default() };
        for (printed, expected) in [
            ("{\"session_id\": \"s 1\"}", Some("s 1")),
            ("{\"session_id\": \"a\\u0000b\"}", None),
            ("{\"session_id\": \"a\\nb\"}", None),
            ("{\"session_id\": \"\"}", None),
            ("{\"session_id\": 7}", None),
        ] {
            assert_eq!(Said::new(printed.to_owned(), &program).session.as_deref(), expected, "{printed}");
        }
    }
}
