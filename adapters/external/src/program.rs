//! The agent's program: its variables and files with what a turn puts into them, its start and its end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use helix_protocol::{AgentTurn, Code, Failure};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

use crate::life::Life;

/// How long a program whose work is done may take to write its session down and leave.
const LEAVING: Duration = Duration::from_secs(5);
/// How much is kept of what it says on standard error, in bytes: a session is looked for at the start.
const MOST_COMPLAINTS: usize = 64 << 10;
/// How long the end of standard error is waited for once the program has ended: something that it left running may hold it open.
const COMPLAINING: Duration = Duration::from_secs(1);
/// The exit code with which a shell says that there is no such program.
pub(crate) const NO_SUCH_PROGRAM: i32 = 127;

/// What is started, with everything filled in.
#[derive(Debug)]
pub(crate) struct Program {
    agent: String,
    workspace: PathBuf,
    session: PathBuf,
    variables: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
}

impl Program {
    /// Fills the turn's values in. A variable, or a file, with a placeholder that has no value in this turn is left out.
    pub fn new(turn: &AgentTurn, workspace: &Path, session: &Path, gateway: Option<&str>) -> Self {
        let home = std::env::var("HOME").ok();
        let text = |path: &Path| Some(path.display().to_string());
        let values = [
            ("{session}", text(session)),
            ("{workspace}", text(workspace)),
            ("{home}", home),
            ("{model}", turn.model.clone()),
            ("{gateway}", gateway.map(str::to_owned)),
            ("{sandboxed}", turn.sandboxed.then(|| "1".to_owned())),
            ("{key}", turn.gateway.as_ref().map(|gateway| gateway.key.clone())),
        ];
        let fill = |map: &BTreeMap<String, String>| {
            map.iter().filter_map(|(name, template)| Some((name.clone(), filled(template, &values)?))).collect::<BTreeMap<_, _>>()
        };
        Self {
            agent: turn.agent.clone(),
            workspace: workspace.to_owned(),
            session: session.to_owned(),
            variables: fill(&turn.program.environment),
            files: fill(&turn.program.files),
        }
    }

    /// Writes the files of its configuration.
    pub fn write_files(&self) -> Result<(), Failure> {
        for (name, text) in &self.files {
            let file = self.session.join(name);
            let inside = Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if !inside {
                return Err(Failure::new(Code::InvalidConfig, format!("{name:?} is no path below the agent's session folder")));
            }
            let folder = file.parent().unwrap_or(&self.session);
            let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, text));
            written.map_err(|error| Failure::io(file.display(), &error))?;
        }
        Ok(())
    }

    /// Starts `command`, with its standard input and output for us. What it says on standard error is passed on, and a sign of
    /// life.
    pub fn start(&self, command: &str, more: &[(&str, &str)], life: &Life) -> Result<Running, Failure> {
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(command)
            .current_dir(&self.workspace)
            .envs(&self.variables)
            .envs(more.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::io(format!("sh in {}", self.workspace.display()), &error))?;
        life.sign();
        let complaints = child.stderr.take().map(|errors| tokio::spawn(passed_on(errors, life.clone())));
        Ok(Running { agent: self.agent.clone(), child, complaints })
    }
}

/// `template` with its placeholders replaced; `None` where one has no value.
fn filled(template: &str, values: &[(&str, Option<String>)]) -> Option<String> {
    let mut text = template.to_owned();
    for (placeholder, value) in values {
        if text.contains(placeholder) {
            text = text.replace(placeholder, value.as_deref()?);
        }
    }
    Some(text)
}

/// A program that runs. It ends, with everything in its group, when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    agent: String,
    pub child: Child,
    complaints: Option<JoinHandle<String>>,
}

impl Running {
    /// Waits a while for it to leave by itself, its standard input being closed. The exit code; 128 + N where signal N ended it.
    pub async fn leave(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        let left = tokio::time::timeout(LEAVING, self.child.wait()).await.ok()?.ok().map(code);
        self.complained().await;
        left
    }

    /// Waits for what it said on standard error to be passed on, once it has ended: the beginning of that.
    pub async fn complained(&mut self) -> String {
        match self.complaints.take() {
            Some(complaints) => tokio::time::timeout(COMPLAINING, complaints).await.ok().and_then(Result::ok).unwrap_or_default(),
            None => String::new(),
        }
    }

    /// Why nothing more comes from it, as a failure of this code.
    pub async fn ended(mut self, code_of_it: Code, when: &str) -> Failure {
        let status = tokio::time::timeout(LEAVING, self.child.wait()).await;
        self.complained().await;
        match status.ok().and_then(Result::ok).map(code) {
            Some(NO_SUCH_PROGRAM) => {
                Failure::new(Code::ProgramMissing, format!("the program of the agent {} is not on this worker", self.agent))
                    .hint("install it there; docs/agents.md says how each is run, and `agents.programs` in helix.yaml changes it")
            }
            Some(code) => Failure::new(code_of_it, format!("the agent {} ended with exit code {code} {when}", self.agent)),
            None => Failure::new(code_of_it, format!("the agent {} closed its output {when}", self.agent)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Passes what is said on standard error on to where ours goes, and gives its beginning back.
async fn passed_on(mut errors: ChildStderr, life: Life) -> String {
    use std::io::Write;
    let (mut said, mut piece) = (Vec::new(), vec![0; 16 << 10]);
    while let Ok(length @ 1..) = errors.read(&mut piece).await {
        life.sign();
        let _ = std::io::stderr().write_all(&piece[..length]);
        let room = MOST_COMPLAINTS.saturating_sub(said.len());
        said.extend_from_slice(&piece[..length.min(room)]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// The exit code as a shell would say it.
pub(crate) fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_without_a_value_leaves_the_variable_out() {
        let values = [("{key}", None), ("{gateway}", Some("http://127.0.0.1:1".to_owned()))];
        assert_eq!(filled("{gateway}/v1", &values).as_deref(), Some("http://127.0.0.1:1/v1"));
        assert_eq!(filled("{key}", &values), None);
        assert_eq!(filled("{\"a\": 1}", &values).as_deref(), Some("{\"a\": 1}"));
    }
}
