//! The sandbox on the kernel of this machine: what a command is kept from, and what it can still do.

mod cost;
mod kernels;
mod network;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use helix_protocol::link::Request;
use helix_protocol::{Confinement, Environment, Epoch, Failure, Isolation, Network, Sandboxing, TaskId};
use serde_json::json;

use super::worker_bench::{Bench, Node, empty_tree, until};
use super::{is_gone, pid_in};

/// Some of what is hidden in a home.
const HIDDEN: &[&str] = &[
    ".ssh/id_ed25519",
    ".aws/credentials",
    ".netrc",
    ".config/gh/hosts.yml",
    ".claude.json",
    ".config/goose/secrets.yaml",
    ".config/opencode/opencode.json",
    ".local/share/opencode/auth.json",
    ".codex/auth.json",
    ".gemini/oauth_creds.json",
    ".aider.conf.yml",
    ".m2/settings.xml",
    ".gradle/gradle.properties",
    ".config/containers/auth.json",
    ".cache/huggingface/token",
];

/// A machine's user with secrets, outside of `/tmp`, of which every sandbox has its own.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let places = [Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))), std::env::home_dir()];
        let seen = |place: &PathBuf| {
            let place = std::fs::canonicalize(place).unwrap_or_default();
            place.is_absolute() && !["/tmp", "/var/tmp"].iter().any(|own| place.starts_with(own))
        };
        let place = places.into_iter().flatten().find(seen).expect("the clone or the home is outside of /tmp");
        let home = Self { folder: tempfile::Builder::new().prefix(".helix-test").tempdir_in(place).expect("a folder") };
        for name in HIDDEN.iter().chain(&["notes.txt", "bin/tool"]) {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
            std::fs::write(path, "#!/bin/sh\necho plain\n").expect("written");
        }
        std::fs::set_permissions(home.path().join("bin/tool"), std::fs::Permissions::from_mode(0o755)).expect("set");
        home
    }

    fn path(&self) -> PathBuf {
        std::fs::canonicalize(self.folder.path()).expect("it is there").join("home")
    }
}

/// A workspace at a level.
struct Space<'a> {
    node: &'a Node,
    task: TaskId,
    number: std::cell::Cell<u32>,
}

impl<'a> Space<'a> {
    async fn open(node: &'a Node, environment: Environment) -> Result<Space<'a>, Failure> {
        let mut open = Bench::open_request(TaskId::new(), Epoch(1), empty_tree());
        open.environment = environment;
        let task = open.task;
        node.ask(Request::Open(Box::new(open))).await?;
        Ok(Space { node, task, number: std::cell::Cell::new(0) })
    }

    async fn at(node: &'a Node, isolation: Isolation, network: Network) -> Space<'a> {
        let environment = Environment { isolation: Some(isolation), network: Some(network), ..Environment::default() };
        Self::open(node, environment).await.expect("opened")
    }

    /// The command's exit code and output.
    async fn run(&self, command: &str) -> (i32, String) {
        self.number.set(self.number.get() + 1);
        let report = self.node.run(self.task, Epoch(1), self.number.get(), command).await.expect("it runs");
        (report.exit_code, report.tail)
    }

    async fn succeeds(&self, command: &str) -> String {
        let (code, said) = self.run(command).await;
        assert_eq!(code, 0, "{command}: {said}");
        said
    }

    async fn fails(&self, command: &str) -> String {
        let (code, said) = self.run(command).await;
        assert_ne!(code, 0, "{command}: {said}");
        said
    }

    async fn python(&self, script: &str) -> (i32, String) {
        self.run(&format!("python3 -c '{script}' 2>&1")).await
    }
}

fn able(node: &Node) -> Sandboxing {
    node.welcome.facts.sandbox.clone()
}

#[tokio::test]
async fn a_command_changes_its_workspace_and_nothing_else() {
    let home = Home::new();
    let bench = Bench::start_at(&home.path());
    let node = bench.connect(1).await;
    let space = Space::at(&node, Isolation::Workspace, Network::None).await;
    let notes = home.path().join("notes.txt");
    let (notes, folder) = (notes.display(), home.path().display().to_string());
    space.succeeds("echo x > a && mkdir -p b/c && mv a b/c/a && ln b/c/a d && chmod 700 b && rm d").await;
    for refused in [
        format!("echo x >> {notes}"),
        format!("echo x > {folder}/new"),
        format!("rm {notes}"),
        format!("mv {notes} ."),
        format!("truncate -s 0 {notes}"),
        format!("ln -s x {folder}/link"),
        "echo x > ../state.json".to_owned(),
        // The same by a child's child, in another session.
        format!("setsid -w sh -c 'sh -c \"echo x >> {notes}\"'"),
        "echo x > /dev/shm/../new".to_owned(),
    ] {
        space.fails(&refused).await;
    }
    if able(&node).namespaces {
        space.fails(&format!("chmod 777 {notes}")).await;
        space.fails(&format!("touch -d 2001-01-01 {notes}")).await;
    }
    assert_eq!(std::fs::read_to_string(home.path().join("notes.txt")).expect("there"), "#!/bin/sh\necho plain\n");
    // What is not private can be read and run.
    assert_eq!(space.succeeds(&format!("{folder}/bin/tool && head -n 1 {notes}")).await, "plain\n#!/bin/sh\n");
    // `mv` copies before it fails to remove.
    assert_eq!(space.succeeds("ls").await, "b\nnotes.txt\n");
}

#[tokio::test]
async fn a_workspace_is_seen_under_one_name_on_every_worker_and_where_it_lies() {
    for _ in 0..2 {
        let bench = Bench::start();
        let node = bench.connect(1).await;
        if !able(&node).namespaces {
            eprintln!("skipped: without namespaces a workspace is where it lies");
            return;
        }
        let environment = Environment {
            isolation: Some(Isolation::ReadOnly),
            caches: vec!["target".to_owned()],
            setup: None,
            ..Environment::default()
        };
        let (space, reading) =
            (Space::at(&node, Isolation::Workspace, Network::None).await, Space::open(&node, environment).await.expect("opened"));
        let lies = bench.root(space.task);
        assert_eq!(space.succeeds("pwd; echo x > here; readlink /proc/self/cwd").await, "/run/workspace\n/run/workspace\n");
        assert_eq!(space.succeeds(&format!("cat {0}/here; echo y > {0}/there; cat there", lies.display())).await, "x\ny\n");
        assert_eq!(std::fs::read_to_string(lies.join("here")).expect("written"), "x\n");
        std::fs::create_dir(bench.root(reading.task).join("target")).expect("made");
        reading.succeeds("cd /run/workspace && echo x > target/file").await;
        reading.fails("echo x > /run/workspace/file").await;
        reading.fails("touch /run/beside").await;
    }
}

#[tokio::test]
async fn temporary_files_are_the_tasks_own_and_stay_between_commands() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let (one, two) =
        (Space::at(&node, Isolation::Workspace, Network::None).await, Space::at(&node, Isolation::ReadOnly, Network::None).await);
    one.succeeds("echo mine > $TMPDIR/mark; t=$(mktemp) && rm $t").await;
    assert_eq!(one.succeeds("cat $TMPDIR/mark").await, "mine\n");
    two.succeeds("echo yours > $TMPDIR/other; mkdir -p $XDG_CACHE_HOME").await;
    two.fails("cat $TMPDIR/mark").await;
    if able(&node).namespaces {
        one.succeeds("cat /tmp/mark /var/tmp/mark && echo x > /dev/shm/x && cat /dev/shm/x && echo x > /dev/null").await;
    }
    assert!(!Path::new("/tmp/mark").exists());
}

/// Limits are set by process id, and one of none kills.
#[tokio::test]
async fn limits_of_a_process_outside_are_not_set_and_those_of_the_command_are() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let space = Space::at(&node, Isolation::Workspace, Network::None).await;
    let mut outside = std::process::Command::new("sleep").arg("300").spawn().expect("sleep starts");
    for limit in ["RLIMIT_CPU, (0, 0)", "RLIMIT_NOFILE, (3, 3)"] {
        let (code, said) = space.python(&format!("import resource; resource.prlimit({}, resource.{limit})", outside.id())).await;
        assert!(code != 0 && said.contains("PermissionError"), "{said}");
    }
    assert_eq!(outside.try_wait().expect("a child"), None, "it runs on");
    outside.kill().expect("ours to end");
    outside.wait().expect("killed");
    assert_eq!(space.succeeds("ulimit -n 64 && ulimit -n").await, "64\n");
}

#[tokio::test]
async fn credentials_and_what_the_worker_keeps_cannot_be_read() {
    let home = Home::new();
    let bench = Bench::start_at(&home.path());
    let node = bench.connect(1).await;
    let other = Space::at(&node, Isolation::Workspace, Network::None).await;
    other.succeeds("echo theirs > file").await;
    for (isolation, network) in
        [(Isolation::Workspace, Network::None), (Isolation::Workspace, Network::Host), (Isolation::ReadOnly, Network::None)]
    {
        let space = Space::at(&node, isolation, network).await;
        let home = home.path().display().to_string();
        let theirs = bench.root(other.task).join("file").display().to_string();
        let folder = bench.folder().display().to_string();
        for hidden in HIDDEN {
            let (_, said) = space.run(&format!("cat {home}/{hidden} 2>&1")).await;
            assert!(!said.contains("plain"), "{hidden}: {said}");
        }
        for hidden in
            [theirs, format!("{folder}/worker.log"), format!("{folder}/lock"), format!("/proc/{}/environ", pid_text(&bench))]
        {
            space.fails(&format!("cat {hidden}")).await;
        }
        if rustix::process::geteuid().is_root() {
            let (_, said) = space.run("cat /etc/shadow; head -c 1 /dev/vda /dev/sda /dev/mem /dev/kmsg").await;
            assert!(!said.contains("root:"), "{said}");
        }
        // Nor is the worker spoken to.
        let socket = bench.folder().join("worker.sock").display().to_string();
        let (code, said) =
            space.python(&format!("import socket; s = socket.socket(socket.AF_UNIX); s.connect(\"{socket}\")")).await;
        assert_ne!(code, 0, "{said}");
    }
}

/// A cover is on a file, and goes with it when another one takes its name. What was not there has no cover at all.
#[tokio::test]
async fn a_credential_that_is_replaced_or_comes_later_cannot_be_read_by_what_runs_nor_by_what_follows() {
    let home = Home::new();
    std::fs::create_dir_all(home.path().join(".cargo/bin")).expect("made");
    let bench = Bench::start_at(&home.path());
    let node = bench.connect(1).await;
    if able(&node).landlock == 0 {
        eprintln!("skipped: without Landlock covers hold alone");
        return;
    }
    let space = Space::at(&node, Isolation::Workspace, Network::None).await;
    let keys = ".netrc .ssh/id_ed25519 .kube/config .config/gh/hosts.yml .config/op/config .claude.json .cargo/credentials.toml";
    let look = format!("cd ~; cat {keys} 2>&1; cat late.txt 2>&1; cat notes.txt bin/late && bin/tool");
    let waiting = format!("echo > begun; while [ ! -e go ]; do sleep 0.02; done; {look}");
    let (running, ()) = tokio::join!(space.run(&waiting), async {
        let root = bench.root(space.task);
        until("it runs", || root.join("begun").exists()).await;
        // As most programs rewrite a file, a folder that was covered among them.
        std::fs::rename(home.path().join(".ssh"), home.path().join("old")).expect("moved");
        for name in keys.split(' ').chain(["late.txt", "bin/late"]) {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
            std::fs::write(home.path().join("draft"), format!("[{name}]\n")).expect("written");
            std::fs::rename(home.path().join("draft"), &path).expect("moved");
        }
        std::fs::write(root.join("go"), "").expect("written");
    });
    let plain = |said: &str| keys.split(' ').all(|name| !said.contains(&format!("[{name}]")));
    assert!(running.0 == 0 && plain(&running.1), "{}", running.1);
    assert!(running.1.contains("[bin/late]") && !running.1.contains("[late.txt]"), "{}", running.1);
    // Nothing runs, so the next command is given a sandbox that knows what came.
    let next = space.succeeds(&look).await;
    assert!(plain(&next) && next.contains("[late.txt]") && next.contains("[bin/late]"), "{next}");
    space.succeeds("sleep 60 > /dev/null 2>&1 & echo $! > pid").await;
    std::fs::write(home.path().join("later.txt"), "later").expect("written");
    space.fails("cat ~/later.txt").await;
    space.succeeds("kill $(cat pid)").await;
}

fn pid_text(bench: &Bench) -> i32 {
    bench.pid().as_raw_nonzero().get()
}

#[tokio::test]
async fn what_one_command_leaves_running_the_next_one_reaches_and_ends_and_another_task_does_not() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let (space, other) =
        (Space::at(&node, Isolation::Workspace, Network::None).await, Space::at(&node, Isolation::Workspace, Network::None).await);
    space.succeeds("echo hello > page; python3 -m http.server -b 127.0.0.1 8099 > log 2>&1 & echo $! > pid").await;
    let fetch = "python3 -c 'import urllib.request as r, time
for _ in range(200):
    try: print(r.urlopen(\"http://127.0.0.1:8099/page\", timeout=2).read().decode().strip()); break
    except OSError: time.sleep(0.05)
else: raise SystemExit(1)'";
    assert_eq!(space.succeeds(fetch).await, "hello\n");
    let server = std::fs::read_to_string(bench.root(space.task).join("pid")).expect("written");
    other.fails("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8099), 2)'").await;
    if able(&node).landlock >= 6 {
        other.fails(&format!("kill {}", server.trim())).await;
        // Nor the worker, nor this test.
        other.fails(&format!("kill -9 {}", pid_text(&bench))).await;
        other.fails(&format!("kill -9 {}", std::process::id())).await;
    }
    assert!(!is_gone(pid_in(&server)));
    space.succeeds("kill $(cat pid)").await;
    until("the server has ended", || is_gone(pid_in(&server))).await;
}

#[tokio::test]
async fn a_program_gains_nothing_by_its_mode_and_calls_that_reach_out_are_refused() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let space = Space::at(&node, Isolation::Workspace, Network::Host).await;
    let free = Space::at(&node, Isolation::Full, Network::Host).await;
    assert_eq!(space.succeeds("grep NoNewPrivs /proc/self/status").await, "NoNewPrivs:\t1\n");
    if rustix::process::geteuid().is_root() {
        let gain = "cp $(command -v id) ./id && chmod 4755 id && chmod 755 . .. ../.. 2> /dev/null; setpriv --reuid=65534 --clear-groups ./id -u";
        let as_nobody = space.run(gain).await;
        assert!(as_nobody.0 != 0 || as_nobody.1 == "65534\n", "{as_nobody:?}");
        let caps = space.succeeds("grep CapEff /proc/self/status").await;
        assert!(
            u64::from_str_radix(caps.trim().trim_start_matches("CapEff:\t"), 16).expect("hexadecimal") & (1 << 21) == 0,
            "{caps}"
        );
    }
    let calls = "import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(f, *a):
    ctypes.set_errno(0); r = f(*a); return errno.errorcode.get(ctypes.get_errno(), str(r))
print(call(libc.ptrace, 0, 0, 0, 0), call(libc.unshare, 0x10000000), call(libc.mount, b\"x\", b\"/mnt\", b\"tmpfs\", 0, None), call(libc.syscall, 425, 1, None), call(libc.syscall, 435, None, 0), call(libc.chroot, b\"/\"))";
    std::fs::write(bench.root(space.task).join("calls.py"), calls).expect("written");
    std::fs::write(bench.root(free.task).join("calls.py"), calls).expect("written");
    assert_eq!(space.succeeds("python3 calls.py").await, "EPERM EPERM EPERM EPERM ENOSYS EPERM\n");
    let unsandboxed = free.succeeds("python3 calls.py").await;
    assert!(!unsandboxed.starts_with("EPERM EPERM"), "{unsandboxed}");
}

#[tokio::test]
async fn a_read_only_task_writes_its_caches_and_temporary_files_alone() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let environment = Environment {
        isolation: Some(Isolation::ReadOnly),
        caches: vec!["target".to_owned()],
        setup: None,
        ..Environment::default()
    };
    let space = Space::open(&node, environment).await.expect("opened");
    std::fs::create_dir(bench.root(space.task).join("target")).expect("made");
    space.fails("echo x > file").await;
    space.succeeds("echo x > target/file && echo x > $TMPDIR/file && cat target/file").await;
    let input = json!({"path": "file", "content": "x"});
    let refused = node.tool(space.task, Epoch(1), 90, "write", input).await.expect("answered");
    assert!(refused.is_error && refused.content.contains("read-only"), "{refused:?}");
    assert!(!bench.root(space.task).join("file").exists());
}

#[tokio::test]
async fn a_workspace_that_is_opened_once_more_has_temporary_files_and_what_is_granted_below_them() {
    let (home, granted) = (Home::new(), tempfile::tempdir_in("/tmp").expect("a folder"));
    let bench = Bench::start_at(&home.path());
    let node = bench.connect(1).await;
    let environment = Environment { writable: vec![granted.path().display().to_string()], ..Environment::default() };
    let space = Space::open(&node, environment.clone()).await.expect("opened");
    let writes = format!("echo x > file && echo x > $TMPDIR/own && echo x >> {}/file", granted.path().display());
    space.succeeds(&writes).await;
    // As after a step that failed, or a connection that broke: the same owner asks for the files as they were.
    let mut open = Bench::open_request(space.task, Epoch(1), empty_tree());
    open.environment = environment;
    node.ask(Request::Open(Box::new(open))).await.expect("opened again");
    assert_eq!(space.succeeds("ls").await, "");
    space.succeeds(&writes).await;
    assert_eq!(std::fs::read_to_string(granted.path().join("file")).expect("written"), "x\nx\n");
}

#[tokio::test]
async fn a_folder_that_is_granted_can_be_written_and_what_lies_beside_it_cannot() {
    let home = Home::new();
    let bench = Bench::start_at(&home.path());
    let node = bench.connect(1).await;
    for name in ["cache", ".cargo/registry"] {
        std::fs::create_dir_all(home.path().join(name)).expect("made");
    }
    std::fs::write(home.path().join(".cargo/credentials.toml"), "plain").expect("written");
    let writable = ["~/cache", "~/.ssh", "~/.cargo"].map(str::to_owned).to_vec();
    let space = Space::open(&node, Environment { writable, ..Environment::default() }).await.expect("opened");
    space.succeeds("echo x > ~/cache/file && echo x > ~/.cargo/registry/file").await;
    // What is hidden in what is granted stays hidden.
    let (_, said) = space.run("cat ~/.cargo/credentials.toml 2>&1").await;
    assert!(!said.contains("plain"), "{said}");
    space.fails("echo x > ~/file").await;
    space.fails("echo x > ~/.ssh/authorized_keys").await;
    assert_eq!(std::fs::read_to_string(home.path().join("cache/file")).expect("written"), "x\n");
}

#[tokio::test]
async fn a_snapshot_says_what_commands_ran_under() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let able = able(&node);
    for (isolation, network) in [(Isolation::Workspace, Network::None), (Isolation::Full, Network::Host)] {
        let space = Space::at(&node, isolation, network).await;
        let (snapshot, _) = node.snapshot(space.task, Epoch(1), empty_tree()).await;
        let sandboxed = isolation.is_sandboxed();
        let expected = Confinement {
            isolation,
            network,
            landlock: if sandboxed { able.landlock } else { 0 },
            seccomp: sandboxed,
            namespaces: sandboxed && able.namespaces,
        };
        assert_eq!(snapshot.confinement, Some(expected));
    }
}

#[tokio::test]
async fn a_sandbox_that_is_killed_takes_its_command_along_and_the_next_one_gets_another() {
    let bench = Bench::start();
    let node = bench.connect(1).await;
    let space = Space::at(&node, Isolation::Workspace, Network::None).await;
    // A command's parent is the sandbox's process, and both are within the same walls.
    let (code, _) = space.run("echo $$ > pid; kill -9 $PPID; sleep 30").await;
    assert_eq!(code, 137);
    let left = pid_in(&std::fs::read_to_string(bench.root(space.task).join("pid")).expect("written"));
    until("what ran in it is gone", || is_gone(left)).await;
    assert_eq!(space.succeeds("echo again").await, "again\n");
}
