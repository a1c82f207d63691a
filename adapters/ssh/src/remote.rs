//! A worker on a host with a shell: look, install, start, attach, remove.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use helix_ports::{ConnectError, DeathProof, Duplex, InstallReport};
use helix_protocol::{Code, Failure};
use tokio::io::AsyncReadExt;

use crate::programs::{Program, Programs};
use crate::scripts::{self, Probe};
use crate::shell::{End, Opened, RemoteShell, hangs};
use crate::{refusal, shell};

/// How long an upload may take.
const UPLOAD: Duration = Duration::from_secs(600);
/// How long a worker may take to start: it waits for what an earlier one left to die.
pub(crate) const START: Duration = Duration::from_secs(60);
/// How much a login shell may say before the bridge is ready.
const GREETING: usize = 64 * 1024;

/// One worker on one host.
pub(crate) struct RemoteWorker<'a> {
    pub shell: &'a dyn RemoteShell,
    pub programs: &'a Programs,
    /// Names the worker's folder: two nodes may use one account.
    pub node: &'a str,
    /// How long anything but an upload or a start may take.
    pub limit: Duration,
    /// Which program serves which host.
    pub known: &'a Known,
}

/// The version of the program that a host was last found to need, so that a connection costs one login.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(Arc<Mutex<HashMap<String, String>>>);

impl Known {
    fn get(&self, host: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    fn note(&self, host: String, version: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host, version);
    }
}

impl RemoteWorker<'_> {
    async fn exec(&self, script: &str) -> Result<(End, String), ConnectError> {
        self.shell.exec(script, None, self.limit).await
    }

    async fn probe(&self) -> Result<Probe, ConnectError> {
        let (end, output) = self.exec(&scripts::probe()).await?;
        let probe = Probe::read(&output);
        if probe.machine.is_empty() {
            return Err(self.no_shell(&end));
        }
        Ok(probe)
    }

    fn no_shell(&self, end: &End) -> ConnectError {
        let said = refusal::last_line(&end.stderr);
        ConnectError::Refused(
            Failure::new(Code::InstallFailed, format!("{} does not run shell scripts for this account: {said}", self.shell.host()))
                .hint("the account needs a POSIX shell at /bin/sh and no forced command"),
        )
    }

    async fn program(&self, machine: &str) -> Result<Program, ConnectError> {
        let (programs, machine) = (self.programs.clone(), machine.to_owned());
        let found = tokio::task::spawn_blocking(move || programs.for_machine(&machine)).await;
        let found = found.unwrap_or_else(|error| Err(Failure::new(Code::Internal, format!("reading the worker program: {error}"))));
        found.map_err(ConnectError::Refused)
    }

    /// The host and the program for it.
    async fn look(&self) -> Result<(Probe, Program), ConnectError> {
        let probe = self.probe().await?;
        let host = self.shell.host();
        if probe.system != "Linux" {
            return Err(ConnectError::Refused(
                Failure::new(Code::InstallFailed, format!("{host} runs {}, and workers run on Linux", probe.system))
                    .hint("name a Linux machine"),
            ));
        }
        let program = self.program(&probe.machine).await?;
        self.known.note(host, program.version.clone());
        Ok((probe, program))
    }

    async fn version(&self) -> Result<String, ConnectError> {
        match self.known.get(&self.shell.host()) {
            Some(version) => Ok(version),
            None => Ok(self.look().await?.1.version),
        }
    }

    /// Puts the program where it is missing.
    pub(crate) async fn install(&self) -> Result<InstallReport, ConnectError> {
        let (probe, program) = self.look().await?;
        let host = self.shell.host();
        let path = format!("{}/.local/share/helix/worker/programs/{}/helix-worker", probe.home, program.version);
        let present = probe.versions.contains(&program.version);
        let report = |uploaded_bytes| InstallReport { arch: probe.machine.clone(), program: path.clone(), present, uploaded_bytes };
        if present {
            return Ok(report(0));
        }
        if !probe.writable {
            return Err(ConnectError::Refused(
                Failure::new(
                    Code::InstallFailed,
                    format!("permission denied: {}/.local/share/helix/worker on {host} cannot be written", probe.home),
                )
                .hint("the account's home folder must be writable"),
            ));
        }
        program.check_loader(&host, &probe.loaders).map_err(ConnectError::Refused)?;
        let needed = program.length.div_ceil(1024);
        if let Some(free) = probe.free_kib.filter(|free| *free < needed) {
            return Err(ConnectError::Refused(
                Failure::new(Code::DiskFull, format!("{host} has {free} KiB free, and the worker program takes {needed}"))
                    .hint("free some space in the home folder there"),
            ));
        }
        let script = scripts::install(&program.version, program.length);
        let (end, _) = self.shell.exec(&script, Some(program.path.clone()), UPLOAD).await?;
        match end.status {
            Some(0) => Ok(report(program.length)),
            _ => Err(refusal::of_install(&host, &probe.machine, &end)),
        }
    }

    /// Starts the process.
    pub(crate) async fn start(&self) -> Result<(), ConnectError> {
        let script = scripts::start(&self.version().await?, self.node);
        let (end, output) = self.shell.exec(&script, None, START).await?;
        match end.status {
            Some(0) if output.lines().any(|line| line == "helix:absent") => Err(self.absent()),
            Some(0) => Ok(()),
            _ => Err(refusal::of_worker(&self.shell.host(), "started", &end)),
        }
    }

    /// Bridges to the running process.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Duplex>, ConnectError> {
        let script = scripts::attach(&self.version().await?, self.node);
        let Opened { mut stream, end } = self.shell.open(&script).await?;
        let host = self.shell.host();
        let greeted = tokio::time::timeout(self.limit, greeting(&mut stream)).await.map_err(|_| hangs(&host, self.limit))?;
        match greeted {
            Greeting::Ready => Ok(stream),
            Greeting::Absent => Err(self.absent()),
            Greeting::Ended => {
                drop(stream);
                let end = tokio::time::timeout(self.limit, end).await.map_err(|_| hangs(&host, self.limit))?;
                let end = end.unwrap_or_else(|_| Ok(End::default()))?;
                Err(refusal::of_worker(&host, "reached", &end))
            }
        }
    }

    /// Stops the process and deletes everything.
    pub(crate) async fn remove(&self) -> Result<(), ConnectError> {
        let (_, program) = self.look().await?;
        let (end, _) = self.exec(&scripts::remove(&program.version, self.node)).await?;
        match end.status {
            Some(0) => Ok(()),
            _ => match refusal::of_worker(&self.shell.host(), "removed", &end) {
                ConnectError::Dead(DeathProof::ConnectionRefused) => Ok(()),
                other => Err(other),
            },
        }
    }

    fn absent(&self) -> ConnectError {
        ConnectError::Refused(
            Failure::new(Code::InstallFailed, format!("the worker program of this version is not on {}", self.shell.host()))
                .hint("it is installed again by itself"),
        )
    }
}

enum Greeting {
    Ready,
    Absent,
    Ended,
}

/// Reads up to the bridge's own line, byte by byte, because the next byte is the link's.
async fn greeting(stream: &mut Box<dyn Duplex>) -> Greeting {
    let mut line = Vec::new();
    for _ in 0..GREETING {
        let Ok(byte) = stream.read_u8().await else { return Greeting::Ended };
        if byte != b'\n' {
            shell::keep(&mut line, &[byte]);
            continue;
        }
        match line.as_slice() {
            b"helix:ready" => return Greeting::Ready,
            b"helix:absent" => return Greeting::Absent,
            _ => line.clear(),
        }
    }
    Greeting::Ended
}
