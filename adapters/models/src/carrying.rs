//! What of a request a format has no word for.
//!
//! What a client says is sent as it means it, or not at all: a file that only another provider has, or that provider's own
//! tool, is named in a refusal. Two things are left out without one: blocks of a model's own turns, which another model could
//! not read, and a provider's own tool beside others that can be carried, because many clients offer theirs with every
//! request and use them rarely.

use helix_protocol::{Block, ImageSource, ModelRequest, Role, ToolChoice, ToolSchema, WireFormat, extra_of};
use serde_json::Value;

use crate::anthropic::decode_block;
use crate::tools::{carried, provider_of};

/// Something that cannot be carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// It, in words.
    pub what: String,
    /// False where the request means something without it.
    pub needed: bool,
}

/// The first thing in `request` that `format` cannot carry, what is needed before what is not.
pub(crate) fn lost(request: &ModelRequest, format: WireFormat) -> Option<Lost> {
    let mut said = request.messages.iter().filter(|message| message.role != Role::Assistant);
    let block = said.find_map(|message| message.blocks.iter().find_map(|block| lost_block(message.role, block, format)));
    block.map(|what| Lost { what, needed: true }).or_else(|| lost_tool(request, format))
}

fn lost_tool(request: &ModelRequest, format: WireFormat) -> Option<Lost> {
    let foreign = |tool: &&ToolSchema| provider_of(tool).is_some_and(|whose| whose != format);
    let chosen = |tool: &&ToolSchema| matches!(&request.tool_choice, ToolChoice::Named(name) if *name == tool.name);
    let mut lost: Vec<&ToolSchema> = request.tools.iter().filter(foreign).collect();
    lost.sort_by_key(|tool| !chosen(tool));
    let tool = lost.first()?;
    let whose = provider_of(tool).map(words).unwrap_or_default();
    let alone = carried(&request.tools, format).next().is_none();
    Some(Lost { what: format!("the tool `{}` of {whose}", tool.name), needed: alone || chosen(tool) })
}

fn lost_block(role: Role, block: &Block, format: WireFormat) -> Option<String> {
    // Instructions are text alone where they are no blocks.
    let texts_alone = role == Role::System
        && matches!(format, WireFormat::OpenaiChat | WireFormat::OpenaiResponses | WireFormat::Ollama)
        && matches!(block, Block::Image { .. } | Block::Document { .. } | Block::Unknown { .. });
    match block {
        Block::Unknown { format: whose, block } if *whose != format || texts_alone => Some(unknown(block, *whose)),
        Block::Document { .. } if format == WireFormat::Ollama || texts_alone => Some("a document".to_owned()),
        Block::Image { .. } if texts_alone => Some("a picture among the instructions".to_owned()),
        Block::Image { image: ImageSource::Url { .. }, .. } if format == WireFormat::Ollama => Some(ELSEWHERE.to_owned()),
        Block::ToolResult { images, extra, .. } => {
            let elsewhere = |image: &ImageSource| matches!(image, ImageSource::Url { .. });
            if format == WireFormat::Ollama && images.iter().any(elsewhere) {
                return Some(ELSEWHERE.to_owned());
            }
            let whose = extra.as_deref().map(|extra| extra.format).filter(|whose| *whose != format)?;
            let fields = extra_of(extra, whose)?;
            let part = match whose {
                WireFormat::Anthropic => fields.get("content")?.as_array()?.iter().find(|part| !is_carried(part))?,
                WireFormat::Gemini => fields.get("functionResponse")?.get("parts")?.as_array()?.first()?,
                _ => return None,
            };
            Some(format!("{} in the result of a tool", unknown(part, whose)))
        }
        _ => None,
    }
}

/// What stands in a picture's place where only bytes are taken.
const ELSEWHERE: &str = "a picture that is only named by its address";

/// True of what a result of ours has a place for.
fn is_carried(part: &Value) -> bool {
    match decode_block(part) {
        Ok(Block::Text { .. } | Block::Image { .. }) => true,
        Ok(_) | Err(_) => false,
    }
}

fn unknown(block: &Value, whose: WireFormat) -> String {
    let kind = block.get("type").and_then(Value::as_str);
    // Gemini's parts have no type; each is named after its only field.
    let kind = kind.or_else(|| block.as_object()?.keys().next().map(String::as_str)).unwrap_or("part");
    format!("a block `{kind}` of {}", words(whose))
}

fn words(format: WireFormat) -> &'static str {
    match format {
        WireFormat::OpenaiChat => "chat completions",
        WireFormat::OpenaiResponses => "responses",
        WireFormat::Anthropic => "Anthropic's messages",
        WireFormat::Gemini => "Gemini",
        WireFormat::Ollama => "Ollama",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::anthropic::AnthropicMessages;
    use crate::chat::ChatCompletions;
    use crate::gemini::Gemini;
    use crate::ollama::Ollama;
    use crate::responses::Responses;
    use crate::{Format, Turn, client_formats};
    use helix_ports::ModelCapabilities;

    const CARRIERS: [WireFormat; 4] =
        [WireFormat::OpenaiChat, WireFormat::OpenaiResponses, WireFormat::Anthropic, WireFormat::Gemini];

    /// What a client of `from` says in its own words.
    fn read(from: WireFormat, said: &Value) -> ModelRequest {
        let clients = client_formats();
        clients.iter().find(|client| client.wire() == from).expect("it is served").decode(said).expect("it is read")
    }

    fn user(from: WireFormat, part: Value) -> Value {
        match from {
            WireFormat::OpenaiResponses => json!({"input": [{"role": "user", "content": [part]}]}),
            WireFormat::Gemini => json!({"contents": [{"parts": [part]}]}),
            _ => json!({"messages": [{"role": "user", "content": [part]}]}),
        }
    }

    fn sent(request: &ModelRequest, to: WireFormat) -> Value {
        let capabilities = ModelCapabilities::default();
        let turn = Turn { request, model: "m", capabilities: &capabilities, max_tokens: 9, temperature: None, stream: false };
        let formats: [Box<dyn Format>; 5] = [
            Box::new(ChatCompletions::at("")),
            Box::new(Responses),
            Box::new(AnthropicMessages),
            Box::<Gemini>::default(),
            Box::new(Ollama),
        ];
        formats.iter().find(|format| format.wire() == to).expect("a format").encode(&turn).body
    }

    fn document(format: WireFormat, name: &str) -> Value {
        let url = "data:application/pdf;base64,JVBERg==";
        match format {
            WireFormat::OpenaiChat => json!({"type": "file", "file": {"filename": name, "file_data": url}}),
            WireFormat::OpenaiResponses => json!({"type": "input_file", "filename": name, "file_data": url}),
            WireFormat::Anthropic => {
                let source = json!({"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="});
                json!({"type": "document", "title": name, "source": source})
            }
            _ => json!({"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}}),
        }
    }

    #[test]
    fn a_document_reaches_every_format_from_every_other_that_has_documents() {
        for from in CARRIERS {
            let request = read(from, &user(from, document(from, "a.pdf")));
            for to in CARRIERS {
                assert_eq!(lost(&request, to), None, "{from:?} to {to:?}");
                let body = sent(&request, to);
                let at = match to {
                    WireFormat::OpenaiResponses => "/input/0/content/0",
                    WireFormat::Gemini => "/contents/0/parts/0",
                    _ => "/messages/0/content/0",
                };
                let mut expected = document(to, if from == WireFormat::Gemini { "document.pdf" } else { "a.pdf" });
                if (from, to) == (WireFormat::Gemini, WireFormat::Anthropic) {
                    expected.as_object_mut().expect("an object").remove("title");
                }
                assert_eq!(body.pointer(at), Some(&expected), "{from:?} to {to:?}");
            }
            assert_eq!(lost(&request, WireFormat::Ollama).map(|lost| lost.what), Some("a document".to_owned()));
        }
        let cited =
            json!({"type": "document", "source": document(WireFormat::Anthropic, "")["source"], "citations": {"enabled": true}});
        let request = read(WireFormat::Anthropic, &user(WireFormat::Anthropic, cited.clone()));
        assert_eq!(sent(&request, WireFormat::Anthropic)["messages"][0]["content"][0], cited);
        let named = json!({"inlineData": {"mimeType": "application/pdf", "data": "JVBERg==", "displayName": "a.pdf"}});
        let request = read(WireFormat::Gemini, &user(WireFormat::Gemini, named.clone()));
        assert_eq!(sent(&request, WireFormat::Gemini)["contents"][0]["parts"][0], named);
        assert_eq!(sent(&request, WireFormat::OpenaiChat)["messages"][0]["content"][0]["file"]["filename"], "a.pdf");
    }

    #[test]
    fn what_only_its_own_format_has_is_named_for_the_others() {
        let anthropic = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
        let result = |content: Value| anthropic(json!([{"type": "tool_result", "tool_use_id": "a", "content": content}]));
        let file = json!({"type": "document", "source": {"type": "file", "file_id": "file_1"}});
        let parts = json!([{"inlineData": {"mimeType": "image/png", "data": ""}}]);
        let answered = json!({"functionResponse": {"name": "f", "response": {"output": "x"}, "parts": parts}});
        let search = json!({"type": "web_search_20250305", "name": "web_search"});
        let own = json!({"name": "f", "input_schema": {"type": "object"}});
        let searching = |tools: Value, choice: Value| json!({"messages": [], "tools": tools, "tool_choice": choice});
        let auto = json!({"type": "auto"});
        for (from, said, expected) in [
            (
                WireFormat::OpenaiChat,
                user(WireFormat::OpenaiChat, json!({"type": "file", "file": {"file_id": "f"}})),
                Some(("`file`", true)),
            ),
            (
                WireFormat::OpenaiChat,
                user(WireFormat::OpenaiChat, json!({"type": "input_audio", "input_audio": {}})),
                Some(("`input_audio`", true)),
            ),
            (
                WireFormat::OpenaiResponses,
                user(WireFormat::OpenaiResponses, json!({"type": "input_file", "file_id": "f"})),
                Some(("`input_file`", true)),
            ),
            (
                WireFormat::OpenaiResponses,
                json!({"input": [{"type": "custom_tool_call_output", "call_id": "a", "output": "x"}]}),
                Some(("`custom_tool_call_output`", true)),
            ),
            (
                WireFormat::OpenaiResponses,
                json!({"input": [{"type": "additional_tools", "role": "developer", "tools": []}]}),
                Some(("`additional_tools`", true)),
            ),
            (WireFormat::Anthropic, anthropic(json!([file])), Some(("`document`", true))),
            (WireFormat::Anthropic, result(json!([document(WireFormat::Anthropic, "a")])), Some(("`document`", true))),
            (WireFormat::Anthropic, result(json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])), None),
            (WireFormat::Anthropic, json!({"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]}), None),
            (WireFormat::Anthropic, searching(json!([search]), auto.clone()), Some(("`web_search`", true))),
            (WireFormat::Anthropic, searching(json!([own, search]), auto), Some(("`web_search`", false))),
            (
                WireFormat::Anthropic,
                searching(json!([own, search]), json!({"type": "tool", "name": "web_search"})),
                Some(("`web_search`", true)),
            ),
            (WireFormat::Gemini, user(WireFormat::Gemini, json!({"fileData": {"fileUri": "gs://a"}})), Some(("`fileData`", true))),
            (WireFormat::Gemini, user(WireFormat::Gemini, answered), Some(("`inlineData`", true))),
            (WireFormat::Gemini, json!({"contents": [], "tools": [{"googleSearch": {}}]}), Some(("`googleSearch`", true))),
        ] {
            let request = read(from, &said);
            for to in CARRIERS.into_iter().chain([WireFormat::Ollama]) {
                let lost = lost(&request, to);
                match expected.filter(|_| to != from) {
                    None => assert_eq!(lost, None, "{said} to {to:?}"),
                    Some((what, needed)) => {
                        let lost = lost.unwrap_or_else(|| panic!("{said} to {to:?}"));
                        assert!(lost.what.contains(what) && lost.needed == needed, "{lost:?}");
                    }
                }
            }
        }
        let elsewhere = json!({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}});
        let request = read(WireFormat::OpenaiChat, &user(WireFormat::OpenaiChat, elsewhere));
        assert_eq!(lost(&request, WireFormat::Anthropic), None);
        assert!(lost(&request, WireFormat::Ollama).is_some_and(|lost| lost.needed));
    }
}
