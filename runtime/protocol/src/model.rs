//! What is asked of a model and what it answers, in the one form every provider is translated to.

use serde::{Deserialize, Serialize};

use crate::{Block, Extra, Message, Money, ToolSchema};

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

/// Sampling settings; `None` leaves the provider's default. Left out for models that refuse them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1: tokens of this much probability together are considered.
    pub top_p: Option<f64>,
    /// So many of the likeliest tokens are considered.
    pub top_k: Option<u32>,
}

/// How hard a model shall think, in words. Each provider has some of them; the nearest it has is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// As little as the model can.
    Minimal,
    /// Little.
    Low,
    /// Middling.
    Medium,
    /// Much.
    High,
    /// More.
    Xhigh,
    /// All it can.
    Max,
}

/// Whether and how long a model thinks before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thinking {
    /// As the provider has it.
    #[default]
    Default,
    /// Not at all, where the model allows that.
    Off,
    /// Where the last prompt asks for it by a word such as "think" or "step by step".
    Detect,
    /// The model decides how long.
    Adaptive,
    /// So many tokens at most; 80 % of the answer's limit where 0.
    Budget(u32),
    /// So hard.
    Effort(Effort),
}

/// How a model lets its thinking be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThinkingControl {
    /// It does not think, or nobody can say anything about it.
    #[default]
    None,
    /// On or off.
    Switch,
    /// By a budget of tokens.
    Budget,
    /// By an effort in words.
    Effort,
    /// It thinks always; depth by an effort in words.
    AlwaysEffort,
}

/// What a model can be held to in the text of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JsonOutput {
    /// Nothing.
    None,
    /// A JSON object, of whatever kind.
    Object,
    /// JSON of a schema, and an object of whatever kind.
    #[default]
    Schema,
}

/// What the text of an answer shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputFormat {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON of a schema.
    JsonSchema {
        /// Its name; empty where it has none.
        name: String,
        /// What it is for; empty where nobody says.
        description: String,
        /// The JSON Schema.
        schema: serde_json::Value,
        /// The client wants it kept to the letter and wrote it for that, by OpenAI's rules. Formats without such a
        /// word keep to every schema.
        strict: bool,
    },
}

impl OutputFormat {
    /// What a model must be able to be held to.
    pub fn needs(&self) -> JsonOutput {
        match self {
            Self::Text => JsonOutput::None,
            Self::JsonObject => JsonOutput::Object,
            Self::JsonSchema { .. } => JsonOutput::Schema,
        }
    }

    /// True where any text will do.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text)
    }
}

/// One turn asked of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelRequest {
    /// The provider's or the group's name in the configuration; `None` for the default.
    pub provider: Option<String>,
    /// The model, as the provider knows it; `None` for the provider's default.
    pub model: Option<String>,
    /// The conversation; system messages first.
    pub messages: Vec<Message>,
    /// The tools it may call, in a stable order.
    pub tools: Vec<ToolSchema>,
    /// How it may call them.
    pub tool_choice: ToolChoice,
    /// Whether it may call several at once; `None` leaves it to the provider.
    pub parallel_tools: Option<bool>,
    /// Most tokens it may write; 0 for the most that the model can.
    pub max_tokens: u32,
    /// Sampling.
    pub sampling: Sampling,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// What its text shall be.
    #[serde(skip_serializing_if = "OutputFormat::is_text")]
    pub output: OutputFormat,
    /// Thinking.
    pub thinking: Thinking,
    /// Whether thinking is shown, where the provider lets one choose.
    pub show_thinking: bool,
    /// Whose conversation this is: requests of one session go to one deployment, so that its prompt cache serves them.
    pub session: Option<String>,
    /// A stable key of this turn, sent along so that a repetition can be recognised.
    pub idempotency_key: Option<String>,
    /// An equal request at temperature 0 may be answered with the answer that it had before.
    pub reuse: bool,
    /// What the client's format asks besides.
    pub extra: Option<Box<Extra>>,
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
    /// It wrote one of the texts that end the answer.
    StopSequence(String),
    /// It, or a filter, refused.
    Refusal,
    /// It pauses a long turn; asked again with what it said, it goes on.
    Pause,
    /// Prompt and answer together reached what the model takes.
    ContextFull,
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
    /// Of these, written into the provider's cache.
    pub cache_write_tokens: u64,
    /// Of these, to be kept for an hour, where the provider sells that apart.
    pub cache_write_1h_tokens: u64,
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

/// A piece of a streamed answer, for showing and for passing on: the reply is what counts. Blocks come one after the other, and
/// only calls may overlap.
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
        /// Counts the calls of this answer, from 0.
        index: u32,
        /// The call's id; empty where the provider gives none so early.
        id: String,
        /// The tool.
        name: String,
        /// What it was signed with, where the provider says so as early.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extra: Option<Box<Extra>>,
    },
    /// More of a call's arguments, as the model writes them.
    ToolInput {
        /// Of which call.
        index: u32,
        /// A piece of JSON.
        text: String,
    },
    /// A block is complete. Carries what its pieces did not: signatures, and whole blocks of unknown kinds.
    Block {
        /// The block.
        block: Block,
    },
}
