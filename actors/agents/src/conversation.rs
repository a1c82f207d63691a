//! The conversation of a task, as a step finds it and as it leaves it.

use helix_protocol::{Block, Code, Failure, Message, Role};

use crate::ModelLimits;

/// What was said before, and what this step adds.
#[derive(Debug)]
pub(crate) struct Conversation {
    messages: Vec<Message>,
    before: usize,
}

impl Conversation {
    pub fn new(before: Vec<Message>) -> Self {
        Self { before: before.len(), messages: before }
    }

    /// Everything so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    pub fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    pub fn say(&mut self, text: impl Into<String>) {
        self.push(Message::text(Role::User, text));
    }

    /// What this step adds.
    pub fn into_added(mut self) -> Vec<Message> {
        self.messages.split_off(self.before)
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

    /// How many of our messages begin like this.
    pub fn count(&self, beginning: &str) -> usize {
        self.messages.iter().filter(|message| message.role == Role::User && message.as_text().starts_with(beginning)).count()
    }

    /// Refuses a conversation that is too long by any tokenizer, before a server cuts it silently, as some do.
    pub fn check_length(&self, limits: ModelLimits) -> Result<(), Failure> {
        const BYTES_PER_TOKEN: u64 = 6;
        let bytes: usize = self.messages.iter().flat_map(|message| &message.blocks).map(bytes_of).sum();
        let tokens = bytes as u64 / BYTES_PER_TOKEN;
        let room = limits.context_tokens.saturating_sub(u64::from(limits.max_tokens));
        if tokens <= room {
            return Ok(());
        }
        let message = format!("the conversation is at least {tokens} tokens long, and the model takes {room} beside its answer");
        Err(Failure::new(Code::ContextOverflow, message)
            .hint("name a model with a larger context, or fork an earlier step with a narrower prompt"))
    }
}

fn bytes_of(block: &Block) -> usize {
    match block {
        Block::Text { text, .. } | Block::Thinking { text, .. } => text.len(),
        Block::ToolUse { name, input, .. } => name.len() + input.as_str().map_or_else(|| input.to_string().len(), str::len),
        Block::ToolResult { content, .. } => content.len(),
        // A picture counts by its size in pixels and not in bytes; leaving it out keeps this a lower bound.
        Block::Image { .. } => 0,
        Block::Unknown { block, .. } => block.to_string().len(),
    }
}
