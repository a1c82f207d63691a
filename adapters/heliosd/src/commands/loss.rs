//! `helios backup accept-loss`: a store that lost commits it had acknowledged goes on without them, when somebody says so.

use std::path::Path;
use std::sync::Arc;

use helix_objects::{Durability, ObjectStore, RecordStore};
use helix_protocol::{Code, Failure};
use helix_rocks::Loss;
use helix_versions::{Caller, Repository, VersionError};
use serde_json::json;

use crate::author::{Role, Who};
use crate::console::OK;
use crate::context::Context;
use crate::engine::PinnedStore;
use crate::engine::location::Location;
use crate::engine::settings::Settings;

/// Whether the loss is accepted, or only told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Consent {
    Given,
    Missing,
}

/// Says what the repository that `path` lies in has lost, and goes on without it where that was said to be meant.
pub(super) fn accept(context: &mut Context<'_>, path: &Path, consent: Consent) -> Result<u8, Failure> {
    let location = Location::find(path)?;
    if location.root != location.repository {
        // Without its records nobody knows whether the folder is a workspace of that repository.
        let message = format!("{} is a workspace of {}", location.root.display(), location.repository.display());
        return Err(Failure::new(Code::InvalidState, message).hint("what that repository lost is accepted in its own folder"));
    }
    let settings = Settings::read(&location.own_folder())?;
    let (engine, caller, console) = (context.engine, &context.caller, &mut context.console);
    let found = engine.with_closed(&location.repository, || PinnedStore::loss(&location, &settings, console))?;
    let Some(loss) = found else {
        if context.is_json() {
            context.console.json(&json!({"accepted": false, "recovered": null, "acknowledged": null, "operation": null}))?;
        } else {
            context.console.line("nothing that was acknowledged is missing")?;
        }
        return Ok(OK);
    };
    if consent == Consent::Missing {
        return Err(Failure::new(Code::InvalidState, told(loss)).hint(
            "`helios backup restore --replace BACKUP` puts a backup in its place\n`helios backup accept-loss --yes` goes on with what is there",
        ));
    }
    let who = Who::read(caller, &settings, &location.repository).signature(Role::Committer);
    let caller = Caller { workspace: location.workspace.clone(), who, durability: Some(Durability::Sync), committer: None };
    let operation = engine.with_closed(&location.repository, || {
        let PinnedStore { store, pin } = PinnedStore::open_accepting_loss(&location, &settings, console)?;
        let noted = match Repository::open(Arc::clone(&store) as Arc<dyn RecordStore>) {
            Ok(repository) => repository.note(&caller, "accept-loss", &told(loss)).map(|recorded| recorded.operation),
            // All of it is gone, and no log is left either.
            Err(VersionError::Unknown { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        store.close().map_err(|error| pin.plain(error.into()))?;
        noted.map_err(|error| pin.plain(error.into()))
    })?;
    if context.is_json() {
        let acknowledged = loss.acknowledged.map(|mark| mark.0);
        let answer = json!({"accepted": true, "recovered": loss.recovered.0, "acknowledged": acknowledged, "operation": operation});
        context.console.json(&answer)?;
        return Ok(OK);
    }
    context.console.line(told(loss))?;
    match operation {
        Some(number) => {
            context.console.line(format!("the store goes on with what is there; operation {number} of `helios oplog` says so"))?;
            context.console.note("hint: `helios fsck` says whether what is there is sound")?;
        }
        None => context.console.note("hint: no repository is left in it; `helios init` begins a new one")?,
    }
    Ok(OK)
}

/// What was promised, and what was found.
fn told(loss: Loss) -> String {
    let found = loss.recovered.0;
    match loss.acknowledged {
        Some(promised) => {
            format!("writes up to mark {} were acknowledged as on disk, writes up to mark {found} are there", promised.0)
        }
        None => format!("writes up to mark {found} are there; nobody knows how far they were acknowledged as on disk"),
    }
}
