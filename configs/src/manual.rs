//! The manual is made from the doc comments of the sections: `defaults/helix.yaml` and `docs/configuration.md`.
//!
//! A test compares both with what the comments say; `HELIX_BLESS=1 cargo test -p helix-config` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Config, ProjectFile, ProviderConfig};

/// The source whose comments are the manual.
const SOURCE: &str = include_str!("sections.rs");

struct Field {
    doc: String,
    name: String,
    kind: String,
}

/// The fields of every struct of the sections, with their comments.
fn structs() -> BTreeMap<String, Vec<Field>> {
    let mut found: BTreeMap<String, Vec<Field>> = BTreeMap::new();
    let (mut current, mut doc) = (None, String::new());
    for line in SOURCE.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(if doc.is_empty() { "" } else { " " });
            doc.push_str(text.trim());
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.trim_end_matches(" {").to_owned();
            found.insert(name.clone(), Vec::new());
            current = Some(name);
            doc.clear();
        } else if let (Some(name), Some((field, kind))) =
            (&current, line.strip_prefix("pub ").and_then(|rest| rest.split_once(": ")))
        {
            let field =
                Field { doc: std::mem::take(&mut doc), name: field.to_owned(), kind: kind.trim_end_matches(',').to_owned() };
            found.get_mut(name).expect("inserted above").push(field);
        } else if !line.starts_with("#[") {
            if line == "}" {
                current = None;
            }
            doc.clear();
        }
    }
    found
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// Wraps to lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never empty");
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines
}

fn yaml(structs: &BTreeMap<String, Vec<Field>>, name: &str, value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    for field in &structs[name] {
        if depth == 0 {
            out.push('\n');
        }
        for line in wrapped(&field.doc, 100 - indent.len()) {
            writeln!(out, "{indent}# {line}").expect("writing to a string");
        }
        if structs.contains_key(&field.kind) {
            writeln!(out, "{indent}{}:", field.name).expect("writing to a string");
            yaml(structs, &field.kind, &value[&field.name], depth + 1, out);
        } else {
            writeln!(out, "{indent}{}: {}", field.name, scalar(&value[&field.name])).expect("writing to a string");
        }
    }
}

fn defaults_file() -> String {
    let mut out = String::from(
        "# Every key of helix.yaml with its meaning and its default. Copy what you change into your own file.\n\
         # Any scalar key can be overridden by HELIX_<SECTION>_<KEY>, for example HELIX_WORKERS_LOCAL=4.\n",
    );
    let defaults = serde_json::to_value(Config::default()).expect("plain data");
    yaml(&structs(), "Config", &defaults, 0, &mut out);
    out
}

fn table(structs: &BTreeMap<String, Vec<Field>>, name: &str, value: &Value, path: &str, out: &mut String) {
    for field in &structs[name] {
        let key = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
        if structs.contains_key(&field.kind) {
            table(structs, &field.kind, &value[&field.name], &key, out);
        } else {
            let default = if value.is_null() { String::new() } else { format!("`{}`", scalar(&value[&field.name])) };
            writeln!(out, "| `{key}` | {default} | {} |", field.doc.replace('|', "\\|")).expect("writing to a string");
        }
    }
}

fn page() -> String {
    let structs = structs();
    let mut out = String::from(PREFACE);
    let defaults = serde_json::to_value(Config::default()).expect("plain data");
    for section in &structs["Config"] {
        write!(out, "\n## {}\n\n{}\n\n| Key | Default | Meaning |\n|---|---|---|\n", section.name, section.doc)
            .expect("writing to a string");
        table(&structs, &section.kind, &defaults[&section.name], &section.name, &mut out);
    }
    let provider = serde_json::to_value(ProviderConfig::default()).expect("plain data");
    out.push_str("\n### llm.providers.NAME\n\n| Key | Default | Meaning |\n|---|---|---|\n");
    table(&structs, "ProviderConfig", &provider, "", &mut out);
    out.push_str(
        "\n### llm.providers.NAME.prices.MODEL\n\nUS dollars per million tokens.\n\n| Key | Default | Meaning |\n|---|---|---|\n",
    );
    let price = serde_json::to_value(crate::PriceConfig::default()).expect("plain data");
    table(&structs, "PriceConfig", &price, "", &mut out);
    out.push_str("\n### llm.groups.NAME\n\n| Key | Default | Meaning |\n|---|---|---|\n");
    let group = serde_json::to_value(crate::GroupConfig::default()).expect("plain data");
    table(&structs, "GroupConfig", &group, "", &mut out);
    out.push_str(PROJECT);
    let project = serde_json::to_value(ProjectFile::default()).expect("plain data");
    table(&structs, "ProjectFile", &project, "", &mut out);
    out
}

const PREFACE: &str = "# Configuration

This page is made from the comments in `configs/src/sections.rs`. `helix config show` prints what holds on your machine and where it
comes from, `helix config check` judges a file, `helix config show --defaults` prints a commented file to start from. Examples are in
`configs/examples/`.

`helix.yaml` is looked for in this order: `--config FILE`, `HELIX_CONFIG`, `./helix.yaml`, `$XDG_CONFIG_HOME/helix/helix.yaml` (else
`~/.config/helix/helix.yaml`). Without one the defaults hold. An unknown key, a key given twice and a value of another type are refused
with file and line. A `./helix.yaml` that nobody named may have no `tasks.secrets`: a repository could have brought it.

The environment wins over the file. Every scalar key has a variable, `HELIX_<SECTION>_<KEY>` in capitals; beside those:

| Variable | Meaning |
|---|---|
| `DATABASE_URL` | `database.url`; `HELIX_DATABASE_URL` wins over it |
| `HELIX_DATABASE_HOST`, `_PORT`, `_USER`, `_PASSWORD`, `_NAME`, `_SSLMODE` | `database.url` put together from its parts; `PGSSLROOTCERT` names the file of an authority |
| `HELIX_DATA` | `server.data` |
| `HELIX_LOG` | `logging.level` |
| `OPENAI_BASE_URL` | `llm.providers.openai.base_url` |
| `OPENAI_API_KEY`, `ANTHROPIC_API_KEY`, `GEMINI_API_KEY`, `XAI_API_KEY`, `DASHSCOPE_API_KEY`, `OPENROUTER_API_KEY`, `GITHUB_TOKEN` | the keys of the providers `openai`, `anthropic`, `gemini`, `xai`, `qwen`, `openrouter`, `copilot`, which exist where these are set; `key_env` names another variable |
| `WORKER_MAX_TASKS` | `workers.slots` |
| `WORKER_CAPABILITIES` | on a worker: words that `--needs` can ask for, beside what is found by itself, separated by commas |

Names of other platforms that mean nothing here: `REDIS_URL` and `WORKER_ID`. `HELIX_SERVER_URL`, `HELIX_AUTH_JWT_SECRET` and those of
Slack, Discord, Telegram and mail are for what this version does not have. A variable that begins with `HELIX_` and that nothing reads is
named by `helix doctor` and `helix config check`.
";

const PROJECT: &str = "
## helix.project.yaml

This file lies in the root of a repository, is read when a task is made from it, and says what commands find around them.
`helix config check helix.project.yaml` judges it.

| Key | Default | Meaning |
|---|---|---|
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn agrees(path: &Path, expected: &str) {
    if std::env::var_os("HELIX_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("writable");
        std::fs::write(path, expected).expect("writable");
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == expected, "{} is not what the comments say; run HELIX_BLESS=1 cargo test -p helix-config", path.display());
}

#[test]
fn the_defaults_file_is_what_the_comments_say_and_equals_the_defaults() {
    agrees(&root().join("configs/defaults/helix.yaml"), &defaults_file());
    assert_eq!(Config::parse(&defaults_file(), "defaults"), Ok(Config::default()));
}

#[test]
fn the_page_is_what_the_comments_say() {
    agrees(&root().join("docs/configuration.md"), &page());
}

#[test]
fn every_key_has_a_comment() {
    for (name, fields) in structs() {
        for field in fields {
            assert!(!field.doc.is_empty(), "{name}.{} has no comment", field.name);
        }
    }
}

#[test]
fn every_example_is_valid_and_changes_something() {
    let folder = root().join("configs/examples");
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("readable");
        if name.ends_with("project.yaml") {
            assert_ne!(ProjectFile::parse(&text), Ok(ProjectFile::default()), "{name}");
        } else {
            let config = Config::parse(&text, &name).unwrap_or_else(|failure| panic!("{failure}"));
            assert_ne!(config, Config::default(), "{name}");
        }
        seen.push(name);
    }
    seen.sort();
    assert_eq!(
        seen,
        ["helix.project.yaml", "local-model.yaml", "postgres.yaml", "providers.yaml", "ssh-workers.yaml", "team.yaml"]
    );
}
