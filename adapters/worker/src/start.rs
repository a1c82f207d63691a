//! `start`: the same program again, in a session of its own, and a wait until its socket answers.

use std::fs::{self, File};
use std::io;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use helix_actor_runner::is_private;
use helix_protocol::{Code, Failure};
use serde_json::{Value, json};

use crate::folder::{Reached, WorkerFolder};
use crate::{ServeOptions, control, line};

/// How long a worker may take to start: its guard waits for what an earlier one left to die.
const PATIENCE: Duration = Duration::from_secs(45);

/// Starts a worker unless one runs.
pub fn run(options: &ServeOptions) -> Result<ExitCode, Failure> {
    let folder = WorkerFolder::new(options.folder.clone()).make()?;
    let start = Instant::now();
    let mut child = None;
    loop {
        if let Some(status) = control::status(&folder)? {
            let started = child.is_some();
            println!(
                "{}",
                line(
                    &json!({"pid": status["pid"], "incarnation": status["incarnation"], "socket": folder.socket()?, "started": started})
                )
            );
            return Ok(ExitCode::SUCCESS);
        }
        match &mut child {
            None => {
                if matches!(folder.reach(&folder.socket()?)?, Reached::Dead) {
                    child = Some(spawn(options, &folder)?);
                }
            }
            Some(child) => {
                let ended = child.try_wait().map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
                if let Some(status) = ended
                    && folder.is_free()?
                {
                    return Err(why(&folder).unwrap_or_else(|| {
                        Failure::new(Code::InstallFailed, format!("the worker ended while it started: {status}"))
                    }));
                }
            }
        }
        if start.elapsed() > PATIENCE {
            return Err(Failure::new(
                Code::TimedOut,
                format!("the worker in {} did not answer within {} s", folder.path().display(), PATIENCE.as_secs()),
            )
            .hint(format!("{} says what it is doing", folder.log().display())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn spawn(options: &ServeOptions, folder: &WorkerFolder) -> Result<std::process::Child, Failure> {
    let refuse = |error: io::Error| Failure::new(Code::InstallFailed, format!("the worker cannot be started: {error}"));
    let program = std::env::current_exe().map_err(refuse)?;
    let said = File::create(folder.start_log()).map_err(|error| Failure::io(folder.start_log().display(), &error))?;
    let mut command = Command::new(program);
    command.args(["serve", "--detached", "--folder"]).arg(folder.path());
    command.args(["--idle-exit-s", &options.idle_exit_s.to_string(), "--cache-mib", &options.cache_mib.to_string()]);
    for hidden in &options.hide {
        command.arg("--hide").arg(hidden);
    }
    for (name, _) in std::env::vars_os() {
        // The log level is ours; keys are nobody's business on a machine that runs other people's commands.
        if name.to_str().is_some_and(|name| is_private(name) && name != helix_kernel::telemetry::VARIABLE) {
            command.env_remove(name);
        }
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().map_err(refuse)
}

/// What the worker said last before it ended.
fn why(folder: &WorkerFolder) -> Option<Failure> {
    let said = fs::read_to_string(folder.start_log()).ok()?;
    let last: Value = serde_json::from_str(said.lines().last()?).ok()?;
    serde_json::from_value(last).ok()
}
