//! Every command that a text of the project names, held against the command line: a hint that names an option which is not there
//! helps nobody.

use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};

use super::Cli;

/// What a text stands for where it means any value; it reads as a number, an amount, a name and a path.
const ANYTHING: &str = "1";

/// How much of a command a text has to say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    /// It can be typed as it stands.
    Example,
    /// It names a command, and may leave out what it is about.
    Mention,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(folder: &Path, kind: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the project").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            files(&path, kind, found);
        } else if name.to_string_lossy().ends_with(kind) {
            found.push(path);
        }
    }
}

/// The words of a line as a shell would read them; what stands for a value becomes one.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut depth) = (Vec::new(), None::<String>, None, 0);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('{', None) => depth += 1,
            ('}', None) => {
                depth -= 1;
                word.get_or_insert_default().push_str(ANYTHING);
            }
            (_, None) if depth > 0 => {}
            (' ', None) => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let stands_for_another =
        |word: &String| word.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c == '|') || word.contains('…');
    words.into_iter().map(|word| if stands_for_another(&word) { ANYTHING.to_owned() } else { word }).collect()
}

/// Why a line is no command of `helix`.
fn fault(command: &Command, line: &str, whole: Whole) -> Option<String> {
    let error = command.clone().try_get_matches_from(words(line)).err()?;
    let left_out = matches!(
        error.kind(),
        ErrorKind::MissingRequiredArgument | ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    // An option that is named without its value.
    let empty = matches!(error.get(ContextKind::InvalidValue), Some(ContextValue::String(value)) if value.is_empty());
    let left_out = left_out || (error.kind() == ErrorKind::InvalidValue && empty);
    let shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let good = shown || (left_out && whole == Whole::Mention);
    (!good).then(|| format!("`{line}`: {}", error.render()))
}

/// The commands of a line of a shell: up to what another program reads, and up to a remark behind it.
fn commands(line: &str) -> impl Iterator<Item = &str> {
    let line = line.trim();
    let line = line.split("   ").next().unwrap_or(line);
    let line = line.split(" #").next().unwrap_or(line);
    line.split(" && ").filter_map(|part| {
        let part = part.split(" | ").find(|part| part.starts_with("helix "))?;
        Some(part.split(['>', '<']).next().unwrap_or(part).trim())
    })
}

#[test]
fn every_example_of_the_help_can_be_typed() {
    fn visit(all: &Command, command: &Command, seen: &mut usize, faults: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().flat_map(|line| commands(line.strip_prefix("Example:").unwrap_or(line))) {
            *seen += 1;
            faults.extend(fault(all, line, Whole::Example));
        }
        for sub in command.get_subcommands() {
            visit(all, sub, seen, faults);
        }
    }
    let (command, mut seen, mut faults) = (Cli::command(), 0, Vec::new());
    visit(&command, &command, &mut seen, &mut faults);
    assert!(seen > 60, "only {seen} examples were found");
    assert_eq!(faults, [] as [String; 0]);
}

#[test]
fn every_command_that_a_text_names_exists() {
    let mut found = Vec::new();
    for folder in ["adapters", "actors", "runtime", "storage", "configs"] {
        files(&root().join(folder), ".rs", &mut found);
    }
    files(&root().join("configs"), ".yaml", &mut found);
    files(&root().join("docs"), ".md", &mut found);
    found.extend(["README.md", "ARCHITECTURE.md"].map(|name| root().join(name)));
    let (command, mut seen, mut faults) = (Cli::command(), 0, Vec::new());
    for path in found {
        let text = std::fs::read_to_string(&path).expect("a file of the project is text");
        // What stands between two backticks, unless it runs over a line's end.
        for line in text.split('`').skip(1).step_by(2).filter(|part| part.starts_with("helix ") && !part.contains('\n')) {
            for line in commands(&line.replace("\\\"", "\"")) {
                seen += 1;
                let fault = fault(&command, line, Whole::Mention);
                faults.extend(fault.map(|fault| format!("{}: {fault}", path.display())));
            }
        }
        let is_page = path.extension().is_some_and(|kind| kind == "md");
        for line in text.split("```").skip(1).step_by(2).flat_map(str::lines).filter(|_| is_page).flat_map(commands) {
            seen += 1;
            let fault = fault(&command, line, Whole::Example);
            faults.extend(fault.map(|fault| format!("{}: {fault}", path.display())));
        }
    }
    assert!(seen > 250, "only {seen} commands were found");
    assert_eq!(faults, [] as [String; 0]);
}

#[test]
fn a_command_that_is_not_there_is_found() {
    let command = Cli::command();
    for line in ["helix task retry --max-steps N", "helix tasks", "helix task lst", "helix run --comand \"cargo test\""] {
        assert!(fault(&command, line, Whole::Mention).is_some(), "{line}");
    }
    for line in [
        "helix task resume {short} --budget USD",
        "helix task log",
        "helix explain {code}",
        "helix help",
        "helix task",
        "helix run --command",
    ] {
        assert_eq!(fault(&command, line, Whole::Mention), None, "{line}");
    }
}
