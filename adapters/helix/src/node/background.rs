//! A node in the background: what `helix up --detach` and the first `helix run` start.

use std::fs::OpenOptions;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use helix_protocol::{Code, Failure};

use super::DataFolder;

/// How long a node may take to open its stores. Recovery after a crash with a large log is the slow case.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often is looked whether a node answers.
const GLANCE: Duration = Duration::from_millis(20);

/// Starts a node of this program in a session of its own, logging into the data folder, and returns when its socket answers.
///
/// It inherits this process' environment, keys of model servers included, with `variables` over it. Where a node runs or starts
/// already, that one is waited for; one that ends meanwhile is replaced. The failure quotes the end of the log.
pub fn start_in_background(folder: &DataFolder, config: Option<&Path>, variables: &[(&str, String)]) -> Result<(), Failure> {
    let started = Instant::now();
    while !answers(folder) {
        if started.elapsed() > START_LIMIT {
            return Err(silent(folder));
        }
        if folder.is_held() {
            std::thread::sleep(GLANCE);
            continue;
        }
        let mut child = spawn(folder, config, variables)?;
        match wait_for_socket(folder, &mut child) {
            // Another one was faster.
            Err(_) if folder.is_held() => {}
            started => return started,
        }
    }
    Ok(())
}

fn spawn(folder: &DataFolder, config: Option<&Path>, variables: &[(&str, String)]) -> Result<Child, Failure> {
    folder.prepare()?;
    let log_path = folder.log();
    let io = |error: std::io::Error| Failure::io(log_path.display(), &error);
    let log = OpenOptions::new().create(true).append(true).open(&log_path).map_err(io)?;
    let program = std::env::current_exe().map_err(|error| Failure::io("this program", &error))?;
    let mut command = Command::new(program);
    command.arg("--data").arg(folder.root());
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    command.arg("up").stdin(Stdio::null()).stdout(log.try_clone().map_err(io)?).stderr(log).current_dir("/");
    command.envs(variables.iter().map(|(name, value)| (*name, value)));
    leave_the_terminal(&mut command);
    command.spawn().map_err(|error| Failure::io("starting the node", &error))
}

/// The node must outlive the terminal it was started from, so it gets a session of its own.
fn leave_the_terminal(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe, and the closure does nothing else between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
    }
}

/// Returns once the socket answers, and fails as soon as the process that should bind it has ended.
pub(super) fn wait_for_socket(folder: &DataFolder, child: &mut Child) -> Result<(), Failure> {
    let started = Instant::now();
    while !answers(folder) {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(did_not_start(folder, &format!("the node ended at once: {status}")));
        }
        if started.elapsed() > START_LIMIT {
            return Err(silent(folder));
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

/// Looks anew where the socket is: that may be what the node is about to say.
fn answers(folder: &DataFolder) -> bool {
    UnixStream::connect(folder.socket()).is_ok()
}

fn silent(folder: &DataFolder) -> Failure {
    did_not_start(folder, &format!("the node did not answer within {} s", START_LIMIT.as_secs()))
}

fn did_not_start(folder: &DataFolder, what: &str) -> Failure {
    let log = std::fs::read_to_string(folder.log()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("\n");
    Failure::new(Code::NodeUnreachable, format!("{what}\n{tail}")).hint(format!("the whole log is {}", folder.log().display()))
}
