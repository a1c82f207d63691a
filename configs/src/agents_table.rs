//! The table of agents that people already have: how each is run, as data.
//!
//! `defaults/agents.yaml` is the table that comes with the program. Entries of `agents.programs` in helix.yaml stand beside it; one
//! of the same name replaces it.

use std::collections::BTreeMap;

use helix_protocol::{AgentProgram, Code, Failure, Speaks};

use crate::AgentsConfig;

/// The table that comes with the program.
pub const AGENT_TABLE: &str = include_str!("../defaults/agents.yaml");

impl AgentsConfig {
    /// Every agent by name.
    pub fn table(&self) -> BTreeMap<String, AgentProgram> {
        let mut table = built_in();
        table.extend(self.programs.clone());
        table
    }
}

fn built_in() -> BTreeMap<String, AgentProgram> {
    serde_norway::from_str(AGENT_TABLE).expect("a test reads the table that comes with the program")
}

/// Refuses a program that could not be run, naming what is wrong.
pub fn check_program(name: &str, program: &AgentProgram) -> Result<(), Failure> {
    let wrong = |what: &str, hint: &str| Err(Failure::new(Code::InvalidConfig, format!("the agent {name:?} {what}")).hint(hint));
    if program.command.trim().is_empty() {
        return wrong("has no command", "say what runs it, for example `command: my-agent --acp`");
    }
    let single = [&program.resume, &program.answer, &program.session];
    if program.speaks == Speaks::Acp && (single.into_iter().any(|value| !value.is_empty()) || !program.lost.is_empty()) {
        return wrong("speaks acp and has `resume`, `answer`, `session` or `lost`", "these are for agents with `speaks: command`");
    }
    if program.lost.iter().any(|words| words.trim().is_empty()) {
        return wrong(
            "has empty words in `lost`",
            "every output would have them; write what it prints where a session is not there",
        );
    }
    if [&program.answer, &program.session].into_iter().any(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
        return wrong("has an `answer` or `session` that is no JSON pointer", "it begins with a slash, for example /result");
    }
    let inside = |path: &String| !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !program.files.keys().all(inside) {
        return wrong("has a file that is not below its session folder", "name it by a relative path without `..`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_that_comes_with_the_program_is_right_and_every_agent_of_it_is_kept_in_the_workspace() {
        let table = built_in();
        let names: Vec<&str> = table.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["aider", "claude", "claude-acp", "codex", "gemini", "gemini-acp", "goose", "goose-acp", "opencode", "opencode-acp"]
        );
        for (name, program) in &table {
            assert_eq!(check_program(name, program), Ok(()));
            let texts = || program.environment.values().chain(program.files.values());
            assert!(texts().any(|text| text.contains("{session}")), "{name} keeps its session elsewhere");
            assert!(texts().any(|text| text.contains("{key}")), "{name} has no key");
            assert!(texts().any(|text| text.contains("{gateway}")), "{name} does not reach the gateway");
        }
    }

    #[test]
    fn an_entry_of_ones_own_replaces_one_of_the_same_name() {
        let own = AgentProgram { command: "mine".to_owned(), ..AgentProgram::default() };
        let config = AgentsConfig { programs: BTreeMap::from([("codex".to_owned(), own.clone())]), ..AgentsConfig::default() };
        assert_eq!(config.table()["codex"], own);
        assert_eq!(config.table().len(), built_in().len());
    }

    #[test]
    fn a_program_that_could_not_be_run_is_refused() {
        let refused = |program: AgentProgram| check_program("x", &program).expect_err("refused").message;
        assert_eq!(refused(AgentProgram::default()), "the agent \"x\" has no command");
        let command = "x".to_owned();
        let wrong = AgentProgram { command: command.clone(), answer: "/a".into(), ..AgentProgram::default() };
        assert_eq!(refused(wrong), "the agent \"x\" speaks acp and has `resume`, `answer`, `session` or `lost`");
        let files = BTreeMap::from([("../x".to_owned(), String::new())]);
        assert!(refused(AgentProgram { command, files, ..AgentProgram::default() }).contains("session folder"));
    }
}
