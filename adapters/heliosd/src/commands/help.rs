//! The pages of `helios help`, of `--help`, and what completions are made of: all from the table of commands.

use clap::{ArgAction, ValueHint};
use helix_protocol::{Code, Failure};
use serde_json::json;

use super::{Entry, GROUPS, entries, find};
use crate::console::{NO, OK};
use crate::context::Context;

const ABOUT: &str = "helios, the version store for agents

usage: helios [-C FOLDER] [--json] COMMAND [ARGUMENTS]

  -C FOLDER  goes there first
  --json     answers with lines of JSON; behind the command too
";
/// How a command is called on its page.
pub const PROGRAM: &str = "helios [-C FOLDER]";

/// JSON is an option of every command and of those beneath it: this is for their pages and for completions, since what is typed is
/// taken before a command is parsed.
pub fn with_json(command: clap::Command) -> clap::Command {
    command.arg(clap::Arg::new("json").long("json").global(true).action(ArgAction::SetTrue).help("Answers with lines of JSON"))
}

/// The whole command line, for completions.
pub fn whole() -> clap::Command {
    let commands = entries().map(|entry| (entry.command)().name(entry.name));
    let folder = clap::Arg::new("folder").short('C').value_name("FOLDER").value_hint(ValueHint::DirPath).help("Goes there first");
    with_json(clap::Command::new("helios")).about("the version store for agents").arg(folder).subcommands(commands)
}

/// Every command with what it does.
pub fn all() -> String {
    let mut text = ABOUT.to_owned();
    for (heading, entries) in GROUPS {
        text.push_str(&format!("\n{heading}\n"));
        for entry in *entries {
            text.push_str(&format!("   {:<12} {}\n", entry.name, about(&(entry.command)())));
        }
    }
    text.push_str("\n`helios help COMMAND` tells more of one, with examples, and `helios help workspace add` of one beneath it.\n");
    text
}

/// Every command, or with names the page of one, or of one beneath it: `helios help workspace add`.
pub fn show(context: &mut Context<'_>, names: &[String]) -> Result<u8, Failure> {
    let Some((name, beneath)) = names.split_first() else {
        if !context.is_json() {
            return context.console.write(all().as_bytes()).map(|()| OK);
        }
        for (group, entries) in GROUPS {
            for entry in *entries {
                context.console.json(&json!({"command": entry.name, "about": about(&(entry.command)()), "group": group}))?;
            }
        }
        return Ok(OK);
    };
    let entry = context.console.failing_with(NO, find(name))?;
    let (mut command, mut words) = (built(entry), entry.name.to_owned());
    for name in beneath {
        let Some(found) = command.find_subcommand(name).cloned() else {
            let message = format!("`helios {words}` has no command {name:?}");
            let hint = format!("`helios {words} --help` lists what it has");
            return Err(Failure::new(Code::InvalidRequest, message).hint(hint));
        };
        (command, words) = (found, format!("{words} {name}"));
    }
    let page = command.render_long_help().to_string();
    if context.is_json() {
        context.console.json(&json!({"command": words, "about": about(&command), "page": page}))?;
    } else {
        context.console.write(page.as_bytes())?;
    }
    Ok(OK)
}

/// What a command does, in a line.
fn about(command: &clap::Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// A command in which those beneath it know what they are called and which options are everybody's.
fn built(entry: &Entry) -> clap::Command {
    let mut command = (entry.command)().bin_name(format!("{PROGRAM} {}", entry.name));
    command.build();
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_well_formed_and_named_as_its_entry() {
        for entry in entries() {
            let command = built(entry);
            assert_eq!(command.get_name(), entry.name);
            is_explained(command, entry.name);
        }
        whole().debug_assert();
    }

    /// A command and those beneath it.
    fn is_explained(mut command: clap::Command, words: &str) {
        assert!(command.get_about().is_some(), "{words} says what it does");
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            is_explained(below.clone(), &format!("{words} {}", below.get_name()));
        }
        let page = command.render_long_help().to_string();
        assert!(page.contains(&format!("Usage: {PROGRAM} {words}")), "{page}");
        let examples = page.split_once("\nExamples:\n").map(|(_, examples)| examples);
        assert!(examples.is_some_and(|examples| examples.contains(&format!("helios {words}"))), "{page}");
        assert!(page.contains("--json"), "{page}");
    }

    #[test]
    fn what_works_with_every_command_is_completed() {
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut whole(), "helios", &mut script);
        let script = String::from_utf8(script).unwrap();
        let offered = script.lines().filter_map(|line| line.trim().strip_prefix("opts="));
        let offered: Vec<&str> = offered.filter(|options| options.contains("--help")).collect();
        assert!(offered.len() > 50 && offered[0].contains("-C "), "{offered:?}");
        offered.iter().for_each(|options| assert!(options.contains("--json"), "{options}"));
    }
}
