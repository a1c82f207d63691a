//! A turn as a request.

use helix_protocol::{
    Block, Effort, Message, ModelRequest, OutputFormat, Role, ThinkingControl, ToolChoice, ToolSchema, WireFormat, extra_of,
};
use serde_json::{Map, Value, json};

use super::blocks::{self, Reader};
use super::cache;
use crate::format::Turn;
use crate::output::described;
use crate::thinking::{Plan, default_budget, effort_word, plan};
use crate::tools::{Forcing, carried, provider_of, sent_choice};

const FORMAT: WireFormat = WireFormat::Anthropic;

/// The request's body.
pub fn encode_request(turn: &Turn<'_>) -> Value {
    let mut body = encode_prompt(turn);
    body.insert("max_tokens".to_owned(), json!(turn.max_tokens));
    if !turn.request.stop.is_empty() {
        body.insert("stop_sequences".to_owned(), json!(turn.request.stop));
    }
    if samples(turn) {
        encode_sampling(turn, &mut body);
    }
    if turn.stream {
        body.insert("stream".to_owned(), json!(true));
    }
    for (field, value) in extra_of(&turn.request.extra, FORMAT).into_iter().flatten() {
        body.entry(field).or_insert_with(|| value.clone());
    }
    Value::Object(body)
}

/// What of a turn its prompt is made of: all that is counted.
pub(super) fn encode_prompt(turn: &Turn<'_>) -> Map<String, Value> {
    let request = turn.request;
    let plan = planned(turn);
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(turn.model));
    let (system, conversation) = split(&request.messages);
    let system: Vec<Value> = system.iter().flat_map(|message| &message.blocks).filter_map(to_provider).collect();
    if !system.is_empty() {
        body.insert("system".to_owned(), Value::Array(system));
    }
    body.insert("messages".to_owned(), conversation.iter().filter_map(encode_message).collect());
    let tools: Vec<Value> = carried(&request.tools, FORMAT).map(encode_tool).collect();
    let mut asked = None;
    if !tools.is_empty() {
        body.insert("tools".to_owned(), Value::Array(tools));
        let (choice, words) = sent_choice(request, forcing(turn));
        body.insert("tool_choice".to_owned(), encode_choice(choice, request.parallel_tools));
        asked = words;
    }
    encode_thinking(turn, plan, &mut body);
    encode_output(request, plan, &mut body);
    cache::place(turn, &mut body);
    // Behind the markers: it is said once, and the next turn shall find what stands before it.
    if let (Some(asked), Some(messages)) = (asked, body.get_mut("messages").and_then(Value::as_array_mut)) {
        ask(messages, &asked);
    }
    body
}

/// A model that thinks cannot be forced, whatever it can while it does not.
pub(super) fn forcing(turn: &Turn<'_>) -> Forcing {
    if matches!(planned(turn), Plan::Unsaid | Plan::Off) { Forcing::of(turn) } else { Forcing::Refused }
}

/// True where the turn's sampling is sent.
pub(super) fn samples(turn: &Turn<'_>) -> bool {
    let sampling = turn.request.sampling;
    let said = sampling.temperature.or(turn.temperature).is_some() || sampling.top_p.is_some() || sampling.top_k.is_some();
    said && turn.capabilities.sampling && matches!(planned(turn), Plan::Unsaid | Plan::Off)
}

fn encode_sampling(turn: &Turn<'_>, body: &mut Map<String, Value>) {
    let sampling = turn.request.sampling;
    // The format ends at 1, where others go on to 2.
    let temperature = sampling.temperature.or(turn.temperature).map(|temperature| json!(temperature.clamp(0.0, 1.0)));
    let fields =
        [("temperature", temperature), ("top_p", sampling.top_p.map(Value::from)), ("top_k", sampling.top_k.map(Value::from))];
    body.extend(fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))));
}

/// The standing instructions at the beginning, and the rest.
fn split(messages: &[Message]) -> (&[Message], &[Message]) {
    let end = messages.iter().position(|message| message.role != Role::System).unwrap_or(messages.len());
    messages.split_at(end)
}

fn to_provider(block: &Block) -> Option<Value> {
    blocks::encode(block, Reader::Provider)
}

/// Results stand before anything else that the user says. A message that would be empty is left out.
fn encode_message(message: &Message) -> Option<Value> {
    let is_result = |block: &&Block| matches!(block, Block::ToolResult { .. });
    let content: Vec<Value> = match message.role {
        Role::Assistant => message.blocks.iter().filter_map(to_provider).collect(),
        Role::User | Role::System => {
            let results = message.blocks.iter().filter(is_result);
            let others = message.blocks.iter().filter(|block| !is_result(block));
            results.chain(others).filter_map(to_provider).collect()
        }
    };
    let role = if message.role == Role::Assistant { "assistant" } else { "user" };
    (!content.is_empty()).then(|| json!({"role": role, "content": content}))
}

fn encode_tool(tool: &ToolSchema) -> Value {
    let mut fields = extra_of(&tool.extra, FORMAT).cloned().unwrap_or_default();
    fields.insert("name".to_owned(), json!(tool.name));
    if provider_of(tool).is_none() {
        if !tool.description.is_empty() {
            fields.insert("description".to_owned(), json!(tool.description));
        }
        let schema = if tool.parameters.is_object() { tool.parameters.clone() } else { json!({"type": "object"}) };
        fields.insert("input_schema".to_owned(), schema);
    }
    Value::Object(fields)
}

fn encode_choice(choice: &ToolChoice, parallel: Option<bool>) -> Value {
    let mut encoded = match choice {
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::Any => json!({"type": "any"}),
        ToolChoice::None => return json!({"type": "none"}),
        ToolChoice::Named(name) => json!({"type": "tool", "name": name}),
    };
    if let Some(parallel) = parallel {
        encoded["disable_parallel_tool_use"] = json!(!parallel);
    }
    encoded
}

/// Says something more at the end of the conversation, as the user.
fn ask(messages: &mut Vec<Value>, words: &str) {
    let text = json!({"type": "text", "text": words});
    let last = messages.last_mut().filter(|message| message.get("role").is_some_and(|role| role == "user"));
    match last.and_then(|message| message.get_mut("content")?.as_array_mut()) {
        Some(content) => content.push(text),
        None => messages.push(json!({"role": "user", "content": [text]})),
    }
}

/// The plan as this format can follow it.
fn planned(turn: &Turn<'_>) -> Plan {
    let by_budget = turn.capabilities.thinking == ThinkingControl::Budget;
    match plan(turn) {
        // Its models with budgets know no thinking without one.
        Plan::Free | Plan::Budget(_) if by_budget && goes_on_unthought(turn.request) => Plan::Unsaid,
        Plan::Free if by_budget => default_budget(turn),
        plan => plan,
    }
}

/// True in the midst of calls that another provider began, or this one without thinking: a budget would be refused, because the
/// turn that goes on does not begin with thinking that was signed here.
fn goes_on_unthought(request: &ModelRequest) -> bool {
    let last = request.messages.last().filter(|last| last.blocks.iter().any(|block| matches!(block, Block::ToolResult { .. })));
    let turn = last.and_then(|_| request.messages.iter().rev().find(|message| message.role == Role::Assistant));
    turn.is_some_and(|turn| {
        let first = turn.blocks.iter().find_map(to_provider);
        !first.is_some_and(|first| first["type"] == "thinking" || first["type"] == "redacted_thinking")
    })
}

fn encode_thinking(turn: &Turn<'_>, plan: Plan, body: &mut Map<String, Value>) {
    let request = turn.request;
    let display = if request.show_thinking { "summarized" } else { "omitted" };
    let adaptive = json!({"type": "adaptive", "display": display});
    let thinking = match plan {
        Plan::Off => Some(json!({"type": "disabled"})),
        Plan::Budget(tokens) => Some(json!({"type": "enabled", "budget_tokens": tokens})),
        Plan::Free => Some(adaptive),
        Plan::Effort(_) if turn.capabilities.thinking == ThinkingControl::Effort => Some(adaptive),
        // It thinks anyhow, and only whether that is shown is left to say.
        Plan::Effort(_) | Plan::Unsaid if turn.capabilities.thinking == ThinkingControl::AlwaysEffort => {
            request.show_thinking.then_some(adaptive)
        }
        Plan::Effort(_) | Plan::Unsaid => None,
    };
    body.extend(thinking.map(|thinking| ("thinking".to_owned(), thinking)));
}

/// What is said of the output: how much effort it is worth, and the schema of its text. No object is open here.
fn encode_output(request: &ModelRequest, plan: Plan, body: &mut Map<String, Value>) {
    let mut output =
        extra_of(&request.extra, FORMAT).and_then(|extra| extra.get("output_config")?.as_object()).cloned().unwrap_or_default();
    if let Plan::Effort(effort) = plan {
        output.insert("effort".to_owned(), json!(effort_word(effort.max(Effort::Low))));
    }
    if let OutputFormat::JsonSchema { schema, description, .. } = &request.output {
        let mut schema = described(schema, description);
        close(&mut schema);
        output.insert("format".to_owned(), json!({"type": "json_schema", "schema": schema}));
    }
    if !output.is_empty() {
        body.insert("output_config".to_owned(), Value::Object(output));
    }
}

/// The service refuses an object that does not say that it has no other properties than it names.
fn close(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    for (field, value) in fields.iter_mut() {
        match (field.as_str(), value) {
            ("properties" | "$defs" | "definitions", Value::Object(named)) => named.values_mut().for_each(close),
            ("anyOf" | "allOf" | "oneOf", Value::Array(choices)) => choices.iter_mut().for_each(close),
            ("items", items) => close(items),
            _ => {}
        }
    }
    let is_object =
        |kind: &Value| kind == "object" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "object"));
    if fields.get("type").is_some_and(is_object) {
        fields.entry("additionalProperties").or_insert(json!(false));
    }
}
