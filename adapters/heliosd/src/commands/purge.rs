//! `helios purge`: content that must not be anywhere any more.

use clap::Parser;
use helix_objects::Collect;
use helix_protocol::{Failure, ObjectId, Timestamp};
use helix_versions::PurgeTarget;
use serde_json::json;

use super::{Verb, stats::bytes};
use crate::console::{NO, OK};
use crate::context::Context;
use crate::here::Here;

/// Removes content from every snapshot and every pack
///
/// For secrets and for what fell in by mistake. Snapshots keep their ids, and what was purged cannot be read from them any more;
/// every one of them is named. Backups and exported git repositories are not touched.
#[derive(Parser)]
#[command(
    name = "purge",
    after_help = "Examples:\n  helios purge .env --dry-run\n  helios purge .env\n  helios purge 81c4b7f7e0549d1e2d5ad6cbf9a6f0b0a2d1c7b4d4cf53c09b5c0a2c2b3f4a5d\n\nExit codes: 0 purged, 128 nothing of that name was ever committed"
)]
pub struct Purge {
    /// An object's 64 digits, or a path with everything that was ever there
    target: String,
    /// Only says what would be removed
    #[arg(long)]
    dry_run: bool,
}

impl Verb for Purge {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let target = match self.target.parse::<ObjectId>() {
            Ok(id) => PurgeTarget::Object(id),
            Err(_) => PurgeTarget::Path(here.path(&cwd, self.target.as_ref())?),
        };
        let plan = here.repository().plan_purge(&target)?;
        let mut dropped = 0;
        if !self.dry_run && !plan.objects.is_empty() {
            // Remembered first: whatever happens then, a check knows that it was meant.
            here.repository().remember_purged(&plan.objects, Timestamp::now())?;
            dropped = here.open.store.purge(&plan.objects)?.dropped_bytes;
        }
        if context.is_json() {
            let snapshots: Vec<_> = plan.snapshots.iter().map(|(id, paths)| json!({"snapshot": id, "paths": paths})).collect();
            context
                .console
                .json(&json!({"dry_run": self.dry_run, "objects": plan.objects, "bytes": dropped, "snapshots": snapshots}))?;
        } else {
            for (id, paths) in &plan.snapshots {
                context.console.line(format!("{} {}", id.short(), paths.join(" ")))?;
            }
            let word = if self.dry_run { "would be purged" } else { "purged" };
            context.console.line(format!(
                "{} files {word} from {} snapshots ({})",
                plan.objects.len(),
                plan.snapshots.len(),
                bytes(dropped)
            ))?;
        }
        Ok(if plan.objects.is_empty() { NO } else { OK })
    }
}
