//! `scripts/setup.sh` on machines that lack something: what it installs, what it only says, and that it changes nothing unasked.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A machine whose programs are these. What changes it is written down instead.
struct Machine {
    folder: tempfile::TempDir,
}

/// How setting it up ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    code: Option<i32>,
    said: String,
    /// What was run that changes the machine.
    done: Vec<String>,
}

impl Machine {
    /// With everything that is needed, as the user of this id.
    fn complete(user: u32) -> Self {
        let machine = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        std::fs::create_dir(machine.programs()).expect("the folder is writable");
        for name in ["bash", "awk", "sort", "head", "grep", "dirname", "env", "sha256sum", "cut"] {
            machine.links(name);
        }
        for name in ["git", "cc", "c++", "make", "initdb", "postgres", "openssl", "ssh", "python3", "node", "npm"] {
            machine.has(name, "exit 0");
        }
        machine.has("id", &format!("echo {user}"));
        machine.has_rust("1.95.0")
    }

    fn programs(&self) -> PathBuf {
        self.folder.path().join("programs")
    }

    fn done(&self) -> PathBuf {
        self.folder.path().join("done")
    }

    /// This machine's own program.
    fn links(&self, name: &str) {
        let found = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name)).into_iter().find(|path| path.exists());
        symlink(found.unwrap_or_else(|| panic!("{name} is on every machine")), self.programs().join(name)).expect("a link");
    }

    fn has(&self, name: &str, script: &str) {
        let path = self.programs().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the folder is writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the script is ours");
    }

    /// A program that changes the machine.
    fn changes_by(self, name: &str) -> Self {
        self.has(name, &format!("echo {name} \"$@\" >> {}", self.done().display()));
        self
    }

    fn with_sudo(self) -> Self {
        self.has("sudo", "exec env \"$@\"");
        self
    }

    fn has_rust(self, version: &str) -> Self {
        self.has("cargo", &format!("echo cargo {version}"));
        self
    }

    fn lacks(self, name: &str) -> Self {
        std::fs::remove_file(self.programs().join(name)).expect("it was there");
        self
    }

    fn set_up(&self, yes: &[(&str, &str)]) -> Ended {
        self.set_up_for(&["build"], yes)
    }

    fn set_up_for(&self, purpose: &[&str], variables: &[(&str, &str)]) -> Ended {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/setup.sh");
        let mut command = Command::new(self.programs().join("bash"));
        command.arg(script).args(purpose).env_clear().env("PATH", self.programs()).env("LIBCLANG_PATH", "/nowhere");
        command.env("HELIX_CACHE", self.folder.path().join("cache"));
        let output = command.envs(variables.iter().copied()).stdin(Stdio::null()).output().expect("the script runs");
        let done = std::fs::read_to_string(self.done()).unwrap_or_default();
        Ended {
            code: output.status.code(),
            said: String::from_utf8(output.stderr).expect("text"),
            done: done.lines().map(str::to_owned).collect(),
        }
    }
}

const INSTALL: &str = "apt-get install -y --no-install-recommends git g++";
const YES: [(&str, &str); 1] = [("YES", "1")];

fn without_a_compiler(user: u32) -> Machine {
    Machine::complete(user).lacks("git").lacks("c++")
}

#[test]
fn nothing_is_said_or_done_where_nothing_is_missing() {
    let ended = Machine::complete(1_000).changes_by("apt-get").set_up(&[]);
    assert_eq!(ended, Ended { code: Some(0), said: String::new(), done: Vec::new() });
}

#[test]
fn root_installs_with_apt_at_once() {
    let ended = without_a_compiler(0).changes_by("apt-get").set_up(&[]);
    assert_eq!((ended.code, ended.done), (Some(0), vec!["apt-get update -qq".to_owned(), format!("{INSTALL} -qq")]));
}

#[test]
fn with_sudo_it_asks_or_says_the_command_and_yes_is_an_answer() {
    let machine = || without_a_compiler(1_000).changes_by("apt-get").with_sudo();
    let nobody_to_ask = machine().set_up(&[]);
    assert_eq!((nobody_to_ask.code, nobody_to_ask.done), (Some(1), Vec::new()));
    assert!(nobody_to_ask.said.contains(&format!("\n  sudo apt-get update && sudo {INSTALL}\n")), "{}", nobody_to_ask.said);
    let told = machine().set_up(&YES);
    assert_eq!((told.code, told.done), (Some(0), vec!["apt-get update -qq".to_owned(), format!("{INSTALL} -qq")]));
}

#[test]
fn without_root_and_sudo_the_command_is_said_and_nothing_done() {
    let ended = without_a_compiler(1_000).changes_by("apt-get").set_up(&YES);
    assert_eq!((ended.code, ended.done), (Some(1), Vec::new()));
    assert!(ended.said.ends_with(&format!("\n  apt-get update && {INSTALL}\n")), "{}", ended.said);
}

#[test]
fn without_apt_the_command_of_what_is_there_is_said() {
    let said = |user: u32, manager: &str| {
        let ended = without_a_compiler(user).changes_by(manager).set_up(&YES);
        assert_eq!((ended.code, ended.done), (Some(1), Vec::new()));
        ended.said
    };
    assert!(said(1_000, "dnf").ends_with("\n  sudo dnf install -y git gcc-c++\n"));
    assert!(said(1_000, "zypper").ends_with("\n  sudo zypper install -y git gcc-c++\n"));
    assert!(said(1_000, "pacman").ends_with("\n  sudo pacman -S --needed git gcc\n"));
    assert!(said(0, "dnf").ends_with("\n  dnf install -y git gcc-c++\n"), "root needs no sudo, and may have none");
    assert!(said(0, "something-else").contains("what Debian calls: git g++"));
    let said_for_tests = |manager: &str| {
        let machine = Machine::complete(1_000).lacks("python3").lacks("node").lacks("npm").changes_by(manager);
        machine.set_up_for(&["test", "clients"], &YES).said
    };
    assert!(said_for_tests("dnf").ends_with("\n  sudo dnf install -y python3 nodejs npm\n"));
    assert!(said_for_tests("zypper").ends_with("\n  sudo zypper install -y python3 nodejs-default npm-default\n"));
    assert!(said_for_tests("pacman").ends_with("\n  sudo pacman -S --needed python nodejs npm\n"));
}

#[test]
fn what_fetches_the_releases_of_packages_is_installed_for_the_bench_alone() {
    let machine = || Machine::complete(0).lacks("npm").changes_by("apt-get");
    assert_eq!(machine().set_up(&[]).done, Vec::<String>::new());
    let told = machine().set_up_for(&["releases"], &[]);
    assert_eq!(told.done.last().map(String::as_str), Some("apt-get install -y --no-install-recommends npm -qq"), "{}", told.said);
}

#[test]
fn an_older_rust_is_replaced_by_rustup_where_that_was_allowed_and_else_the_command_is_said() {
    let older = || Machine::complete(1_000).has_rust("1.94.1");
    let alone = older().set_up(&YES);
    assert_eq!((alone.code, alone.done), (Some(1), Vec::new()));
    assert!(alone.said.contains("found: cargo 1.94.1") && alone.said.contains("--default-toolchain 1.95"), "{}", alone.said);
    let forbidden = older().changes_by("rustup").set_up(&[("YES", "1"), ("RUSTUP_AUTO_INSTALL", "0")]);
    assert_eq!((forbidden.code, forbidden.done), (Some(1), Vec::new()), "whoever set that means it");
    let asked = older().changes_by("rustup").set_up(&[]);
    assert_eq!((asked.code, asked.done), (Some(1), Vec::new()));
    assert!(
        asked.said.contains("found: cargo 1.94.1") && asked.said.contains("\n  rustup toolchain install 1.95 "),
        "{}",
        asked.said
    );
    let told = older().changes_by("rustup").set_up(&YES);
    assert_eq!(told.code, Some(0), "{}", told.said);
    assert_eq!(told.done, ["rustup toolchain install 1.95 --profile minimal", "rustup override set 1.95"]);
    assert_eq!(Machine::complete(1_000).has_rust("1.100.0").set_up(&[]).code, Some(0));
}

/// A machine without Rust, whose packages have rustup or have not.
fn without_rust(candidate: &str) -> Machine {
    let machine = Machine::complete(0).lacks("cargo");
    for name in ["sh", "cp", "chmod"] {
        machine.links(name);
    }
    machine.has("apt-cache", &format!("echo '  Candidate: {candidate}'"));
    let (packed, done, programs) = (machine.folder.path().join("rustup"), machine.done(), machine.programs());
    let (packed, done, programs) = (packed.display(), done.display(), programs.display());
    std::fs::write(machine.folder.path().join("rustup"), format!("#!/bin/sh\necho rustup \"$@\" >> {done}\n")).expect("writable");
    let unpack = format!("cp {packed} {programs} && chmod +x {programs}/rustup");
    machine.has("apt-get", &format!("echo apt-get \"$@\" >> {done}; case \"$*\" in *rustup*) {unpack};; esac"));
    // It prints what is to be run, which installs Rust.
    let newest = machine.folder.path().join("cargo");
    std::fs::write(&newest, "#!/bin/sh\necho cargo 1.95.0\n").expect("writable");
    let unpack = format!("cp {} {programs} && chmod +x {programs}/cargo", newest.display());
    machine.has("curl", &format!("echo 'echo rustup.rs \"$@\" >> {done}; {unpack} || true'"));
    machine
}

#[test]
fn rustup_comes_from_its_package_where_there_is_one_and_else_from_its_own_page() {
    let packaged = without_rust("1.27.1").set_up(&YES);
    let install = "apt-get install -y --no-install-recommends rustup -qq";
    let toolchain = ["rustup toolchain install 1.95 --profile minimal", "rustup override set 1.95"];
    let done = ["apt-get update -qq", install, toolchain[0], toolchain[1]].map(str::to_owned).to_vec();
    assert_eq!((packaged.code, packaged.done), (Some(0), done), "{}", packaged.said);
    let fetched = without_rust("(none)").set_up(&YES);
    let script = "rustup.rs -y --profile minimal --default-toolchain 1.95".to_owned();
    assert_eq!((fetched.code, fetched.done), (Some(0), vec![script]), "{}", fetched.said);
    let hidden = without_rust("(none)").lacks("chmod").set_up(&YES);
    assert_eq!(hidden.code, Some(1));
    assert!(hidden.said.ends_with("found first. Run this, then try again:\n  . ~/.cargo/env\n"), "{}", hidden.said);
    let unasked = without_rust("(none)").set_up(&[]);
    assert_eq!((unasked.code, unasked.done), (Some(1), Vec::new()));
    assert!(unasked.said.contains("found: none") && unasked.said.ends_with("1.95 && . ~/.cargo/env\n"), "{}", unasked.said);
}

/// What `make test` sets up, on a machine that lacks Python and Node.
fn without_python_and_node(variables: &[(&str, &str)]) -> Ended {
    let machine = Machine::complete(0).lacks("python3").lacks("node").lacks("npm").changes_by("apt-get");
    machine.set_up_for(&["test", "clients"], variables)
}

#[test]
fn tests_need_python_and_clients_that_can_be_installed_unless_it_was_agreed_to_go_on_without() {
    let ended = without_python_and_node(&[]);
    let install = "apt-get install -y --no-install-recommends python3 python3-venv nodejs npm -qq";
    assert_eq!((ended.code, ended.done), (Some(1), vec!["apt-get update -qq".to_owned(), install.to_owned()]), "{}", ended.said);
    assert!(ended.said.ends_with("HELIX_WITHOUT_PEERS=1 goes on without ***\n"), "{}", ended.said);
    let agreed = without_python_and_node(&[("HELIX_WITHOUT_PEERS", "1")]);
    let install = "apt-get install -y --no-install-recommends python3 -qq";
    assert_eq!((agreed.code, agreed.done), (Some(0), vec!["apt-get update -qq".to_owned(), install.to_owned()]), "{}", agreed.said);
    assert!(agreed.said.contains("*** missing: clients;"), "{}", agreed.said);
}

#[test]
fn the_server_that_durable_tasks_are_measured_beside_needs_npm_and_no_python() {
    let machine = Machine::complete(0).lacks("npm").changes_by("apt-get");
    machine.links("uname");
    machine.has("python3", "exit 1");
    let told = machine.set_up_for(&["test", "restate"], &[]);
    assert_eq!(told.done.last().map(String::as_str), Some("apt-get install -y --no-install-recommends npm -qq"), "{}", told.said);
    assert!(told.said.contains("only these need: restate"), "{}", told.said);
    let agreed = machine.set_up_for(&["test", "restate"], &[("HELIX_WITHOUT_PEERS", "1")]);
    assert_eq!(agreed.code, Some(0), "{}", agreed.said);
    assert!(agreed.said.contains("*** missing: restate;"), "{}", agreed.said);
}

#[test]
fn a_peer_is_installed_once_and_a_failure_is_told_and_leaves_nothing_that_counts() {
    let machine = Machine::complete(1_000);
    for name in ["mkdir", "flock", "rm", "touch", "chmod"] {
        machine.links(name);
    }
    // It makes an environment whose `pip` installs everything.
    machine.has(
        "python3",
        "[ \"$2\" = venv ] || exit 0; mkdir -p python/bin; echo '#!/bin/sh' >python/bin/pip; chmod +x python/bin/pip",
    );
    machine.has("npm", "echo no network >&2; exit 1");
    for _ in 0..2 {
        let failed = machine.set_up_for(&["build", "clients"], &[]);
        assert_eq!(failed.code, Some(1), "{}", failed.said);
        assert!(failed.said.contains("no network\n*** missing: clients;"), "{}", failed.said);
    }
    machine.has("npm", "exit 0");
    let installed = machine.set_up_for(&["build", "clients"], &[]);
    assert_eq!((installed.code, installed.said.as_str()), (Some(0), "installing the official model clients once ...\n"));
    assert_eq!(machine.set_up_for(&["build", "clients"], &[]), Ended { code: Some(0), said: String::new(), done: Vec::new() });
}
