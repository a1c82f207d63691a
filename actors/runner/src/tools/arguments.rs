//! What a model wrote as a tool's arguments, checked against the tool's schema.

use helix_protocol::{Code, Failure, RunId, ToolCall, WorkspaceTool};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Arguments of one of the tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// Of `read`.
    Read(ReadArguments),
    /// Of `write`.
    Write(WriteArguments),
    /// Of `edit`.
    Edit(EditArguments),
    /// Of `shell`.
    Shell(ShellArguments),
    /// Of `grep`.
    Grep(GrepArguments),
    /// Of `glob`.
    Glob(GlobArguments),
    /// Of `todo`.
    Todo(TodoArguments),
    /// Of `read_output`.
    ReadOutput(OutputArguments),
    /// Of `apply_patch`.
    ApplyPatch(PatchArguments),
    /// Of `stop`.
    Stop(StopArguments),
}

/// Which lines of which file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadArguments {
    /// The file.
    pub path: String,
    /// The first line, from 1.
    #[serde(default)]
    pub offset: Option<usize>,
    /// How many lines.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteArguments {
    /// The file.
    pub path: String,
    /// What it is to hold.
    pub content: String,
}

/// A replacement.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditArguments {
    /// The file.
    pub path: String,
    /// What is there.
    pub old: String,
    /// What is to be there.
    pub new: String,
    /// Every occurrence.
    #[serde(default)]
    pub all: bool,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShellArguments {
    /// For `sh -c`.
    pub command: String,
    /// Its time in seconds.
    #[serde(default)]
    pub timeout_s: Option<u64>,
    /// It runs on while other things are done.
    #[serde(default)]
    pub background: bool,
}

/// A search in contents.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrepArguments {
    /// A regular expression.
    pub pattern: String,
    /// A file or folder.
    #[serde(default)]
    pub path: Option<String>,
    /// Only files whose path fits.
    #[serde(default)]
    pub glob: Option<String>,
    /// Most matches.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// A search for paths.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobArguments {
    /// The glob.
    pub pattern: String,
    /// Most paths.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// The list of what is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct TodoArguments {
    /// In order.
    pub items: Vec<TodoItem>,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct TodoItem {
    /// What.
    pub text: String,
    /// How far it is.
    pub state: TodoState,
}

/// How far something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TodoState {
    /// Not begun.
    Open,
    /// Under way.
    Doing,
    /// Done.
    Done,
}

/// A part of a command's output.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputArguments {
    /// The run.
    pub run: RunId,
    /// From this byte on.
    pub offset: u64,
    /// Most bytes.
    #[serde(default)]
    pub limit: Option<usize>,
    /// How long to wait where nothing has come yet, in seconds.
    #[serde(default)]
    pub wait_s: u64,
}

/// A patch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchArguments {
    /// From `*** Begin Patch` to `*** End Patch`.
    pub patch: String,
}

/// A command in the background.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopArguments {
    /// The run.
    pub run: RunId,
}

/// The arguments of a call; `invalid_tool_call` in words for the model where they do not fit.
pub fn parse(call: &ToolCall) -> Result<Arguments, Failure> {
    let Some(tool) = WorkspaceTool::by_name(&call.name) else {
        let names: Vec<&str> = WorkspaceTool::ALL.iter().map(|tool| tool.name()).collect();
        return Err(Failure::new(Code::InvalidToolCall, format!("there is no tool {:?}", call.name))
            .hint(format!("the tools are {}", names.join(", "))));
    };
    if let Value::String(text) = &call.input {
        let reason =
            serde_json::from_str::<Value>(text).err().map_or_else(|| "it is a string".to_owned(), |error| error.to_string());
        return Err(Failure::new(
            Code::InvalidToolCall,
            format!("the arguments of {} are not a JSON object: {reason}", tool.name()),
        )
        .hint(shape(tool)));
    }
    Ok(match tool {
        WorkspaceTool::Read => Arguments::Read(fit(tool, &call.input)?),
        WorkspaceTool::Write => Arguments::Write(fit(tool, &call.input)?),
        WorkspaceTool::Edit => Arguments::Edit(fit(tool, &call.input)?),
        WorkspaceTool::Shell => Arguments::Shell(without_zero_bytes(fit(tool, &call.input)?)?),
        WorkspaceTool::Grep => Arguments::Grep(fit(tool, &call.input)?),
        WorkspaceTool::Glob => Arguments::Glob(fit(tool, &call.input)?),
        WorkspaceTool::Todo => Arguments::Todo(fit(tool, &call.input)?),
        WorkspaceTool::ReadOutput => Arguments::ReadOutput(fit(tool, &call.input)?),
        WorkspaceTool::ApplyPatch => Arguments::ApplyPatch(fit(tool, &call.input)?),
        WorkspaceTool::Stop => Arguments::Stop(fit(tool, &call.input)?),
    })
}

fn fit<T: DeserializeOwned>(tool: WorkspaceTool, input: &Value) -> Result<T, Failure> {
    T::deserialize(input).map_err(|error| {
        Failure::new(Code::InvalidToolCall, format!("the arguments of {} do not fit: {error}", tool.name())).hint(shape(tool))
    })
}

fn without_zero_bytes(arguments: ShellArguments) -> Result<ShellArguments, Failure> {
    if arguments.command.contains('\0') {
        return Err(Failure::new(Code::InvalidToolCall, "the command has a zero byte").hint("write it as `printf '\\0'`"));
    }
    Ok(arguments)
}

fn shape(tool: WorkspaceTool) -> String {
    format!("{} takes {}", tool.name(), tool.schema().parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use helix_protocol::CallKey;
    use serde_json::json;

    fn call(name: &str, input: Value) -> ToolCall {
        ToolCall { key: CallKey("0".repeat(64)), name: name.into(), input }
    }

    #[test]
    fn arguments_that_fit_are_taken() {
        let expected = EditArguments { path: "a".into(), old: "b".into(), new: "c".into(), all: false };
        assert_eq!(parse(&call("edit", json!({"path": "a", "old": "b", "new": "c"}))), Ok(Arguments::Edit(expected)));
    }

    #[test]
    fn what_does_not_fit_is_answered_with_what_would() {
        let cases = [
            (call("reed", json!({})), "there is no tool \"reed\""),
            (
                call("read", json!({"file": "a"})),
                "the arguments of read do not fit: unknown field `file`, expected one of `path`, `offset`, `limit`",
            ),
            (call("read", json!({"path": 7})), "the arguments of read do not fit: invalid type: integer `7`, expected a string"),
            (
                call("read", json!("{\"path\": ")),
                "the arguments of read are not a JSON object: EOF while parsing a value at line 1 column 9",
            ),
            (call("shell", json!({"command": "echo \0"})), "the command has a zero byte"),
        ];
        for (call, message) in cases {
            let failure = parse(&call).expect_err("refused");
            assert_eq!((failure.code, failure.message.as_str()), (Code::InvalidToolCall, message));
            assert!(!failure.hint.is_empty());
        }
    }
}
