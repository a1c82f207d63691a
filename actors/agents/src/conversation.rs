//! The conversation of a task, as a step finds it and as it leaves it.
//!
//! Steps only ever add messages. What a model is shown is the part from the last system message on: a compaction adds a new
//! system message with what is kept below it, so that replaying the steps, or forking any of them, leads to the same view.

use std::collections::HashSet;

use helix_protocol::{Block, Code, Failure, Message, Role};

use crate::ModelLimits;

/// What was said before, and what this step adds.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// Replaced by compactions; no model is shown it again.
    gone: Vec<Message>,
    messages: Vec<Message>,
    added: Vec<Message>,
}

impl Conversation {
    pub fn new(before: Vec<Message>) -> Self {
        let begin = before.iter().rposition(|message| message.role == Role::System).unwrap_or(0);
        let mut gone = before;
        let messages = in_order(gone.split_off(begin));
        Self { gone, messages, added: Vec::new() }
    }

    /// What the model is shown.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Everything that was ever said, oldest first; what a compaction kept stands there twice.
    pub fn everything(&self) -> impl DoubleEndedIterator<Item = &Message> {
        self.gone.iter().chain(&self.messages)
    }

    /// A name for the turn at `at` that stays the same in later steps.
    pub fn place(&self, at: usize) -> usize {
        self.gone.len() + at
    }

    pub fn push(&mut self, message: Message) {
        self.messages.push(message.clone());
        self.added.push(message);
    }

    pub fn say(&mut self, text: impl Into<String>) {
        self.push(Message::text(Role::User, text));
    }

    /// Goes on from `kept` instead of what was shown so far.
    pub fn restart(&mut self, kept: Vec<Message>) {
        self.gone.append(&mut self.messages);
        self.added.clone_from(&kept);
        self.messages = kept;
    }

    /// What this step adds.
    pub fn into_added(self) -> Vec<Message> {
        self.added
    }

    /// The calls of the last turn that nobody has answered yet, with the place of that turn.
    pub fn unanswered(&self) -> Option<(usize, Vec<Block>)> {
        let at = self.messages.iter().rposition(|message| message.role == Role::Assistant)?;
        let asked = calls_of(&self.messages[at]);
        let answered = self.messages[at..].iter().any(|message| answers(message, &asked));
        (!asked.is_empty() && !answered).then(|| (at, self.messages[at].blocks.clone()))
    }

    /// The answers to the calls of the turn at `at`, which stand right behind it whatever was said meanwhile.
    pub fn answer(&mut self, at: usize, results: Vec<Block>) {
        let message = Message { role: Role::User, blocks: results };
        self.messages.insert(at + 1, message.clone());
        self.added.push(message);
    }

    /// True where the person has said just this, or this with instructions below it.
    pub fn has_prompt(&self, prompt: &str) -> bool {
        let begins = |message: &Message| {
            message.as_text().strip_prefix(prompt).is_some_and(|rest| rest.is_empty() || rest.starts_with('\n'))
        };
        self.messages.iter().any(|message| message.role == Role::User && begins(message))
    }

    /// How many of the last turns were answered by us with a message that begins like this.
    pub fn trailing(&self, beginning: &str) -> usize {
        let of_user = self.messages.iter().rev().filter(|message| message.role == Role::User);
        of_user.take_while(|message| message.as_text().starts_with(beginning)).count()
    }

    /// The highest number behind this beginning in anything we ever said. What a compaction kept stands there twice, and what it did
    /// not keep is shown to no model, so messages of ours that are counted say themselves which they are.
    pub fn highest(&self, beginning: &str) -> usize {
        let number = |message: &Message| {
            let text = message.as_text();
            let digits: String = text.strip_prefix(beginning)?.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        self.everything().filter(|message| message.role == Role::User).filter_map(number).max().unwrap_or(0)
    }

    /// How many turns the model took since we last said something that begins like this; `None` where we never did.
    pub fn turns_since(&self, beginning: &str) -> Option<usize> {
        let at =
            self.messages.iter().rposition(|message| message.role == Role::User && message.as_text().starts_with(beginning))?;
        Some(self.messages[at..].iter().filter(|message| message.role == Role::Assistant).count())
    }

    /// Refuses a conversation that is too long by any tokenizer, before a server cuts it silently, as some do.
    pub fn check_length(&self, limits: ModelLimits) -> Result<(), Failure> {
        const BYTES_PER_TOKEN: u64 = 6;
        let tokens = bytes(&self.messages) / BYTES_PER_TOKEN;
        let room = limits.room();
        if tokens <= room {
            return Ok(());
        }
        let message = format!("the conversation is at least {tokens} tokens long, and the model takes {room} beside its answer");
        Err(Failure::new(Code::ContextOverflow, message)
            .hint("name a model with a larger context, or fork an earlier step with a narrower prompt"))
    }
}

/// The ids of a message's calls.
pub(crate) fn calls_of(message: &Message) -> HashSet<&str> {
    let calls = message.blocks.iter().filter_map(|block| match block {
        Block::ToolUse { id, .. } => Some(id.as_str()),
        _ => None,
    });
    calls.collect()
}

fn answers(message: &Message, asked: &HashSet<&str>) -> bool {
    message.blocks.iter().any(|block| matches!(block, Block::ToolResult { id, .. } if asked.contains(id.as_str())))
}

/// Answers right behind the calls they belong to: what a person said while the calls waited was recorded before them.
fn in_order(mut messages: Vec<Message>) -> Vec<Message> {
    for at in 0..messages.len() {
        let asked = calls_of(&messages[at]);
        if asked.is_empty() {
            continue;
        }
        let turn = messages[at + 1..].iter().position(|message| message.role == Role::Assistant);
        let end = turn.map_or(messages.len(), |below| at + 1 + below);
        if let Some(below) = messages[at + 1..end].iter().position(|message| answers(message, &asked)).filter(|below| *below > 0) {
            let answer = messages.remove(at + 1 + below);
            messages.insert(at + 1, answer);
        }
    }
    messages
}

/// About how many tokens messages are, for deciding when to make room; no tokenizer says less than half of it.
pub(crate) fn tokens(messages: &[Message]) -> u64 {
    const PER_PICTURE: u64 = 1_600;
    let pictures = |block: &Block| match block {
        Block::Image { .. } => 1,
        Block::ToolResult { images, .. } => images.len() as u64,
        _ => 0,
    };
    let pictures: u64 = messages.iter().flat_map(|message| &message.blocks).map(pictures).sum();
    bytes(messages) / 4 + pictures * PER_PICTURE
}

fn bytes(messages: &[Message]) -> u64 {
    messages.iter().flat_map(|message| &message.blocks).map(|block| bytes_of(block) as u64).sum()
}

fn bytes_of(block: &Block) -> usize {
    match block {
        Block::Text { text, .. } | Block::Thinking { text, .. } => text.len(),
        Block::ToolUse { name, input, .. } => name.len() + input.as_str().map_or_else(|| input.to_string().len(), str::len),
        Block::ToolResult { content, .. } => content.len(),
        // A picture counts by its size in pixels and a document by its pages, not in bytes; leaving them out
        // keeps this a lower bound.
        Block::Image { .. } | Block::Document { .. } => 0,
        Block::Unknown { block, .. } => block.to_string().len(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(id: &str) -> Message {
        let block = Block::ToolUse { id: id.into(), name: "shell".into(), input: json!({}), extra: None };
        Message { role: Role::Assistant, blocks: vec![block] }
    }

    fn result(id: &str) -> Block {
        Block::ToolResult { id: id.into(), content: "ok".into(), images: Vec::new(), is_error: false, extra: None }
    }

    #[test]
    fn an_answer_stands_behind_its_call_whatever_was_said_meanwhile() {
        let said = Message::text(Role::User, "by the way");
        let mut conversation = Conversation::new(vec![call("1"), said.clone()]);
        let (at, blocks) = conversation.unanswered().expect("one call");
        assert_eq!((at, blocks.len()), (0, 1));
        conversation.answer(at, vec![result("1")]);
        let whole = [call("1"), Message { role: Role::User, blocks: vec![result("1")] }, said.clone()];
        assert_eq!(conversation.messages(), whole);
        assert_eq!(conversation.unanswered(), None);
        // As the steps record it: what was said comes before the answer.
        let recorded = [vec![call("1"), said], conversation.into_added()].concat();
        assert_eq!(Conversation::new(recorded).messages(), whole);
    }

    #[test]
    fn what_is_shown_begins_at_the_last_system_message() {
        let (system, user) = (Message::text(Role::System, "s"), |text| Message::text(Role::User, text));
        let mut conversation = Conversation::new(vec![system.clone(), user("a"), user("b")]);
        conversation.restart(vec![system.clone(), user("summary")]);
        conversation.say("next");
        let added = conversation.into_added();
        assert_eq!(added, [system.clone(), user("summary"), user("next")]);
        let again = Conversation::new([vec![system.clone(), user("a"), user("b")], added.clone()].concat());
        assert_eq!(again.messages(), added);
        assert_eq!(again.everything().count(), 6);
    }

    #[test]
    fn what_is_counted_counts_once_whatever_a_compaction_kept() {
        let (system, user) = (Message::text(Role::System, "s"), |text: &str| Message::text(Role::User, text));
        let mut conversation = Conversation::new(vec![system.clone(), user("Round 9 of golf"), user("Again. Round 1: a")]);
        conversation.say("Again. Round 2: b");
        assert_eq!((conversation.highest("Again. Round "), conversation.highest("Again. Time ")), (2, 0));
        conversation.restart(vec![system.clone(), user("summary"), user("Again. Round 2: b")]);
        assert_eq!(conversation.highest("Again. Round "), 2);
        conversation.restart(vec![system, user("summary")]);
        assert_eq!(conversation.highest("Again. Round "), 2);
    }
}
