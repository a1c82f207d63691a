//! `helios gc`: lets go of what nothing keeps, and packs the rest.

use std::time::Duration;

use clap::Parser;
use helix_objects::Sweep;
use helix_protocol::{Code, Failure};
use helix_versions::Retention;
use serde_json::json;

use super::{Verb, stats::bytes};
use crate::console::OK;
use crate::context::{self, Context};
use crate::engine::upkeep::{self, Thoroughness};
use crate::here::Here;

/// Lets go of what nothing keeps, and packs the rest
///
/// Branches, tags, workspaces, experiments and the operation log keep snapshots. --remove-old-snapshots lets the log forget what is
/// older than --before (or cleanup.snapshot_ttl), so what only `helios undo` could bring back goes; --aggressive does so
/// with cleanup.snapshot_ttl, and packs harder. Others may commit meanwhile.
#[derive(Parser)]
#[command(
    name = "gc",
    after_help = "Examples:\n  helios gc\n  helios gc --aggressive\n  helios gc --remove-old-snapshots --before 48h --dry-run"
)]
pub struct Gc {
    /// Forgets what is older than cleanup.snapshot_ttl, and packs everything anew, as small as it gets
    #[arg(long)]
    aggressive: bool,
    /// Lets the operation log forget what is old
    #[arg(long)]
    remove_old_snapshots: bool,
    /// How old; cleanup.snapshot_ttl and cleanup.max_operations where nothing is said
    #[arg(long, value_name = "DURATION", requires = "remove_old_snapshots")]
    before: Option<String>,
    /// Only says what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Verb for Gc {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = Here::find(context, &cwd)?;
        let rule = match &self.before {
            Some(text) => Retention { ttl: Some(parse(text)?), operations: None },
            None if self.remove_old_snapshots || self.aggressive => here.open.settings().retention(),
            None => Retention::default(),
        };
        let how = if self.dry_run { Sweep::DryRun } else { Sweep::Drop };
        let thoroughness = if self.aggressive { Thoroughness::Aggressive } else { Thoroughness::Plain };
        let done = upkeep::collect(&here.open, rule, how, thoroughness)?;
        let (collected, packed) = (&done.collected, &done.packed);
        if context.is_json() {
            context.console.json(&json!({
                "dry_run": self.dry_run, "operations_forgotten": collected.expired.operations, "snapshots": collected.snapshots,
                "snapshots_dropped": collected.dropped_snapshots, "objects_dropped": collected.swept.dropped, "bytes_dropped": collected.swept.dropped_bytes,
                "objects_kept": collected.swept.kept, "objects_packed": packed.objects, "packs_written": packed.groups,
                "bytes_before": done.bytes_before, "bytes_after": done.bytes_after,
            }))?;
            return Ok(OK);
        }
        let would = if self.dry_run { "would let go of" } else { "let go of" };
        let swept = &collected.swept;
        context.console.line(format!(
            "{would} {} operations, {} snapshots and {} objects ({})",
            collected.expired.operations,
            collected.dropped_snapshots,
            swept.dropped,
            bytes(swept.dropped_bytes)
        ))?;
        context.console.line(format!("{} snapshots and {} objects are kept", collected.snapshots, swept.kept))?;
        if !self.dry_run {
            context.console.line(format!(
                "packed {} objects into {} packs; the store takes {}, before {}",
                packed.objects,
                packed.groups,
                bytes(done.bytes_after),
                bytes(done.bytes_before)
            ))?;
        }
        Ok(OK)
    }
}

fn parse(text: &str) -> Result<Duration, Failure> {
    context::duration(text).ok_or_else(|| {
        Failure::new(Code::InvalidRequest, format!("{text:?} is not a duration"))
            .hint("write a number and s, m, h, d or w, as in 48h")
    })
}
