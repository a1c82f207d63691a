//! `helios bisect run`: the snapshot with which something broke.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use clap::{Parser, Subcommand};
use helix_protocol::{Code, Failure, ObjectId, SnapshotId};
use helix_versions::{BisectStep, LocalChanges, WorkingFolder};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use super::Verb;
use super::keep::{Doomed, Reach, keep};
use super::unfinished::{self, Move};
use crate::console::{NO, OK};
use crate::context::Context;
use crate::engine::{BISECTING, SharedFolder};
use crate::here::Here;
use crate::render::history;

/// Finds the snapshot with which something broke
///
/// The files become those of one snapshot after the other, and the command is run on each, in the workspace's folder: 0 means
/// good, 125 that it cannot be told, anything else up to 127 bad. With every answer half of the snapshots between fall away. At
/// the end the files are as before. The head does not move; meanwhile other commands that need these files are refused, also those
/// that the command itself gives.
#[derive(Parser)]
#[command(
    name = "bisect",
    after_help = "Examples:\n  helios bisect run HEAD~20 HEAD -- make test\n  helios bisect run v1.0 agent-1 -- python3 -m pytest -q\n\nExit codes: 0 found, 1 it cannot be told for skipped snapshots, 128 anything else"
)]
pub struct Bisect {
    #[command(subcommand)]
    verb: BisectVerb,
}

#[derive(Subcommand)]
enum BisectVerb {
    /// Runs a command on snapshots between a good and a bad one
    #[command(
        after_help = "Examples:\n  helios bisect run HEAD~20 HEAD -- make test\n  helios bisect run v1.0 agent-1 -- python3 -m pytest -q\n\nExit codes: 0 found, 1 it cannot be told for skipped snapshots, 128 anything else"
    )]
    Run {
        /// A snapshot on which it still worked
        good: String,
        /// A snapshot on which it does not
        bad: String,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Good,
    Bad,
    Skip,
}

impl Verb for Bisect {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let BisectVerb::Run { good, bad, command } = self.verb;
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let (good, bad) = (here.resolve(&good)?, here.resolve(&bad)?);
        if !here.repository().is_ancestor(good, bad)? || good == bad {
            let message = format!("{} was not made from {}", bad.short(), good.short());
            return Err(
                Failure::new(Code::InvalidRequest, message).hint("name the good snapshot first, and a bad one that came of it")
            );
        }
        let shared = here.folder()?;
        let mut folder = super::take_turn(context, &here, &shared, LocalChanges::Keep)?;
        let base = here.repository().tree_of(&here.workspace()?.head)?;
        if folder.status(here.store(), Some(base))?.changes.iter().any(|change| change.before.is_some()) {
            return Err(Failure::new(Code::InvalidState, "there are changes that no commit has")
                .hint("commit them first: the files will change on the way"));
        }
        let mut search = Search { here: &here, shared: &shared, command: &command, at: base };
        let found = search.run(context, &mut folder, good, bad);
        // Whatever came of it, the files are the head's again: as it is by now.
        let head = here.workspace().and_then(|at| Ok(here.repository().folder_tree(&at)?));
        let back = head.and_then(|head| search.go(context, &mut folder, head));
        if back.is_ok() {
            unfinished::end(&here, here.name());
        }
        drop(folder);
        let found = found?;
        back?;
        tell(context, &here, &found)
    }
}

fn tell(context: &mut Context<'_>, here: &Here, found: &[SnapshotId]) -> Result<u8, Failure> {
    if context.is_json() {
        context.console.json(&json!({"first_bad": found}))?;
    } else if let [id] = found {
        let snapshot = here.repository().snapshot(*id)?;
        context.console.line(format!("{} is the first bad commit", id.short()))?;
        context.console.write(history::entry(*id, &snapshot, &history::Names::default(), false).as_bytes())?;
    } else {
        context.console.line("it is one of these; the command could not tell them apart:")?;
        found.iter().try_for_each(|id| context.console.line(format!("  {}", id.short())))?;
    }
    Ok(if found.len() == 1 { OK } else { NO })
}

struct Search<'a> {
    here: &'a Here,
    shared: &'a SharedFolder,
    command: &'a [OsString],
    /// The tree that the files are at.
    at: ObjectId,
}

impl Search<'_> {
    /// The first bad snapshot, or those it may be.
    fn run(
        &mut self,
        context: &mut Context<'_>,
        folder: &mut WorkingFolder,
        good: SnapshotId,
        mut bad: SnapshotId,
    ) -> Result<Vec<SnapshotId>, Failure> {
        let (mut goods, mut skipped) = (vec![good], HashSet::new());
        loop {
            let (next, left) = match self.here.repository().bisect(bad, &goods, &skipped)? {
                BisectStep::Test { snapshot, left, .. } => (snapshot, left),
                BisectStep::Found(id) => return Ok(vec![id]),
                BisectStep::OneOf(ids) => return Ok(ids),
                BisectStep::Nothing => return Ok(Vec::new()),
            };
            let snapshot = self.here.repository().snapshot(next)?;
            if context.is_json() {
                context.console.json(&json!({"testing": next, "left": left}))?;
            } else {
                context.console.line(format!("[{left} left] {} {}", next.short(), history::subject(&snapshot)))?;
            }
            self.go(context, folder, snapshot.tree)?;
            match self.ask(context)? {
                Answer::Good => goods.push(next),
                Answer::Bad => bad = next,
                Answer::Skip => {
                    skipped.insert(next);
                }
            }
        }
    }

    /// Makes the files a snapshot's. What the command wrote into files that differ is kept, and in nobody's way.
    fn go(&mut self, context: &mut Context<'_>, folder: &mut WorkingFolder, to: ObjectId) -> Result<(), Failure> {
        let workspace = self.here.workspace()?;
        let (here, base, reach) = (self.here, self.at, Reach::All);
        keep(context, folder, &mut Doomed { here, workspace: &workspace, verb: "bisect", base, to, reach, seen: None })?;
        Move { from: base, to: Some(to) }.begin(here, here.name());
        folder.switch(self.here.store(), Some(base), to, LocalChanges::Discard)?;
        Move { from: to, to: None }.begin(here, here.name());
        self.at = to;
        Ok(())
    }

    fn ask(&self, context: &mut Context<'_>) -> Result<Answer, Failure> {
        let (program, arguments) = self.command.split_first().expect("the parser asks for a command");
        let _lent = self.shared.lend();
        let mut command = Command::new(program);
        if context.engine.stays() {
            // No terminal ends it, so the engine does, with whatever it has started.
            command.process_group(0);
        }
        let mut child = command
            .args(arguments)
            // As in git: a folder beneath it need not be in every snapshot.
            .current_dir(&self.here.location.root)
            .env_clear()
            .envs(context.caller.variables())
            // Without an engine its commands would wait for the store, which this process has.
            .env(BISECTING, &self.here.location.repository)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::io(program.display(), &error).hint("name a program that can be run"))?;
        let handed_on = hand_on(&mut child, context);
        if handed_on.is_err() {
            // Nobody waits for it any more; where it has ended by itself there is nothing to kill.
            let _ = match child.id().try_into().ok().and_then(Pid::from_raw).filter(|_| context.engine.stays()) {
                Some(group) => kill_process_group(group, Signal::KILL).map_err(io::Error::from),
                None => child.kill(),
            };
        }
        let status = child.wait().map_err(|error| Failure::io(program.display(), &error))?;
        handed_on?;
        match status.code() {
            Some(0) => Ok(Answer::Good),
            Some(125) => Ok(Answer::Skip),
            Some(1..=127) => Ok(Answer::Bad),
            _ => Err(Failure::new(Code::CommandFailed, format!("{} ended with {status}", program.display()))
                .hint("0 means good, 1 to 127 bad, 125 that it cannot be told")),
        }
    }
}

/// Hands the output of a command on as it comes, until it has ended: beside ours, or as standard error where ours is JSON.
fn hand_on(child: &mut Child, context: &mut Context<'_>) -> Result<(), Failure> {
    let (sender, receiver) = channel::<Vec<u8>>();
    let streams: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|stream| Box::new(stream) as _), child.stderr.take().map(|stream| Box::new(stream) as _)];
    for mut stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    loop {
        if context.engine.is_leaving() {
            return Err(Failure::new(Code::Overloaded, "the engine leaves, so the search was given up and the files put back")
                .hint("run it again"));
        }
        match receiver.recv_timeout(Duration::from_millis(200)) {
            Ok(bytes) if context.is_json() => context.console.aside(&String::from_utf8_lossy(&bytes))?,
            Ok(bytes) => context.console.write(&bytes).and_then(|()| context.console.flush())?,
            Err(RecvTimeoutError::Timeout) => context.console.check()?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
