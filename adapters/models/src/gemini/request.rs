//! A turn as a request.

use std::collections::HashMap;

use helix_protocol::{
    Block, Effort, Message, ModelRequest, OutputFormat, Role, ThinkingControl, ToolChoice, ToolSchema, WireFormat, extra_of,
};
use serde_json::{Map, Value, json};

use super::parts::{self, Called, THOUGHT_SIGNATURE, wire_id};
use super::schema;
use crate::format::Turn;
use crate::output::described;
use crate::thinking::{Plan, effort_word, plan};
use crate::tools::{Forcing, carried, provider_of, sent_choice};

const FORMAT: WireFormat = WireFormat::Gemini;

/// What stands for a signature that was lost with the provider that made the call. The provider documents it for conversations that
/// come from other models.
const UNCHECKED: &str = "skip_thought_signature_validator";

/// The type of an answer that is JSON.
pub(super) const JSON: &str = "application/json";

/// The request's body.
pub fn encode_request(turn: &Turn<'_>) -> Value {
    let mut body = encode_prompt(turn);
    let mut generation = Map::new();
    let mut set = |field: &str, value: Option<Value>| generation.extend(value.map(|value| (field.to_owned(), value)));
    let sampling = turn.request.sampling;
    set("maxOutputTokens", Some(json!(turn.max_tokens)));
    if turn.capabilities.sampling {
        set("temperature", sampling.temperature.or(turn.temperature).map(Value::from));
        set("topP", sampling.top_p.map(Value::from));
        set("topK", sampling.top_k.map(Value::from));
    }
    set("stopSequences", (!turn.request.stop.is_empty()).then(|| json!(turn.request.stop)));
    set("responseMimeType", (!turn.request.output.is_text()).then(|| json!(JSON)));
    if let OutputFormat::JsonSchema { schema, description, .. } = &turn.request.output {
        set("responseJsonSchema", Some(described(schema, description)));
    }
    set("thinkingConfig", encode_thinking(turn));
    body.insert("generationConfig".to_owned(), Value::Object(generation));
    for (field, value) in extra_of(&turn.request.extra, FORMAT).into_iter().flatten() {
        match (body.get_mut(field), value) {
            (None, value) => drop(body.insert(field.clone(), value.clone())),
            (Some(Value::Object(known)), Value::Object(more)) => {
                for (field, value) in more {
                    known.entry(field).or_insert_with(|| value.clone());
                }
            }
            (Some(_), _) => {}
        }
    }
    Value::Object(body)
}

/// What of a turn its prompt is made of: all that is counted.
pub(super) fn encode_prompt(turn: &Turn<'_>) -> Map<String, Value> {
    let request = turn.request;
    let mut body = Map::new();
    let system: Vec<Value> = request
        .messages
        .iter()
        .take_while(|message| message.role == Role::System)
        .flat_map(|message| &message.blocks)
        .flat_map(|block| parts::encode(block, &|_| None))
        .collect();
    if !system.is_empty() {
        body.insert("systemInstruction".to_owned(), json!({"parts": system}));
    }
    let mut contents = encode_contents(turn);
    let tools = encode_tools(&request.tools);
    if !tools.is_empty() {
        body.insert("tools".to_owned(), Value::Array(tools));
        let (choice, asked) = sent_choice(request, Forcing::of(turn));
        // What the client said in words that ours have no room for stands as it is.
        let said = extra_of(&request.extra, FORMAT).is_some_and(|extra| extra.contains_key("toolConfig"));
        if *choice != ToolChoice::Auto && !said {
            body.insert("toolConfig".to_owned(), encode_choice(choice));
        }
        contents.extend(asked.map(|asked| json!({"role": "user", "parts": [{"text": asked}]})));
    }
    body.insert("contents".to_owned(), Value::Array(contents));
    body
}

fn encode_contents(turn: &Turn<'_>) -> Vec<Value> {
    let messages = &turn.request.messages;
    let conversation = messages.iter().position(|message| message.role != Role::System).unwrap_or(messages.len());
    let calls: HashMap<&str, Called> = messages.iter().flat_map(|message| &message.blocks).filter_map(called).collect();
    let tool = |id: &str| calls.get(id).cloned();
    // Only what follows the user's last word is held against its signatures.
    let said =
        |message: &Message| message.role == Role::User && message.blocks.iter().any(|block| matches!(block, Block::Text { .. }));
    let current = messages.iter().rposition(said).unwrap_or(0);
    let thinks = turn.capabilities.thinking != ThinkingControl::None;
    let mut contents = Vec::new();
    for (at, message) in messages.iter().enumerate().skip(conversation) {
        let mut encoded: Vec<Value> = message.blocks.iter().flat_map(|block| parts::encode(block, &tool)).collect();
        if thinks && at >= current {
            mark_unsigned(&mut encoded);
        }
        let role = if message.role == Role::Assistant { "model" } else { "user" };
        if !encoded.is_empty() {
            contents.push(json!({"role": role, "parts": encoded}));
        }
    }
    contents
}

fn called(block: &Block) -> Option<(&str, Called)> {
    match block {
        Block::ToolUse { id, name, extra, .. } => Some((id, Called { name: name.clone(), id: wire_id(extra) })),
        _ => None,
    }
}

/// The first of several calls bears the signature of all.
fn mark_unsigned(parts: &mut [Value]) {
    let first = parts.iter_mut().find(|part| part.get("functionCall").is_some());
    if let Some(call) = first.filter(|part| part.get(THOUGHT_SIGNATURE).is_none()) {
        call[THOUGHT_SIGNATURE] = json!(UNCHECKED);
    }
}

/// All functions are declared together; the provider's own tools stand beside them.
fn encode_tools(tools: &[ToolSchema]) -> Vec<Value> {
    let (own, functions): (Vec<&ToolSchema>, Vec<&ToolSchema>) =
        carried(tools, FORMAT).partition(|tool| provider_of(tool).is_some());
    let declared: Vec<Value> = functions.into_iter().map(declare).collect();
    let declared = (!declared.is_empty()).then(|| json!({"functionDeclarations": declared}));
    let own = own.into_iter().filter_map(|tool| extra_of(&tool.extra, FORMAT)).map(|fields| Value::Object(fields.clone()));
    declared.into_iter().chain(own).collect()
}

fn declare(tool: &ToolSchema) -> Value {
    let mut fields = extra_of(&tool.extra, FORMAT).cloned().unwrap_or_default();
    fields.insert("name".to_owned(), json!(tool.name));
    fields.insert("description".to_owned(), json!(tool.description));
    if fields.contains_key("parametersJsonSchema") {
        // The client asked for the whole language.
        fields.insert("parametersJsonSchema".to_owned(), tool.parameters.clone());
    } else if let Some(reduced) = schema::reduce(&tool.parameters) {
        fields.insert("parameters".to_owned(), reduced);
    }
    Value::Object(fields)
}

fn encode_choice(choice: &ToolChoice) -> Value {
    let calling = match choice {
        ToolChoice::Auto => json!({"mode": "AUTO"}),
        ToolChoice::Any => json!({"mode": "ANY"}),
        ToolChoice::None => json!({"mode": "NONE"}),
        ToolChoice::Named(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
    };
    json!({"functionCallingConfig": calling})
}

fn encode_thinking(turn: &Turn<'_>) -> Option<Value> {
    if turn.capabilities.thinking == ThinkingControl::None {
        return None;
    }
    let mut config = Map::new();
    let by_level = matches!(turn.capabilities.thinking, ThinkingControl::Effort | ThinkingControl::AlwaysEffort);
    let said = match plan(turn) {
        Plan::Unsaid => None,
        Plan::Off if by_level => Some(("thinkingLevel", json!("MINIMAL"))),
        Plan::Off => Some(("thinkingBudget", json!(0))),
        Plan::Free if by_level => None,
        Plan::Free => Some(("thinkingBudget", json!(-1))),
        Plan::Budget(tokens) => Some(("thinkingBudget", json!(tokens))),
        Plan::Effort(effort) => Some(("thinkingLevel", json!(effort_word(effort.min(Effort::Xhigh)).to_ascii_uppercase()))),
    };
    config.extend(said.map(|(field, value)| (field.to_owned(), value)));
    if turn.request.show_thinking {
        config.insert("includeThoughts".to_owned(), json!(true));
    }
    (!config.is_empty()).then_some(Value::Object(config))
}

/// The model's place in a path: as it is named, under `models/` where it does not say.
pub(super) fn model_path(model: &str) -> String {
    let unreserved = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    let segments = model.split('/').filter(|segment| !segment.is_empty() && segment.chars().any(|c| c != '.'));
    let encoded: Vec<String> = segments
        .map(|segment| {
            let mut buffer = [0; 4];
            segment.chars().fold(String::new(), |mut encoded, c| {
                if unreserved(c) {
                    encoded.push(c);
                } else {
                    encoded.extend(c.encode_utf8(&mut buffer).bytes().map(|byte| format!("%{byte:02X}")));
                }
                encoded
            })
        })
        .collect();
    match encoded.as_slice() {
        [] => "models/unnamed".to_owned(),
        [only] => format!("models/{only}"),
        segments => segments.join("/"),
    }
}

/// The messages that a request of this format asks about, for whoever counts them.
pub(super) fn encode_count(turn: &Turn<'_>) -> Value {
    let mut prompt = encode_prompt(turn);
    prompt.insert("model".to_owned(), json!(model_path(turn.model)));
    json!({"generateContentRequest": prompt})
}

/// A request whose model stands in the path.
pub(super) fn of_model(request: ModelRequest, model: &str) -> ModelRequest {
    let model = model.strip_prefix("models/").unwrap_or(model);
    ModelRequest { model: (!model.is_empty()).then(|| model.to_owned()), ..request }
}
