//! One part of content, both ways.

use helix_protocol::{Block, Extra, ImageSource, WireFormat, extra_of};
use serde_json::{Map, Value, json};

use crate::chat::{argument_object, arguments_of};
use crate::documents::PDF;
use crate::sealed;

const FORMAT: WireFormat = WireFormat::Gemini;

/// A part's name for what the model signed.
pub(super) use crate::tools::THOUGHT_SIGNATURE;

/// A part on the wire; nothing where the format has none for it. `tool` says the name of the tool that a call's id is for.
pub(super) fn encode(block: &Block, tool: &dyn Fn(&str) -> Option<Called>) -> Vec<Value> {
    match block {
        Block::Text { text, extra } => {
            let fields = extra_of(extra, FORMAT);
            let part = (!text.is_empty() || fields.is_some()).then(|| with("text", json!(text), fields));
            part.into_iter().collect()
        }
        // What another provider thought means nothing here.
        Block::Thinking { extra: Some(extra), .. } if extra.format != FORMAT => Vec::new(),
        Block::Thinking { text, extra } => {
            let mut part = with("text", json!(text), extra_of(extra, FORMAT));
            part["thought"] = json!(true);
            vec![part]
        }
        Block::Image { image, extra } => vec![encode_image(image, extra_of(extra, FORMAT))],
        Block::Document { media_type, data, extra, .. } => {
            vec![with("inlineData", json!({"mimeType": media_type, "data": data}), extra_of(extra, FORMAT))]
        }
        Block::ToolUse { name, input, extra, .. } => {
            let call = json!({"name": name, "args": argument_object(input)});
            vec![with("functionCall", call, extra_of(extra, FORMAT))]
        }
        Block::ToolResult { id, content, images, is_error, extra } => {
            let Called { name, id } = tool(id).unwrap_or_else(|| Called { name: id.clone(), id: None });
            let answer = if *is_error { "error" } else { "output" };
            let mut result = json!({"name": name, "response": {answer: content}});
            if let Some(id) = id {
                result["id"] = json!(id);
            }
            let result = with("functionResponse", result, extra_of(extra, FORMAT));
            std::iter::once(result).chain(images.iter().map(|image| encode_image(image, None))).collect()
        }
        Block::Unknown { format: FORMAT, block } => vec![block.clone()],
        Block::Unknown { .. } => Vec::new(),
    }
}

/// The call that a result answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Called {
    /// The tool.
    pub name: String,
    /// The id of the call, where it has one on the wire.
    pub id: Option<String>,
}

/// The id that a call has on the wire; most have none.
pub(super) fn wire_id(extra: &Option<Box<Extra>>) -> Option<String> {
    Some(extra_of(extra, FORMAT)?.get("functionCall")?.get("id")?.as_str()?.to_owned())
}

/// A part of one kind with what stands besides; fields of the same name are laid over what is kept of them.
fn with(kind: &str, value: Value, extra: Option<&Map<String, Value>>) -> Value {
    let mut part = extra.cloned().unwrap_or_default();
    let value = match (part.remove(kind), value) {
        (Some(Value::Object(kept)), Value::Object(mut fields)) => {
            fields.extend(kept);
            Value::Object(fields)
        }
        (_, value) => value,
    };
    part.insert(kind.to_owned(), value);
    Value::Object(part)
}

fn encode_image(image: &ImageSource, extra: Option<&Map<String, Value>>) -> Value {
    match image {
        ImageSource::Base64 { media_type, data } => with("inlineData", json!({"mimeType": media_type, "data": data}), extra),
        ImageSource::Url { url } => with("fileData", json!({"fileUri": url, "mimeType": media_type_of(url)}), extra),
    }
}

/// A guess by the URL's ending; most pictures on the web are what is left.
fn media_type_of(url: &str) -> &'static str {
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    match path.rsplit('.').next() {
        Some("png") => "image/png",
        Some("gif") => "image/gif",
        Some("webp") => "image/webp",
        _ => "image/jpeg",
    }
}

/// Reads a part. `id` makes the id of a call that has none, and of a result the id of the call it answers.
pub(super) fn decode(part: &Value, id: &mut dyn FnMut(Wanted<'_>) -> String) -> Result<Block, String> {
    let Some(object) = part.as_object() else { return Err("a part is an object".to_owned()) };
    let unknown = || Ok(Block::Unknown { format: FORMAT, block: part.clone() });
    let mut fields: Map<String, Value> = object.iter().filter(|(_, value)| !value.is_null()).map(camel).collect();
    if let Some(Value::String(text)) = fields.remove("text") {
        return Ok(match fields.remove("thought").and_then(|thought| thought.as_bool()) {
            Some(true) => {
                let packed = fields.get(THOUGHT_SIGNATURE).and_then(|signature| sealed::unpack_base64(signature.as_str()?));
                packed.unwrap_or_else(|| Block::Thinking { text, extra: Extra::of(FORMAT, fields) })
            }
            _ => Block::Text { text, extra: Extra::of(FORMAT, fields) },
        });
    }
    if let Some(Value::Object(mut call)) = fields.remove("functionCall") {
        let Some(Value::String(name)) = call.remove("name") else { return Err("`functionCall.name` is missing".to_owned()) };
        let input = arguments_of(call.remove("args").unwrap_or_default());
        let id = match call.get("id").and_then(Value::as_str) {
            Some(id) => id.to_owned(),
            None => id(Wanted::Call { name: &name, input: &input }),
        };
        keep(&mut fields, "functionCall", call);
        return Ok(Block::ToolUse { id, name, input, extra: Extra::of(FORMAT, fields) });
    }
    if let Some(Value::Object(result)) = fields.remove("functionResponse") {
        return decode_result(result, fields, id);
    }
    if let Some(Value::Object(data)) = fields.remove("inlineData") {
        let mut data: Map<String, Value> = data.iter().map(camel).collect();
        return match (data.remove("mimeType"), data.remove("data")) {
            (Some(Value::String(media_type)), Some(Value::String(bytes))) if media_type.starts_with("image/") => {
                keep(&mut fields, "inlineData", data);
                let image = ImageSource::Base64 { media_type, data: bytes };
                Ok(Block::Image { image, extra: Extra::of(FORMAT, fields) })
            }
            (Some(Value::String(media_type)), Some(Value::String(bytes))) if media_type == PDF => {
                // Not every service of the format takes a name, so it stays a word of this client.
                let name = data.get("displayName").and_then(Value::as_str).unwrap_or_default().to_owned();
                keep(&mut fields, "inlineData", data);
                Ok(Block::Document { name, media_type, data: bytes, extra: Extra::of(FORMAT, fields) })
            }
            _ => unknown(),
        };
    }
    if let Some(Value::Object(data)) = fields.remove("fileData") {
        let mut data: Map<String, Value> = data.iter().map(camel).collect();
        let kind = data.get("mimeType").and_then(Value::as_str).unwrap_or_default().to_owned();
        // Files uploaded to the provider have addresses that only it reads.
        let fetched = |url: &str| url.starts_with("http") && !url.contains("generativelanguage.googleapis.com");
        return match data.get("fileUri").and_then(Value::as_str).map(str::to_owned) {
            Some(url) if kind.starts_with("image/") && fetched(&url) => {
                data.remove("fileUri");
                if kind == media_type_of(&url) {
                    data.remove("mimeType");
                }
                keep(&mut fields, "fileData", data);
                Ok(Block::Image { image: ImageSource::Url { url }, extra: Extra::of(FORMAT, fields) })
            }
            _ => unknown(),
        };
    }
    unknown()
}

/// What an id is wanted for.
pub(super) enum Wanted<'a> {
    /// A call that has none.
    Call {
        /// The tool.
        name: &'a str,
        /// Its arguments.
        input: &'a Value,
    },
    /// The call that a result answers which names only its tool.
    Answered {
        /// The tool.
        name: &'a str,
    },
}

fn decode_result(
    mut result: Map<String, Value>,
    mut fields: Map<String, Value>,
    id: &mut dyn FnMut(Wanted<'_>) -> String,
) -> Result<Block, String> {
    let Some(Value::String(name)) = result.remove("name") else { return Err("`functionResponse.name` is missing".to_owned()) };
    let id = match result.remove("id") {
        Some(Value::String(id)) => id,
        _ => id(Wanted::Answered { name: &name }),
    };
    let response = result.remove("response").unwrap_or_default();
    let only = |field: &str| response.as_object().filter(|fields| fields.len() == 1)?.get(field)?.as_str().map(str::to_owned);
    let (content, is_error) = match (only("output"), only("error"), only("result")) {
        (Some(text), ..) => (text, false),
        (_, Some(text), _) => (text, true),
        (_, _, text) => {
            let is_error = response.get("error").is_some_and(|error| !error.is_null());
            let content = text.unwrap_or_else(|| response.to_string());
            // Written by other rules than ours, so it goes back as it stands.
            result.insert("response".to_owned(), response);
            (content, is_error)
        }
    };
    keep(&mut fields, "functionResponse", result);
    Ok(Block::ToolResult { id, content, images: Vec::new(), is_error, extra: Extra::of(FORMAT, fields) })
}

fn keep(fields: &mut Map<String, Value>, kind: &str, rest: Map<String, Value>) {
    if !rest.is_empty() {
        fields.insert(kind.to_owned(), Value::Object(rest));
    }
}

/// A field under the name that the format gives it; both spellings are read.
pub(super) fn camel((field, value): (&String, &Value)) -> (String, Value) {
    (camel_name(field), value.clone())
}

pub(super) fn camel_name(field: &str) -> String {
    let mut words = field.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}
