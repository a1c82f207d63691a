//! Starting an engine where none runs, and doing without one.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How the start of an engine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// It listens, or another one that was quicker does or will.
    Ready,
    /// It could not start, for this reason.
    Failed(String),
}

/// The engine's program: what `HELIOS_ENGINE` names, else the one beside this program, else the one of the search path.
pub fn find_engine() -> PathBuf {
    if let Some(named) = std::env::var_os("HELIOS_ENGINE") {
        return named.into();
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("heliosd")));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| "heliosd".into())
}

/// Starts an engine that outlives this process, and waits for its word that it listens.
pub fn start_engine(program: &Path) -> io::Result<Started> {
    // It leaves the session by itself, and closes what it inherits: see the engine's `detach`.
    let mut child = Command::new(program)
        .args(["serve", "--detached"])
        .current_dir("/")
        // It answers for the machine's time zone: see `Run::offset_minutes`.
        .env_remove("TZ")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut word = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut word)?;
    }
    match word.trim_end() {
        "ready" | "another" => Ok(Started::Ready),
        "" => Ok(Started::Failed(format!("{} ended without a word", program.display()))),
        reason => Ok(Started::Failed(reason.to_owned())),
    }
}

/// Becomes an engine that does this one command and ends. Returns only where that program cannot be run.
pub fn exec_one_shot(program: &Path, argv: impl Iterator<Item = OsString>) -> io::Error {
    Command::new(program).arg("--one-shot").args(argv).exec()
}
