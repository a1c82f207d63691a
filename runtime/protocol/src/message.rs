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

/// A provider's format of requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WireFormat {
    /// Chat completions, as OpenAI made them and most servers speak them.
    OpenaiChat,
    /// OpenAI's responses.
    OpenaiResponses,
    /// Anthropic's messages.
    Anthropic,
    /// Gemini's `generateContent`.
    Gemini,
    /// Ollama's own chat.
    Ollama,
}

/// What one format says of something beyond what every format can say: signatures, cache markers, citations, fields nobody here
/// knows. Given back unchanged where that format is spoken again; the others leave it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extra {
    /// Whose words these are.
    pub format: WireFormat,
    /// The fields, as they stood on the wire.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

impl Extra {
    /// `fields` of `format`; nothing where there are none.
    pub fn of(format: WireFormat, fields: serde_json::Map<String, serde_json::Value>) -> Option<Box<Self>> {
        (!fields.is_empty()).then(|| Box::new(Self { format, fields }))
    }

    /// One field of `format`.
    pub fn field(format: WireFormat, name: &str, value: serde_json::Value) -> Option<Box<Self>> {
        Self::of(format, [(name.to_owned(), value)].into_iter().collect())
    }
}

/// The fields that `format` wrote into `extra`.
pub fn extra_of(extra: &Option<Box<Extra>>, format: WireFormat) -> Option<&serde_json::Map<String, serde_json::Value>> {
    extra.as_deref().filter(|extra| extra.format == format).map(|extra| &extra.fields)
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "source")]
pub enum ImageSource {
    /// Here.
    Base64 {
        /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
        media_type: String,
        /// The bytes, in standard base64 with padding.
        data: String,
    },
    /// There; the provider fetches it.
    Url {
        /// http or https.
        url: String,
    },
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Block {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// What the format says besides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extra: Option<Box<Extra>>,
    },
    /// A picture.
    Image {
        /// Where it is.
        image: ImageSource,
        /// What the format says besides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extra: Option<Box<Extra>>,
    },
    /// A document, for the model to read.
    Document {
        /// Its name; empty where it has none.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
        /// `application/pdf`.
        media_type: String,
        /// The bytes, in standard base64 with padding.
        data: String,
        /// What the format says besides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extra: Option<Box<Extra>>,
    },
    /// What a model thought before it answered. Given back unchanged.
    Thinking {
        /// The text, where the provider shows it.
        text: String,
        /// The provider's signature or encrypted thought, opaque to us.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extra: Option<Box<Extra>>,
    },
    /// The model asks for a tool.
    ToolUse {
        /// The provider's id of the call.
        id: String,
        /// The tool.
        name: String,
        /// Its arguments; a string holding the raw text where the model did not write JSON.
        input: serde_json::Value,
        /// What the format says besides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extra: Option<Box<Extra>>,
    },
    /// What the tool answered.
    ToolResult {
        /// The id of the call.
        id: String,
        /// The answer's text.
        content: String,
        /// Pictures that came with it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        images: Vec<ImageSource>,
        /// True where the tool failed.
        is_error: bool,
        /// What the format says besides.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extra: Option<Box<Extra>>,
    },
    /// A block of a kind that this build does not know. Goes back to its own format unchanged. The others have no word for it: they
    /// refuse what a person said so, and leave out what a model did.
    Unknown {
        /// Whose block it is.
        format: WireFormat,
        /// The block, as it stood on the wire.
        block: serde_json::Value,
    },
}

impl Block {
    /// A text with nothing besides.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), extra: None }
    }
}

/// What stands in a picture's place.
const PICTURE_LEFT_OUT: &str = "[a picture is left out here, because this model takes none]";

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
        Self { role, blocks: vec![Block::text(text)] }
    }

    /// The texts of the message, joined by line breaks.
    pub fn as_text(&self) -> String {
        let texts: Vec<&str> = self
            .blocks
            .iter()
            .filter_map(|block| match block {
                Block::Text { text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        texts.join("\n")
    }

    /// True where something in it is a picture.
    pub fn has_pictures(&self) -> bool {
        self.blocks.iter().any(|block| match block {
            Block::Image { .. } => true,
            Block::ToolResult { images, .. } => !images.is_empty(),
            _ => false,
        })
    }

    /// As a model is sent it that takes no pictures: it is told of each, because a provider refuses the whole request for one.
    pub fn without_pictures(mut self) -> Self {
        for block in &mut self.blocks {
            match block {
                Block::Image { .. } => *block = Block::text(PICTURE_LEFT_OUT),
                Block::ToolResult { content, images, .. } if !images.is_empty() => {
                    images.clear();
                    content.push_str(&format!("\n{PICTURE_LEFT_OUT}"));
                }
                _ => {}
            }
        }
        self
    }
}
