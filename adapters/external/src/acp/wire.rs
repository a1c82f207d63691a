//! The messages that cross the agent's standard input and output: JSON-RPC around the types of the protocol's official schema.
//! Those leave out what they do not know, and so does what is here: agents are newer than this.

use agent_client_protocol_schema::v1::{
    Error, InitializeResponse, JsonRpcMessage, Notification, Request, RequestId, Response, SessionId, StopReason, ToolCallUpdate,
};
use helix_protocol::AgentEnd;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::transcript::cut;

/// One message of the agent's, of whichever sort.
#[derive(Debug, Deserialize)]
pub struct Incoming {
    #[serde(default)]
    pub id: Option<RequestId>,
    #[serde(default)]
    pub method: Option<String>,
    #[serde(default)]
    pub params: Value,
    #[serde(default)]
    pub result: Option<Value>,
    #[serde(default)]
    pub error: Option<Value>,
}

/// A request of ours.
pub fn request(id: i64, method: &str, params: impl Serialize) -> Value {
    message(Request { id: RequestId::Number(id), method: method.into(), params: Some(params) })
}

/// Tells the agent something.
pub fn notification(method: &str, params: impl Serialize) -> Value {
    message(Notification { method: method.into(), params: Some(params) })
}

/// Answers a request of the agent's.
pub fn answer(id: RequestId, answer: Result<impl Serialize, Error>) -> Value {
    message(Response::new(id, answer))
}

fn message(content: impl Serialize) -> Value {
    serde_json::to_value(JsonRpcMessage::wrap(content)).expect("the schema's types with text in them are JSON")
}

/// Why a request was refused. Where an agent says it in a form of its own, that is all there is.
pub fn refusal(error: Value) -> Error {
    serde_json::from_value(error.clone()).unwrap_or_else(|_| Error::internal_error().data(error))
}

/// A refusal in a line.
pub fn text(error: &Error) -> String {
    let more = match &error.data {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => format!(": {text}"),
        Some(data) => format!(": {data}"),
    };
    format!("{}{}", error.message, cut(&more, 1_000))
}

/// The program as it calls itself.
pub fn name(about: &InitializeResponse, agent: &str) -> String {
    about.agent_info.as_ref().map_or_else(|| agent.to_owned(), |info| format!("{} {}", info.name, info.version))
}

/// Answers `session/prompt`; the schema's own type refuses a reason that it does not know.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prompted {
    stop_reason: String,
}

impl Prompted {
    /// How the turn ended.
    pub fn end(self) -> AgentEnd {
        match serde_json::from_value(Value::String(self.stop_reason)) {
            Ok(StopReason::MaxTokens | StopReason::MaxTurnRequests) => AgentEnd::Cut,
            Ok(StopReason::Refusal) => AgentEnd::Refused,
            Ok(StopReason::Cancelled) => AgentEnd::Stopped,
            Ok(_) | Err(_) => AgentEnd::Done,
        }
    }
}

/// `session/update`; the schema's own type refuses all of it for one part that it does not know.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    pub session_id: SessionId,
    pub update: Value,
}

/// `session/request_permission`, for the same reason.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PermissionRequest {
    pub tool_call: ToolCallUpdate,
    #[serde(default)]
    pub options: Vec<Value>,
}

/// What a value is called on the wire.
pub fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}
