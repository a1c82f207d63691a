//! What an answer's text shall be, as most formats say it: any text, a JSON object, or JSON of a schema.

use helix_protocol::OutputFormat;
use serde_json::{Map, Value, json};

/// A schema must have a name in the formats of OpenAI; this is that of one that came without.
const UNNAMED: &str = "answer";

/// Reads an object with a `type`, which stands at `at` of a request. `schema_of` finds where its schema lies.
pub(crate) fn decode_typed(said: &Value, at: &str, schema_of: fn(&Value) -> &Value) -> Result<OutputFormat, String> {
    match said.get("type").and_then(Value::as_str) {
        Some("text") => Ok(OutputFormat::Text),
        // llama.cpp and others take a schema here.
        Some("json_object") => {
            Ok(said.get("schema").filter(|schema| schema.is_object()).map_or(OutputFormat::JsonObject, schema_alone))
        }
        Some("json_schema") => {
            let inner = schema_of(said);
            let text = |field: &str| inner.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let schema = inner.get("schema").filter(|schema| schema.is_object());
            Ok(OutputFormat::JsonSchema {
                name: text("name"),
                description: text("description"),
                schema: schema.cloned().ok_or_else(|| format!("the `schema` of `{at}` is missing or not an object"))?,
                strict: inner.get("strict").and_then(Value::as_bool).unwrap_or(false),
            })
        }
        Some(other) => Err(format!("`{at}` has the type {other:?}, which is not known; it is text, json_object or json_schema")),
        None => Err(format!("`{at}` has no `type`")),
    }
}

/// A schema of a format that has nothing beside it.
pub(crate) fn schema_alone(schema: &Value) -> OutputFormat {
    OutputFormat::JsonSchema { name: String::new(), description: String::new(), schema: schema.clone(), strict: false }
}

/// The fields of a named schema, as OpenAI's formats have them. What it calls a name has only letters, digits, `_` and `-`.
pub(crate) fn named_schema(name: &str, description: &str, schema: &Value, strict: bool) -> Map<String, Value> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    let name: String = name.chars().take(64).map(plain).collect();
    let mut fields = Map::new();
    fields.insert("name".to_owned(), json!(if name.is_empty() { UNNAMED } else { &name }));
    if !description.is_empty() {
        fields.insert("description".to_owned(), json!(description));
    }
    fields.insert("schema".to_owned(), schema.clone());
    fields.insert("strict".to_owned(), json!(strict));
    fields
}

/// The schema for a format that has nothing beside it: what the client said of it stands within.
pub(crate) fn described(schema: &Value, description: &str) -> Value {
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut().filter(|_| !description.is_empty()) {
        fields.entry("description").or_insert_with(|| json!(description));
    }
    schema
}

#[cfg(test)]
mod tests {
    use helix_ports::{ClientFormat, ModelCapabilities};
    use helix_protocol::WireFormat;

    use super::*;
    use crate::anthropic::AnthropicMessages;
    use crate::chat::ChatCompletions;
    use crate::gemini::Gemini;
    use crate::ollama::Ollama;
    use crate::responses::Responses;
    use crate::{Format, Turn, client_formats};

    fn schema() -> Value {
        json!({"type": "object", "properties": {"city": {"type": ["string", "null"]}}, "required": ["city"]})
    }

    /// What a format sends of a request that a client of another wrote.
    fn sent(from: WireFormat, asked: Value, to: &dyn Format) -> Value {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "hi",
            "contents": [{"parts": [{"text": "hi"}]}], "max_tokens": 9});
        body.as_object_mut().expect("an object").extend(asked.as_object().expect("an object").clone());
        let clients = client_formats();
        let client = clients.iter().find(|client| client.wire() == from).expect("it is served");
        let request = client.decode(&body).expect("it is read");
        let capabilities = ModelCapabilities::default();
        let turn =
            Turn { request: &request, model: "m", capabilities: &capabilities, max_tokens: 9, temperature: None, stream: false };
        to.encode(&turn).body
    }

    /// Each client's way to ask for a schema, and for any JSON where it has one.
    fn asking(schema: &Value) -> Vec<(WireFormat, Value, Option<Value>)> {
        let named = json!({"name": "place", "schema": schema, "strict": true});
        let mut flat = named.clone();
        flat["type"] = json!("json_schema");
        let object = json!({"type": "json_object"});
        let old = json!({"type": "OBJECT", "properties": {"city": {"type": "STRING", "nullable": true}}, "required": ["city"]});
        let mime = "application/json";
        vec![
            (
                WireFormat::OpenaiChat,
                json!({"response_format": {"type": "json_schema", "json_schema": named}}),
                Some(json!({"response_format": object})),
            ),
            (WireFormat::OpenaiResponses, json!({"text": {"format": flat}}), Some(json!({"text": {"format": object}}))),
            (
                WireFormat::Gemini,
                json!({"generationConfig": {"responseMimeType": mime, "responseSchema": old}}),
                Some(json!({"generation_config": {"response_mime_type": mime}})),
            ),
            (WireFormat::Gemini, json!({"generationConfig": {"responseMimeType": mime, "responseJsonSchema": schema}}), None),
            (WireFormat::Anthropic, json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}}), None),
            (WireFormat::Anthropic, json!({"output_format": {"type": "json_schema", "schema": schema}}), None),
            (WireFormat::Ollama, json!({"format": schema}), Some(json!({"format": "json"}))),
        ]
    }

    #[test]
    fn the_schema_of_an_answer_reaches_every_format_from_every_other() {
        let schema = schema();
        let mut closed = schema.clone();
        closed["additionalProperties"] = json!(false);
        for (from, asked, any_json) in asking(&schema) {
            let openai = matches!(from, WireFormat::OpenaiChat | WireFormat::OpenaiResponses);
            let (name, strict) = if openai { ("place", true) } else { ("answer", false) };
            let named = json!({"name": name, "schema": schema, "strict": strict});
            let mut flat = named.clone();
            flat["type"] = json!("json_schema");
            let to = |format: &dyn Format| sent(from, asked.clone(), format);
            let chat = to(&ChatCompletions::at(""));
            assert_eq!(chat["response_format"], json!({"type": "json_schema", "json_schema": named}), "{asked}");
            assert_eq!(to(&Responses)["text"], json!({"format": flat}), "{asked}");
            let config = to(&Gemini::default())["generationConfig"].clone();
            assert_eq!(
                (&config["responseMimeType"], &config["responseJsonSchema"]),
                (&json!("application/json"), &schema),
                "{asked}"
            );
            let config = to(&AnthropicMessages)["output_config"].clone();
            assert_eq!(config, json!({"format": {"type": "json_schema", "schema": closed}}), "{asked}");
            assert_eq!(to(&Ollama)["format"], schema, "{asked}");

            let Some(any_json) = any_json else { continue };
            let to = |format: &dyn Format| sent(from, any_json.clone(), format);
            let object = json!({"type": "json_object"});
            assert_eq!(to(&ChatCompletions::at(""))["response_format"], object, "{any_json}");
            assert_eq!(to(&Responses)["text"], json!({"format": object}), "{any_json}");
            let config = to(&Gemini::default())["generationConfig"].clone();
            assert_eq!((&config["responseMimeType"], config.get("responseJsonSchema")), (&json!("application/json"), None));
            assert_eq!(to(&Ollama)["format"], "json", "{any_json}");
        }
    }

    #[test]
    fn what_no_other_format_can_say_of_an_answer_is_refused_by_name() {
        let clients = client_formats();
        let refused = |from: WireFormat, asked: Value| {
            let client: &dyn ClientFormat = &**clients.iter().find(|client| client.wire() == from).expect("it is served");
            client.decode(&asked).expect_err("refused")
        };
        let messages = json!([]);
        for (from, asked, field) in [
            (WireFormat::OpenaiChat, json!({"messages": messages, "response_format": {"type": "grammar"}}), "response_format"),
            (WireFormat::OpenaiChat, json!({"messages": messages, "response_format": {"type": "json_schema"}}), "response_format"),
            (WireFormat::OpenaiResponses, json!({"input": "", "text": {"format": {}}}), "text.format"),
            (
                WireFormat::Gemini,
                json!({"contents": [], "generationConfig": {"responseMimeType": "text/x.enum"}}),
                "responseMimeType",
            ),
            (WireFormat::Gemini, json!({"contents": [], "generationConfig": {"responseSchema": {}}}), "responseMimeType"),
            (WireFormat::Anthropic, json!({"messages": messages, "output_config": {"format": {"type": "xml"}}}), "output_config"),
            (WireFormat::Ollama, json!({"messages": messages, "format": "xml"}), "format"),
        ] {
            let said = refused(from, asked);
            assert!(said.contains(field), "{said}");
        }
    }
}
