//! The tools of one task: those of the workspace in its model's dialect, and those that the agent itself carries out.
//!
//! What a task has is decided by its model and its spec, and never changes while it runs: a tool that came or went would cost the
//! model's prompt cache.

use helix_protocol::{AgentSpec, ToolSchema, WorkspaceTool};
use serde_json::{Value, json};

use crate::families::Family;

/// The tools that run on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnTool {
    /// Asks the person. Parks the task until there is an answer.
    Ask,
    /// Gives a part of the work to a task of its own.
    SubAgent,
    /// Gets a page.
    WebFetch,
    /// Looks for pages.
    WebSearch,
}

/// A tool that a task has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Workspace(WorkspaceTool),
    Own(OwnTool),
}

impl OwnTool {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::SubAgent => "sub_agent",
            Self::WebFetch => "web_fetch",
            Self::WebSearch => "web_search",
        }
    }

    fn schema(self) -> ToolSchema {
        let (description, parameters) = match self {
            Self::Ask => (
                "Asks the person a question that only they can decide. The work rests until they answer, perhaps for days, so \
                 never ask what you can find out. `choices` are the answers you expect; leave them out for free text.",
                json!({"type":"object","properties":{"question":{"type":"string"},"choices":{"type":"array","items":{"type":"string"}}},"required":["question"],"additionalProperties":false}),
            ),
            Self::SubAgent => (
                "Gives a part of the work that stands by itself to another agent, which begins with a copy of your files and sees \
                 nothing of this conversation: `prompt` must say everything it needs. Calls made in one turn run beside each \
                 other. You get its last answer and the list of files it changed; its files stay its own unless `take_files` is \
                 true, which puts them in place of yours.",
                json!({"type":"object","properties":{"title":{"type":"string"},"prompt":{"type":"string"},"take_files":{"type":"boolean"}},"required":["title","prompt"],"additionalProperties":false}),
            ),
            Self::WebFetch => (
                "Gets a page from one of the hosts that this task may reach, as text. `offset` goes on in a long one.",
                json!({"type":"object","properties":{"url":{"type":"string"},"offset":{"type":"integer","minimum":0}},"required":["url"],"additionalProperties":false}),
            ),
            Self::WebSearch => (
                "Searches the web and answers with titles, addresses and excerpts.",
                json!({"type":"object","properties":{"query":{"type":"string"}},"required":["query"],"additionalProperties":false}),
            ),
        };
        ToolSchema { name: self.name().to_owned(), description: description.to_owned(), parameters, extra: None }
    }
}

impl Tool {
    /// True where the call may change files of the workspace.
    pub fn may_change_files(self) -> bool {
        match self {
            Self::Workspace(tool) => !tool.only_looks(),
            Self::Own(tool) => tool == OwnTool::SubAgent,
        }
    }
}

/// What one task's model is told of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Toolset {
    tools: Vec<(Tool, ToolSchema)>,
}

/// Whether the node can search the web.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Web {
    pub fetch: bool,
    pub search: bool,
}

impl Toolset {
    pub fn new(spec: &AgentSpec, family: &Family, web: Web) -> Self {
        let shown = WorkspaceTool::ALL.into_iter().filter(|tool| !family.hides(*tool));
        let mut tools: Vec<(Tool, ToolSchema)> = shown.map(|tool| (Tool::Workspace(tool), tool.schema())).collect();
        let mut own = vec![OwnTool::Ask];
        if spec.sub_agents > 0 {
            own.push(OwnTool::SubAgent);
        }
        if web.fetch && !spec.web_hosts.is_empty() {
            own.push(OwnTool::WebFetch);
            if web.search {
                own.push(OwnTool::WebSearch);
            }
        }
        tools.extend(own.into_iter().map(|tool| (Tool::Own(tool), tool.schema())));
        Self { tools }
    }

    /// What the model is told, in an order that never changes.
    pub fn schemas(&self) -> Vec<ToolSchema> {
        self.tools.iter().map(|(_, schema)| schema.clone()).collect()
    }

    pub fn names(&self) -> Vec<&str> {
        self.tools.iter().map(|(_, schema)| schema.name.as_str()).collect()
    }

    /// The tool of that name with its schema. The other dialect's tool is taken too: a conversation may have begun with another
    /// model.
    pub fn get(&self, name: &str) -> Option<(Tool, Value)> {
        let told = self.tools.iter().find(|(_, schema)| schema.name == name);
        told.map(|(tool, schema)| (*tool, schema.parameters.clone()))
            .or_else(|| WorkspaceTool::by_name(name).map(|tool| (Tool::Workspace(tool), tool.schema().parameters)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_its_dialects_tools_and_what_its_spec_grants() {
        let both = Web { fetch: true, search: true };
        let names = |spec: &AgentSpec, model: &str, web| Toolset::new(spec, Family::of(model), web).names().join(" ");
        let plain = AgentSpec::new("x");
        assert_eq!(names(&plain, "claude-5", both), "read write edit shell grep glob todo read_output stop ask");
        assert_eq!(names(&plain, "gpt-5", both), "read write shell grep glob todo read_output apply_patch stop ask");
        let granted = AgentSpec { web_hosts: vec!["docs.rs".into()], sub_agents: 2, ..plain };
        assert!(names(&granted, "claude-5", both).ends_with("stop ask sub_agent web_fetch web_search"));
        assert!(names(&granted, "claude-5", Web::default()).ends_with("stop ask sub_agent"));
    }
}
