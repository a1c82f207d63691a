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
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

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
            let code = if error.use_stderr() { Code::InvalidRequest.exit_code() } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
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
    fn exit_codes_in_the_help_are_those_of_the_codes() {
        for code in Code::ALL {
            let exit = code.exit_code();
            assert!(AFTER_HELP.contains(&format!(" {exit}  ")), "{} ends with {exit}, which the help does not name", code.as_str());
        }
    }
}
