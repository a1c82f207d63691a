//! Landlock: what files may be read, run and written, what may be signalled, and, without namespaces, that no TCP is spoken.
//!
//! Landlock can only allow, so the folders above what is hidden are opened up: each of their other entries is allowed by itself.
//! With namespaces too: a cover is on a file and not on its name, so it goes with that file when another one takes the name, and
//! what was not there has none. Names can be listed everywhere.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use helix_protocol::{Isolation, Network};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::fs::FileType;

use super::mounts::COVER;
use super::policy::Policy;

/// The newest interface whose rights are used, where the kernel has them.
const NEWEST: ABI = ABI::V10;
/// Entries beside what is hidden that are allowed one by one, at most.
const MOST_ENTRIES: usize = 20_000;
/// Devices that may be written and read.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm"];
const CARDS: &[&str] = &["nvidia", "dri", "kfd"];

/// The kernel's interface version, found by restricting this very process to what it may do anyway.
pub fn version() -> Result<u32, String> {
    let all = AccessFs::from_all(ABI::V1);
    let root = PathFd::new("/").map_err(|error| error.to_string())?;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rule(PathBeneath::new(root, all)))
        .and_then(RulesetCreated::restrict_self)
        .map_err(|error| error.to_string())?;
    version_of(&status)
}

fn version_of(status: &RestrictionStatus) -> Result<u32, String> {
    match status.landlock {
        LandlockStatus::NotEnabled => Err("Landlock is not enabled in this kernel (lsm=landlock)".to_owned()),
        LandlockStatus::NotImplemented => Err("this kernel has no Landlock (Linux 5.13 and later)".to_owned()),
        LandlockStatus::Available { .. } if status.ruleset == RulesetStatus::NotEnforced => {
            Err("Landlock enforces nothing".to_owned())
        }
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            let version = kernel_abi.unwrap_or(effective_abi as i32);
            Ok(u32::try_from(version).unwrap_or_default())
        }
    }
}

/// What a policy allows, ready to be put on.
pub struct Rules {
    rules: RulesetCreated,
    /// The version of Landlock that must be on then.
    version: u32,
}

impl Rules {
    /// Restricts this process, and everything it will start, for good.
    pub fn restrict(self) -> Result<(), String> {
        let status = self.rules.restrict_self().map_err(failed)?;
        let version = version_of(&status)?;
        if version == self.version { Ok(()) } else { Err(format!("Landlock is of version {version} all at once")) }
    }
}

fn failed(error: landlock::RulesetError) -> String {
    format!("Landlock: {error}")
}

/// What a policy allows, of the files as they are seen now.
pub fn rules(policy: &Policy) -> Result<Rules, String> {
    let confinement = policy.confinement;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .map_err(failed)?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)
        .map_err(failed)?;
    if confinement.network == Network::None && !confinement.namespaces {
        rules = rules.handle_access(AccessNet::from_all(NEWEST)).map_err(failed)?;
    }
    let mut rules = rules.create().map_err(failed)?;
    let read = AccessFs::ReadFile | AccessFs::Execute;
    let root = Path::new("/");
    rules = allow(rules, root, AccessFs::ReadDir.into())?;
    let readable = match beside(root, &policy.hidden, &policy.listed) {
        // The covers hold alone then.
        Err(_) if confinement.namespaces => vec![root.to_owned()],
        found => found?,
    };
    for path in readable {
        rules = allow(rules, &path, read)?;
    }
    if confinement.namespaces {
        rules = allow(rules, Path::new(COVER), AccessFs::ReadFile.into())?;
    }
    // The worker's own program drives agents in there, and may lie in what is hidden.
    rules = allow(rules, Path::new("/proc/self/exe"), read)?;
    let write = AccessFs::from_all(NEWEST) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let workspace = if confinement.isolation == Isolation::ReadOnly { read | AccessFs::ReadDir } else { write };
    rules = allow(rules, &policy.workspace, workspace)?;
    rules = allow(rules, policy.seen_temporary(), write)?;
    for path in &policy.writable {
        let holds_hidden = policy.hidden.iter().any(|hidden| hidden.starts_with(path) && !policy.workspace.starts_with(hidden));
        if confinement.namespaces || !holds_hidden {
            rules = allow(rules, path, write)?;
            continue;
        }
        // Not the folder itself then: nothing can be made right in it, because what is made there could not be
        // told from what is hidden.
        for inner in beside(path, &policy.hidden, &[])? {
            rules = allow(rules, &inner, write)?;
        }
    }
    if confinement.namespaces {
        rules = allow(rules, Path::new("/var/tmp"), write)?;
    }
    for path in devices() {
        rules = allow(rules, &path, write)?;
    }
    Ok(Rules { rules, version: confinement.landlock })
}

/// One rule. What is gone, or cannot be opened by this user, needs none.
fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, String> {
    let Ok(opened) = PathFd::new(path) else { return Ok(rules) };
    // Asked of what was opened: by its path a folder that is mounted when it is needed would be mounted now.
    let is_folder = rustix::fs::fstat(opened.as_fd()).is_ok_and(|found| FileType::from_raw_mode(found.st_mode).is_dir());
    let access = if is_folder { access } else { access & AccessFs::from_file(NEWEST) };
    rules.add_rule(PathBeneath::new(opened, access)).map_err(|error| format!("Landlock: {}: {error}", path.display()))
}

fn devices() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        (DEVICES.contains(&name.as_ref()) || CARDS.iter().any(|card| name.starts_with(card))).then(|| entry.path())
    })
}

/// Everything in a folder that does not lie in what is hidden, in as few paths as can be; of the folders that are `listed`, entry
/// by entry. Of `/dev` nothing: a device is not a file to read.
fn beside(folder: &Path, hidden: &[PathBuf], listed: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    // Looked up for each entry, and there may be thousands.
    let opened: HashSet<&Path> = hidden
        .iter()
        .filter_map(|path| path.parent())
        .chain(listed.iter().map(PathBuf::as_path))
        .flat_map(Path::ancestors)
        .collect();
    let hidden: HashSet<&Path> = hidden.iter().map(PathBuf::as_path).collect();
    let mut allowed = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path == Path::new("/dev") || hidden.contains(&*path) {
                continue;
            }
            // A link is allowed as what it leads to, where that is allowed.
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                continue;
            }
            if opened.contains(&*path) {
                open.push(path);
            } else {
                allowed.push(path);
            }
        }
        if allowed.len() > MOST_ENTRIES {
            return Err(format!("{} and the folders above what is hidden have too many entries", folder.display()));
        }
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_the_hidden_is_allowed_and_the_way_to_it_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = fs::canonicalize(folder.path()).expect("real");
        for name in ["home/me/.ssh", "home/me/code", "home/you/code"] {
            fs::create_dir_all(root.join(name)).expect("made");
        }
        let allowed = beside(Path::new("/"), &[root.join("home/me/.ssh")], &[root.join("home/you")]).expect("few");
        let within = |path: &str| allowed.iter().any(|allowed| root.join(path).starts_with(allowed));
        assert!(within("home/me/code") && within("home/you/code") && allowed.contains(&PathBuf::from("/usr")));
        assert!(
            !within("home/me/.ssh") && !within("home/me") && !within("home/you/.ssh") && !allowed.contains(&PathBuf::from("/dev"))
        );
    }
}
