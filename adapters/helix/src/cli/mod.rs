//! The command line: one file for each command.
//!
//! A command prints its answer to standard output and everything else to standard error. A failure is printed as
//! `error[code]: message` with a hint, or as JSON under `--json`, and its code decides the exit code.

mod amounts;
mod attach;
mod circuits;
mod completions;
mod config;
mod context;
mod doctor;
mod down;
mod escapes;
mod explain;
mod follow;
mod key;
mod live;
mod login;
mod logout;
mod model_servers;
mod run;
mod server;
mod status;
pub mod style;
mod task;
#[cfg(test)]
mod texts;
pub mod timeline;
mod tree;
mod typed;
mod up;
mod words;
mod worker;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use helix_protocol::{Code, Failure};

pub use context::Context;
pub(crate) use context::out;
pub(crate) use escapes::harmless;

/// Runs coding agents, and any other long work, for days on machines you already have.
#[derive(Debug, Parser)]
#[command(name = "helix", version, propagate_version = true, arg_required_else_help = true, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// The node's data folder [default: HELIX_DATA, server.data of helix.yaml, ~/.local/share/helix]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub data: Option<PathBuf>,
    /// The configuration [default: HELIX_CONFIG, ./helix.yaml, ~/.config/helix/helix.yaml]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub config: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
    /// No colours, as with NO_COLOR in the environment
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub no_color: bool,
}

const AFTER_HELP: &str = "\
Examples:
  helix demo                                          see what it does, without a key, in a minute
  helix run \"fix the failing test\" --repo .           an agent works on a copy of this repository
  helix run --command \"cargo test\" --repo .           a command instead of an agent
  helix worker add buildbox                           a machine that your ssh knows
  helix task list                                     what there is
  helix attach                                        watch it live, from any terminal

Exit codes:
  0  done                         6  a worker or the network is in the way
  1  a fault of Helix itself      7  the model or its key
  2  the request is wrong         8  the budget
  3  no such thing                9  storage: disk, database, git
  4  refused in this state       10  the task itself failed
  5  no node answers
`helix explain CODE` says more about the code that a failure shows in brackets.";

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Down(down::Down),
    Status(status::Status),
    Doctor(doctor::Doctor),
    Demo(crate::demo::Demo),
    Run(Box<run::Run>),
    Attach(attach::Attach),
    #[command(subcommand)]
    Task(task::Task),
    #[command(subcommand)]
    Worker(worker::Worker),
    #[command(subcommand)]
    Key(key::Key),
    Login(login::Login),
    Logout(logout::Logout),
    Tree(tree::Tree),
    Explain(explain::Explain),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Completions(completions::Completions),
}

/// Reads the arguments, does what they say, and answers with the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and go to standard output with code 0.
            if !error.use_stderr() {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            if asks_for_json(std::env::args_os().skip(1)) {
                return report(&refused(&error), true);
            }
            let _ = error.print();
            return ExitCode::from(Code::InvalidRequest.exit_code());
        }
    };
    let json = cli.global.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::io("starting threads", &error), json),
    };
    let result = runtime.block_on(dispatch(cli));
    // A read of standard input that nobody ended must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(failure) => report(&failure, json),
    }
}

/// Whether arguments that cannot be read ask for JSON; behind a `--` the word is another program's.
fn asks_for_json(arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

/// What the parser says, as a failure: what is wrong, and as the next step its advice and where the usage is shown.
fn refused(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let said = parts.next().unwrap_or_default();
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a command is missing",
        _ => said.trim_start_matches("error: "),
    };
    // The usage names the command that was meant, and then its arguments.
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("helix");
    let names = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
    let command: Vec<&str> = usage.split(' ').take_while(names).collect();
    let advice: String = parts.filter_map(|part| Some(format!("{}; ", part.strip_prefix("tip: ")?))).collect();
    Failure::new(Code::InvalidRequest, message).hint(format!("{advice}`{} --help` shows how it is used", command.join(" ")))
}

async fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let context = Context::new(cli.global);
    let done = |result: Result<(), Failure>| result.map(|()| ExitCode::SUCCESS);
    match cli.command {
        Command::Up(command) => done(command.run(&context).await),
        Command::Down(command) => done(command.run(&context).await),
        Command::Status(command) => done(command.run(&context).await),
        Command::Doctor(command) => command.run(&context).await,
        Command::Demo(command) => done(command.run(&context).await),
        Command::Run(command) => command.run(&context).await,
        Command::Attach(command) => command.run(&context).await,
        Command::Task(command) => command.run(&context).await,
        Command::Worker(command) => done(command.run(&context).await),
        Command::Key(command) => done(command.run(&context).await),
        Command::Login(command) => command.run(&context).await,
        Command::Logout(command) => done(command.run(&context)),
        Command::Tree(command) => done(command.run(&context).await),
        Command::Explain(command) => done(command.run(&context)),
        Command::Config(command) => done(command.run(&context)),
        Command::Completions(command) => done(command.run()),
    }
}

/// Prints a failure and answers with its exit code.
fn report(failure: &Failure, json: bool) -> ExitCode {
    use std::io::Write as _;
    let mut stderr = std::io::stderr().lock();
    // Where standard error is closed nobody is left to be told.
    let _ = if json {
        let text = serde_json::json!({ "error": failure });
        writeln!(stderr, "{text}")
    } else {
        let hint = if failure.hint.is_empty() { String::new() } else { format!("\n  hint: {}", failure.hint) };
        let text = format!("error[{}]: {}{hint}", failure.code.as_str(), failure.message);
        writeln!(stderr, "{}", harmless(&text, style::Style::Plain))
    };
    ExitCode::from(failure.code.exit_code())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_on_a_page() {
        let help = Cli::command().term_width(100).render_help().to_string();
        assert!(help.lines().count() <= 60, "{} lines", help.lines().count());
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }

    #[test]
    fn every_command_has_help_and_those_with_arguments_an_example() {
        fn visit(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let path = format!("{path} {}", sub.get_name());
                assert!(sub.get_about().is_some(), "{path} has no help");
                if sub.get_subcommands().next().is_none() {
                    assert!(sub.get_after_help().is_some(), "{path} has no example");
                }
                visit(sub, &path);
            }
        }
        visit(&Cli::command(), "helix");
    }

    #[test]
    fn a_wrong_command_line_is_a_failure_with_what_is_wrong_and_a_next_step() {
        for (line, message, hint) in [
            ("helix nonsense", "unrecognized subcommand 'nonsense'", "`helix --help` shows how it is used"),
            (
                "helix task lst",
                "unrecognized subcommand 'lst'",
                "a similar subcommand exists: 'list'; `helix task --help` shows how it is used",
            ),
            (
                "helix task checkpoint x",
                "the following required arguments were not provided: <NAME>",
                "`helix task checkpoint --help` shows how it is used",
            ),
            (
                "helix task rollback x",
                "the following required arguments were not provided: <STEP|--step <STEP>>",
                "`helix task rollback --help` shows how it is used",
            ),
            (
                "helix login",
                "the following required arguments were not provided: <PROVIDER|--list>",
                "`helix login --help` shows how it is used",
            ),
            ("helix", "a command is missing", "`helix --help` shows how it is used"),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            let expected = Failure::new(Code::InvalidRequest, message).hint(hint);
            assert_eq!(refused(&error), expected, "{line}");
        }
    }

    #[test]
    fn json_is_asked_for_before_what_another_program_gets() {
        let asks = |line: &str| asks_for_json(line.split(' ').map(OsString::from));
        assert!(asks("--json nonsense") && asks("task checkpoint x --json"));
        assert!(!asks("nonsense") && !asks("run -- x --json"));
    }

    #[test]
    fn exit_codes_in_the_help_are_those_of_the_codes() {
        for code in Code::ALL {
            let exit = code.exit_code();
            assert!(AFTER_HELP.contains(&format!(" {exit}  ")), "{} ends with {exit}, which the help does not name", code.as_str());
        }
    }
}
