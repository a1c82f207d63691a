//! What is fed with arbitrary bytes: everything that agents of others print, with what must hold of it whatever that is.

use helix_protocol::{AgentProgram, Block, Message, Role};
use serde_json::Value;

pub use crate::acp::fuzzing::output as acp;
use crate::single::Said;

/// Where the programs that are known have their answer and the name of their session.
const PLACES: [(&str, &str); 4] =
    [("/result", "/session_id"), ("/item/text", "/thread_id"), ("/response", "/session_id"), ("", "")];
/// The most that a turn's messages take, encoded, so that they fit into a frame of the link.
const MOST: usize = 6 << 20;

/// Real output, from which mutations begin: of an agent that speaks the protocol.
pub fn acp_examples() -> Vec<String> {
    vec![crate::acp::fuzzing::example()]
}

/// The same of agents that are run once for each turn: lines of JSON, documents, and plain words.
pub fn program_examples() -> Vec<String> {
    let examples = [
        "{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"It is \\u00e4.\\n\",\"session_id\":\"4f2a-1\",\"usage\":{}}",
        "{\"type\":\"thread.started\",\"thread_id\":\"0199-a\"}\n{\"type\":\"item.completed\",\"item\":{\"id\":\"item_0\",\"type\":\"reasoning\",\"text\":\"hm\"}}\n\
         {\"type\":\"item.completed\",\"item\":{\"id\":\"item_1\",\"type\":\"agent_message\",\"text\":\"Done.\"}}\n{\"type\":\"turn.completed\",\"usage\":{}}\n",
        "{\n  \"session_id\": \"s-1\",\n  \"response\": \"Done.\",\n  \"stats\": {}\n}\n",
        "I have changed a.rs.\r\n",
    ];
    examples.map(str::to_owned).to_vec()
}

/// Everything that an agent which is run once for each turn prints, read as each of those that are known.
pub fn program(bytes: &[u8]) {
    let printed = String::from_utf8_lossy(bytes).into_owned();
    for (answer, session) in PLACES {
        let program = AgentProgram { answer: answer.to_owned(), session: session.to_owned(), ..AgentProgram::default() };
        let said = Said::new(printed.clone(), &program);
        assert!(said.answer.iter().all(|text| stands(&printed, answer, text)), "{:?} is made up", said.answer);
        assert!(said.session.iter().all(|text| stands(&printed, session, text)), "{:?} is made up", said.session);
        assert!(said.session.iter().all(|text| !text.is_empty() && !text.contains('\0')), "a variable holds {:?}", said.session);
        messages_hold(&said.into_messages());
    }
}

/// True where a line of the output, or all of it, has this text in this place.
fn stands(printed: &str, place: &str, text: &str) -> bool {
    let has = |json: &str| {
        let value: Option<Value> = serde_json::from_str(json).ok();
        value.and_then(|value| Some(value.pointer(place)? == text)).unwrap_or(false)
    };
    printed.lines().any(has) || has(printed)
}

/// Holds that messages are a conversation of ours: every call is answered once, right after the message that made it, and all
/// of it fits into a frame.
pub(crate) fn messages_hold(messages: &[Message]) {
    assert!(messages.iter().all(|message| !message.blocks.is_empty()), "a message says something: {messages:?}");
    let ids = |message: &Message| -> (Vec<String>, Vec<String>) {
        let (mut made, mut answered) = (Vec::new(), Vec::new());
        for block in &message.blocks {
            match block {
                Block::ToolUse { id, .. } => made.push(id.clone()),
                Block::ToolResult { id, .. } => answered.push(id.clone()),
                _ => {}
            }
        }
        (made, answered)
    };
    let mut open = Vec::new();
    for message in messages {
        let (made, answered) = ids(message);
        assert_eq!(answered, open, "what was called is answered, and nothing else");
        assert_eq!(message.role == Role::User, made.is_empty() && !answered.is_empty(), "{message:?}");
        open = made;
    }
    assert_eq!(open, Vec::<String>::new(), "every call is answered");
    let mut all: Vec<String> = messages.iter().flat_map(|message| ids(message).0).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "no id stands for two calls");
    let encoded = serde_json::to_vec(messages).expect("messages can be encoded");
    assert!(encoded.len() < MOST, "{} bytes", encoded.len());
    let decoded: Vec<Message> = serde_json::from_slice(&encoded).expect("and decoded");
    assert_eq!(decoded, messages);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_says_what_it_should() {
        let said: Vec<_> = program_examples()
            .into_iter()
            .zip(PLACES)
            .map(|(printed, (answer, session))| {
                program(printed.as_bytes());
                let program = AgentProgram { answer: answer.to_owned(), session: session.to_owned(), ..AgentProgram::default() };
                let said = Said::new(printed, &program);
                (said.session.clone(), said.into_messages()[0].as_text())
            })
            .collect();
        let expected =
            [(Some("4f2a-1"), "It is ä."), (Some("0199-a"), "Done."), (Some("s-1"), "Done."), (None, "I have changed a.rs.")];
        assert_eq!(said, expected.map(|(session, text)| (session.map(str::to_owned), text.to_owned())));
    }
}
