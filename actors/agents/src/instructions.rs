//! The instructions that a repository has for agents: `AGENTS.md` in its root, and in folders below for what is there.
//!
//! The root's are told at the beginning, together with the names of the others. Those are told below the first answer of a tool
//! that touches their folder: so late that they cost nothing before, and never again.

use helix_ports::StepHost;
use helix_protocol::{Block, Failure, Message, ToolCall, ToolOutcome, WorkspaceTool};
use serde_json::{Value, json};

use crate::calls::is_for_the_model;

/// Where instructions are.
pub(crate) const INSTRUCTIONS: &str = "AGENTS.md";
/// Most files of instructions that are looked at.
const LISTED: usize = 200;
/// What the line begins with that names the folders with instructions of their own.
const DEEPER: &str = "Folders with instructions of their own, which you are shown when you come there: ";
/// What stands above them.
const HERE: &str = "\n\n[Instructions for this folder, from ";

/// What is told at the beginning; `None` where the repository has no instructions.
pub(crate) async fn at_the_beginning(host: &mut dyn StepHost) -> Result<Option<String>, Failure> {
    let input = json!({"pattern": format!("**/{INSTRUCTIONS}"), "limit": LISTED});
    let Some(found) = quietly(host, WorkspaceTool::Glob, input).await? else { return Ok(None) };
    let mut paths: Vec<&str> = found.lines().filter(|path| path.rsplit('/').next() == Some(INSTRUCTIONS)).collect();
    paths.sort_unstable();
    let mut told = Vec::new();
    // A listing that is full may have left it out.
    if (paths.contains(&INSTRUCTIONS) || paths.len() >= LISTED)
        && let Some(page) = quietly(host, WorkspaceTool::Read, json!({"path": INSTRUCTIONS})).await?
    {
        let text = without_numbers(&page);
        told.push(format!("This repository's {INSTRUCTIONS}, which its owners wrote for you:\n\n{}", text.trim_end()));
    }
    let deeper: Vec<&str> = paths.into_iter().filter_map(|path| path.strip_suffix("/AGENTS.md")).collect();
    if !deeper.is_empty() {
        told.push(format!("{DEEPER}{}", deeper.join(", ")));
    }
    Ok((!told.is_empty()).then(|| told.join("\n\n")))
}

/// The folders whose instructions have not been told yet.
#[derive(Debug)]
pub(crate) struct Instructions {
    untold: Vec<String>,
}

impl Instructions {
    /// As a conversation says.
    pub fn known(earlier: &[Message]) -> Self {
        let blocks = || earlier.iter().flat_map(|message| &message.blocks);
        let named = blocks().find_map(|block| match block {
            Block::Text { text, .. } => text.lines().find_map(|line| line.strip_prefix(DEEPER)),
            _ => None,
        });
        let told = |folder: &str| {
            let mark = format!("{HERE}{folder}/{INSTRUCTIONS}");
            blocks().any(|block| matches!(block, Block::ToolResult { content, .. } if content.contains(&mark)))
        };
        let untold = named.into_iter().flat_map(|folders| folders.split(", ")).filter(|folder| !told(folder));
        Self { untold: untold.map(str::to_owned).collect() }
    }

    /// What is told below the answer of a call that touches a path.
    pub async fn of_call(&mut self, host: &mut dyn StepHost, input: &Value) -> Result<Option<String>, Failure> {
        let Some(path) = input.get("path").and_then(Value::as_str) else { return Ok(None) };
        let path = path.trim_start_matches("./");
        let (here, untold) = std::mem::take(&mut self.untold)
            .into_iter()
            .partition(|folder| path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        self.untold = untold;
        let here: Vec<String> = here;
        let mut told = String::new();
        for folder in here {
            let file = format!("{folder}/{INSTRUCTIONS}");
            if let Some(page) = quietly(host, WorkspaceTool::Read, json!({"path": file})).await? {
                told.push_str(&format!("{HERE}{file}:\n{}]", without_numbers(&page).trim_end()));
            }
        }
        Ok((!told.is_empty()).then_some(told))
    }
}

/// What a tool answers; `None` where it fails in a way that a missing file does.
async fn quietly(host: &mut dyn StepHost, tool: WorkspaceTool, input: Value) -> Result<Option<String>, Failure> {
    let call = ToolCall { key: host.next_call(), name: tool.name().to_owned(), input };
    match host.tool(call).await {
        Ok(ToolOutcome { is_error: true, .. }) => Ok(None),
        Ok(outcome) => Ok(Some(outcome.content)),
        Err(failure) if is_for_the_model(failure.code) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// A file as the `read` tool shows it, without the line numbers.
fn without_numbers(page: &str) -> String {
    let strip = |line: &str| match line.split_once('\t') {
        Some((number, rest)) if number.trim().parse::<u64>().is_ok() => rest.to_owned(),
        _ => line.to_owned(),
    };
    page.lines().map(strip).collect::<Vec<_>>().join("\n")
}
