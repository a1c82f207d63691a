//! `todo`: the list of what is to be done, kept beside the workspace's files.

use std::path::Path;

use helix_protocol::{Failure, ToolOutcome};

use super::arguments::{TodoArguments, TodoState};

/// Replaces the list and shows it.
pub fn todo(file: &Path, arguments: &TodoArguments) -> Result<ToolOutcome, Failure> {
    let text = serde_json::to_vec(arguments).expect("strings and words can always be encoded");
    std::fs::write(file, text).map_err(|error| Failure::io(file.display(), &error))?;
    if arguments.items.is_empty() {
        return Ok(ToolOutcome::ok("the list is empty"));
    }
    let lines: Vec<String> = arguments
        .items
        .iter()
        .map(|item| {
            let mark = match item.state {
                TodoState::Open => "[ ]",
                TodoState::Doing => "[~]",
                TodoState::Done => "[x]",
            };
            format!("{mark} {}", item.text)
        })
        .collect();
    Ok(ToolOutcome::ok(lines.join("\n")))
}
