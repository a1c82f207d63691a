//! What a command finds around it: variables, ports, marks.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use helix_protocol::{Code, Environment, Epoch, Failure, TaskId};
use parking_lot::Mutex;

use crate::processes::{FOLDER_MARK, KEEPS_MARK, TASK_MARK, WORKER_MARK};
use crate::sandbox::Policy;

/// Ports are given out of this range, below where systems take theirs for outgoing connections.
const PORTS: Range<u16> = 20_000..32_000;

/// As many ports in a row are one worker's at a time.
const BLOCK: u16 = 64;

/// Ports given to workspaces.
#[derive(Debug, Default)]
pub struct Ports(Mutex<Given>);

#[derive(Debug, Default)]
struct Given {
    ranges: Vec<(TaskId, Range<u16>)>,
    /// What keeps other workers of this machine from the blocks that these ranges lie in: nothing may listen there yet. `None`
    /// where it could not be made, for another reason than that it is taken.
    blocks: BTreeMap<u16, Option<UnixListener>>,
}

impl Ports {
    /// As many free ports in a row as asked for; those the task has already, where they are as many.
    pub fn give(&self, task: TaskId, count: u16) -> Result<Vec<u16>, Failure> {
        let mut given = self.0.lock();
        if count > 0
            && let Some((_, range)) = given.ranges.iter().find(|(owner, range)| *owner == task && range.len() == usize::from(count))
        {
            return Ok(range.clone().collect());
        }
        given.take_back(task);
        if count == 0 {
            return Ok(Vec::new());
        }
        // Workers of one machine start looking at different places.
        let span = PORTS.end - PORTS.start;
        let seed = u16::try_from(std::process::id() % u32::from(span)).unwrap_or_default() / BLOCK * BLOCK;
        let mut tried = 0;
        while tried < span && count < span {
            let start = PORTS.start + (seed + tried) % span;
            let range = start..start.saturating_add(count);
            if range.end <= PORTS.end && given.take(task, &range) {
                return Ok(range.collect());
            }
            tried += 1;
        }
        Err(Failure::new(Code::Overloaded, format!("no {count} free ports in a row are left on this worker"))
            .hint("close a task that has many, or ask for fewer"))
    }

    /// The task's ports are free again.
    pub fn take_back(&self, task: TaskId) {
        self.0.lock().take_back(task);
    }
}

impl Given {
    /// Gives a range to the task, where it is nobody's.
    fn take(&mut self, task: TaskId, range: &Range<u16>) -> bool {
        if self.ranges.iter().any(|(_, other)| range.start < other.end && other.start < range.end) || !range.clone().all(is_free) {
            return false;
        }
        let mut more = Vec::new();
        for block in blocks(range).filter(|block| !self.blocks.contains_key(block)) {
            match hold(block) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => return false,
                held => more.push((block, held.ok())),
            }
        }
        self.blocks.extend(more);
        self.ranges.push((task, range.clone()));
        true
    }

    fn take_back(&mut self, task: TaskId) {
        let Self { ranges, blocks: held } = self;
        ranges.retain(|(owner, _)| *owner != task);
        held.retain(|block, _| ranges.iter().any(|(_, range)| blocks(range).any(|its| its == *block)));
    }
}

/// The blocks that a range lies in.
fn blocks(range: &Range<u16>) -> impl Iterator<Item = u16> + use<> {
    range.start / BLOCK..=(range.end - 1) / BLOCK
}

/// Takes a block for this process. A name without a file is known as far as the ports are, and gone with the process.
fn hold(block: u16) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(format!("helix-ports-{}", block * BLOCK))?)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

/// The marks by which everything a task starts is found again.
#[derive(Clone, Copy, Debug)]
pub struct Marks<'a> {
    /// The worker's incarnation.
    pub incarnation: u64,
    /// Its folder.
    pub folder: &'a Path,
    /// The task.
    pub task: TaskId,
    /// The owner's epoch.
    pub epoch: Epoch,
}

impl Marks<'_> {
    /// Those of the process that starts a task's commands. Without the task's own: it belongs to the workspace as the worker does,
    /// and what looks for what a task runs means everything below it.
    pub fn of_sandbox(&self) -> Vec<(String, String)> {
        vec![
            (WORKER_MARK.into(), self.incarnation.to_string()),
            (FOLDER_MARK.into(), self.folder.display().to_string()),
            (KEEPS_MARK.into(), self.task.to_string()),
        ]
    }
}

/// The variables of a command: the worker's own without credentials, the task's, its secrets, the marks.
pub fn variables(
    environment: &Environment,
    secrets: &[(String, String)],
    ports: &[u16],
    marks: Marks<'_>,
    policy: &Policy,
) -> Vec<(String, String)> {
    let inherited = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut all: Vec<(String, String)> = inherited.filter(|(name, _)| !is_private(name)).collect();
    all.extend(environment.variables.iter().map(|(name, value)| (name.clone(), value.clone())));
    all.extend(secrets.iter().cloned());
    if policy.confinement.isolation.is_sandboxed() {
        all.extend(in_sandbox(policy, environment));
    }
    if let Some(first) = ports.first() {
        let every: Vec<String> = ports.iter().map(u16::to_string).collect();
        all.push(("HELIX_PORT".into(), first.to_string()));
        all.push(("HELIX_PORTS".into(), every.join(" ")));
    }
    all.push((WORKER_MARK.into(), marks.incarnation.to_string()));
    all.push((FOLDER_MARK.into(), marks.folder.display().to_string()));
    all.push((TASK_MARK.into(), marks.task.to_string()));
    all.push(("HELIX_EPOCH".into(), marks.epoch.to_string()));
    all.retain(|(name, value)| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
    all
}

/// Where programs may put temporary files and caches, unless the task says it itself: the home of the
/// worker's user is not writable.
fn in_sandbox(policy: &Policy, environment: &Environment) -> Vec<(String, String)> {
    let temporary = policy.seen_temporary().display().to_string();
    let mut all = vec![("TMPDIR", temporary.clone())];
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let is_writable =
        |name: &str| home.as_ref().is_some_and(|home| policy.writable.iter().any(|path| home.join(name).starts_with(path)));
    if !is_writable(".cache") {
        all.push(("XDG_CACHE_HOME", format!("{temporary}/cache")));
    }
    if !is_writable(".npm") {
        all.push(("npm_config_cache", format!("{temporary}/cache/npm")));
    }
    all.into_iter()
        .filter(|(name, _)| !environment.variables.contains_key(*name))
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Anywhere in a name these say that its value is a secret.
const PRIVATE: &[&str] = &[
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "TOKEN",
    "CREDENTIAL",
    "APIKEY",
    "CONNECTION_STRING",
    "DATABASE_URL",
    "REDIS_URL",
];
/// As a word of its own, between underscores.
const PRIVATE_WORDS: &[&str] = &[
    "KEY", "KEYS", "PASS", "PASSCODE", "PWD", "PAT", "PATS", "AUTH", "OAUTH", "CRED", "CREDS", "COOKIE", "COOKIES", "DSN", "JWT",
    "WEBHOOK",
];
/// At the end of a word: `SSHPASS`, `TS_AUTHKEY`.
const PRIVATE_ENDINGS: &[&str] = &["KEY", "KEYS", "PASS"];
/// Named like secrets, and none.
const HARMLESS: &[&str] = &["PWD", "SSH_AUTH_SOCK"];
const HARMLESS_WORDS: &[&str] = &["ASKPASS", "BYPASS", "COMPASS", "HOTKEY", "HOTKEYS", "MONKEY", "TURKEY"];

/// Variables that commands must not inherit: a worker may have been started from a shell that holds keys. Told by the words of the
/// name, so that `KEYBOARD`, `PATH` and `PASSENGER_ROOT` are inherited.
pub fn is_private(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    if HARMLESS.contains(&name.as_str()) {
        return false;
    }
    // `API_KEY_2` and `API_KEY2` are named as `API_KEY` is.
    let mut words = name.split(|character: char| !character.is_ascii_alphabetic()).filter(|word| !HARMLESS_WORDS.contains(word));
    name.starts_with("HELIX_")
        || PRIVATE.iter().any(|part| name.contains(part))
        || words.any(|word| PRIVATE_WORDS.contains(&word) || PRIVATE_ENDINGS.iter().any(|ending| word.ends_with(ending)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_get_ports_that_nobody_else_has() {
        let ports = Ports::default();
        let (one, two) = (TaskId::new(), TaskId::new());
        let first = ports.give(one, 3).expect("free");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, first[2] + 1));
        let second = ports.give(two, 3).expect("free");
        assert!(first.iter().all(|port| !second.contains(port)
            && Some(*port) != listener.as_ref().ok().and_then(|held| Some(held.local_addr().ok()?.port()))));
        assert_eq!(ports.give(one, 3), Ok(first));
        assert_eq!(ports.give(one, 0), Ok(Vec::new()));
        assert_eq!(ports.give(one, 20_000).expect_err("too many").code, Code::Overloaded);
    }

    #[test]
    fn workers_of_one_machine_give_different_ports_although_nothing_listens_yet() {
        let (one, two) = (Ports::default(), Ports::default());
        let task = TaskId::new();
        let mut given = one.give(task, 4).expect("free");
        given.extend(one.give(TaskId::new(), 200).expect("free"));
        for count in [4, 4, 200] {
            given.extend(two.give(TaskId::new(), count).expect("free"));
        }
        let all = given.len();
        given.sort_unstable();
        given.dedup();
        assert_eq!((all, given.len()), (412, 412));
        one.take_back(task);
        let held = one.0.lock();
        assert_eq!(held.blocks.keys().copied().collect::<Vec<_>>(), blocks(&held.ranges[0].1).collect::<Vec<_>>());
    }

    #[test]
    fn keys_of_the_shell_that_started_the_worker_are_not_inherited() {
        let private = "OPENAI_API_KEY OPENAI_KEY GITHUB_TOKEN GITHUB_PAT HELIX_TASK DATABASE_URL STAGING_DATABASE_URL SENTRY_DSN DB_PASS \
            SSHPASS STRIPE_KEY STRIPE_KEY_2 API_KEY2 GPG_PASSPHRASE AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID db_password MYSQL_PWD PGPASSWORD \
            TS_AUTHKEY NPM_CONFIG__AUTH npm_config_//registry.npmjs.org/:_authToken BASIC_AUTH SESSION_COOKIE HF_TOKENS AZURE_CREDS";
        for name in private.split_whitespace() {
            assert!(is_private(name), "{name}");
        }
        let harmless = "PATH HOME PWD OLDPWD CARGO_HOME LANG KEYBOARD KEYMAP PASSENGER_ROOT XDG_DATA_DIRS COMPAT PATTERN SSL_CERT_FILE AUTHOR \
            GIT_AUTHOR_NAME SSH_AUTH_SOCK SSH_ASKPASS XAUTHORITY XDG_SESSION_ID GNOME_KEYRING_CONTROL BYPASS_CACHE TMPDIR";
        for name in harmless.split_whitespace() {
            assert!(!is_private(name), "{name}");
        }
    }
}
