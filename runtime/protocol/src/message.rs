//! A conversation: ordered messages of ordered blocks. The internal form of every provider's format.

use serde::{Deserialize, Serialize};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Standing instructions.
    System,
    /// The person, or the results of tools.
    User,
    /// The model.
    Assistant,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Block {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// What a model thought before it answered. Given back unchanged.
    Thinking {
        /// The text, where the provider shows it.
        text: String,
        /// The provider's block, opaque to us.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provider_raw: Option<serde_json::Value>,
    },
    /// The model asks for a tool.
    ToolUse {
        /// The provider's id of the call.
        id: String,
        /// The tool.
        name: String,
        /// Its arguments; a string holding the raw text where the model did not write JSON.
        input: serde_json::Value,
    },
    /// What the tool answered.
    ToolResult {
        /// The id of the call.
        id: String,
        /// The answer's text.
        content: String,
        /// True where the tool failed.
        is_error: bool,
    },
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Its parts, in order.
    pub blocks: Vec<Block>,
}

impl Message {
    /// A message of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, blocks: vec![Block::Text { text: text.into() }] }
    }

    /// The texts of the message, joined by line breaks.
    pub fn as_text(&self) -> String {
        let texts: Vec<&str> = self
            .blocks
            .iter()
            .filter_map(|block| match block {
                Block::Text { text } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        texts.join("\n")
    }
}
