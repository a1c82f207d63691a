//! The document of a body. A few bytes of JSON can be read into hundreds, so what it takes in memory is charged while it is read;
//! and no field of a request has two values, because whoever it passes on to might take the other one.

use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use helix_protocol::{Code, Failure};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use tokio::sync::OwnedSemaphorePermit;

use super::bodies::{Room, SMALL};
use super::keys::Refusal;

/// Room is taken in such steps.
const STEP: usize = 256 << 10;
/// Beside a document there is what is read from it, which is as large at most.
const COPIES: usize = 2;
/// What an allocation takes beside its bytes.
const ALLOCATION: usize = 16;
/// So many elements a list begins with.
const LIST: usize = 4;
/// An object has a node for so many fields at most where they came in order, and a node takes so much.
const NODE: (usize, usize) = (6, 11 * (size_of::<String>() + size_of::<Value>()) + 128);
/// What the name of a request's field takes where names are compared.
const NAME: usize = 64;
/// Fields that say who is asked, and for how much. Servers that do not care about case know them however they are written.
const DECIDING: [&str; 13] = [
    "model",
    "models",
    "fallbacks",
    "route",
    "preset",
    "stream",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "previous_response_id",
    "conversation",
    "prompt",
];
/// So much of a field's name is told.
const TOLD: usize = 64;

/// What Gemini's limits stand in, without `_`.
const GENERATION_CONFIG: &str = "generationconfig";

/// A body as it was read. A small one has no room of its own.
#[derive(Debug, Default)]
pub(crate) struct Document {
    value: Value,
    /// For it, and for what is read from it.
    pub room: Option<Arc<OwnedSemaphorePermit>>,
}

impl Deref for Document {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

impl Document {
    /// Refused with 400 where it is no JSON or has a field twice, with 413 where it takes more than there is, and with 503
    /// where others have taken that.
    pub fn read(bytes: &[u8], room: &Room) -> Result<Self, Refusal> {
        // The body itself, and what is written anew of it.
        let beside = if bytes.len() > SMALL { 2 * bytes.len() } else { 0 };
        let mut charge = Charge { room, beside, taken: None, left: SMALL, refused: None };
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let read = Part { charge: &mut charge, is_request: true }.deserialize(&mut reader).and_then(|value| {
            reader.end()?;
            Ok(value)
        });
        match (read, charge.refused) {
            (Ok(value), _) => Ok(Self { value, room: charge.taken.map(Arc::new) }),
            (Err(_), Some(refused)) => Err(refused),
            (Err(error), None) => Err(invalid(format!("the body is not JSON: {error}"))),
        }
    }
}

/// What is read of a body where there is so much room, or the status of its refusal.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn body_of(bytes: &[u8], room: usize) -> Result<Value, u16> {
    Document::read(bytes, &Room::new(room)).map(|read| read.value).map_err(|refused| refused.status)
}

pub(crate) fn invalid(message: String) -> Refusal {
    Refusal::new(400, Failure::new(Code::InvalidRequest, message))
}

/// What a document has taken so far.
struct Charge<'a> {
    room: &'a Room,
    /// What the same request has taken for its bytes.
    beside: usize,
    taken: Option<OwnedSemaphorePermit>,
    /// Of that, and of what a small one takes.
    left: usize,
    refused: Option<Refusal>,
}

impl Charge<'_> {
    fn take<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        let bytes = bytes.saturating_mul(COPIES);
        if bytes > self.left {
            let more = (bytes - self.left).max(STEP);
            let has = self.beside + self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            match self.room.take(more, has) {
                Ok(permit) => self.taken.get_or_insert_with(|| self.room.nothing()).merge(permit),
                Err(refused) => return Err(self.refuse(refused)),
            }
            self.left += more;
        }
        self.left -= bytes;
        Ok(())
    }

    fn refuse<E: Error>(&mut self, refused: Refusal) -> E {
        let error = E::custom(&refused.failure.message);
        self.refused = Some(refused);
        error
    }
}

/// Reads one value.
struct Part<'c, 'r> {
    charge: &'c mut Charge<'r>,
    /// It is the whole of the body, or a part that decides how much is asked for.
    is_request: bool,
}

impl<'de> DeserializeSeed<'de> for Part<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.charge.take(ALLOCATION + text.len())?;
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Part { charge: &mut *self.charge, is_request: false })? {
            if values.len() == values.capacity() {
                let more = values.len().max(LIST);
                self.charge.take(more * size_of::<Value>())?;
                values.reserve_exact(more);
            }
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let (mut fields, mut names) = (Map::new(), HashSet::new());
        while let Some(name) = object.next_key::<String>()? {
            if self.is_request {
                self.charge.take(NAME + name.len())?;
                if let Some(refused) = ambiguous(&name, &mut names) {
                    return Err(self.charge.refuse(refused));
                }
            }
            let node = if fields.len().is_multiple_of(NODE.0) { NODE.1 } else { 0 };
            self.charge.take(ALLOCATION + name.len() + node)?;
            let decides = self.is_request && name.replace('_', "").eq_ignore_ascii_case(GENERATION_CONFIG);
            let value = object.next_value_seed(Part { charge: &mut *self.charge, is_request: decides })?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

/// Why a field may not be called so beside those before it.
fn ambiguous(name: &str, names: &mut HashSet<String>) -> Option<Refusal> {
    let folded = if name.is_ascii() { name.to_ascii_lowercase() } else { name.to_uppercase().to_lowercase() };
    let told: String = name.chars().take(TOLD).collect();
    if folded != name && DECIDING.contains(&folded.as_str()) {
        return Some(invalid(format!("the request has a field {told:?}, which is written {folded:?}")));
    }
    let message = format!("the request has the field {told:?} twice, or another one that differs from it in case or `_` only");
    // Gemini's fields have a second spelling.
    (!names.insert(folded.replace('_', ""))).then(|| invalid(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn status(read: Result<Document, Refusal>) -> Result<Value, u16> {
        read.map(|read| read.value).map_err(|refused| refused.status)
    }

    #[test]
    fn a_document_is_what_it_is_without_a_charge() {
        let deep = "[".repeat(127) + &"]".repeat(127);
        let too_deep = "[".repeat(129) + &"]".repeat(129);
        let texts = [
            r#"{"model":"m","n":1,"a":[1,-2,3.5,1e300,18446744073709551615,-9223372036854775808,1e-400],"b":{"a":null,"A":true}}"#,
            r#" {"a":"\u00e9\n\ud83d\ude00","é":{"x":1,"x":2},"":[[],{},""]} "#,
            "7",
            "\"text\"",
            "null",
            "",
            "{",
            "{} x",
            "[1,]",
            r#"{"a":1e999}"#,
            r#"{"a":"\ud800"}"#,
            &deep,
            &too_deep,
        ];
        let room = Room::new(8 * MIB);
        for text in texts {
            let expected = serde_json::from_str::<Value>(text).map_err(|_| 400);
            assert_eq!(status(Document::read(text.as_bytes(), &room)), expected, "{text}");
        }
        let many = serde_json::json!({"a": (0..1_000).map(|at| (at.to_string(), at.into())).collect::<Map<_, _>>()});
        assert_eq!(status(Document::read(many.to_string().as_bytes(), &room)), Ok(many));
    }

    #[test]
    fn what_a_document_takes_is_charged_before_it_is_taken_and_given_back_with_it() {
        let room = Room::new(16 * MIB);
        let of = |part: &str, count: usize| format!("{{\"model\":\"m\",\"metadata\":[{}0]}}", part.repeat(count));
        // Two to eight bytes that take up to seven hundred.
        for part in ["[],", "[0],", r#"{"":0},"#, r#"{"a":{}},"#, "0,"] {
            let one_mib = of(part, MIB / part.len());
            assert_eq!(status(Document::read(one_mib.as_bytes(), &room)).map(|_| ()), Err(413), "{part}");
            assert_eq!(room.left(), 16 * MIB, "{part}");
        }
        let text = format!("{{\"model\":{:?}}}", "x".repeat(3 * MIB));
        let held = Document::read(text.as_bytes(), &room).expect("there is room");
        let taken = 16 * MIB - room.left();
        assert!((6 * MIB - SMALL..7 * MIB).contains(&taken), "{taken}");
        let another = Document::read(text.as_bytes(), &room).expect("there is room");
        assert_eq!(status(Document::read(text.as_bytes(), &room)), Err(503));
        drop((held, another));
        assert_eq!(room.left(), 16 * MIB);
        let usual = format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":{:?}}}]}}", "x".repeat(100_000));
        let usual = Document::read(usual.as_bytes(), &room).expect("there is room");
        assert!(usual.room.is_none() && room.left() == 16 * MIB);
    }

    #[test]
    fn no_field_of_a_request_has_two_values_however_it_is_written() {
        let room = Room::new(MIB);
        for fields in [
            r#""model":"m","Model":"big""#,
            r#""model":"big","model":"m""#,
            r#""model":"m","mod\u0065l":"big""#,
            r#""model":"m","max_tokens":1,"max_to\u212aens":9"#,
            r#""model":"m","re\u017fult":1,"result":9"#,
            r#""model":"m","Max_Tokens":100000"#,
            r#""model":"m","N":9"#,
            r#""model":"m","extraBody":1,"extrabody":2"#,
            r#""generationConfig":{"maxOutputTokens":65536},"generation_config":{"maxOutputTokens":1}"#,
            r#""generationConfig":{"maxOutputTokens":65536,"max_output_tokens":1}"#,
        ] {
            assert_eq!(status(Document::read(format!("{{{fields}}}").as_bytes(), &room)), Err(400), "{fields}");
        }
        // Further down, but for Gemini's limits, names are the client's own.
        let metadata = r#"{"model":"m","metadata":{"a":1,"A":2},"generationConfig":{},"contents":[{"model":1,"Model":2}]}"#;
        assert!(Document::read(metadata.as_bytes(), &room).is_ok());
    }
}
