//! Request bodies: JSON whose every field is known.

use helix_protocol::{Code, Failure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Largest body in bytes: a prompt of two million tokens, which the longest contexts take, with room for what JSON escapes. Other
/// content never comes this way.
pub(crate) const LIMIT: usize = 16 * 1024 * 1024;

/// Reads a body; nothing at all counts as `{}`. Refused with `invalid_request`, which names the field.
pub(crate) fn read<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, Failure> {
    from_value(value(bytes)?)
}

/// The body as a value.
pub(crate) fn value(bytes: &[u8]) -> Result<Value, Failure> {
    if bytes.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    serde_json::from_slice(bytes).map_err(|error| invalid(format!("the body is not JSON: {error}")))
}

/// Reads a value, refusing fields that the type does not have: what is written back must have every field that came in.
pub(crate) fn from_value<T: DeserializeOwned + Serialize>(value: Value) -> Result<T, Failure> {
    let read: T = serde_json::from_value(value.clone()).map_err(|error| invalid(format!("the body cannot be used: {error}")))?;
    let known = serde_json::to_value(&read).map_err(|error| invalid(format!("the body cannot be used: {error}")))?;
    match unknown_field(&value, &known, "") {
        Some(path) => Err(invalid(format!("there is no field {path}")).hint("leave it out, or correct its name")),
        None => Ok(read),
    }
}

fn unknown_field(given: &Value, known: &Value, path: &str) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            given.iter().filter(|(_, value)| !value.is_null()).find_map(|(key, value)| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    Some(known) => unknown_field(value, known, &path),
                    None => Some(path),
                }
            })
        }
        (Value::Array(given), Value::Array(known)) => {
            given.iter().zip(known).enumerate().find_map(|(i, (given, known))| unknown_field(given, known, &format!("{path}[{i}]")))
        }
        _ => None,
    }
}

/// A refused request.
pub(crate) fn invalid(message: String) -> Failure {
    Failure::new(Code::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use helix_protocol::TaskSpec;

    use super::*;

    #[test]
    fn an_unknown_field_is_refused_with_its_path_at_any_depth() {
        let body = br#"{"title":"a","work":{"kind":"command","commands":[]},"base":{"from":"empty"},"needs":{"core":2}}"#;
        assert_eq!(read::<TaskSpec>(body).expect_err("core is not a field").message, "there is no field needs.core");
        let body = br#"{"title":"a","work":{"kind":"command","commands":[],"x":1},"base":{"from":"empty"}}"#;
        assert_eq!(read::<TaskSpec>(body).expect_err("x is not a field").message, "there is no field work.x");
    }

    #[test]
    fn a_body_with_known_fields_is_taken_and_null_is_absent() {
        let body = br#"{"title":"a","work":{"kind":"command","commands":["ls"]},"base":{"from":"empty"},"fork_of":null}"#;
        assert_eq!(read::<TaskSpec>(body).expect("right").title, "a");
    }
}
