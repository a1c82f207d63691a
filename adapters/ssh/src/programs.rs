//! Where the worker program for an architecture is found, and what it needs of a host.

use std::fs;
use std::path::{Path, PathBuf};

use helix_protocol::{Code, Failure};

/// What helps where a worker program lacks a library.
pub(crate) const STATIC: &str =
    "start the node with target/dist/helix, which `make dist` makes: the static worker program beside it needs no library";

/// The worker programs a node can install: a folder with files `helix-worker-<arch>`, and the program of this
/// machine, which serves hosts of the same architecture where the folder has none.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
    local: PathBuf,
}

/// One program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Where it is on this machine.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
    /// Names its folder on hosts: this build's version and a fingerprint of the bytes.
    pub version: String,
    /// The loader it needs, where it is not static.
    pub loader: Option<String>,
}

impl Programs {
    /// Programs in `folder`, and the one of this machine.
    pub fn new(folder: impl Into<PathBuf>, local: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), local: local.into() }
    }

    /// The program for a machine as `uname -m` names it. Refused with `install_failed` where there is none.
    pub(crate) fn for_machine(&self, machine: &str) -> Result<Program, Failure> {
        let arch = architecture(machine);
        let built = self.folder.join(format!("helix-worker-{arch}"));
        if built.is_file() {
            return Program::read(built);
        }
        if arch == std::env::consts::ARCH && self.local.is_file() {
            return Program::read(self.local.clone());
        }
        Err(Failure::new(
            Code::InstallFailed,
            format!("there is no worker program for {machine}: neither {} nor one of this machine fits", built.display()),
        )
        .hint(format!(
            "start the node with target/dist/helix, which `make dist` makes with a worker program for each architecture, or put \
             one at {}",
            built.display()
        )))
    }
}

impl Program {
    fn read(path: PathBuf) -> Result<Self, Failure> {
        let bytes = fs::read(&path).map_err(|error| {
            Failure::new(Code::InstallFailed, format!("the worker program {} cannot be read: {error}", path.display()))
                .hint("check its permissions")
        })?;
        let version = format!("{}-{:08x}", env!("CARGO_PKG_VERSION"), fingerprint(&bytes));
        Ok(Self { length: bytes.len() as u64, loader: interpreter(&bytes), version, path })
    }

    /// Refuses a host without the loader that the program needs.
    pub(crate) fn check_loader(&self, host: &str, loaders: &[String]) -> Result<(), Failure> {
        let Some(needed) = &self.loader else { return Ok(()) };
        if loaders.contains(needed) {
            return Ok(());
        }
        let has = match loaders {
            [] => "no loader at all".to_owned(),
            some => some.join(" and "),
        };
        Err(Failure::new(
            Code::InstallFailed,
            format!("the worker program needs the loader {needed} ({}), and {host} has {has}", libc_of(needed)),
        )
        .hint(STATIC))
    }
}

/// One word for each architecture, whatever the system calls it.
fn architecture(machine: &str) -> &str {
    match machine {
        "amd64" | "x86_64" => "x86_64",
        "arm64" | "aarch64" => "aarch64",
        other => other,
    }
}

fn libc_of(loader: &str) -> &'static str {
    if loader.contains("musl") { "musl" } else { "glibc" }
}

/// FNV-1a, folded to 32 bits: tells builds of one version apart, and nothing depends on it otherwise.
fn fingerprint(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    ((hash >> 32) ^ (hash & 0xffff_ffff)) as u32
}

/// The loader named in a 64-bit little-endian ELF program (its PT_INTERP segment); `None` for a static one, or for
/// something else that the host may know how to run.
fn interpreter(bytes: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, length: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(length)?)?;
        Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let place = |at: usize, length: usize| usize::try_from(number(at, length)?).ok();
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (place(32, 8)?, place(54, 2)?, place(56, 2)?);
    let segment = (0..count)
        .filter_map(|index| table.checked_add(index.checked_mul(size)?))
        .find(|at| number(*at, 4) == Some(u64::from(PT_INTERP)))?;
    let (start, length) = (place(segment + 8, 8)?, place(segment + 32, 8)?);
    let name = bytes.get(start..start.checked_add(length)?)?.split(|byte| *byte == 0).next()?;
    String::from_utf8(name.to_vec()).ok()
}

/// True where a file is there and may be executed.
pub(crate) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_this_machine_serves_its_own_architecture_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let local = folder.path().join("helix-worker");
        fs::write(&local, "local").unwrap();
        let programs = Programs::new(folder.path(), &local);
        assert_eq!(programs.for_machine(std::env::consts::ARCH).unwrap().path, local);
        let refused = programs.for_machine("riscv64").unwrap_err();
        assert_eq!(refused.code, Code::InstallFailed);
        assert!(refused.message.contains("riscv64"), "{}", refused.message);
        assert!(refused.hint.contains("target/dist/helix"), "{}", refused.hint);
        fs::write(folder.path().join("helix-worker-riscv64"), "built").unwrap();
        assert_eq!(programs.for_machine("riscv64").unwrap().length, 5);
    }

    #[test]
    fn two_builds_have_two_folders() {
        let folder = tempfile::tempdir().unwrap();
        let version = |content: &str| {
            let path = folder.path().join("p");
            fs::write(&path, content).unwrap();
            Program::read(path).unwrap().version
        };
        assert_eq!(version("one"), version("one"));
        assert_ne!(version("one"), version("two"));
    }

    #[test]
    fn a_program_that_needs_a_loader_names_it_and_its_libc() {
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        let loader = interpreter(&this);
        assert_eq!(loader.is_none(), cfg!(target_feature = "crt-static"), "only a static program needs none");
        let Some(loader) = loader else { return };
        assert!(Path::new(&loader).exists(), "{loader}");
        let program = Program { path: PathBuf::new(), length: 0, version: String::new(), loader: Some(loader.clone()) };
        assert_eq!(program.check_loader("box", std::slice::from_ref(&loader)), Ok(()));
        let refused = program.check_loader("box", &["/lib/ld-musl-x86_64.so.1".to_owned()]).unwrap_err();
        assert!(refused.message.contains(&loader) && refused.message.contains("musl"), "{}", refused.message);
        assert!(refused.hint.contains("target/dist/helix"), "{}", refused.hint);
        assert_eq!(interpreter(b"#!/bin/sh\n"), None);
        assert_eq!(interpreter(&this[..100]), None);
    }
}
