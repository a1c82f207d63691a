//! Programs that were not written here and that are tested and measured with: scripts/peers.sh installs them.
//!
//! One that is missing fails whatever needs it, unless `HELIX_WITHOUT_PEERS=1` says to go on without.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::not_run::not_run;

/// What the script of a peer in `scripts/` says about it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it is, or would be.
    pub place: PathBuf,
    /// All of it is installed.
    pub is_whole: bool,
}

impl Peer {
    /// Asks `scripts/{name}.sh`.
    pub fn find(name: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name).with_extension("sh");
        let output = Command::new(script).arg("--where").output().expect("bash runs");
        let place = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        Self { place, is_whole: output.status.success() }
    }
}

/// The verdict about what needs a peer that is not installed: it is said, and is an error unless it was agreed to.
pub fn without(name: &str, what: &str) -> Result<(), String> {
    if std::env::var("HELIX_WITHOUT_PEERS").is_ok_and(|value| value == "1") {
        not_run(what, &format!("{name} of scripts/peers.sh missing, as HELIX_WITHOUT_PEERS allows"));
        return Ok(());
    }
    Err(format!("{what} cannot run: `scripts/peers.sh {name}` installs what is missing, HELIX_WITHOUT_PEERS=1 goes on without"))
}
