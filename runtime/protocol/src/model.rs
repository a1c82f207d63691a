//! What is asked of a model and what it answers, in the one form every provider is translated to.

use serde::{Deserialize, Serialize};

use crate::{Block, Message, Money, ToolSchema};

/// How tools may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// It must call some tool.
    Any,
    /// It must call none.
    None,
    /// It must call this one.
    Named(String),
}

/// Sampling settings; `None` leaves the provider's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// 0 to 2.
    pub temperature: Option<f64>,
}

/// One turn asked of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRequest {
    /// The provider's name in the configuration; `None` for the default.
    pub provider: Option<String>,
    /// The model, as the provider knows it; `None` for the provider's default.
    pub model: Option<String>,
    /// The conversation; system messages first.
    pub messages: Vec<Message>,
    /// The tools it may call, in a stable order.
    pub tools: Vec<ToolSchema>,
    /// How it may call them.
    pub tool_choice: ToolChoice,
    /// Most tokens it may write.
    pub max_tokens: u32,
    /// Sampling.
    pub sampling: Sampling,
    /// A stable key of this turn, sent along so that a repetition can be recognised.
    pub idempotency_key: Option<String>,
}

/// Why a model stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// It was done.
    EndTurn,
    /// It wants tools.
    ToolUse,
    /// It reached the limit on its tokens; the last tool call may be cut.
    MaxTokens,
    /// It, or a filter, refused.
    Refusal,
    /// A reason this build does not know.
    Other(String),
}

/// Counted tokens and their price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Of these, read from the provider's cache.
    pub cached_tokens: u64,
    /// Tokens written, thinking included.
    pub output_tokens: u64,
    /// Of these, thinking.
    pub thinking_tokens: u64,
    /// What it cost by the price table; zero where no price is known.
    pub cost: Money,
    /// True where the provider sent no usage and the numbers are an estimate.
    pub estimated: bool,
}

impl Usage {
    /// In and out together.
    pub fn total_tokens(&self) -> u64 {
        self.input_tokens + self.output_tokens
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReply {
    /// Who answered, as it names itself.
    pub model: String,
    /// What it said, in order.
    pub blocks: Vec<Block>,
    /// Why it stopped.
    pub stop: StopReason,
    /// What it used.
    pub usage: Usage,
}

/// A piece of a streamed answer, for showing only: the reply is what counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ModelDelta {
    /// More text.
    Text {
        /// The text.
        text: String,
    },
    /// More thinking.
    Thinking {
        /// The text.
        text: String,
    },
    /// A tool call began.
    ToolUse {
        /// The tool.
        name: String,
    },
}
