//! What an agent said and did in a turn, as messages of ours.
//!
//! A conversation of ours answers every call of a tool, so the agent's stream of updates becomes turns of it: what it said up to
//! and with a run of calls is one message, the results of those calls the next.

use helix_protocol::{Block, Message, Role};
use serde_json::{Value, json};

/// How much of its words is kept, in bytes; and of everything else.
const WORDS: usize = 1 << 20;
const REST: usize = 2 << 20;
/// Most of one tool's result, in bytes.
const RESULT: usize = 16 << 10;
/// Entries that are kept; those that follow are counted.
const ENTRIES: usize = 4_096;

/// The turn so far.
#[derive(Debug)]
pub(crate) struct Transcript {
    entries: Vec<Entry>,
    words: usize,
    rest: usize,
    left_out: u64,
}

#[derive(Debug)]
enum Entry {
    Said(String),
    Thought(String),
    Call(Box<Call>),
}

/// A call of a tool, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// The agent's id of it.
    pub id: String,
    /// What it is, in a line.
    pub title: String,
    /// Its kind.
    pub kind: String,
    /// Files it is about.
    pub places: Vec<String>,
    /// Its arguments.
    pub input: Option<Value>,
    /// The changes of files that it shows.
    pub changes: Option<Value>,
    /// What came of it.
    pub result: String,
    /// True where it failed.
    pub failed: bool,
}

impl Default for Transcript {
    fn default() -> Self {
        Self { entries: Vec::new(), words: WORDS, rest: REST, left_out: 0 }
    }
}

impl Transcript {
    /// The agent says something.
    pub fn say(&mut self, text: &str) {
        let text = take(&mut self.words, text, &mut self.left_out);
        match self.entries.last_mut() {
            Some(Entry::Said(said)) => said.push_str(text),
            _ => self.add(Entry::Said(text.to_owned())),
        }
    }

    /// The agent thinks something.
    pub fn think(&mut self, text: &str) {
        let text = take(&mut self.rest, text, &mut self.left_out);
        match self.entries.last_mut() {
            Some(Entry::Thought(thought)) => thought.push_str(text),
            _ => self.add(Entry::Thought(text.to_owned())),
        }
    }

    /// The agent's plan, which replaces none: a later one follows.
    pub fn plan(&mut self, lines: &str) {
        self.think(&format!("Plan:\n{lines}\n"));
    }

    /// The call with this id, which is begun where nobody knows it.
    pub fn call(&mut self, id: &str) -> &mut Call {
        let at = self.entries.iter().rposition(|entry| matches!(entry, Entry::Call(call) if call.id == id));
        let at = at.unwrap_or_else(|| {
            // One that is beyond what is kept takes the last place of those that are.
            if self.entries.len() >= ENTRIES {
                self.left_out += 1;
                self.entries.pop();
            }
            let call = Call { id: id.to_owned(), kind: "other".to_owned(), ..Call::default() };
            self.entries.push(Entry::Call(Box::new(call)));
            self.entries.len() - 1
        });
        match &mut self.entries[at] {
            Entry::Call(call) => call,
            Entry::Said(_) | Entry::Thought(_) => unreachable!("a call was found or put there"),
        }
    }

    fn add(&mut self, entry: Entry) {
        if self.entries.len() < ENTRIES {
            self.entries.push(entry);
        } else {
            self.left_out += 1;
        }
    }

    /// As messages.
    pub fn into_messages(mut self) -> Vec<Message> {
        let (mut messages, mut blocks, mut results) = (Vec::new(), Vec::new(), Vec::new());
        let mut flush = |blocks: &mut Vec<Block>, results: &mut Vec<Block>| {
            if !blocks.is_empty() {
                messages.push(Message { role: Role::Assistant, blocks: std::mem::take(blocks) });
            }
            if !results.is_empty() {
                messages.push(Message { role: Role::User, blocks: std::mem::take(results) });
            }
        };
        for (number, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            if !matches!(entry, Entry::Call(_)) && !results.is_empty() {
                flush(&mut blocks, &mut results);
            }
            match entry {
                Entry::Said(text) if text.trim().is_empty() => {}
                Entry::Said(text) => blocks.push(Block::text(text)),
                Entry::Thought(text) => blocks.push(Block::Thinking { text, extra: None }),
                Entry::Call(call) => {
                    // Agents count their calls anew in each session; an id of ours is one in the whole conversation's step.
                    let id = format!("{number}-{}", cut(&call.id, 64));
                    let result = take(&mut self.rest, &call.result, &mut self.left_out).to_owned();
                    let (name, is_error) = (name(&call.kind), call.failed);
                    blocks.push(Block::ToolUse { id: id.clone(), name, input: self.input(*call), extra: None });
                    results.push(Block::ToolResult { id, content: result, images: Vec::new(), is_error, extra: None });
                }
            }
        }
        if self.left_out > 0 {
            flush(&mut blocks, &mut results);
            blocks.push(Block::text(format!("[{} bytes or entries of this turn are left out here]", self.left_out)));
        }
        if blocks.is_empty() && results.is_empty() {
            blocks.push(Block::text("(no answer)"));
        }
        flush(&mut blocks, &mut results);
        messages
    }

    fn input(&mut self, call: Call) -> Value {
        let mut input = json!({ "title": cut(&call.title, 1_000) });
        if !call.places.is_empty() {
            input["files"] = json!(call.places);
        }
        if let Some(arguments) = call.input {
            let text = arguments.to_string();
            let whole = text.len() <= RESULT && text.len() <= self.rest;
            self.rest = self.rest.saturating_sub(text.len().min(RESULT));
            input["arguments"] = if whole { arguments } else { json!(cut(&text, 1_000)) };
        }
        input
    }
}

impl Call {
    /// Adds to what came of it, as far as there is room.
    pub fn add_result(&mut self, text: &str) {
        let room = RESULT.saturating_sub(self.result.len());
        self.result.push_str(cut(text, room));
        if text.len() > room && !self.result.ends_with("[cut]") {
            self.result.push_str("\n[cut]");
        }
    }
}

/// The beginning of a text, at most this many bytes.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    &text[..end]
}

fn take<'a>(room: &mut usize, text: &'a str, left_out: &mut u64) -> &'a str {
    let kept = cut(text, *room);
    *room -= kept.len();
    *left_out += (text.len() - kept.len()) as u64;
    kept
}

/// A kind as the name of a tool, which every provider's format takes back.
fn name(kind: &str) -> String {
    let right = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name: String = kind.chars().take(64).map(|c| if right(c) { c } else { '_' }).collect();
    if name.is_empty() { "other".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_answered_before_the_agent_says_more() {
        let mut transcript = Transcript::default();
        transcript.say("I look");
        transcript.say(" around.");
        transcript.call("a").title = "read x".to_owned();
        transcript.call("b").add_result("two");
        transcript.call("a").add_result("one");
        transcript.say("Done.");
        let messages = transcript.into_messages();
        let roles: Vec<Role> = messages.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::Assistant, Role::User, Role::Assistant]);
        assert_eq!(messages[0].as_text(), "I look around.");
        let results: Vec<&str> = messages[1]
            .blocks
            .iter()
            .filter_map(|block| match block {
                Block::ToolResult { content, .. } => Some(content.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(results, ["one", "two"]);
        assert_eq!(messages[2].as_text(), "Done.");
    }

    #[test]
    fn a_huge_turn_stays_within_a_frame_of_the_link() {
        let mut transcript = Transcript::default();
        for number in 0..10_000 {
            transcript.say(&"w".repeat(1_000));
            transcript.think(&"ü".repeat(1_000));
            let call = transcript.call(&number.to_string());
            call.input = Some(json!({ "text": "x".repeat(1_000_000 / 100) }));
            call.add_result(&"r".repeat(100_000));
        }
        let messages = transcript.into_messages();
        let size = serde_json::to_vec(&messages).expect("encoded").len();
        assert!(size < 6 << 20, "{size}");
        assert!(messages.last().expect("some").as_text().contains("left out"));
    }

    #[test]
    fn a_silent_turn_is_no_empty_message() {
        assert_eq!(Transcript::default().into_messages(), [Message::text(Role::Assistant, "(no answer)")]);
    }
}
