//! A node in the background: what `helix up --detach` and the first `helix run` start.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use helix_protocol::{Code, Failure};

use super::DataFolder;

/// How long a node may take to open its stores. Recovery after a crash with a large log is the slow case.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Starts a node of this program in a session of its own, logging into the data folder, and returns when its socket answers.
///
/// It inherits this process' environment, keys of model servers included, with `variables` over it. Answers at once where one runs. The
/// failure quotes the end of the log.
pub fn start_in_background(folder: &DataFolder, config: Option<&Path>, variables: &[(&str, String)]) -> Result<(), Failure> {
    if folder.holder().is_some() {
        return wait_for_socket(folder, None);
    }
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
    let mut child = command.spawn().map_err(|error| Failure::io("starting the node", &error))?;
    wait_for_socket(folder, Some(&mut child))
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
pub(super) fn wait_for_socket(folder: &DataFolder, mut child: Option<&mut std::process::Child>) -> Result<(), Failure> {
    let started = Instant::now();
    // Where the socket is may be what the node is about to say.
    while std::os::unix::net::UnixStream::connect(folder.socket()).is_err() {
        let ended = child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            return Err(did_not_start(folder, &format!("the node ended at once: {status}")));
        }
        if started.elapsed() > START_LIMIT {
            return Err(did_not_start(folder, &format!("the node did not answer within {} s", START_LIMIT.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn did_not_start(folder: &DataFolder, what: &str) -> Failure {
    let log = std::fs::read_to_string(folder.log()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("\n");
    Failure::new(Code::NodeUnreachable, format!("{what}\n{tail}")).hint(format!("the whole log is {}", folder.log().display()))
}
