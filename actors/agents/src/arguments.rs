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

/// The same arguments without what some models write otherwise than the schema says, and mean the same by: an optional one that is
/// `null` is not there, and `3.0` is 3.
pub(crate) fn as_meant(tools: &Toolset, name: &str, input: &Value) -> Value {
    tools.get(name).map_or_else(|| input.clone(), |(_, schema)| meant(input, &schema))
}

fn meant(value: &Value, schema: &Value) -> Value {
    match value {
        Value::Number(number) if schema.get("type") == Some(&Value::from("integer")) => {
            number.as_f64().filter(|_| number.is_f64()).and_then(whole).map_or_else(|| value.clone(), Value::from)
        }
        Value::Array(items) => match schema.get("items") {
            Some(schema) => items.iter().map(|item| meant(item, schema)).collect(),
            None => value.clone(),
        },
        Value::Object(fields) => {
            let of = |key: &str| schema.get("properties").and_then(|known| known.get(key));
            let required = schema.get("required").and_then(Value::as_array);
            let is_required = |key: &str| required.is_some_and(|keys| keys.iter().any(|required| required == key));
            let is_left_out = |key: &str, field: &Value| field.is_null() && of(key).is_some() && !is_required(key);
            let kept = fields.iter().filter(|(key, field)| !is_left_out(key, field));
            kept.map(|(key, field)| (key.clone(), of(key).map_or_else(|| field.clone(), |schema| meant(field, schema)))).collect()
        }
        _ => value.clone(),
    }
}

/// The integer that a number without a fraction is, as far as such numbers tell integers apart.
fn whole(number: f64) -> Option<i64> {
    const MOST: f64 = 9_007_199_254_740_991.0;
    (number.fract() == 0.0 && number.abs() <= MOST).then_some(number as i64)
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
        for (name, input, meant) in [
            ("read", json!({"path": "a", "offset": 3.0, "limit": null}), json!({"path": "a", "offset": 3})),
            ("read", json!({"path": null, "offset": 3.5}), json!({"path": null, "offset": 3.5})),
            ("read", json!({"path": "a", "lines": null, "offset": 1e300}), json!({"path": "a", "lines": null, "offset": 1e300})),
            ("shell", json!({"command": "ls", "background": null}), json!({"command": "ls"})),
            ("todo", json!({"items": [{"text": 1.0, "state": null}]}), json!({"items": [{"text": 1.0, "state": null}]})),
            ("rm", json!({"path": null}), json!({"path": null})),
            ("read", json!("{"), json!("{")),
        ] {
            assert_eq!(as_meant(&tools, name, &input), meant, "{name} {input}");
        }
        assert!(check("rm", &json!({})).is_err_and(|reason| reason.contains("read_output")));
        assert!(check("shell", &json!("{\"command\": \"l")).is_err_and(|reason| reason.contains("not a JSON object")));
    }
}
