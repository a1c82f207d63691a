//! Commands in a workspace, and the reports of their ends.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use helix_kernel::Secrets;
use helix_objects::{Durability, NewObject, ObjectStore};
use helix_protocol::{CallKey, Environment, Epoch, ExitReport, Failure, RunId};

use super::{Engine, blocking};
use crate::command::{CommandLine, run, shell};
use crate::sandbox::{Program, Sandbox};
use crate::spool::{Spool, TAIL};
use crate::surroundings::{Marks, variables};
use crate::workspace::{Opening, Workspace};

/// A command to be run.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) run: RunId,
    pub(super) text: String,
    pub(super) timeout_ms: Option<u64>,
    /// The worker's own program instead; `text` is what the report calls it then.
    pub(super) own: Option<Own>,
}

impl Command {
    /// A shell's.
    pub(super) fn shell(run: RunId, text: String, timeout_ms: Option<u64>) -> Self {
        Self { run, text, timeout_ms, own: None }
    }
}

/// The worker's own program, run as a command.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) arguments: Vec<String>,
    pub(super) input: OwnedFd,
    /// Masked in its output beside the task's secrets.
    pub(super) secret: Option<String>,
}

/// A command that has ended.
pub(super) struct Ran {
    pub(super) report: ExitReport,
    pub(super) spool: Arc<Spool>,
}

impl Engine {
    /// Runs a command to its end and reports it, unless the workspace was opened anew meanwhile.
    pub(super) async fn run_command(
        &self,
        workspace: &Arc<Workspace>,
        opening: Opening,
        key: &CallKey,
        command: Command,
    ) -> Result<Ran, Failure> {
        let _gate = workspace.gate.read().await;
        self.run_inside(workspace, opening, key, command).await
    }

    /// As `run_command`, for whoever holds the gate already.
    pub(super) async fn run_inside(
        &self,
        workspace: &Arc<Workspace>,
        opening: Opening,
        key: &CallKey,
        command: Command,
    ) -> Result<Ran, Failure> {
        let Command { run: id, text, timeout_ms, own } = command;
        workspace.check_opening(opening)?;
        let spool = self.spools.create(&workspace.output(), id)?;
        // Registered before the opening is looked at: whoever opens anew afterwards finds and stops this run.
        let stopper = workspace.starting(key);
        let line = self.line(workspace, opening, Command { run: id, text: text.clone(), timeout_ms, own }).await;
        let ending = match line {
            Ok(line) => run(line, Arc::clone(&spool), &stopper).await,
            Err(failure) => Err(failure),
        };
        workspace.ended(key);
        spool.end();
        let ending = ending?;
        workspace.check_opening(opening)?;
        if let Some(failure) = spool.failure() {
            return Err(failure);
        }
        let report = self.report(id, text, ending.exit_code(), &spool).await?;
        workspace.ended_with(&report);
        Ok(Ran { report, spool })
    }

    async fn line(&self, workspace: &Arc<Workspace>, opening: Opening, command: Command) -> Result<CommandLine, Failure> {
        let Command { run, text, timeout_ms, own } = command;
        workspace.check_opening(opening)?;
        self.lease.check()?;
        let (environment, epoch) = {
            let state = workspace.state.lock();
            (state.environment.clone(), state.kept.epoch)
        };
        let marks = self.marks(workspace, epoch);
        let sandbox = self.sandbox(workspace, opening, &environment, marks).await?;
        // Making one takes a while.
        workspace.check_opening(opening)?;
        self.lease.check()?;
        let mut state = workspace.state.lock();
        state.clean = false;
        let policy = sandbox.policy();
        let (program, input, secret) = match own {
            None => {
                let (program, input) = shell(text)?;
                (program, input, None)
            }
            Some(own) => (Program::Own(own.arguments), Some(own.input), own.secret),
        };
        let secrets = match secret {
            None => state.masks.clone(),
            Some(secret) => Secrets::new(state.secrets.iter().map(|(_, value)| value.as_str()).chain([secret.as_str()])),
        };
        Ok(CommandLine {
            run,
            program,
            input,
            folder: policy.seen_workspace().to_owned(),
            variables: variables(&state.environment, &state.secrets, &state.ports, marks, policy),
            secrets,
            timeout: timeout_ms.map(Duration::from_millis),
            sandbox: sandbox.clone(),
        })
    }

    /// What commands of an opening run in, made where it does not stand yet.
    async fn sandbox(
        &self,
        workspace: &Workspace,
        opening: Opening,
        environment: &Environment,
        marks: Marks<'_>,
    ) -> Result<Arc<Sandbox>, Failure> {
        let make = || async {
            let policy = self.sandboxes.policy(environment, &workspace.root(), &workspace.temporary())?;
            Sandbox::start(self.sandboxes.program(), policy, &marks.of_sandbox()).await
        };
        workspace.sandbox(opening, environment, make).await
    }

    fn marks(&self, workspace: &Workspace, epoch: Epoch) -> Marks<'_> {
        Marks { incarnation: self.incarnation, folder: &self.folder, task: workspace.task, epoch }
    }

    async fn report(&self, run: RunId, command: String, exit_code: i32, spool: &Arc<Spool>) -> Result<ExitReport, Failure> {
        let output_bytes = spool.progress().came;
        let mut output = None;
        if output_bytes > TAIL as u64 {
            let (spool, store) = (Arc::clone(spool), Arc::clone(&self.store));
            output = Some(
                blocking(move || {
                    let object = NewObject::new(spool.whole()?);
                    store.put(std::slice::from_ref(&object), Durability::NoSync)?;
                    Ok(object.id())
                })
                .await?,
            );
        }
        Ok(ExitReport { run, command, exit_code, tail: spool.tail(), output, output_bytes })
    }
}
