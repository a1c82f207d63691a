//! `helios fsck`: is everything there, and what it should be?

use std::path::Path;

use clap::Parser;
use helix_objects::ObjectStore;
use helix_protocol::{Code, Failure, ObjectId};
use helix_rocks::Checked;
use helix_versions::{Amount, Fault};
use serde_json::json;

use super::{Verb, stats::bytes};
use crate::console::{NO, OK};
use crate::context::Context;
use crate::engine::PinnedStore;
use crate::engine::location::Location;
use crate::engine::settings::Settings;
use crate::here::Here;
use crate::render::path;

/// Reads everything and checks every hash
///
/// Each object is read and hashed, each record decoded, and everything that branches, workspaces, experiments and the operation
/// log name is looked for. What cannot be read is told, and the rest is looked at all the same.
#[derive(Parser)]
#[command(
    name = "fsck",
    after_help = "Examples:\n  helios fsck\n  helios fsck --reached-by 3f2a91c0\n  helios fsck --reached-by HEAD:README.md\n  helios fsck --roots\n\nExit codes: 0 sound, 1 something is damaged or missing"
)]
pub struct Fsck {
    /// Says what keeps this object: a revision, REVISION:PATH, or an id or the first digits of one
    #[arg(long, value_name = "OBJECT")]
    reached_by: Option<String>,
    /// Says how much each branch, tag, workspace and experiment and the operation log keep, and how much no other of them does; the
    /// log counts apart, since it has most of everything. Sizes are those before compression. With many tags of a long history it
    /// takes its time
    #[arg(long, conflicts_with = "reached_by")]
    roots: bool,
}

impl Verb for Fsck {
    fn run(self, context: &mut Context<'_>) -> Result<u8, Failure> {
        let cwd = context.caller.cwd.clone();
        let here = match Here::find(context, &cwd) {
            Err(failure) if failure.code == Code::CorruptObject && self.reached_by.is_none() && !self.roots => {
                return unopened(context, failure);
            }
            here => here?,
        };
        if let Some(object) = &self.reached_by {
            return reached_by(context, &here, &cwd, object);
        }
        if self.roots {
            return roots(context, &here);
        }
        let mut checked = here.open.store.store().verify()?;
        context.console.check()?;
        let history = match here.repository().check() {
            Ok((live, faults)) => Some(History { reachable: live.len() as u64, faults }),
            Err(error) => {
                checked.faults.push(format!("the history cannot be read whole: {error}"));
                None
            }
        };
        tell(context, &checked, history)
    }
}

/// What a walk over everything that is named found.
struct History {
    reachable: u64,
    faults: Vec<Fault>,
}

/// A repository whose own records cannot be read, or not even its store: what can be looked at is looked at.
fn unopened(context: &mut Context<'_>, failure: Failure) -> Result<u8, Failure> {
    let location = Location::find(&context.caller.cwd)?;
    let settings = Settings::read(&location.own_folder())?;
    let (engine, console) = (context.engine, &mut context.console);
    let checked = engine.with_closed(&location.repository, || {
        let PinnedStore { store, pin } = PinnedStore::open(&location, &settings, console)?;
        let checked = store.store().verify();
        store.close().and(checked).map_err(|error| pin.plain(error.into()))
    });
    let mut checked = match checked {
        Err(again) if again.code == Code::CorruptObject => Checked::default(),
        checked => checked?,
    };
    checked.faults.push(failure.message);
    tell(context, &checked, None)
}

fn tell(context: &mut Context<'_>, checked: &Checked, history: Option<History>) -> Result<u8, Failure> {
    let faults = history.as_ref().map_or(&[][..], |history| &history.faults);
    let sound = checked.is_sound() && faults.is_empty();
    let reachable = history.as_ref().map(|history| history.reachable);
    let unreachable = reachable.map(|reachable| checked.objects.saturating_sub(reachable));
    if context.is_json() {
        let damaged: Vec<_> = checked.damaged.iter().map(|(id, reason)| json!({"id": id, "reason": reason})).collect();
        let faults: Vec<_> = faults
            .iter()
            .map(|fault| json!({"by": fault.by, "path": path::to_json(&fault.path), "id": fault.id, "reason": fault.reason}))
            .collect();
        context.console.json(&json!({
            "sound": sound, "objects": checked.objects, "bytes": checked.bytes, "packed": checked.packed, "packs": checked.groups, "records": checked.records,
            "reachable": reachable, "unreachable": unreachable, "damaged": damaged, "store_faults": checked.faults, "faults": faults,
        }))?;
        return Ok(if sound { OK } else { NO });
    }
    for (id, reason) in &checked.damaged {
        context.console.line(format!("damaged {id}: {reason}"))?;
    }
    for fault in &checked.faults {
        context.console.line(format!("fault: {fault}"))?;
    }
    for fault in faults {
        let place = if fault.path.is_empty() { String::new() } else { format!(" {}", path::plain(&fault.path)) };
        context.console.line(format!("missing {} ({}{place}): {}", fault.id, fault.by, fault.reason))?;
    }
    context.console.line(format!(
        "{} objects ({}), {} of them packed, and {} records were checked",
        checked.objects,
        bytes(checked.bytes),
        checked.packed,
        checked.records
    ))?;
    if let Some((reachable, unreachable)) = reachable.zip(unreachable) {
        context.console.line(format!("{reachable} objects are reachable, {unreachable} are not and go with the next gc"))?;
    }
    if sound {
        context.console.line("everything is sound")?;
        return Ok(OK);
    }
    context.console.note(
        "hint: `helios backup restore --replace` puts a backup in its place, and `helios import --again` what came from git",
    )?;
    context.console.note("hint: what is whole can still be read and exported")?;
    Ok(NO)
}

fn reached_by(context: &mut Context<'_>, here: &Here, cwd: &Path, object: &str) -> Result<u8, Failure> {
    let id = match object.parse::<ObjectId>() {
        Ok(id) => id,
        Err(_) => here.object(cwd, object)?,
    };
    let by = here.repository().reached_from(id)?;
    if context.is_json() {
        context.console.json(&json!({"id": id, "reached_by": by}))?;
    } else {
        by.iter().try_for_each(|name| context.console.line(name))?;
    }
    if by.is_empty() {
        let failure = Failure::new(Code::FileNotFound, format!("nothing keeps {}", id.short())).hint("it goes with the next gc");
        return context.console.failing_with(NO, Err(failure));
    }
    Ok(OK)
}

fn roots(context: &mut Context<'_>, here: &Here) -> Result<u8, Failure> {
    let kept = here.repository().kept(&mut || context.console.check().is_ok())?;
    context.console.check()?;
    let kept = kept.unwrap_or_default();
    if context.is_json() {
        let amount =
            |Amount { snapshots, objects, bytes }: Amount| json!({"snapshots": snapshots, "objects": objects, "bytes": bytes});
        let rows: Vec<_> = kept
            .iter()
            .map(|kept| json!({"by": kept.by, "reached": amount(kept.all), "only_from_there": amount(kept.alone)}))
            .collect();
        context.console.json(&json!({"roots": rows}))?;
        return Ok(OK);
    }
    let amount =
        |Amount { snapshots, objects, bytes: count }: Amount| format!("{snapshots} snapshots, {objects} objects, {}", bytes(count));
    kept.iter().try_for_each(|kept| {
        context.console.line(format!("{}: {}; only from there: {}", kept.by, amount(kept.all), amount(kept.alone)))
    })?;
    Ok(OK)
}
