//! One block of content, both ways. Clients, servers, requests and answers all write it alike.

use helix_protocol::{Block, Extra, ImageSource, WireFormat, extra_of};
use serde_json::{Map, Value, json};

use crate::chat::{argument_object, arguments_of};
use crate::documents::PDF;
use crate::sealed::{self, opened_id, signed_id};

const FORMAT: WireFormat = WireFormat::Anthropic;

/// For whom a block is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// The provider, which refuses what is not exactly its own.
    Provider,
    /// A client, which wants to see everything.
    Client,
}

/// A block on the wire; nothing where its reader does not take it.
pub(super) fn encode(block: &Block, reader: Reader) -> Option<Value> {
    match block {
        Block::Text { text, extra } => (!text.is_empty()).then(|| typed("text", extra, [("text", json!(text))])),
        Block::Image { image, extra } => Some(typed("image", extra, [("source", encode_source(image))])),
        Block::Document { name, media_type, data, extra } => {
            let source = json!({"type": "base64", "media_type": media_type, "data": data});
            let mut document = typed("document", extra, [("source", source)]);
            if !name.is_empty() {
                document["title"] = json!(name);
            }
            Some(document)
        }
        Block::Thinking { text, extra } => encode_thinking(text, extra, reader),
        Block::ToolUse { id, name, input, extra } => {
            let id = match reader {
                Reader::Client => signed_id(id, extra),
                Reader::Provider => provider_id(id),
            };
            Some(typed("tool_use", extra, [("id", json!(id)), ("name", json!(name)), ("input", argument_object(input))]))
        }
        Block::ToolResult { id, content, images, is_error, extra } => {
            let mut result = typed("tool_result", extra, [("tool_use_id", json!(provider_id(id)))]);
            let fields = result.as_object_mut()?;
            // What stands there already is the list that the client wrote.
            fields.entry("content").or_insert_with(|| encode_result(content, images));
            if *is_error {
                fields.insert("is_error".to_owned(), json!(true));
            }
            Some(result)
        }
        Block::Unknown { format: FORMAT, block } => Some(block.clone()),
        Block::Unknown { .. } => None,
    }
}

fn typed<const N: usize>(kind: &str, extra: &Option<Box<Extra>>, fields: [(&str, Value); N]) -> Value {
    let mut block = extra_of(extra, FORMAT).cloned().unwrap_or_default();
    block.insert("type".to_owned(), json!(kind));
    block.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(block)
}

/// The provider takes back only what it signed. A client sees the rest too, under a signature that says what another provider wants
/// back, or an empty one.
fn encode_thinking(text: &str, extra: &Option<Box<Extra>>, reader: Reader) -> Option<Value> {
    let fields = extra_of(extra, FORMAT);
    if let Some(redacted) = fields.filter(|fields| fields.contains_key("data")) {
        return Some(Value::Object(redacted.clone()));
    }
    let own = fields.and_then(|fields| fields.get("signature")?.as_str());
    let packed = sealed::pack(extra, FORMAT).filter(|_| reader == Reader::Client);
    let signature = own.or(packed.as_deref()).unwrap_or_default();
    if signature.is_empty() && (reader == Reader::Provider || text.is_empty()) {
        return None;
    }
    Some(typed("thinking", extra, [("thinking", json!(text)), ("signature", json!(signature))]))
}

/// Ids of other providers may have characters that this one refuses.
fn provider_id(id: &str) -> String {
    let taken = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    id.chars().map(|c| if taken(c) { c } else { '_' }).collect()
}

fn encode_source(image: &ImageSource) -> Value {
    match image {
        ImageSource::Base64 { media_type, data } => json!({"type": "base64", "media_type": media_type, "data": data}),
        ImageSource::Url { url } => json!({"type": "url", "url": url}),
    }
}

fn encode_result(content: &str, images: &[ImageSource]) -> Value {
    if images.is_empty() {
        return json!(content);
    }
    let text = (!content.is_empty()).then(|| json!({"type": "text", "text": content}));
    let images = images.iter().map(|image| json!({"type": "image", "source": encode_source(image)}));
    text.into_iter().chain(images).collect()
}

/// Reads a block. What it cannot be without is named in the error.
pub(crate) fn decode(block: &Value) -> Result<Block, String> {
    let Some(object) = block.as_object() else { return Err("a block is an object".to_owned()) };
    let mut fields = object.clone();
    // Absent and null are the same to this format.
    fields.retain(|_, value| !value.is_null());
    let Some(Value::String(kind)) = fields.remove("type") else { return Err("`type` is missing".to_owned()) };
    match kind.as_str() {
        "text" => Ok(Block::Text { text: take_text(&mut fields, "text")?, extra: Extra::of(FORMAT, fields) }),
        "thinking" => {
            let packed = fields.get("signature").and_then(|signature| sealed::unpack(signature.as_str()?));
            Ok(Block::Thinking { text: take_text(&mut fields, "thinking")?, extra: packed.or_else(|| Extra::of(FORMAT, fields)) })
        }
        "redacted_thinking" => {
            fields.insert("type".to_owned(), Value::String(kind));
            Ok(Block::Thinking { text: String::new(), extra: Extra::of(FORMAT, fields) })
        }
        "tool_use" => {
            let (id, name) = (take_text(&mut fields, "id")?, take_text(&mut fields, "name")?);
            let input = arguments_of(fields.remove("input").unwrap_or_default());
            let (id, signed) = opened_id(&id);
            Ok(Block::ToolUse { id: id.to_owned(), name, input, extra: signed.or_else(|| Extra::of(FORMAT, fields)) })
        }
        "tool_result" => decode_result(fields),
        "image" => match fields.get("source").and_then(decode_source) {
            Some(image) => {
                fields.remove("source");
                Ok(Block::Image { image, extra: Extra::of(FORMAT, fields) })
            }
            // A file at the provider, which means nothing elsewhere.
            None => Ok(Block::Unknown { format: FORMAT, block: block.clone() }),
        },
        "document" => match fields.get("source").and_then(decode_source) {
            Some(ImageSource::Base64 { media_type, data }) if media_type == PDF => {
                fields.remove("source");
                let name = if fields.contains_key("title") { take_text(&mut fields, "title")? } else { String::new() };
                Ok(Block::Document { name, media_type, data, extra: Extra::of(FORMAT, fields) })
            }
            // A text, an address, or a file at the provider.
            _ => Ok(Block::Unknown { format: FORMAT, block: block.clone() }),
        },
        _ => Ok(Block::Unknown { format: FORMAT, block: block.clone() }),
    }
}

fn take_text(fields: &mut Map<String, Value>, field: &str) -> Result<String, String> {
    match fields.remove(field) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("`{field}` is not a text")),
        None => Err(format!("`{field}` is missing")),
    }
}

fn decode_source(source: &Value) -> Option<ImageSource> {
    let text = |field: &str| source.get(field).and_then(Value::as_str).map(str::to_owned);
    // More than these fields would be lost.
    let fields = source.as_object()?.len();
    match source.get("type").and_then(Value::as_str)? {
        "base64" if fields == 3 => Some(ImageSource::Base64 { media_type: text("media_type")?, data: text("data")? }),
        "url" if fields == 2 => Some(ImageSource::Url { url: text("url")? }),
        _ => None,
    }
}

fn decode_result(mut fields: Map<String, Value>) -> Result<Block, String> {
    let id = opened_id(&take_text(&mut fields, "tool_use_id")?).0.to_owned();
    let is_error = fields.remove("is_error").and_then(|flag| flag.as_bool()).unwrap_or(false);
    let written = fields.remove("content");
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    match &written {
        None => {}
        Some(Value::String(text)) => texts.push(text.clone()),
        Some(Value::Array(parts)) => {
            for part in parts {
                match decode(part) {
                    Ok(Block::Text { text, .. }) => texts.push(text),
                    Ok(Block::Image { image, .. }) => images.push(image),
                    Ok(_) => {}
                    Err(error) => return Err(format!("content: {error}")),
                }
            }
        }
        Some(_) => return Err("`content` is neither text nor blocks".to_owned()),
    }
    let content = texts.join("\n");
    // Kept as it stands where our form would not write it again: documents, several texts, markers inside.
    if let Some(written) = written.filter(|written| *written != encode_result(&content, &images)) {
        fields.insert("content".to_owned(), written);
    }
    Ok(Block::ToolResult { id, content, images, is_error, extra: Extra::of(FORMAT, fields) })
}
