//! The agent's output with what must hold of it whatever it says.

use agent_client_protocol_schema::v1::{InitializeResponse, NewSessionResponse};
use helix_protocol::{AgentProgram, AgentTurn, Approval, TurnLimits};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::lines::{Line, Lines};
use super::turn::{Heard, Turn};
use super::wire::{self, Prompted};
use crate::fuzzing::messages_hold;

/// The session that is listened to, and the request that waits for its answer.
const SESSION: &str = "s1";
const ASKED: i64 = 1;

/// Everything an agent prints in a turn of each approval: what is answered is a line, and what is kept is a conversation.
pub fn output(bytes: &[u8]) {
    for approval in [Approval::Suggest, Approval::AutoEdit, Approval::Full] {
        let (turn, mut shown) = (turn(approval), std::io::sink());
        let (mut state, mut lines) = (Turn::new(&turn, &mut shown), Lines::default());
        state.listen(SESSION.into());
        let mut cancelled = false;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let message = match lines.read(line) {
                Line::Message(message) => *message,
                Line::Printed(text) => {
                    assert!(!text.is_empty(), "what is blank is not printed");
                    continue;
                }
                Line::Blank => continue,
            };
            let was_asked = state.asked().is_some();
            match state.hear(message, ASKED) {
                Heard::Asked { answers, cancels } => {
                    assert!(!answers.is_empty(), "a request is answered");
                    assert!(answers.iter().all(|answer| !answer.to_string().contains('\n')), "an answer is a line: {answers:?}");
                    assert!(!(cancels && (cancelled || was_asked)), "a turn is cancelled once");
                    cancelled |= cancels;
                }
                Heard::Answer(Ok(result)) => answers(result),
                Heard::Answer(Err(error)) => drop(wire::text(&error)),
                Heard::Nothing => {}
            }
        }
        let asked = state.asked();
        assert_eq!(asked.is_some(), cancelled, "what a person is asked ends the turn, and nothing else does");
        assert!(asked.is_none_or(|(permission, _)| !permission.title.contains('\n')), "a question finds its call again");
        messages_hold(&state.into_messages());
    }
}

/// A result as every request's answer that it could be.
fn answers(result: Value) {
    fn read<T: DeserializeOwned>(result: &Value) -> Option<T> {
        serde_json::from_value(result.clone()).ok()
    }
    drop(read::<InitializeResponse>(&result).map(|about| wire::name(&about, "agent")));
    drop(read::<NewSessionResponse>(&result));
    drop(read::<Prompted>(&result).map(Prompted::end));
}

/// A turn that nothing was answered in so far.
pub(super) fn turn(approval: Approval) -> AgentTurn {
    AgentTurn {
        agent: "agent".to_owned(),
        program: AgentProgram::default(),
        prompt: "go on".to_owned(),
        before: String::new(),
        model: None,
        sandboxed: true,
        lost: Vec::new(),
        approval,
        allowed: Vec::new(),
        refused: Vec::new(),
        gateway: None,
        limits: TurnLimits { start_ms: 1, silent_ms: 1 },
    }
}

/// What an agent says in a turn: it begins, it thinks, plans, speaks and calls, and it asks to be allowed.
pub(crate) fn example() -> String {
    let update = |update: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"sessionId":"{SESSION}","update":{update}}}}}"#)
    };
    let lines = [
        "Welcome!".to_owned(),
        format!(
            r#"{{"jsonrpc":"2.0","id":{ASKED},"result":{{"protocolVersion":1,"agentCapabilities":{{"loadSession":true,"sessionCapabilities":{{"resume":{{}}}}}},"agentInfo":{{"name":"fake","version":"1"}},"authMethods":[{{"id":"login","name":"Log in"}}]}}}}"#
        ),
        format!(r#"{{"jsonrpc":"2.0","id":{ASKED},"result":{{"sessionId":"{SESSION}"}}}}"#),
        update(r#"{"sessionUpdate":"agent_thought_chunk","content":{"type":"text","text":"hm"}}"#),
        update(r#"{"sessionUpdate":"plan","entries":[{"content":"look","priority":"high","status":"in_progress"}]}"#),
        update(r#"{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"I look: \"\u00e4\"\n"}}"#),
        update(
            r#"{"sessionUpdate":"tool_call","toolCallId":"c1","title":"read a.rs","kind":"read","status":"pending","rawInput":{"path":"a.rs"},"locations":[{"path":"a.rs","line":3}]}"#,
        ),
        update(
            r#"{"sessionUpdate":"tool_call_update","toolCallId":"c1","status":"completed","content":[{"type":"content","content":{"type":"text","text":"fn main() {}"}}],"rawOutput":{"lines":1}}"#,
        ),
        format!(
            r#"{{"jsonrpc":"2.0","id":900,"method":"session/request_permission","params":{{"sessionId":"{SESSION}","toolCall":{{"toolCallId":"c2","title":"write\nb.rs","kind":"edit","content":[{{"type":"diff","path":"b.rs","oldText":null,"newText":"x"}}]}},"options":[{{"optionId":"y","name":"Allow","kind":"allow_once"}},{{"optionId":"n","name":"Reject","kind":"reject_once"}}]}}}}"#
        ),
        r#"{"jsonrpc":"2.0","id":"r","method":"fs/read_text_file","params":{"path":"a.rs"}}"#.to_owned(),
        format!(r#"{{"jsonrpc":"2.0","id":{ASKED},"result":{{"stopReason":"end_turn"}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":{ASKED},"error":{{"code":-32000,"message":"log in","data":{{"details":"expired"}}}}}}"#),
    ];
    lines.map(|line| line + "\n").concat()
}

#[cfg(test)]
mod tests {
    use helix_protocol::{Block, Message};

    use super::*;

    #[test]
    fn the_example_is_read_to_its_last_line() {
        output(example().as_bytes());
        let (turn, mut shown) = (turn(Approval::Suggest), Vec::new());
        let (mut state, mut lines) = (Turn::new(&turn, &mut shown), Lines::default());
        state.listen(SESSION.into());
        let mut heard = Vec::new();
        for line in example().lines() {
            heard.push(match lines.read(line.as_bytes()) {
                Line::Message(message) => match state.hear(*message, ASKED) {
                    Heard::Nothing => "nothing",
                    Heard::Asked { cancels: true, .. } => "cancels",
                    Heard::Asked { .. } => "asked",
                    Heard::Answer(Ok(_)) => "answer",
                    Heard::Answer(Err(_)) => "error",
                },
                Line::Printed(_) => "printed",
                Line::Blank => "blank",
            });
        }
        let told = ["nothing"; 5];
        let expected = [&["printed", "answer", "answer"][..], &told, &["cancels", "asked", "answer", "error"]].concat();
        assert_eq!(heard, expected);
        assert_eq!(state.asked().map(|(permission, _)| permission.title), Some("write b.rs".to_owned()));
        let messages: Vec<Message> = state.into_messages();
        let calls = |block: &&Block| matches!(block, Block::ToolUse { .. });
        assert_eq!(messages.iter().flat_map(|message| &message.blocks).filter(calls).count(), 2);
        assert_eq!(String::from_utf8(shown).expect("text"), "I look: \"ä\"\n\n[read a.rs]\n\n[asks for approval: write b.rs]\n");
    }
}
