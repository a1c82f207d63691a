//! Git's refs, moved forward or left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use gix::objs::Kind;
use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog};
use helix_protocol::SnapshotId;

use super::history_refs::{RefOutcome, RefReport, Relation, relate};
use super::map::{GitMap, GitRefs, GitTarget};
use super::source::Source;
use super::{failed, whole};
use crate::{Caller, HeadTarget, Repository, VersionError, WorkspaceName};

/// A ref as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GitRef {
    pub(super) name: Vec<u8>,
    pub(super) target: GitTarget,
    /// What it names here; `None` for what is only kept for git.
    pub(super) snapshot: Option<SnapshotId>,
}

/// What the git repository is to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Somewhere else. A branch that is checked out there is left.
    Elsewhere,
    /// The one in the same folder. Its working folder is ours, so a branch that is checked out there is moved; what was removed
    /// there since the last time is not made again.
    Beside,
}

/// Makes and moves refs, all in one transaction, and says what became of each.
pub(super) fn write_refs(
    repository: &Repository,
    caller: &Caller,
    target: &Source,
    map: &GitMap,
    there: &GitRefs,
    refs: &[GitRef],
    role: Target,
) -> Result<Vec<RefReport>, VersionError> {
    let (mut reports, mut edits) = (Vec::new(), Vec::new());
    let (checked_out, mut names) = (checked_out(target, role)?, there.keys().cloned().collect::<BTreeSet<_>>());
    for wanted in refs {
        let mut outcome = outcome(repository, map, there, wanted, role)?;
        if outcome == RefOutcome::Forwarded
            && let Some(worktree) = checked_out.get(&wanted.name)
        {
            outcome = RefOutcome::CheckedOut { worktree: worktree.clone() };
        }
        if outcome == RefOutcome::Created
            && let Some(name) = in_the_way(&names, &wanted.name)
        {
            outcome = RefOutcome::InTheWay { name: String::from_utf8_lossy(name).into_owned() };
        }
        if matches!(outcome, RefOutcome::Created | RefOutcome::Forwarded) {
            names.insert(wanted.name.clone());
            let expected = match there.get(&wanted.name) {
                Some(now) => PreviousValue::MustExistAndMatch(git_target(target, now)?),
                None => PreviousValue::MustNotExist,
            };
            edits.push(edit(target, &wanted.name, &wanted.target, expected)?);
        }
        let theirs = match there.get(&wanted.name) {
            Some(GitTarget::Object(now)) if outcome == RefOutcome::Diverged => map.peel(*now),
            _ => None,
        };
        let theirs = theirs.filter(|known| known.kind == Kind::Commit).map(|known| known.git.to_string());
        reports.push(RefReport { name: String::from_utf8_lossy(&wanted.name).into_owned(), outcome, theirs });
    }
    transact(target, caller, edits)?;
    Ok(reports)
}

fn outcome(
    repository: &Repository,
    map: &GitMap,
    there: &GitRefs,
    wanted: &GitRef,
    role: Target,
) -> Result<RefOutcome, VersionError> {
    let now = match there.get(&wanted.name) {
        None if role == Target::Beside && map.refs.get(&wanted.name) == Some(&wanted.target) => return Ok(RefOutcome::Removed),
        None => return Ok(RefOutcome::Created),
        Some(now) if *now == wanted.target => return Ok(RefOutcome::Unchanged),
        Some(now) => now,
    };
    let Some(snapshot) = wanted.snapshot else { return Ok(RefOutcome::Kept) };
    let known = match now {
        GitTarget::Object(id) => map.find(*id).filter(|row| row.kind == Kind::Commit),
        GitTarget::Ref(_) => None,
    };
    // A tag that says something else is not moved: somebody may rely on it.
    let Some(known) = known.filter(|_| wanted.name.starts_with(b"refs/heads/")) else { return Ok(RefOutcome::Diverged) };
    Ok(match relate(repository, SnapshotId(known.ours), snapshot)? {
        Relation::Same => RefOutcome::Unchanged,
        Relation::Forward => RefOutcome::Forwarded,
        Relation::Backward => RefOutcome::Ahead,
        Relation::Diverged => RefOutcome::Diverged,
    })
}

/// The name because of which git cannot have this one: `a` beside `a/b`.
fn in_the_way<'n>(names: &'n BTreeSet<Vec<u8>>, wanted: &[u8]) -> Option<&'n Vec<u8>> {
    let slashes = wanted.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let mut above = slashes.filter_map(|(slash, _)| names.get(&wanted[..slash]));
    let beneath = [wanted, b"/"].concat();
    above.next().or_else(|| names.range(beneath.clone()..).next().filter(|name| name.starts_with(&beneath)))
}

/// Branches that must not be moved, with the worktree that has each.
fn checked_out(target: &Source, role: Target) -> Result<BTreeMap<Vec<u8>, String>, VersionError> {
    let mut found = BTreeMap::new();
    for worktree in target.repository.worktrees_including_main().map_err(|error| failed(&target.place, error))? {
        // A worktree whose administrative files cannot be read has nothing checked out that we could disturb.
        let Ok(worktree) = worktree else { continue };
        let Some(folder) = worktree.workdir().map(ToOwned::to_owned) else { continue };
        let is_ours = role == Target::Beside && target.repository.workdir() == Some(&folder);
        if let Some(name) = worktree.head_name().ok().flatten().filter(|_| !is_ours) {
            let name: &[u8] = name.as_bstr();
            found.insert(name.to_vec(), folder.display().to_string());
        }
    }
    Ok(found)
}

/// Points the `HEAD` of a repository that was empty to where git's was when it was imported, or to our branch.
pub(super) fn write_head(repository: &Repository, caller: &Caller, target: &Source, last: &GitRefs) -> Result<(), VersionError> {
    let head = match last.get(b"HEAD".as_slice()) {
        Some(head) => head.clone(),
        None => match repository.head(&WorkspaceName::main())?.target {
            HeadTarget::Branch(branch) => GitTarget::Ref(format!("refs/heads/{branch}").into_bytes()),
            HeadTarget::Detached(_) => GitTarget::Ref(format!("refs/heads/{}", repository.first_branch()).into_bytes()),
        },
    };
    // What a detached one names was only imported if it was a commit.
    if matches!(head, GitTarget::Object(id) if !target.reader().has(id)) {
        return Ok(());
    }
    let edit = edit(target, b"HEAD", &head, PreviousValue::Any)?;
    transact(target, caller, vec![edit])
}

fn transact(target: &Source, caller: &Caller, edits: Vec<RefEdit>) -> Result<(), VersionError> {
    if edits.is_empty() {
        return Ok(());
    }
    let clean = |text: &str| text.replace(['<', '>', '\n', '\0'], " ");
    let signature = gix::actor::Signature {
        name: clean(&caller.who.name).into(),
        email: clean(&caller.who.email).into(),
        time: gix::date::Time {
            seconds: caller.who.time.0.div_euclid(1_000_000).max(0),
            offset: i32::from(caller.who.offset_minutes) * 60,
        },
    };
    let mut buffer = gix::date::parse::TimeBuf::default();
    let names = edits.iter().filter_map(|edit| Some(gix::path::from_bstr(edit.name.as_bstr()).ok()?.into_owned()));
    let names: Vec<PathBuf> = names.collect();
    let edited = target.repository.edit_references_as(edits, Some(signature.to_ref(&mut buffer)));
    edited.map(drop).map_err(|error| match lock(target, &names) {
        Some(lock) => VersionError::Refused {
            message: format!("git's refs are locked by {}", lock.display()),
            hint: "wait until git is done there; where none runs, one was killed: remove that file, then try again",
        },
        None => whole(&target.place, &error),
    })
}

/// The file by which a process of git's keeps others from these refs, or from all of them.
fn lock(target: &Source, names: &[PathBuf]) -> Option<PathBuf> {
    let (own, common) = (target.repository.git_dir(), target.repository.common_dir());
    let refs = names.iter().flat_map(|name| [own, common].map(|folder| folder.join(name)));
    let locks = refs.chain([common.join("packed-refs")]).map(|path| {
        let mut name = path.into_os_string();
        name.push(".lock");
        PathBuf::from(name)
    });
    locks.into_iter().find(|lock| lock.symlink_metadata().is_ok())
}

fn edit(target: &Source, name: &[u8], to: &GitTarget, expected: PreviousValue) -> Result<RefEdit, VersionError> {
    let log = LogChange { mode: RefLog::AndReference, force_create_reflog: false, message: "helios: export".into() };
    let new = git_target(target, to)?;
    Ok(RefEdit { change: Change::Update { log, expected, new }, name: full_name(target, name)?, deref: false })
}

fn git_target(source: &Source, target: &GitTarget) -> Result<gix::refs::Target, VersionError> {
    Ok(match target {
        GitTarget::Object(id) => gix::refs::Target::Object(*id),
        GitTarget::Ref(name) => gix::refs::Target::Symbolic(full_name(source, name)?),
    })
}

fn full_name(source: &Source, name: &[u8]) -> Result<gix::refs::FullName, VersionError> {
    gix::bstr::BStr::new(name).try_into().map_err(|error: gix::validate::reference::name::Error| failed(&source.place, error))
}
