//! Workers of lesser kernels. A kernel that lacks something is one whose answer is the missing call's: the worker is started by a
//! thread whose filter gives it.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;

use helix_protocol::{Code, Environment, Isolation, Network, Sandboxing};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

use super::{Home, Space, able};
use crate::what_is_unseen_is_found;
use crate::worker_bench::Bench;

/// Starts a worker on a kernel that answers some calls as one without them would.
fn start_without(home: &Path, calls: &[(i64, Option<u64>)], answer: i32) -> Bench {
    without(calls, answer, || Bench::start_at(home))
}

fn without(calls: &[(i64, Option<u64>)], answer: i32, start: impl FnOnce() -> Bench + Send) -> Bench {
    let flag = |flag: u64| {
        let masked = SeccompCmpOp::MaskedEq(flag);
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, masked, flag).expect("a condition");
        SeccompRule::new(vec![condition]).expect("a rule")
    };
    let rules: BTreeMap<i64, Vec<SeccompRule>> =
        calls.iter().map(|(call, with)| (*call, with.map(flag).into_iter().collect())).collect();
    let refusal = SeccompAction::Errno(answer.cast_unsigned());
    let here = std::env::consts::ARCH.try_into().expect("an architecture");
    let program: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, refusal, here).and_then(TryInto::try_into).expect("a filter");
    std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            seccompiler::apply_filter(&program).expect("installed");
            start()
        });
        started.join().expect("started")
    })
}

const LANDLOCK: [(i64, Option<u64>); 3] =
    [(libc::SYS_landlock_create_ruleset, None), (libc::SYS_landlock_add_rule, None), (libc::SYS_landlock_restrict_self, None)];
const NAMESPACES: (i64, Option<u64>) = (libc::SYS_unshare, Some(0x1000_0000));

#[tokio::test]
async fn a_kernel_without_landlock_gives_the_level_by_namespaces() {
    let home = Home::new();
    let bench = start_without(&home.path(), &LANDLOCK, libc::ENOSYS);
    let node = bench.connect(1).await;
    let able = able(&node);
    assert!(able.landlock == 0 && able.namespaces && able.is_enough(), "{able}");
    let space = Space::at(&node, Isolation::Workspace, Network::None).await;
    let notes = home.path().join("notes.txt").display().to_string();
    space.succeeds(&format!("echo x > file && cat file {notes}")).await;
    space.fails(&format!("echo x >> {notes}")).await;
    let (_, said) = space.run("cat ~/.ssh/id_ed25519 2>&1").await;
    assert!(!said.contains("plain"), "{said}");
}

#[tokio::test]
async fn a_kernel_without_namespaces_gives_the_level_by_landlock_and_no_sockets_at_all() {
    let home = Home::new();
    let bench = start_without(&home.path(), &[NAMESPACES], libc::EPERM);
    let node = bench.connect(1).await;
    let able = able(&node);
    assert!(!able.namespaces && able.is_enough(), "{able}");
    assert!(able.lacks.iter().any(|lack| lack.contains("namespaces")), "{able}");
    let space = Space::at(&node, Isolation::Workspace, Network::None).await;
    let notes = home.path().join("notes.txt").display().to_string();
    space.succeeds(&format!("echo x > file && mkdir b && mv file b/ && cat b/file {notes} && t=$(mktemp) && ls / > $t")).await;
    for refused in [
        format!("echo x >> {notes}"),
        "echo x > /tmp/helix-sandbox-test".to_owned(),
        "cat ~/.ssh/id_ed25519".to_owned(),
        "cat ~/.netrc".to_owned(),
        format!("cat {}/worker.log", bench.folder().display()),
    ] {
        space.fails(&refused).await;
    }
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("bound");
    for (family, kind) in
        [("AF_INET", "SOCK_STREAM"), ("AF_INET", "SOCK_DGRAM"), ("AF_INET6", "SOCK_DGRAM"), ("AF_UNIX", "SOCK_STREAM")]
    {
        let (code, said) = space.python(&format!("import socket; socket.socket(socket.{family}, socket.{kind})")).await;
        assert!(code != 0 && said.contains("not permitted"), "{family} {kind}: {said}");
    }
    assert_eq!(space.python("import socket; a, b = socket.socketpair(); a.send(b\"x\"); b.recv(1)").await, (0, String::new()));
    std::fs::create_dir_all(home.path().join(".cargo/registry")).expect("made");
    std::fs::write(home.path().join(".cargo/credentials.toml"), "plain").expect("written");
    let environment = Environment { writable: vec!["~/.cargo".to_owned()], network: Some(Network::Host), ..Environment::default() };
    let granted = Space::open(&node, environment).await.expect("opened");
    granted.succeeds("echo x > ~/.cargo/registry/file").await;
    granted.fails("cat ~/.cargo/credentials.toml").await;
    let (code, said) =
        granted.python(&format!("import socket; socket.create_connection((\"127.0.0.1\", {}))", address.port())).await;
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn what_lets_nobody_look_at_it_is_found_on_a_kernel_without_namespaces() {
    let bench = without(&[NAMESPACES], libc::EPERM, Bench::start_as_no_root);
    what_is_unseen_is_found(bench, Isolation::Workspace).await;
}

#[tokio::test]
async fn a_kernel_with_neither_refuses_every_level_but_full_and_says_what_is_missing() {
    let home = Home::new();
    let bench = start_without(&home.path(), &[LANDLOCK.as_slice(), &[(libc::SYS_unshare, None)]].concat(), libc::ENOSYS);
    let node = bench.connect(1).await;
    assert!(!node.welcome.facts.capabilities.iter().any(|word| word.0 == Sandboxing::CAPABILITY));
    for isolation in [Isolation::ReadOnly, Isolation::Workspace] {
        let environment = Environment { isolation: Some(isolation), ..Environment::default() };
        let refused = Space::open(&node, environment).await.err().expect("refused");
        assert_eq!(refused.code, Code::IsolationUnavailable);
        assert!(refused.message.contains("Landlock") && refused.message.contains("namespaces"), "{}", refused.message);
        assert!(refused.hint.contains("--unsandboxed"), "{}", refused.hint);
    }
    let space = Space::at(&node, Isolation::Full, Network::Host).await;
    assert_eq!(space.succeeds("echo runs").await, "runs\n");
}
