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
    pub async fn of_call(&mut self, host: &mut dyn StepHost, name: &str, input: &Value) -> Result<Option<String>, Failure> {
        if self.untold.is_empty() {
            return Ok(None);
        }
        let paths = touched(name, input);
        let is_in =
            |path: &String, folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let (here, untold): (Vec<String>, Vec<String>) =
            std::mem::take(&mut self.untold).into_iter().partition(|folder| paths.iter().any(|path| is_in(path, folder)));
        self.untold = untold;
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

/// The paths that a call names: of files, in a patch, before the first wildcard of a pattern, as words of a command.
fn touched(name: &str, input: &Value) -> Vec<String> {
    let text = |key: &str| input.get(key).and_then(Value::as_str);
    let mut paths: Vec<&str> = text("path").into_iter().collect();
    match WorkspaceTool::by_name(name) {
        Some(WorkspaceTool::ApplyPatch) => paths.extend(text("patch").into_iter().flat_map(str::lines).filter_map(of_header)),
        Some(WorkspaceTool::Glob) => paths.extend(text("pattern").map(before_wildcards)),
        Some(WorkspaceTool::Grep) => paths.extend(text("glob").map(before_wildcards)),
        Some(WorkspaceTool::Shell) => {
            let between = |c: char| c.is_whitespace() || "\"'`;|&()<>=,:".contains(c);
            paths.extend(text("command").into_iter().flat_map(|command| command.split(between)).map(before_wildcards));
        }
        _ => {}
    }
    paths.into_iter().map(plain).filter(|path| !path.is_empty()).collect()
}

/// The path in a line of a patch that names one.
fn of_header(line: &str) -> Option<&str> {
    const HEADERS: [&str; 4] = ["*** Update File: ", "*** Add File: ", "*** Delete File: ", "*** Move to: "];
    HEADERS.iter().find_map(|header| line.strip_prefix(header)).map(str::trim)
}

/// The folder that a pattern stays below; a path without wildcards is itself.
fn before_wildcards(pattern: &str) -> &str {
    match pattern.find(['*', '?', '[', '{', '\\']) {
        Some(at) => pattern[..at].rsplit_once('/').map_or("", |(folder, _)| folder),
        None => pattern,
    }
}

/// A path as folders are listed: without `.` and doubled slashes. An absolute one is none of the workspace's.
fn plain(path: &str) -> String {
    let absolute = path.starts_with('/');
    let parts = path.split('/').filter(|part| !absolute && !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_touches_the_paths_that_it_names() {
        let patch = "*** Begin Patch\n*** Update File: web/a.ts\n*** Move to: ./api//b.ts\n-x\n+*** Add File: no\n\
                     *** Add File: new/c\n+c\n*** Delete File: old/d\n*** End Patch";
        for (name, input, expected) in [
            ("read", json!({"path": "./web/a.ts"}), vec!["web/a.ts"]),
            ("apply_patch", json!({"patch": patch}), vec!["web/a.ts", "api/b.ts", "new/c", "old/d"]),
            ("glob", json!({"pattern": "web/src/*.{ts,js}"}), vec!["web/src"]),
            ("glob", json!({"pattern": "web/a.ts"}), vec!["web/a.ts"]),
            ("glob", json!({"pattern": "we*/**"}), vec![]),
            ("grep", json!({"pattern": "web/x", "path": "api", "glob": "web/**/*.ts"}), vec!["api", "web"]),
            (
                "shell",
                json!({"command": "cd web && cat 'src/a.ts' ../b >out/log; /bin/ls"}),
                vec!["cd", "web", "cat", "src/a.ts", "../b", "out/log"],
            ),
            ("todo", json!({"items": []}), vec![]),
        ] {
            assert_eq!(touched(name, &input), expected, "{name} {input}");
        }
    }
}
