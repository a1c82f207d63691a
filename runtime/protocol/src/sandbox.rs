//! What commands may do to the machine they run on: what a task asks for, what a worker can give, and what was in fact on.
//!
//! This is not the approval policy: that says what an agent must ask a person before it does it; this says
//! what the kernel lets it do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Code, Failure};

/// How far a task's commands are kept apart from their machine. A level a worker cannot give is refused, never lowered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Nothing is writable but a folder for temporary files and the project's caches; the workspace is not, not even by file tools.
    ReadOnly,
    /// The workspace is writable too; the rest of the machine can be read, credentials excepted.
    #[default]
    Workspace,
    /// No sandbox: whatever the worker's user may do.
    #[serde(alias = "process")]
    Full,
}

impl Isolation {
    /// Every level, the strictest first.
    pub const ALL: [Self; 3] = [Self::ReadOnly, Self::Workspace, Self::Full];

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::Workspace => "workspace",
            Self::Full => "full",
        }
    }

    /// True where commands run in a sandbox.
    pub fn is_sandboxed(self) -> bool {
        self != Self::Full
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether commands may use the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing outside can be reached. Where the worker has namespaces, a loopback of the task's own is there.
    #[default]
    None,
    /// As the machine has it.
    Host,
}

impl Network {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

macro_rules! from_word {
    ($type:ty, $all:expr, $what:literal, $hint:literal) => {
        impl FromStr for $type {
            type Err = Failure;

            fn from_str(text: &str) -> Result<Self, Failure> {
                let word = text.replace('-', "_");
                $all.into_iter()
                    .find(|known| known.as_str() == word)
                    .ok_or_else(|| Failure::new(Code::InvalidRequest, format!(concat!("{:?} is no ", $what), text)).hint($hint))
            }
        }
    };
}

from_word!(Isolation, Isolation::ALL, "isolation level", "read-only, workspace or full");
from_word!(Network, [Network::None, Network::Host], "network grant", "none or host");

/// The oldest Landlock that refuses every change of a file's content: before, a file outside could be cut to nothing.
const ENOUGH_LANDLOCK: u32 = 3;

/// What a worker can put around commands, found by trying it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandboxing {
    /// The version of the kernel's Landlock interface; 0 where there is none.
    pub landlock: u32,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
    /// Whether user, mount, network and IPC namespaces can be made.
    pub namespaces: bool,
    /// What is missing and why, for people.
    pub lacks: Vec<String>,
}

impl Sandboxing {
    /// What a worker's capabilities name where it can give every sandboxed level.
    pub const CAPABILITY: &str = "sandbox";

    /// True where `read_only` and `workspace` can be given, with and without a network.
    pub fn is_enough(&self) -> bool {
        self.seccomp && (self.namespaces || self.landlock >= ENOUGH_LANDLOCK)
    }

    /// Refuses a level that cannot be given, with what is missing.
    pub fn check(&self, isolation: Isolation) -> Result<(), Failure> {
        if !isolation.is_sandboxed() || self.is_enough() {
            return Ok(());
        }
        let lacks = if self.lacks.is_empty() { "its worker program is too old".to_owned() } else { self.lacks.join("; ") };
        Err(Failure::new(Code::IsolationUnavailable, format!("this worker cannot give the isolation level `{isolation}`: {lacks}"))
            .hint("use a worker whose `helix worker show` has `sandbox`, or run the task with --unsandboxed"))
    }

    /// What will be on for a level that can be given.
    pub fn confinement(&self, isolation: Isolation, network: Network) -> Confinement {
        let on = isolation.is_sandboxed();
        Confinement {
            isolation,
            network: if on { network } else { Network::Host },
            landlock: if on { self.landlock } else { 0 },
            seccomp: on && self.seccomp,
            namespaces: on && self.namespaces,
        }
    }
}

impl fmt::Display for Sandboxing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = layers(self.landlock, self.seccomp, self.namespaces);
        let has = if layers.is_empty() { "nothing".to_owned() } else { layers };
        if self.lacks.is_empty() { f.write_str(&has) } else { write!(f, "{has}; missing: {}", self.lacks.join("; ")) }
    }
}

/// What commands ran under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The level.
    pub isolation: Isolation,
    /// The network they had.
    pub network: Network,
    /// The version of Landlock that was on; 0 for none.
    pub landlock: u32,
    /// Whether system calls were filtered.
    pub seccomp: bool,
    /// Whether they had namespaces of their own.
    pub namespaces: bool,
}

impl Confinement {
    /// True where a network of the task's own, loopback only, stands in for the machine's.
    pub fn has_own_loopback(&self) -> bool {
        self.namespaces && self.network == Network::None
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.isolation.is_sandboxed() {
            return f.write_str("unsandboxed");
        }
        let network = match (self.network, self.has_own_loopback()) {
            (Network::Host, _) => "network",
            (Network::None, true) => "no network, loopback of its own",
            (Network::None, false) => "no network, no loopback",
        };
        let layers = layers(self.landlock, self.seccomp, self.namespaces);
        write!(f, "{}, {network} ({layers})", self.isolation.as_str().replace('_', "-"))
    }
}

fn layers(landlock: u32, seccomp: bool, namespaces: bool) -> String {
    let landlock = (landlock > 0).then(|| format!("Landlock {landlock}"));
    let rest =
        [(seccomp, "seccomp"), (namespaces, "namespaces")].into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned());
    landlock.into_iter().chain(rest).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_given_by_landlock_or_namespaces_and_never_without_a_filter_of_calls() {
        let with = |landlock, seccomp, namespaces| Sandboxing { landlock, seccomp, namespaces, lacks: Vec::new() };
        for (able, enough) in [
            (with(7, true, true), true),
            (with(3, true, false), true),
            (with(0, true, true), true),
            (with(2, true, false), false),
            (with(7, false, true), false),
            (Sandboxing::default(), false),
        ] {
            assert_eq!(able.is_enough(), enough, "{able}");
            assert_eq!(able.check(Isolation::Workspace).is_ok(), enough, "{able}");
            assert_eq!(able.check(Isolation::Full), Ok(()));
        }
        let refused = Sandboxing { lacks: vec!["no Landlock".to_owned()], ..with(0, true, false) };
        let failure = refused.check(Isolation::ReadOnly).expect_err("refused");
        assert_eq!(failure.code, Code::IsolationUnavailable);
        assert_eq!(failure.message, "this worker cannot give the isolation level `read_only`: no Landlock");
    }

    #[test]
    fn what_was_on_is_said_in_one_line() {
        let able = Sandboxing { landlock: 7, seccomp: true, namespaces: true, lacks: Vec::new() };
        let said = |isolation, network| able.confinement(isolation, network).to_string();
        assert_eq!(
            said(Isolation::ReadOnly, Network::None),
            "read-only, no network, loopback of its own (Landlock 7, seccomp, namespaces)"
        );
        assert_eq!(said(Isolation::Workspace, Network::Host), "workspace, network (Landlock 7, seccomp, namespaces)");
        assert_eq!(said(Isolation::Full, Network::None), "unsandboxed");
    }

    #[test]
    fn levels_are_read_as_people_write_them_and_old_records_keep_what_they_ran_under() {
        assert_eq!("read-only".parse(), Ok(Isolation::ReadOnly));
        assert_eq!("host".parse(), Ok(Network::Host));
        assert_eq!("none".parse::<Isolation>().expect_err("no level").code, Code::InvalidRequest);
        let old: Isolation = serde_json::from_str("\"process\"").expect("an old record");
        assert_eq!(old, Isolation::Full);
    }
}
