//! JSON Schemas in the part of the language that Gemini reads, and back.
//!
//! It refuses a request for any keyword it does not know, so what it knows is listed and the rest is left out or put in other
//! words: references are filled in, a constant is an enumeration of one, a list of types is one type that may be null.

use serde_json::{Map, Value, json};

/// Keywords that pass as they are.
const KEPT: [&str; 16] = [
    "title",
    "description",
    "nullable",
    "enum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "pattern",
    "example",
    "default",
    "propertyOrdering",
];

/// Formats that it knows.
const FORMATS: [&str; 6] = ["enum", "date-time", "int32", "int64", "float", "double"];

/// How deep references are filled in. A schema that refers to itself ends there, as any value.
const DEEPEST: usize = 12;

/// The schema of a tool's arguments; nothing where it has none, because an object without properties is refused.
pub(super) fn reduce(schema: &Value) -> Option<Value> {
    let has_properties = |schema: &Value| schema.get("properties").and_then(Value::as_object).is_some_and(|all| !all.is_empty());
    let reduced = reduce_within(schema, schema, 0);
    (has_properties(&reduced) || reduced.get("anyOf").is_some()).then_some(reduced)
}

fn reduce_within(schema: &Value, root: &Value, depth: usize) -> Value {
    let Some(fields) = schema.as_object() else { return json!({}) };
    if depth > DEEPEST {
        return json!({});
    }
    if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map_or_else(|| json!({}), |target| reduce_within(target, root, depth + 1));
    }
    let inner = |schema: &Value| reduce_within(schema, root, depth + 1);
    let mut reduced: Map<String, Value> = fields
        .iter()
        .filter(|(field, _)| KEPT.contains(&field.as_str()))
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    reduce_type(fields, &mut reduced);
    if let Some(value) = fields.get("const") {
        reduced.insert("enum".to_owned(), json!([value]));
    }
    // An enumeration is one of texts here.
    if reduced.get("enum").and_then(Value::as_array).is_some_and(|values| values.iter().any(|value| !value.is_string())) {
        reduced.remove("enum");
    }
    if let Some(format) = fields.get("format").filter(|format| format.as_str().is_some_and(|format| FORMATS.contains(&format))) {
        reduced.insert("format".to_owned(), format.clone());
    }
    if let Some(properties) = fields.get("properties").and_then(Value::as_object) {
        let properties: Map<String, Value> = properties.iter().map(|(name, schema)| (name.clone(), inner(schema))).collect();
        reduced.insert("properties".to_owned(), Value::Object(properties));
    }
    reduce_required(fields, &mut reduced);
    if let Some(items) = fields.get("items") {
        reduced.insert("items".to_owned(), inner(items));
    } else if reduced.get("type").is_some_and(|kind| kind == "array") {
        // A list of anything is refused; of texts is what models write into it.
        reduced.insert("items".to_owned(), json!({"type": "string"}));
    }
    reduce_choices(fields, &mut reduced, &inner);
    Value::Object(reduced)
}

/// One type, and whether it may be null.
fn reduce_type(fields: &Map<String, Value>, reduced: &mut Map<String, Value>) {
    match fields.get("type") {
        Some(Value::String(kind)) => drop(reduced.insert("type".to_owned(), json!(kind))),
        Some(Value::Array(kinds)) => {
            if kinds.iter().any(|kind| kind == "null") {
                reduced.insert("nullable".to_owned(), json!(true));
            }
            let kinds: Vec<&Value> = kinds.iter().filter(|kind| *kind != "null").collect();
            match kinds[..] {
                [] => {}
                [only] => drop(reduced.insert("type".to_owned(), only.clone())),
                _ => drop(reduced.insert("anyOf".to_owned(), kinds.iter().map(|kind| json!({"type": kind})).collect())),
            }
        }
        _ if fields.contains_key("properties") => drop(reduced.insert("type".to_owned(), json!("object"))),
        _ if fields.contains_key("enum") || fields.contains_key("const") => {
            drop(reduced.insert("type".to_owned(), json!("string")))
        }
        _ => {}
    }
}

/// What is required must be a property.
fn reduce_required(fields: &Map<String, Value>, reduced: &mut Map<String, Value>) {
    let Some(required) = fields.get("required").and_then(Value::as_array) else { return };
    let properties = reduced.get("properties").and_then(Value::as_object);
    let known =
        |name: &&Value| name.as_str().is_some_and(|name| properties.is_some_and(|properties| properties.contains_key(name)));
    let required: Vec<Value> = required.iter().filter(known).cloned().collect();
    if !required.is_empty() {
        reduced.insert("required".to_owned(), Value::Array(required));
    }
}

/// Alternatives; one that is null makes the others nullable. What shall hold together is laid one over the other.
fn reduce_choices(fields: &Map<String, Value>, reduced: &mut Map<String, Value>, inner: &dyn Fn(&Value) -> Value) {
    if let Some(choices) = fields.get("anyOf").or_else(|| fields.get("oneOf")).and_then(Value::as_array) {
        let is_null = |schema: &&Value| schema.get("type").is_some_and(|kind| kind == "null");
        if choices.iter().any(|schema| is_null(&schema)) {
            reduced.insert("nullable".to_owned(), json!(true));
        }
        let mut choices: Vec<Value> = choices.iter().filter(|schema| !is_null(schema)).map(inner).collect();
        match (choices.len(), choices.pop()) {
            (1, Some(Value::Object(only))) => {
                for (field, value) in only {
                    reduced.entry(field).or_insert(value);
                }
            }
            (_, Some(last)) => {
                choices.push(last);
                reduced.insert("anyOf".to_owned(), Value::Array(choices));
            }
            (_, None) => {}
        }
    }
    for part in fields.get("allOf").and_then(Value::as_array).into_iter().flatten().map(inner) {
        let Value::Object(part) = part else { continue };
        for (field, value) in part {
            match (reduced.get_mut(&field), value) {
                (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
                (Some(Value::Array(known)), Value::Array(more)) => known.extend(more),
                (Some(_), _) => {}
                (None, value) => drop(reduced.insert(field, value)),
            }
        }
    }
}

/// A schema as a client of this format wrote it, in JSON Schema: its types are in capitals, and a null is a flag.
pub(super) fn to_json_schema(schema: Value) -> Value {
    match schema {
        Value::Object(fields) => nullable(fields.into_iter().map(|(field, value)| rewrite(field, value)).collect()),
        other => other,
    }
}

/// The flag as an alternative.
fn nullable(mut fields: Map<String, Value>) -> Value {
    if fields.remove("nullable") != Some(Value::Bool(true)) {
        return Value::Object(fields);
    }
    match fields.get("type").filter(|_| !fields.contains_key("enum")).cloned() {
        Some(kind) => {
            fields.insert("type".to_owned(), json!([kind, "null"]));
            Value::Object(fields)
        }
        None => json!({"anyOf": [fields, {"type": "null"}]}),
    }
}

fn rewrite(field: String, value: Value) -> (String, Value) {
    let value = match (field.as_str(), value) {
        ("type", Value::String(kind)) => json!(kind.to_ascii_lowercase()),
        ("properties", Value::Object(properties)) => {
            Value::Object(properties.into_iter().map(|(name, schema)| (name, to_json_schema(schema))).collect())
        }
        ("items", schema) => to_json_schema(schema),
        ("anyOf", Value::Array(choices)) => choices.into_iter().map(to_json_schema).collect(),
        (_, value) => value,
    };
    (field, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keywords_that_are_read_remain_and_the_others_are_put_in_other_words() {
        let schema = json!({
            "$schema": "x", "type": "object", "additionalProperties": false, "required": ["a", "gone"],
            "$defs": {"point": {"type": "object", "properties": {"x": {"type": "integer", "exclusiveMinimum": 0}}}},
            "properties": {
                "a": {"type": ["string", "null"], "format": "uri"},
                "b": {"$ref": "#/$defs/point"},
                "c": {"const": "only"},
                "d": {"oneOf": [{"type": "null"}, {"type": "number"}]},
                "e": {"type": "array"},
                "f": {"type": "integer", "enum": [1, 2], "format": "int32"},
                "g": {"allOf": [{"type": "object", "properties": {"y": {"type": "string"}}}, {"required": ["y"]}]},
                "h": {"type": ["string", "integer"]},
            },
        });
        let expected = json!({
            "type": "object", "required": ["a"],
            "properties": {
                "a": {"type": "string", "nullable": true},
                "b": {"type": "object", "properties": {"x": {"type": "integer"}}},
                "c": {"type": "string", "enum": ["only"]},
                "d": {"type": "number", "nullable": true},
                "e": {"type": "array", "items": {"type": "string"}},
                "f": {"type": "integer", "format": "int32"},
                "g": {"type": "object", "properties": {"y": {"type": "string"}}},
                "h": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            },
        });
        assert_eq!(reduce(&schema), Some(expected));
    }

    #[test]
    fn a_schema_without_properties_is_none_and_one_that_refers_to_itself_ends() {
        assert_eq!(reduce(&json!({"type": "object", "properties": {}})), None);
        assert_eq!(reduce(&Value::Null), None);
        let circle = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        assert!(reduce(&circle).is_some());
    }

    #[test]
    fn a_reduced_schema_is_not_reduced_further() {
        let schema =
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}, "required": ["a"]});
        assert_eq!(reduce(&schema), Some(schema.clone()));
        let capitals = json!({"type": "OBJECT", "properties": {"type": {"type": "STRING"}}});
        assert_eq!(to_json_schema(capitals), json!({"type": "object", "properties": {"type": {"type": "string"}}}));
    }
}
