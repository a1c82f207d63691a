//! Fields by which a service is told of models beside the one that is asked for.
//!
//! A key of the gateway may be narrowed to models, and what a call can cost is set aside by the model it names. OpenRouter, and
//! proxies like LiteLLM, would ask others all the same where a client says so here.

use std::borrow::Cow;
use std::collections::BTreeMap;

use helix_protocol::{ModelRequest, WireFormat, extra_of};
use serde_json::Value;
use serde_json::value::RawValue;

/// `preset` stands for a whole configuration that is kept at the service, its models included.
const FIELDS: [&str; 4] = ["models", "fallbacks", "route", "preset"];
/// Fields that are lists of things which may have models of their own.
const LISTS: [&str; 2] = ["plugins", "tools"];

/// The first such field of a request as it is written for `format`.
pub(crate) fn of_request(request: &ModelRequest, format: WireFormat) -> Option<String> {
    let fields = extra_of(&request.extra, format);
    let said = |field: &str| fields.and_then(|fields| fields.get(field)).filter(|value| !value.is_null());
    let named = FIELDS.iter().find(|field| said(field).is_some()).map(|field| (*field).to_owned());
    let plugins = said("plugins").and_then(Value::as_array).into_iter().flatten().find_map(|plugin| in_entry("plugins", plugin));
    let tools = request.tools.iter().filter_map(|tool| extra_of(&tool.extra, format));
    named.or(plugins).or_else(|| tools.map(|fields| Value::Object(fields.clone())).find_map(|tool| in_entry("tools", &tool)))
}

/// The first such field of a body that passes as it is.
pub(crate) fn of_bytes(body: &[u8]) -> Option<String> {
    let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(body).ok()?;
    let said = |field: &str| fields.get(field).map(|value| value.get()).filter(|value| *value != "null");
    if let Some(field) = FIELDS.iter().find(|field| said(field).is_some()) {
        return Some((*field).to_owned());
    }
    LISTS.iter().find_map(|list| {
        // Most tools are functions, and are not read a second time.
        let text = said(list).filter(|text| *list == "plugins" || text.contains("openrouter") || text.contains("\\u"))?;
        let entries: Vec<Value> = serde_json::from_str(text).ok()?;
        entries.iter().find_map(|entry| in_entry(list, entry))
    })
}

/// A plugin, or a tool of OpenRouter's own, that names a model. A client's function may have a parameter of that name.
fn in_entry(list: &str, entry: &Value) -> Option<String> {
    let kind = entry.get("type").and_then(Value::as_str).unwrap_or_default();
    let own = list == "plugins" || kind.starts_with("openrouter:");
    let at = own.then(|| model_in(entry)).flatten()?;
    Some(format!("{list}[].{at}"))
}

fn model_in(value: &Value) -> Option<String> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(field, value)| match field.contains("model") && !value.is_null() {
            true => Some(field.clone()),
            false => model_in(value),
        }),
        Value::Array(values) => values.iter().find_map(model_in),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chat::decode_request;

    #[test]
    fn what_names_other_models_is_found_in_a_request_and_in_its_bytes_and_nothing_else_is() {
        let function = json!({"type": "function", "function": {"name": "f", "parameters": {"properties": {"model": {}}}}});
        for (fields, expected) in [
            (json!({"models": ["openai/gpt-5-pro"]}), Some("models")),
            (json!({"fallbacks": ["gpt-5-pro"]}), Some("fallbacks")),
            (json!({"route": "fallback"}), Some("route")),
            (json!({"preset": "dear"}), Some("preset")),
            (json!({"plugins": [{"id": "web"}, {"id": "fusion", "analysis_models": ["a"]}]}), Some("plugins[].analysis_models")),
            (json!({"tools": [function, {"type": "openrouter:advisor", "parameters": {"model": "a"}}]}), Some("tools[].model")),
            (json!({"models": null, "plugins": [{"id": "web"}], "provider": {"order": ["x"]}, "tools": [function]}), None),
        ] {
            let mut body = fields.clone();
            body["messages"] = json!([]);
            let request = decode_request(&body).expect("it is read");
            assert_eq!(of_request(&request, WireFormat::OpenaiChat).as_deref(), expected, "{fields}");
            assert_eq!(of_request(&request, WireFormat::Anthropic), None, "{fields}");
            assert_eq!(of_bytes(body.to_string().as_bytes()).as_deref(), expected, "{fields}");
        }
        assert_eq!(of_bytes(br#"{"m\u006fdels": ["a"]}"#).as_deref(), Some("models"));
        assert_eq!(of_bytes(br#"{"tools":[{"type":"openrouter\u003aadvisor","model":"a"}]}"#).as_deref(), Some("tools[].model"));
        assert_eq!(of_bytes(b"[]"), None);
    }
}
