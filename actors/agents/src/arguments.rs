//! Whether a call's arguments fit its tool's schema, before a worker is asked.
//!
//! Covers the part of JSON Schema that our own schemas use; the worker judges again by its own types.

use serde_json::Value;

use crate::toolset::{Tool, Toolset};

/// The tool that is meant, or what to tell the model.
pub(crate) fn check(tools: &Toolset, name: &str, input: &Value) -> Result<Tool, String> {
    let Some((tool, schema)) = tools.get(name) else {
        return Err(format!("there is no tool {name:?}; the tools are {}", tools.names().join(", ")));
    };
    if let Value::String(raw) = input {
        let start: String = raw.chars().take(200).collect();
        return Err(format!("the arguments are not a JSON object, so nothing was run. They began: {start}"));
    }
    fits(input, &schema, "the arguments").map(|()| tool).map_err(|reason| format!("{reason}; nothing was run"))
}

fn fits(value: &Value, schema: &Value, at: &str) -> Result<(), String> {
    let wanted = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    let right = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => true,
    };
    if !right {
        return Err(format!("{at} must be of the type {wanted}"));
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array).filter(|allowed| !allowed.contains(value)) {
        let words: Vec<String> = allowed.iter().map(Value::to_string).collect();
        return Err(format!("{at} must be one of {}", words.join(", ")));
    }
    let bound = |key: &str| schema.get(key).and_then(Value::as_i64);
    if let Some(number) = value.as_i64() {
        if let Some(least) = bound("minimum").filter(|least| number < *least) {
            return Err(format!("{at} must be at least {least}"));
        }
        if let Some(most) = bound("maximum").filter(|most| number > *most) {
            return Err(format!("{at} must be at most {most}"));
        }
    }
    match value {
        Value::Array(items) => match schema.get("items") {
            Some(schema) => items.iter().enumerate().try_for_each(|(index, item)| fits(item, schema, &format!("{at}[{index}]"))),
            None => Ok(()),
        },
        Value::Object(fields) => {
            let known = schema.get("properties").and_then(Value::as_object);
            for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(key) {
                    return Err(format!("{at} lack `{key}`"));
                }
            }
            fields.iter().try_for_each(|(key, field)| match known.and_then(|known| known.get(key)) {
                Some(schema) => fits(field, schema, &format!("`{key}`")),
                None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => Err(format!("`{key}` is not known")),
                None => Ok(()),
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use helix_protocol::AgentSpec;
    use serde_json::json;

    use super::*;
    use crate::families::Family;
    use crate::toolset::Web;

    #[test]
    fn arguments_that_do_not_fit_are_named() {
        let tools = Toolset::new(&AgentSpec::new("x"), Family::of(""), Web::default());
        let check = |name: &str, input: &Value| check(&tools, name, input);
        for (name, input, expected) in [
            ("read", json!({"path": "a", "offset": 3}), None),
            ("read", json!({}), Some("the arguments lack `path`; nothing was run")),
            ("read", json!({"path": 1}), Some("`path` must be of the type string; nothing was run")),
            ("read", json!({"path": "a", "offset": 0}), Some("`offset` must be at least 1; nothing was run")),
            ("read", json!({"path": "a", "lines": 1}), Some("`lines` is not known; nothing was run")),
            ("shell", json!({"command": "ls", "timeout_s": 9_999}), Some("`timeout_s` must be at most 3600; nothing was run")),
            ("read", json!([1]), Some("the arguments must be of the type object; nothing was run")),
            (
                "todo",
                json!({"items": [{"text": "a", "state": "later"}]}),
                Some("`state` must be one of \"open\", \"doing\", \"done\"; nothing was run"),
            ),
        ] {
            assert_eq!(check(name, &input).err().as_deref(), expected, "{name} {input}");
        }
        assert!(check("rm", &json!({})).is_err_and(|reason| reason.contains("read_output")));
        assert!(check("shell", &json!("{\"command\": \"l")).is_err_and(|reason| reason.contains("not a JSON object")));
    }
}
