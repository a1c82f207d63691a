//! The binary `helix-worker`: one per worker folder, detached, reached through a socket.

mod agent;
mod attach;
mod control;
mod folder;
mod log_file;
mod serve;
mod start;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use helix_actor_runner::{Inspector, Pace, guard, sandbox};
use helix_protocol::{Failure, Sandboxing};

use crate::folder::WorkerFolder;

/// Runs commands and file tools in workspaces, for a Helix node.
#[derive(Parser)]
#[command(
    name = "helix-worker",
    version,
    after_help = "Exit codes: 0 success, 1-10 as `helix explain` lists them; `attach` has its own, see its help."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serves in the foreground until SIGTERM, `stop`, or the idle limit.
    Serve {
        #[command(flatten)]
        options: ServeOptions,
        /// Where log lines go.
        #[arg(long, value_enum, default_value_t = LogTo::File)]
        log: LogTo,
        /// Leaves the terminal and the session it was started from.
        #[arg(long, hide = true)]
        detached: bool,
    },
    /// Starts `serve` detached and returns once its socket answers. Prints one JSON line.
    Start {
        #[command(flatten)]
        options: ServeOptions,
    },
    /// Bridges standard input and output to the worker's socket.
    ///
    /// Exit codes: 0 the connection was made and has ended; 20 the worker is dead (its socket refuses and its lock is free); 21 it
    /// is running or starting and does not answer; 22 anything else. The last line on standard error says why, as JSON.
    Attach {
        /// The worker's folder.
        #[arg(long)]
        folder: PathBuf,
        /// Over standard input and output. The only way there is.
        #[arg(long, required = true)]
        stdio: bool,
    },
    /// Says what the worker in a folder is doing. Exit code 3 where none runs.
    Status {
        /// The worker's folder.
        #[arg(long)]
        folder: PathBuf,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Ends the worker in a folder and everything it runs.
    Stop {
        /// The worker's folder.
        #[arg(long)]
        folder: PathBuf,
        /// Deletes the workspaces and everything else the worker made in the folder, and the folder where nothing else lies there.
        #[arg(long)]
        wipe: bool,
    },
    /// Says what this machine has.
    Facts {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Runs what a worker orders, shut in. Started by it.
    #[command(hide = true)]
    Sandbox {
        /// Only says, as JSON, what this machine can give; tried in this folder.
        #[arg(long, value_name = "FOLDER")]
        probe: Option<PathBuf>,
    },
    /// Has an agent make one turn in a workspace. Started by the worker.
    #[command(hide = true)]
    Agent,
    /// Watches a worker. Started by it.
    #[command(hide = true)]
    Guard {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        incarnation: u64,
    },
}

/// How a worker serves.
#[derive(Args, Clone, Debug)]
struct ServeOptions {
    /// Where everything it keeps lies. Made where it is missing; refused where it has files that no worker made.
    #[arg(long)]
    folder: PathBuf,
    /// It leaves when no node has held a lease for this many seconds.
    #[arg(long, default_value_t = 24 * 60 * 60)]
    idle_exit_s: u64,
    /// How large its cache of content may grow, in MiB.
    #[arg(long, default_value_t = 8 * 1024)]
    cache_mib: u64,
    /// What sandboxed commands may not read, beside credentials and this folder. May be given several times.
    #[arg(long, value_name = "PATH")]
    hide: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogTo {
    /// `worker.log` in the folder, rotated.
    File,
    /// Standard error.
    Stderr,
}

fn main() -> ExitCode {
    // A command waits for this one, which has no options to be read.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|verb| verb == "sandbox") && arguments.next().is_none() {
        return sandbox::run();
    }
    let done = match Cli::parse().verb {
        Verb::Sandbox { probe: None } => return sandbox::run(),
        Verb::Sandbox { probe: Some(folder) } => return sandbox::probe(&folder),
        Verb::Serve { options, log, detached } => serve::run(&options, log, detached),
        Verb::Start { options } => start::run(&options),
        Verb::Attach { folder, stdio: _ } => return attach::run(&WorkerFolder::new(folder)),
        Verb::Status { folder, json } => control::print_status(&WorkerFolder::new(folder), json),
        Verb::Stop { folder, wipe } => control::stop(&WorkerFolder::new(folder), wipe),
        Verb::Facts { json } => facts(json),
        Verb::Agent => agent::run(),
        Verb::Guard { folder, incarnation } => guard::run(&folder, incarnation).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|failure| {
        eprintln!("{}", line(&failure));
        ExitCode::from(failure.code.exit_code())
    })
}

/// A value as one line of JSON.
fn line(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("our own types can always be encoded")
}

fn facts(json: bool) -> Result<ExitCode, Failure> {
    let runtime = serve::runtime()?;
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let facts = runtime.block_on(async {
        let found = match std::env::current_exe() {
            Ok(program) => sandbox::what_is_there(&program, &std::env::temp_dir()).await,
            Err(error) => Err(format!("this program's own path is unknown: {error}")),
        };
        let found = found.unwrap_or_else(|why| Sandboxing { lacks: vec![why], ..Sandboxing::default() });
        Inspector::new(here, found).look(Pace::Prompt).await
    });
    if json {
        println!("{}", line(&facts));
        return Ok(ExitCode::SUCCESS);
    }
    let resources = facts.resources;
    println!("{} ({} {})", facts.hostname, facts.os, facts.arch);
    println!(
        "{} cores, {} of {} MiB memory free, {} of {} MiB disk free, {} GPUs",
        resources.cores,
        resources.memory_free_mib,
        resources.memory_mib,
        resources.disk_free_mib,
        resources.disk_mib,
        resources.gpus
    );
    println!("sandbox: {}", facts.sandbox);
    for tool in facts.toolchains {
        println!("{:<10} {}", tool.name, tool.version);
    }
    Ok(ExitCode::SUCCESS)
}
