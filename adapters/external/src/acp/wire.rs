//! What crosses the agent's standard input and output, as far as a client of our kind needs it. Fields and kinds that are not here
//! are left alone: agents are newer than this.

use serde::Deserialize;
use serde_json::Value;

/// JSON-RPC's code for a method that nobody has.
pub const METHOD_NOT_FOUND: i64 = -32_601;
/// The protocol's code for an agent that wants a login first.
pub const AUTH_REQUIRED: i64 = -32_000;

/// One message of the agent's, of whichever sort.
#[derive(Debug, Deserialize)]
pub struct Incoming {
    #[serde(default)]
    pub id: Option<Value>,
    #[serde(default)]
    pub method: Option<String>,
    #[serde(default)]
    pub params: Value,
    #[serde(default)]
    pub result: Option<Value>,
    #[serde(default)]
    pub error: Option<RpcError>,
}

/// Why a request was refused.
#[derive(Clone, Debug, Deserialize)]
pub struct RpcError {
    #[serde(default)]
    pub code: i64,
    #[serde(default)]
    pub message: String,
    /// Agents say here what went wrong, in a form of their own.
    #[serde(default)]
    pub data: Value,
}

impl RpcError {
    /// All of it, in a line.
    pub fn text(&self) -> String {
        let more = match &self.data {
            Value::Null => String::new(),
            Value::String(text) => format!(": {text}"),
            data => format!(": {data}"),
        };
        format!("{}{}", self.message, crate::transcript::cut(&more, 1_000))
    }
}

/// Answers `initialize`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Initialized {
    pub protocol_version: u16,
    #[serde(default)]
    pub agent_capabilities: AgentCapabilities,
    #[serde(default)]
    pub agent_info: Option<AgentInfo>,
    #[serde(default)]
    pub auth_methods: Vec<AuthMethod>,
}

impl Initialized {
    /// The program as it calls itself.
    pub fn name(&self, agent: &str) -> String {
        self.agent_info.as_ref().map_or_else(|| agent.to_owned(), |info| format!("{} {}", info.name, info.version))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentCapabilities {
    pub load_session: bool,
    pub session_capabilities: SessionCapabilities,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionCapabilities {
    pub resume: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub struct AgentInfo {
    pub name: String,
    #[serde(default)]
    pub version: String,
}

#[derive(Debug, Deserialize)]
pub struct AuthMethod {
    #[serde(default)]
    pub name: String,
}

/// Answers `session/new`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    pub session_id: String,
}

/// Answers `session/prompt`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prompted {
    pub stop_reason: String,
}

/// `session/update`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    pub session_id: String,
    pub update: Value,
}

/// `session/request_permission`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PermissionRequest {
    pub tool_call: ToolCall,
    #[serde(default)]
    pub options: Vec<PermissionOption>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PermissionOption {
    pub option_id: String,
    #[serde(default)]
    pub kind: String,
}

/// A call of a tool, or what is new of one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ToolCall {
    pub tool_call_id: String,
    pub title: Option<String>,
    pub kind: Option<String>,
    pub status: Option<String>,
    pub raw_input: Option<Value>,
    pub raw_output: Option<Value>,
    pub content: Option<Vec<Value>>,
    pub locations: Option<Vec<Location>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Location {
    pub path: String,
}
