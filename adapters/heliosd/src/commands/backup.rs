//! `helios backup`: copies of the whole store.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use helix_objects::write_no_follow;
use helix_protocol::{Code, Failure};
use helix_rocks::{Backup, RocksStore};
use helix_versions::LocalChanges;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::json;

use super::loss::{self, Consent};
use super::{Verb, stats::bytes};
use crate::console::{NO, OK};
use crate::context::Context;
use crate::engine::PinnedStore;
use crate::engine::location::{Location, MARKER};
use crate::here::{Here, queue};

/// Makes, checks and restores backups
///
/// A backup is a folder with a manifest of hashes; on the same file system its tables take no room of their own. Others may commit
/// while it is made.
#[derive(Parser)]
#[command(
    name = "backup",
    after_help = "Examples:\n  helios backup create /backups/monday\n  helios backup verify /backups/monday\n  helios backup restore /backups/monday project\n  helios backup restore --replace /backups/monday .\n  helios backup accept-loss --yes\n\nExit codes: 0; 1 where `verify` finds damage, and for a loss that nobody has accepted"
)]
pub struct BackupCommand {
    #[command(subcommand)]
    verb: BackupVerb,
}

#[derive(Subcommand)]
enum BackupVerb {
    /// Writes a backup of this repository
    #[command(after_help = "Examples:\n  helios backup create /backups/monday")]
    Create {
        /// A folder that is missing or empty
        to: PathBuf,
    },
    /// Reads a whole backup and checks every hash
    #[command(after_help = "Examples:\n  helios backup verify /backups/monday\n\nExit codes: 0 sound, 1 it is damaged")]
    Verify {
        /// The backup
        backup: PathBuf,
    },
    /// Makes a repository of a backup
    #[command(
        after_help = "Examples:\n  helios backup restore /backups/monday project\n  helios backup restore --replace /backups/monday ."
    )]
    Restore {
        /// The backup
        backup: PathBuf,
        /// The folder it is to be in
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Where there is a repository, its store is set aside, and it is said where
        #[arg(long)]
        replace: bool,
    },
    /// Goes on with a store that lost commits it had acknowledged as on disk
    ///
    /// Such a store is not opened until a backup is in its place or its loss is accepted here. Without --yes it is only said how
    /// far writes were acknowledged and how far they are there. What is accepted stands in the operation log.
    #[command(
        after_help = "Examples:\n  helios backup accept-loss\n  helios backup accept-loss --yes\n\nExit codes: 0; 1 for a loss that nobody has accepted"
    )]
    AcceptLoss {
        /// A folder of the repository
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The loss is accepted
        #[arg(short, long)]
        yes: bool,
    },
}

impl Verb for BackupCommand {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        match self.verb {
            BackupVerb::Create { to } => {
                let here = Here::find(context, &cwd)?;
                let to = cwd.join(to);
                let made = here.open.store.store().backup(&to)?;
                if to.canonicalize().is_ok_and(|made| made.starts_with(&here.location.root)) {
                    let text = format!("warning: {} lies in the folder whose history it holds: ", to.display());
                    context
                        .console
                        .note(text + "the next commit takes it in unless it is ignored, and it is lost with the folder")?;
                }
                tell(context, &to, &made, "wrote")
            }
            BackupVerb::Verify { backup } => {
                let (made, checked) = RocksStore::verify_backup(&there(cwd.join(&backup))?)?;
                for (id, reason) in &checked.damaged {
                    context.console.note(format!("damaged {id}: {reason}"))?;
                }
                checked.faults.iter().try_for_each(|fault| context.console.note(format!("fault: {fault}")))?;
                tell(context, &backup, &made, "checked")?;
                Ok(if checked.is_sound() { OK } else { NO })
            }
            BackupVerb::AcceptLoss { folder, yes } => {
                loss::accept(context, &cwd.join(folder), if yes { Consent::Given } else { Consent::Missing })
            }
            BackupVerb::Restore { backup, folder, replace } => {
                restore(context, &there(cwd.join(backup))?, &cwd.join(folder), replace)
            }
        }
    }
}

/// The path of a backup, where there is one.
fn there(path: PathBuf) -> Result<PathBuf, Failure> {
    if RocksStore::is_backup(&path) {
        return Ok(path);
    }
    let message = if path.exists() {
        format!("{} is no backup: it has no manifest", path.display())
    } else {
        format!("there is no backup in {}: no such folder", path.display())
    };
    Err(Failure::new(Code::NotFound, message).hint("name a folder that `helios backup create FOLDER` wrote"))
}

fn tell(context: &mut Context<'_>, path: &Path, backup: &Backup, word: &str) -> Result<u8, Failure> {
    if context.is_json() {
        context.console.json(&json!({"folder": path.display().to_string(), "objects": backup.objects, "files": backup.files, "bytes": backup.bytes, "mark": backup.mark.0}))?;
    } else {
        context.console.line(format!(
            "{word} {}: {} objects, {} files, {}",
            path.display(),
            backup.objects,
            backup.files,
            bytes(backup.bytes)
        ))?;
    }
    Ok(OK)
}

/// A restore that fails leaves no folder behind that was not there.
fn restore(context: &mut Context<'_>, backup: &Path, folder: &Path, replace: bool) -> Result<u8, Failure> {
    let own = folder.join(MARKER);
    let (new_folder, new_own) = (!folder.exists(), !own.exists());
    let outcome = restore_into(context, backup, folder, replace);
    if outcome.is_err() && new_own && !own.join("store").exists() {
        // What cannot be removed stays, and the failure is told all the same.
        let _ = fs::remove_dir_all(&own);
        if new_folder {
            let _ = fs::remove_dir(folder);
        }
    }
    outcome
}

fn restore_into(context: &mut Context<'_>, backup: &Path, folder: &Path, replace: bool) -> Result<u8, Failure> {
    let io = |error: std::io::Error| Failure::io(folder.display(), &error);
    fs::create_dir_all(folder).map_err(io)?;
    let root = fs::canonicalize(folder).map_err(io)?;
    let location = Location::main(root.clone());
    let (own, store) = (location.own_folder(), location.store());
    fs::create_dir_all(&own).map_err(io)?;
    let (engine, console) = (context.engine, &mut context.console);
    let (restored, aside) = engine.with_closed(&root, || {
        if store.exists() && !replace {
            let message = format!("{} has a repository already", root.display());
            return Err(
                Failure::new(Code::InvalidState, message).hint("name another folder, or set its store aside with --replace")
            );
        }
        // Nobody commits into the old store while it is replaced.
        let _replaced = if store.exists() { Some(PinnedStore::lock(&location, console)?) } else { None };
        // Until all of it is there and on disk it is under another name, so whoever comes after a death finds
        // the store that was there.
        let draft = own.join("store.new");
        if draft.exists() {
            fs::remove_dir_all(&draft).map_err(io)?;
        }
        let restored = RocksStore::restore(backup, &draft)?;
        // What was remembered of the files belongs to the old store.
        let state = own.join("workspaces");
        if state.exists() {
            fs::remove_dir_all(&state).map_err(io)?;
        }
        Ok((restored, put_in_place(&draft, &store)?))
    })?;
    write_no_follow(&own.join(".gitignore"), b"*\n").map_err(io)?;
    let here = Here::find(context, &root)?;
    let files = here.folder()?;
    let mut files = queue(&files, &context.console)?;
    // A folder without files gets those of the head; one with files keeps them, and `status` tells the difference.
    let empty = here.repository().empty_tree();
    if files.status(here.store(), Some(empty))?.changes.is_empty() {
        let head = here.repository().tree_of(&here.workspace()?.head)?;
        files.switch(here.store(), None, head, LocalChanges::Keep)?;
    }
    drop(files);
    tell(context, &root, &restored, "restored")?;
    if let Some(aside) = aside {
        context.console.note(format!("the store that was there is now {}", aside.display()))?;
    }
    Ok(OK)
}

/// Gives a whole store its place, in one step where the file system can: there is always the old one or the new one. Says
/// where the old one is then.
fn put_in_place(draft: &Path, store: &Path) -> Result<Option<PathBuf>, Failure> {
    let failed = |error: std::io::Error| Failure::io(store.display(), &error);
    let sync = || fs::File::open(store.parent().unwrap_or(store)).and_then(|folder| folder.sync_all()).map_err(failed);
    if !store.exists() {
        fs::rename(draft, store).map_err(failed)?;
        return sync().map(|()| None);
    }
    let free = (1..).map(|number| store.with_file_name(format!("store.replaced-{number}"))).find(|path| !path.exists());
    let aside = free.expect("numbers do not end");
    // The new one has the name by which the old one is found after the exchange: there is no step behind it.
    fs::rename(draft, &aside).map_err(failed)?;
    match renameat_with(CWD, &aside, CWD, store, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::rename(&aside, draft).map_err(failed)?;
            fs::rename(store, &aside).map_err(failed)?;
            fs::rename(draft, store).map_err(failed)?;
        }
        Err(error) => return Err(failed(error.into())),
    }
    sync().map(|()| Some(aside))
}
