//! Tools: their schemas, calls and answers, and the tools every workspace has.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{CallKey, Extra, ImageSource};

/// What an answer of `read_output` ends with where there is nothing to show yet.
pub const STILL_RUNS: &str = "; the command still runs]";

/// A tool as a model is told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolSchema {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    #[serde(default)]
    pub description: String,
    /// A JSON Schema of its arguments.
    #[serde(default)]
    pub parameters: serde_json::Value,
    /// What the client's format says besides: cache markers, strictness, a provider's own kinds of tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Box<Extra>>,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Names the call for good.
    pub key: CallKey,
    /// The tool.
    pub name: String,
    /// Its arguments.
    pub input: serde_json::Value,
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutcome {
    /// The answer as the model sees it, within the output limit.
    pub content: String,
    /// True where the tool failed; the content says how.
    pub is_error: bool,
    /// The exit code where a process ran; 128 + N where signal N ended it.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// True where `content` leaves something out; the whole is paged by `read_output`.
    #[serde(default)]
    pub truncated: bool,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
    /// Pictures that were looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageSource>,
}

impl ToolOutcome {
    /// An answer.
    pub fn ok(content: impl Into<String>) -> Self {
        Self { content: content.into(), is_error: false, exit_code: None, truncated: false, duration_ms: 0, images: Vec::new() }
    }

    /// A failure the model can act on.
    pub fn error(content: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::ok(content) }
    }
}

/// The tools that run on the worker, in the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceTool {
    /// Reads a text file, by lines, or a picture.
    Read,
    /// Writes a whole file.
    Write,
    /// Replaces text in a file.
    Edit,
    /// Runs a command.
    Shell,
    /// Searches contents.
    Grep,
    /// Finds paths.
    Glob,
    /// Keeps the list of what is to be done, in the workspace's state.
    Todo,
    /// Reads more of an earlier command's output.
    ReadOutput,
    /// Changes several files by one patch.
    ApplyPatch,
    /// Stops a command in the background.
    Stop,
}

impl WorkspaceTool {
    /// Every tool, in the order models are told of them. The order never changes, so that a
    /// provider's prompt cache stays valid.
    pub const ALL: [WorkspaceTool; 10] = [
        Self::Read,
        Self::Write,
        Self::Edit,
        Self::Shell,
        Self::Grep,
        Self::Glob,
        Self::Todo,
        Self::ReadOutput,
        Self::ApplyPatch,
        Self::Stop,
    ];

    /// The name in a call.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Edit => "edit",
            Self::Shell => "shell",
            Self::Grep => "grep",
            Self::Glob => "glob",
            Self::Todo => "todo",
            Self::ReadOutput => "read_output",
            Self::ApplyPatch => "apply_patch",
            Self::Stop => "stop",
        }
    }

    /// True of the tools whose only effect is to write files.
    pub fn writes_files(self) -> bool {
        matches!(self, Self::Write | Self::Edit | Self::ApplyPatch)
    }

    /// True of the tools that start processes, which may outlive the call.
    pub fn starts_processes(self) -> bool {
        self == Self::Shell
    }

    /// True of the tools that certainly change no file themselves, whatever runs beside them.
    pub fn only_looks(self) -> bool {
        matches!(self, Self::Read | Self::Grep | Self::Glob | Self::Todo | Self::ReadOutput)
    }

    /// The tool of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }

    /// What a model is told.
    pub fn schema(self) -> ToolSchema {
        let (description, parameters) = match self {
            Self::Read => (
                "Reads a text file of the workspace, with line numbers. Long files come in pages: give `offset` (first line, from 1) and `limit` (lines). Pictures (PNG, JPEG, GIF, WebP) are shown.",
                json!({"type":"object","properties":{"path":{"type":"string"},"offset":{"type":"integer","minimum":1},"limit":{"type":"integer","minimum":1}},"required":["path"],"additionalProperties":false}),
            ),
            Self::Write => (
                "Writes a whole file, making its folders. An existing file is replaced.",
                json!({"type":"object","properties":{"path":{"type":"string"},"content":{"type":"string"}},"required":["path","content"],"additionalProperties":false}),
            ),
            Self::Edit => (
                "Replaces `old` by `new` in a file. `old` must occur exactly once unless `all` is true; give enough surrounding text.",
                json!({"type":"object","properties":{"path":{"type":"string"},"old":{"type":"string"},"new":{"type":"string"},"all":{"type":"boolean"}},"required":["path","old","new"],"additionalProperties":false}),
            ),
            Self::Shell => (
                "Runs a command with `sh -c` in the workspace's root and answers with its output and exit code. It is stopped, with everything it started, after `timeout_s` seconds (default 120). With `background` true (a server, a watcher) it answers at once and the command runs on, without a time-out unless one is given: `read_output` shows what it wrote, `stop` ends it.",
                json!({"type":"object","properties":{"command":{"type":"string"},"timeout_s":{"type":"integer","minimum":1,"maximum":3600},"background":{"type":"boolean"}},"required":["command"],"additionalProperties":false}),
            ),
            Self::Grep => (
                "Searches file contents for a regular expression. `glob` limits the files. Answers path:line:text.",
                json!({"type":"object","properties":{"pattern":{"type":"string"},"path":{"type":"string"},"glob":{"type":"string"},"limit":{"type":"integer","minimum":1}},"required":["pattern"],"additionalProperties":false}),
            ),
            Self::Glob => (
                "Lists files whose path fits a glob such as `src/**/*.rs`, newest first.",
                json!({"type":"object","properties":{"pattern":{"type":"string"},"limit":{"type":"integer","minimum":1}},"required":["pattern"],"additionalProperties":false}),
            ),
            Self::Todo => (
                "Replaces the list of what is to be done, and shows it.",
                json!({"type":"object","properties":{"items":{"type":"array","items":{"type":"object","properties":{"text":{"type":"string"},"state":{"type":"string","enum":["open","doing","done"]}},"required":["text","state"],"additionalProperties":false}}},"required":["items"],"additionalProperties":false}),
            ),
            Self::ReadOutput => (
                "Reads more of the output of an earlier command whose answer was cut, or that runs in the background: `run` as that answer named it, `offset` and `limit` in bytes. Where nothing has come yet it waits for up to `wait_s` seconds.",
                json!({"type":"object","properties":{"run":{"type":"string"},"offset":{"type":"integer","minimum":0},"limit":{"type":"integer","minimum":1},"wait_s":{"type":"integer","minimum":0,"maximum":60}},"required":["run","offset"],"additionalProperties":false}),
            ),
            Self::ApplyPatch => (
                "Changes, makes, moves and deletes files by one patch; all of it is applied, or nothing. Its form:\n*** Begin Patch\n*** Update File: path\n@@ a line above the change, where the change alone is not unique\n unchanged line\n-line to go\n+line to come\n*** Add File: path\n+each line of the new file\n*** Delete File: path\n*** End Patch\n`*** Move to: path` below an update's header moves the file. Give three unchanged lines above and below each change.",
                json!({"type":"object","properties":{"patch":{"type":"string"}},"required":["patch"],"additionalProperties":false}),
            ),
            Self::Stop => (
                "Stops a command in the background, with everything it started: `run` as `shell` named it.",
                json!({"type":"object","properties":{"run":{"type":"string"}},"required":["run"],"additionalProperties":false}),
            ),
        };
        ToolSchema { name: self.name().to_owned(), description: description.to_owned(), parameters, extra: None }
    }
}
