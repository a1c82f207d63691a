//! A user of their own for each test: home, runtime folder, engine and working folders, all gone with the value.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How often a test repeats what it does by chance: `few`, or what HELIX_CAMPAIGN says.
pub fn rounds(few: u32) -> u32 {
    match std::env::var("HELIX_CAMPAIGN") {
        Ok(text) => text.parse().expect("HELIX_CAMPAIGN is a number"),
        Err(_) => few,
    }
}

/// Whether tests may take long.
pub fn is_campaign() -> bool {
    std::env::var_os("HELIX_CAMPAIGN").is_some()
}

/// Chance with a printed seed; HELIX_SEED repeats it.
pub fn chance(test: &str) -> StdRng {
    let seed = match std::env::var("HELIX_SEED") {
        Ok(text) => text.parse().expect("HELIX_SEED is a number"),
        Err(_) => SystemTime::UNIX_EPOCH.elapsed().expect("the clock stands after 1970").subsec_nanos().into(),
    };
    eprintln!("{test}: HELIX_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// The folder with the programs under test.
pub fn programs() -> PathBuf {
    let engine = PathBuf::from(env!("CARGO_BIN_EXE_heliosd"));
    let folder = engine.parent().expect("a program lies in a folder").to_owned();
    assert!(folder.join("helios").is_file(), "the client is not built: `cargo build -p helios`");
    folder
}

/// A user with an engine of their own.
pub struct User {
    folder: TempDir,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl User {
    /// Somebody new.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("helios-").tempdir().expect("a temporary folder");
        for name in ["home", "run"] {
            fs::create_dir(folder.path().join(name)).expect("made");
        }
        Self { folder }
    }

    /// A path in what is the user's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The engine's folder.
    pub fn place(&self) -> PathBuf {
        self.path("run").join("helios")
    }

    /// A folder with a repository in it.
    pub fn repository(&self, name: &str) -> PathBuf {
        let root = self.path(name);
        fs::create_dir(&root).expect("made");
        self.ok(&root, &["init", "-q"]);
        root
    }

    /// Runs git as somebody, which must succeed, and gives its output.
    pub fn git(&self, cwd: &Path, arguments: &[&str]) -> String {
        let who = ["-c", "user.name=G", "-c", "user.email=g@example.org"];
        let ended = ended(self.program("git", cwd).args(who).args(arguments));
        assert_eq!(ended.code, 0, "git {arguments:?}: {}", ended.err);
        ended.out.trim().to_owned()
    }

    /// A program with the user's environment and nothing else.
    pub fn program(&self, name: impl AsRef<std::ffi::OsStr>, cwd: &Path) -> Command {
        let mut command = Command::new(name);
        let path = format!("{}:{}", programs().display(), std::env::var("PATH").unwrap_or_default());
        command
            .current_dir(cwd)
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("USER", "tester").env("HELIOS_ENGINE_IDLE", "60s").stdin(Stdio::null());
        command
    }

    /// `helios` with arguments.
    pub fn helios(&self, cwd: &Path, arguments: &[&str]) -> Command {
        let mut command = self.program(programs().join("helios"), cwd);
        command.args(arguments);
        command
    }

    /// `helios` as a terminal starts it: Ctrl-C ends it, also where these tests were started with that signal ignored, as a shell
    /// does with what it runs in the background.
    pub fn helios_of_a_terminal(&self, cwd: &Path, arguments: &[&str]) -> Command {
        let mut command = self.program("env", cwd);
        command.arg("--default-signal=INT").arg(programs().join("helios")).args(arguments);
        command
    }

    /// Runs `helios`.
    pub fn run(&self, cwd: &Path, arguments: &[&str]) -> Ended {
        ended(&mut self.helios(cwd, arguments))
    }

    /// Runs `helios`, which must succeed, and gives its output.
    pub fn ok(&self, cwd: &Path, arguments: &[&str]) -> String {
        let ended = self.run(cwd, arguments);
        assert_eq!(ended.code, 0, "helios {arguments:?}: {}{}", ended.out, ended.err);
        ended.out
    }

    /// Writes a file and commits the folder; gives the snapshot.
    pub fn commit(&self, root: &Path, file: &str, content: &str) -> String {
        fs::write(root.join(file), content).expect("written");
        self.ok(root, &["commit", "-q", "--work", ".", "-m", file]);
        self.ok(root, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// The engine's process, where one has the lock.
    pub fn engine(&self) -> Option<u32> {
        let text = fs::read_to_string(self.place().join("engine.lock")).ok()?;
        let pid: u32 = text.trim().parse().ok()?;
        is_running(pid).then_some(pid)
    }

    /// Kills the engine as the system does when memory is short.
    pub fn kill_engine(&self) {
        if let Some(pid) = self.engine() {
            signal(pid, "KILL");
            wait_until("the engine is gone", || !is_running(pid));
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(pid) = self.engine() {
            signal(pid, "KILL");
        }
    }
}

/// A program that speaks to the engine.
pub struct Program {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Program {
    /// Connects to the user's engine, which must run.
    pub fn new(user: &User) -> Self {
        let writer = UnixStream::connect(user.place().join("engine.sock")).expect("connected");
        let reader = BufReader::new(writer.try_clone().expect("cloned"));
        let mut program = Self { writer, reader };
        assert_eq!(program.ask(json!({"helios": 1}))["helios"], 1);
        program
    }

    /// The answer to a request.
    pub fn ask(&mut self, request: Value) -> Value {
        writeln!(self.writer, "{request}").expect("sent");
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("answered");
        serde_json::from_str(&line).expect("JSON")
    }

    /// The result of a request that must succeed.
    pub fn ok(&mut self, request: Value) -> Value {
        let mut answer = self.ask(request);
        assert!(answer["ok"].is_object(), "{answer}");
        answer["ok"].take()
    }
}

/// Runs a command to its end.
pub fn ended(command: &mut Command) -> Ended {
    told(command.output().expect("the program starts"))
}

/// How a command ends that was started before.
pub fn end_of(child: Child) -> Ended {
    told(child.wait_with_output().expect("it can be waited for"))
}

fn told(output: Output) -> Ended {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// Waits for a process that was spawned; it must succeed.
pub fn finish(child: Child, what: &str) {
    let output = child.wait_with_output().expect("it can be waited for");
    assert!(
        output.status.success(),
        "{what}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Waits for something that another process does.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(30), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a process of ours.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Whether a process runs: one that has ended and was not waited for does not.
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z" && state != "X")
}
