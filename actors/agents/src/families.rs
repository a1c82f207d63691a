//! Families of models: how each is told to work, and how it changes files. Data, in `families.json`.

use std::sync::LazyLock;

use helix_protocol::WorkspaceTool;
use serde::Deserialize;

/// How models of one family are spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Family {
    pub name: String,
    /// What the names of its models begin with.
    models: Vec<String>,
    pub edit: Dialect,
    /// Stands below the instructions that every model has.
    pub guidance: String,
}

/// How a model says what is to become of a file: as it was trained to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dialect {
    /// One patch over several files.
    ApplyPatch,
    /// A text in place of another.
    Replace,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Families {
    families: Vec<Family>,
    others: Family,
}

static FAMILIES: LazyLock<Families> =
    LazyLock::new(|| serde_json::from_str(include_str!("families.json")).expect("a test reads the file"));

impl Family {
    /// The family of a model, whose name may carry its maker's (`openai/gpt-5`).
    pub fn of(model: &str) -> &'static Self {
        let name = model.rsplit('/').next().unwrap_or(model).to_lowercase();
        let is = |family: &&Self| family.models.iter().any(|beginning| name.starts_with(beginning));
        FAMILIES.families.iter().find(is).unwrap_or(&FAMILIES.others)
    }

    /// True of the tools that its models are not told of.
    pub fn hides(&self, tool: WorkspaceTool) -> bool {
        match self.edit {
            Dialect::ApplyPatch => tool == WorkspaceTool::Edit,
            Dialect::Replace => tool == WorkspaceTool::ApplyPatch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_its_name_and_an_unknown_one_replaces_text() {
        let names = |model| Family::of(model).name.as_str();
        let found =
            ["gpt-5.2", "openai/o3-mini", "anthropic/claude-opus-5", "Qwen3-Coder", "gemini-3-pro", "llama-4", ""].map(names);
        assert_eq!(found, ["openai", "openai", "anthropic", "qwen", "gemini", "others", "others"]);
        assert_eq!(Family::of("gpt-5").edit, Dialect::ApplyPatch);
        assert!(Family::of("llama").hides(WorkspaceTool::ApplyPatch) && !Family::of("llama").hides(WorkspaceTool::Edit));
    }
}
