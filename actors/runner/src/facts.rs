//! What the machine has, in the words that tasks ask with.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::StreamExt;
use helix_protocol::link::{AGENT_TURNS, Free, Heartbeat};
use helix_protocol::{Capability, Resources, Sandboxing, Toolchain, WorkerFacts};
use parking_lot::Mutex;
use rustix::fs::statvfs;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use tokio::process::Command;

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(3);
const MIB: u64 = 1024 * 1024;
/// What a person says the machine has, beside what is found.
const NAMED: &str = "WORKER_CAPABILITIES";

/// How much of the machine looking at it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Somebody waits for it: every program is asked at once.
    Prompt,
    /// Nobody does, and commands may be running: one after the other.
    Quiet,
}

impl Pace {
    fn at_once(self) -> usize {
        match self {
            Self::Prompt => Capability::PROGRAMS.len(),
            Self::Quiet => 1,
        }
    }
}

/// Looks at the machine; versions are asked once per program and remembered while the program's file is the same.
#[derive(Debug)]
pub struct Inspector {
    folder: PathBuf,
    sandbox: Sandboxing,
    versions: Mutex<HashMap<PathBuf, (u64, String)>>,
    /// What the last whole look found that a glance does not: toolchains and GPUs.
    looked: Mutex<(Vec<Toolchain>, u32)>,
}

impl Inspector {
    /// `folder` is where workspaces are: its disk is measured. `sandbox` is what was found when it was tried.
    pub fn new(folder: PathBuf, sandbox: Sandboxing) -> Self {
        Self { folder, sandbox, versions: Mutex::default(), looked: Mutex::default() }
    }

    /// Everything, with versions. A program that hangs costs three seconds and its version.
    pub async fn look(&self, pace: Pace) -> WorkerFacts {
        let found = programs();
        let asked: Vec<_> = found.iter().map(|(name, path)| self.version(name, path)).collect();
        let versions: Vec<_> = futures::stream::iter(asked).buffered(pace.at_once()).collect().await;
        let toolchains = found
            .iter()
            .zip(versions)
            .filter_map(|((name, _), version)| Some(Toolchain { name: (*name).to_owned(), version: version? }));
        let looked = (toolchains.collect(), gpus().await);
        *self.looked.lock() = looked;
        self.known()
    }

    /// What can be seen at once, with the toolchains and GPUs that the last whole look found.
    pub fn known(&self) -> WorkerFacts {
        let (toolchains, gpus) = self.looked.lock().clone();
        let (os, arch) = (std::env::consts::OS.to_owned(), std::env::consts::ARCH.to_owned());
        let mut words: Vec<String> = programs().into_iter().map(|(name, _)| name.to_owned()).collect();
        words.extend([os.clone(), arch.clone()]);
        if gpus > 0 || Path::new("/proc/driver/nvidia/version").exists() {
            words.push("cuda".to_owned());
        }
        if self.sandbox.is_enough() {
            words.push(Sandboxing::CAPABILITY.to_owned());
        }
        words.push(AGENT_TURNS.to_owned());
        words.extend(named(&std::env::var(NAMED).unwrap_or_default()));
        words.sort();
        words.dedup();
        WorkerFacts {
            os,
            arch,
            hostname: System::host_name().unwrap_or_else(|_| "unknown".to_owned()),
            capabilities: words.into_iter().map(Capability).collect(),
            toolchains,
            resources: self.resources(gpus),
            sandbox: self.sandbox.clone(),
        }
    }

    /// Sizes, and what of them is free.
    pub fn resources(&self, gpus: u32) -> Resources {
        let (memory_mib, memory_free_mib) = memory();
        let (disk_mib, disk_free_mib) = disk(&self.folder);
        let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
        Resources {
            cores,
            load: System::load_average().map_or(0.0, |load| load.one),
            memory_mib,
            memory_free_mib,
            disk_mib,
            disk_free_mib,
            gpus,
        }
    }

    /// What a heartbeat says.
    pub fn heartbeat(&self, sequence: u64) -> Heartbeat {
        let now = self.resources(0);
        let percent = |all: u64, free: u64| u8::try_from(100 * (all - free.min(all)) / all.max(1)).unwrap_or(100);
        Heartbeat {
            sequence,
            load: now.load,
            memory_percent: percent(now.memory_mib, now.memory_free_mib),
            disk_percent: percent(now.disk_mib, now.disk_free_mib),
            free: Some(Free { memory_mib: now.memory_free_mib, disk_mib: now.disk_free_mib }),
        }
    }

    async fn version(&self, name: &str, path: &Path) -> Option<String> {
        let stamp = std::fs::metadata(path).ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
        if let Some((known, version)) = self.versions.lock().get(path)
            && *known == stamp
        {
            return Some(version.clone());
        }
        let argument = match name {
            "go" => "version",
            "java" => "-version",
            _ => "--version",
        };
        let version = first_line(path, &[argument]).await?;
        self.versions.lock().insert(path.to_owned(), (stamp, version.clone()));
        Some(version)
    }
}

/// The words of a list; what could not be asked for is left out.
fn named(list: &str) -> impl Iterator<Item = String> {
    list.split([',', ' ']).filter(|word| word.parse::<Capability>().is_ok()).map(str::to_owned)
}

/// The known programs on PATH.
fn programs() -> Vec<(&'static str, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let runs =
        |file: &PathBuf| std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    let find = |name: &&'static str| Some((*name, folders.iter().map(|folder| folder.join(name)).find(runs)?));
    Capability::PROGRAMS.iter().filter_map(find).collect()
}

/// The first line a program says within its time, of either stream (java says it on stderr), as plain text: it is shown to people.
async fn first_line(program: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let line: String = plain(String::from_utf8_lossy(&said).lines().next()?).trim().chars().take(200).collect();
    (output.status.success() && !line.is_empty()).then_some(line)
}

/// A line without control characters and without the whole sequences that an escape character begins (ECMA-48).
fn plain(line: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(line.len()), line.chars());
    while let Some(c) = rest.next() {
        if c != '\x1b' {
            plain.extend(Some(c).filter(|c| !c.is_control()));
            continue;
        }
        match rest.next() {
            Some('[') => drop(rest.find(|c| ('@'..='~').contains(c))),
            // Strings, as of a title: up to BEL, or to the escape character and the backslash behind it.
            Some(']' | 'P' | 'X' | '^' | '_') => {
                let end = rest.find(|c| matches!(c, '\x07' | '\x1b'));
                if end == Some('\x1b') {
                    rest.next();
                }
            }
            Some(' '..='/') => drop(rest.find(|c| ('0'..='~').contains(c))),
            _ => {}
        }
    }
    plain
}

async fn gpus() -> u32 {
    let mut command = Command::new("nvidia-smi");
    command.arg("-L").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            let lines = String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with("GPU ")).count();
            u32::try_from(lines).unwrap_or(u32::MAX)
        }
        _ => 0,
    }
}

fn memory() -> (u64, u64) {
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    system.map_or((0, 0), |system| (system.total_memory() / MIB, system.available_memory() / MIB))
}

fn disk(folder: &Path) -> (u64, u64) {
    // Free is what an ordinary user may still write.
    statvfs(folder).map_or((0, 0), |disk| (disk.f_blocks * disk.f_frsize / MIB, disk.f_bavail * disk.f_frsize / MIB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_says_the_machine_has_is_a_list_of_words() {
        let words: Vec<String> = named("licence-x, quiet room,,NOT/one").collect();
        assert_eq!(words, ["licence-x", "quiet", "room"]);
        assert_eq!(named("").count(), 0);
    }

    #[tokio::test]
    async fn a_version_is_plain_text_whatever_the_program_says() {
        let line = first_line(Path::new("/bin/sh"), &["-c", r"printf '\033]0;owned\007tool 1.2\033[2J\r\nmore\n'"]).await;
        assert_eq!(line.as_deref(), Some("tool 1.2"));
        for (said, left) in [
            ("\x1b[1mApache Maven 3.8.7\x1b[m", "Apache Maven 3.8.7"),
            ("\x1b]8;;http://x\x1b\\go\x1b]8;;\x1b\\ 1.2", "go 1.2"),
            ("a\x1b(Bb\x1b7c\x07d", "abcd"),
            ("cut\x1b[3", "cut"),
        ] {
            assert_eq!(plain(said), left, "{said:?}");
        }
    }

    #[tokio::test]
    async fn a_machine_is_described_in_the_words_tasks_ask_with() {
        let facts = Inspector::new("/".into(), Sandboxing::default()).look(Pace::Prompt).await;
        let words: Vec<&str> = facts.capabilities.iter().map(|word| word.0.as_str()).collect();
        assert!(words.contains(&std::env::consts::OS) && words.contains(&std::env::consts::ARCH), "{words:?}");
        assert!(words.is_sorted() && facts.capabilities.iter().all(|word| word.0.parse::<Capability>().is_ok()));
        assert!(facts.toolchains.iter().all(|tool| words.contains(&tool.name.as_str())));
        assert!(facts.resources.cores > 0 && facts.resources.memory_mib >= facts.resources.memory_free_mib);
    }
}
