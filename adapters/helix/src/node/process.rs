//! A node as a child process: what the demo, the tests and the benches start, kill and start again.
//!
//! It is what its file says, whatever the environment holds: a person's DATABASE_URL is for their own programs, and not a place for
//! the tables of a demo.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use helix_config::changes_a_node;
use helix_protocol::{Code, Failure};
use rustix::process::{Pid, Signal, kill_process};

use super::{DataFolder, background};
use crate::client::Client;

/// How long a node may take to leave once it was told to.
const LEAVING_LIMIT: Duration = Duration::from_secs(60);

/// A running node on a data folder. Dropping it kills the process; its workers are detached and go on until their leases end.
#[derive(Debug)]
pub struct NodeProcess {
    program: PathBuf,
    folder: DataFolder,
    config: PathBuf,
    variables: Vec<(String, String)>,
    child: Child,
}

impl NodeProcess {
    /// Runs `program up` on a data folder and returns once the node answers. It logs into the folder.
    pub fn start(program: &Path, folder: &DataFolder, config: &Path) -> Result<Self, Failure> {
        Self::start_with(program, folder, config, Vec::new())
    }

    /// The same, with these environment variables, for example the key of a provider that the file names.
    pub fn start_with(
        program: &Path,
        folder: &DataFolder,
        config: &Path,
        variables: Vec<(String, String)>,
    ) -> Result<Self, Failure> {
        let mut child = spawn(program, folder, config, &variables)?;
        background::wait_for_socket(folder, &mut child)?;
        Ok(Self { program: program.to_owned(), folder: folder.clone(), config: config.to_owned(), variables, child })
    }

    /// Starts a node again after [`kill`](Self::kill) or [`stop`](Self::stop).
    pub fn start_again(&mut self) -> Result<(), Failure> {
        let variables = std::mem::take(&mut self.variables);
        *self = Self::start_with(&self.program, &self.folder, &self.config, variables)?;
        Ok(())
    }

    /// A client of it.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::of(&self.folder)
    }

    /// Its data folder.
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and the wait until it is gone.
    pub fn kill(&mut self) -> Result<ExitStatus, Failure> {
        let io = |error: std::io::Error| Failure::io("killing the node", &error);
        self.child.kill().map_err(io)?;
        self.child.wait().map_err(io)
    }

    /// SIGTERM, and the wait until it has parked its tasks and left.
    pub fn stop(&mut self) -> Result<ExitStatus, Failure> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child's process id is positive");
        // That it is gone already is what is wanted.
        let _ = kill_process(pid, Signal::TERM);
        let started = Instant::now();
        while started.elapsed() < LEAVING_LIMIT {
            if let Some(status) = self.child.try_wait().map_err(|error| Failure::io("waiting for the node", &error))? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(Failure::new(Code::TimedOut, format!("the node did not leave within {} s", LEAVING_LIMIT.as_secs()))
            .hint(format!("its log is {}", self.folder.log().display())))
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // Both fail only where the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, folder: &DataFolder, config: &Path, variables: &[(String, String)]) -> Result<Child, Failure> {
    folder.prepare()?;
    let path = folder.log();
    let io = |error: std::io::Error| Failure::io(path.display(), &error);
    let log = OpenOptions::new().create(true).append(true).open(&path).map_err(io)?;
    let mut command = Command::new(program);
    command.arg("--data").arg(folder.root()).arg("--config").arg(config).arg("up");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(changes_a_node) {
            command.env_remove(name);
        }
    }
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(io)?).stderr(log);
    // A Ctrl-C at the terminal is for whoever started the node, which then stops it in order.
    command.process_group(0);
    command.spawn().map_err(|error| Failure::io(program.display(), &error))
}
