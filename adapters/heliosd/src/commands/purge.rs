//! `helios purge`: content that must not be anywhere any more.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use helix_objects::{Sweep, Swept};
use helix_protocol::{Failure, ObjectId, Timestamp};
use helix_versions::{PurgePlan, PurgeTarget, Retention, VersionError};
use serde_json::json;

use super::{Verb, stats::bytes};
use crate::console::OK;
use crate::context::Context;
use crate::engine::upkeep;
use crate::here::{Here, queue};
use crate::render::path::{self, Quote};

/// Removes content from every snapshot and every pack
///
/// For secrets and for what fell in by mistake. Snapshots keep their ids, and what was purged cannot be read from them any more;
/// every one of them is named, and so is what is staged. With a path everything goes that nothing keeps any more, as with gc: it
/// may have been staged there once. A checkout leaves such a path out and says so; content that is committed again is there again.
/// Backups and exported git repositories are not touched.
#[derive(Parser)]
#[command(
    name = "purge",
    after_help = "Examples:\n  helios purge .env --dry-run\n  helios purge .env\n  helios purge 81c4b7f7e0549d1e2d5ad6cbf9a6f0b0a2d1c7b4d4cf53c09b5c0a2c2b3f4a5d\n\nExit codes: 0 purged, 1 it is no file, 128 there never was anything of that name"
)]
pub struct Purge {
    /// A path with everything that was ever there, or an object: its digits or the first of them, or REVISION:PATH
    target: OsString,
    /// Only says what would be removed
    #[arg(long)]
    dry_run: bool,
}

impl Verb for Purge {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let target = match self.target.to_str().and_then(|target| target.parse::<ObjectId>().ok()) {
            Some(id) => PurgeTarget::Object(id),
            None => PurgeTarget::Path(here.path(&cwd, self.target.as_ref())?),
        };
        let (target, planned) = match here.repository().plan_purge(&target) {
            Err(unknown @ VersionError::Unknown { .. }) => match self.target.to_str().map(|name| here.object(&cwd, name)) {
                Some(Ok(id)) => (PurgeTarget::Object(id), Ok(here.repository().plan_purge(&PurgeTarget::Object(id))?)),
                _ => (target, Err(unknown)),
            },
            planned => (target, Ok(planned?)),
        };
        let kept_by_nothing = match (&target, self.dry_run) {
            (PurgeTarget::Path(_), false) => self.let_go(context, &here)?,
            _ => Swept::default(),
        };
        let plan = match planned {
            Ok(plan) => plan,
            Err(unknown) => {
                if kept_by_nothing.dropped > 0 {
                    here.repository().purge(&here.open.store, &[], Timestamp::now())?;
                }
                let failure = Failure::from(unknown);
                return Err(match kept_by_nothing.dropped {
                    0 => failure,
                    gone => failure.hint(format!("{gone} objects that nothing kept are gone: what was staged there once is, too")),
                });
            }
        };
        let dropped = if self.dry_run {
            // What was purged before has no bytes any more.
            let size = |id: &ObjectId| Ok(here.store().get(*id)?.map_or(0, |bytes| bytes.len() as u64));
            plan.objects.iter().map(size).sum::<Result<u64, Failure>>()?
        } else {
            here.repository().purge(&here.open.store, &plan.objects, Timestamp::now())?.dropped_bytes
        };
        self.warn(context, &here, &plan)?;
        if context.is_json() {
            let listed = |paths: &[Vec<u8>]| paths.iter().map(|path| path::to_json(path)).collect::<Vec<_>>();
            let snapshots: Vec<_> =
                plan.snapshots.iter().map(|(id, paths)| json!({"snapshot": id, "paths": listed(paths)})).collect();
            let staged: Vec<_> = plan.staged.iter().map(|(by, paths)| json!({"by": by, "paths": listed(paths)})).collect();
            context
                .console
                .json(&json!({"dry_run": self.dry_run, "objects": plan.objects, "bytes": dropped, "snapshots": snapshots, "staged": staged, "objects_dropped": kept_by_nothing.dropped, "bytes_dropped": kept_by_nothing.dropped_bytes}))?;
        } else {
            let listed = |paths: &[Vec<u8>]| paths.iter().map(|path| path::show(path, Quote::Spaces)).collect::<Vec<_>>().join(" ");
            for (id, paths) in &plan.snapshots {
                context.console.line(format!("{} {}", id.short(), listed(paths)))?;
            }
            for (by, paths) in &plan.staged {
                context.console.line(format!("{by} {}", listed(paths)))?;
            }
            let word = if self.dry_run { "would be purged" } else { "purged" };
            context.console.line(format!(
                "{} files {word} from {} snapshots ({})",
                plan.objects.len(),
                plan.snapshots.len(),
                bytes(dropped)
            ))?;
            if kept_by_nothing.dropped > 0 {
                let Swept { dropped, dropped_bytes, .. } = kept_by_nothing;
                context.console.line(format!("let go of {dropped} objects that nothing kept ({})", bytes(dropped_bytes)))?;
            }
        }
        Ok(OK)
    }
}

/// Stores that a restore replaced, and logs that were found damaged: what is in them, no purge reaches.
fn set_aside(here: &Here) -> Vec<PathBuf> {
    let data = here.open.root.join(".helios");
    let beneath = |folder: PathBuf, prefix: &str| {
        let names = fs::read_dir(folder).into_iter().flatten().flatten();
        let of_these = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        of_these.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let mut found = beneath(data.clone(), "store.replaced-");
    found.extend(beneath(data.join("store"), "log.damaged-"));
    found.sort();
    found
}

impl Purge {
    /// What is staged anew or unstaged leaves its content behind, which no record names. It goes before the purge, which rewrites
    /// the files that have it. What is named goes in any case.
    fn let_go(&self, context: &mut Context<'_>, here: &Here) -> Result<Swept, Failure> {
        match upkeep::let_go(&here.open, Retention::default(), Sweep::Drop) {
            Ok(collected) => Ok(collected.swept),
            Err(failure) => {
                let text = format!("warning: what nothing keeps any more stays ({}): purge the path again later", failure.message);
                context.console.note(text).map(|()| Swept::default())
            }
        }
    }

    /// What still lies in a folder comes back with its next commit. The content is gone by now, so a folder that cannot be
    /// looked at is a warning too.
    fn warn(&self, context: &mut Context<'_>, here: &Here, plan: &PurgePlan) -> Result<(), Failure> {
        for place in set_aside(here) {
            let text =
                format!("warning: {} was set aside and may still have it: delete that once nobody needs it", place.display());
            context.console.note(text)?;
        }
        for workspace in here.repository().workspaces()? {
            let is_own = workspace.name == *here.name();
            let location = here.place_of(&workspace);
            if !location.root.is_dir() {
                continue;
            }
            let place = if is_own { "this folder".to_owned() } else { format!("the folder of workspace {}", workspace.name) };
            let look = || -> Result<Vec<Vec<u8>>, Failure> {
                let folder = here.open.folder(&location)?;
                let mut folder = queue(&folder, &context.console)?;
                folder.status(here.store(), Some(here.repository().tree_of(&workspace.head)?))?;
                Ok(folder.holding(&plan.objects.iter().copied().collect()))
            };
            match look() {
                Ok(paths) => {
                    for path in paths {
                        let path = path::plain(&path);
                        let text = "and its next commit stores it again: remove it first";
                        context.console.note(format!("warning: {path} still lies in {place}, {text}"))?;
                    }
                }
                Err(failure) => {
                    let message = failure.message;
                    context.console.note(format!("warning: {place} could not be looked at for what was purged: {message}"))?;
                }
            }
            context.engine.make_room();
        }
        Ok(())
    }
}
