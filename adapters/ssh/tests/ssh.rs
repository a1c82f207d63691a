//! Both SSH transports against a real sshd on loopback. The worker program is a shell script that keeps the verbs'
//! contract and echoes what it is sent.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use helix_adapter_ssh::testing::TestSshd;
use helix_adapter_ssh::{Programs, Russh, SystemSsh};
use helix_ports::{ConnectError, DeathProof, Duplex, WorkerTransport};
use helix_protocol::{Code, Failure, WorkerTarget};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMIT: Duration = Duration::from_secs(10);

const PROGRAM: &str = r#"#!/bin/sh
verb=$1; shift
while [ $# -gt 0 ]; do case $1 in --folder) F=$2; shift 2;; --wipe) W=1; shift;; *) shift;; esac; done
case $verb in
  --help) echo 'Usage: helix-worker' ;;
  start) touch "$F/runs"; echo '{"pid":1,"incarnation":1}' ;;
  attach) [ -e "$F/runs" ] || { echo '{"proof":"connection_refused"}' >&2; exit 20; }; exec cat ;;
  stop) rm -rf "$F" ;;
esac
"#;

/// A host, a worker program for it, and both ways to it.
struct Fixture {
    sshd: TestSshd,
    programs: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { sshd: TestSshd::start().unwrap(), programs: tempfile::tempdir().unwrap() };
        fixture.program(PROGRAM);
        fixture
    }

    fn program(&self, content: &str) {
        fs::write(self.programs.path().join("helix-worker"), content).unwrap();
    }

    fn ways(&self) -> Vec<(Box<dyn WorkerTransport>, WorkerTarget)> {
        let programs = || Programs::new(self.programs.path(), self.programs.path().join("helix-worker"));
        vec![
            (Box::new(SystemSsh::new(programs(), "n1", LIMIT).options(self.sshd.options())), self.sshd.system_target()),
            (Box::new(Russh::new(programs(), "n1", LIMIT)), self.sshd.russh_target().unwrap()),
        ]
    }

    fn base(&self) -> std::path::PathBuf {
        self.sshd.home().join(".local/share/helix")
    }
}

fn refusal<T>(result: Result<T, ConnectError>) -> Failure {
    match result.map(drop) {
        Err(ConnectError::Refused(failure)) => failure,
        other => panic!("not refused: {other:?}"),
    }
}

fn unreachable<T>(result: Result<T, ConnectError>) -> Failure {
    match result.map(drop) {
        Err(ConnectError::Unreachable(failure)) => failure,
        other => panic!("not unreachable: {other:?}"),
    }
}

async fn echoes(stream: &mut Box<dyn Duplex>) {
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    let mut back = [0; 5];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_installed_from_nothing_reached_cut_reached_again_and_removed_without_a_trace() {
    let fixture = Fixture::new();
    for (way, target) in fixture.ways() {
        let installed = way.install(&target).await.unwrap();
        assert_eq!((installed.present, installed.uploaded_bytes), (false, PROGRAM.len() as u64), "{target}");
        assert_eq!(installed.arch, std::env::consts::ARCH);
        assert_eq!(fs::read_to_string(&installed.program).unwrap(), PROGRAM);
        let again = way.install(&target).await.unwrap();
        assert_eq!((again.present, again.uploaded_bytes), (true, 0));

        let dead = way.connect(&target).await.map(drop);
        assert_eq!(dead, Err(ConnectError::Dead(DeathProof::ConnectionRefused)), "{target}");
        way.start(&target).await.unwrap();
        let mut stream = way.connect(&target).await.unwrap();
        echoes(&mut stream).await;

        fixture.sshd.cut();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "a cut connection ends: {target}");
        let mut stream = way.connect(&target).await.unwrap();
        echoes(&mut stream).await;

        drop(stream);
        way.remove(&target).await.unwrap();
        assert!(!fixture.base().exists(), "{target}");
        way.remove(&target).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_megabyte_crosses_both_ways_at_once_unharmed() {
    let fixture = Fixture::new();
    let sent: Vec<u8> = (0..1_048_576_u32).map(|n| (n % 251) as u8).collect();
    for (way, target) in fixture.ways() {
        way.install(&target).await.unwrap();
        way.start(&target).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(way.connect(&target).await.unwrap());
        let mut back = vec![0; sent.len()];
        let exchange = async {
            tokio::join!(
                async {
                    writer.write_all(&sent).await.unwrap();
                    writer.flush().await.unwrap()
                },
                reader.read_exact(&mut back)
            )
        };
        tokio::time::timeout(LIMIT * 3, exchange).await.unwrap().1.unwrap();
        assert!(back == sent, "{target}");
        way.remove(&target).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_vanished_is_told_from_a_worker_that_died() {
    let fixture = Fixture::new();
    for (way, target) in fixture.ways() {
        assert_eq!(refusal(way.connect(&target).await).code, Code::InstallFailed, "{target}");
        assert_eq!(refusal(way.start(&target).await).code, Code::InstallFailed, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_and_an_unknown_or_changed_host_are_named() {
    let mut fixture = Fixture::new();
    let WorkerTarget::Russh { user, host, port, key, host_key } = fixture.sshd.russh_target().unwrap() else { unreachable!() };
    let with = |key: &str, host_key: &str| WorkerTarget::Russh {
        user: user.clone(),
        host: host.clone(),
        port,
        key: key.to_owned(),
        host_key: host_key.to_owned(),
    };
    let ways = fixture.ways();
    let (russh, system) = (&ways[1].0, &ways[0]);
    let other = fixture.sshd.other_key().display().to_string();
    assert_eq!(refusal(russh.install(&with(&other, &host_key)).await).code, Code::SshAuthFailed);
    assert_eq!(refusal(russh.install(&with("/nowhere", &host_key)).await).code, Code::SshAuthFailed);
    let unpinned = refusal(russh.install(&with(&key, "")).await);
    assert_eq!(unpinned.code, Code::HostKeyUnknown);
    assert!(unpinned.hint.contains(&host_key), "the fingerprint to pin is said: {}", unpinned.hint);

    fixture.sshd.change_host_key().unwrap();
    assert_eq!(refusal(russh.install(&with(&key, &host_key)).await).code, Code::HostKeyChanged);
    assert_eq!(refusal(system.0.install(&system.1).await).code, Code::HostKeyChanged);
    fixture.sshd.forget_host_key().unwrap();
    assert_eq!(refusal(system.0.install(&system.1).await).code, Code::HostKeyUnknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_systems_ssh_names_a_refused_login() {
    let fixture = Fixture::new();
    fixture.sshd.offer_the_wrong_key().unwrap();
    let (way, target) = fixture.ways().remove(0);
    assert_eq!(refusal(way.install(&target).await).code, Code::SshAuthFailed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_accepts_and_says_nothing_is_given_up_in_time() {
    let fixture = Fixture::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let held = std::thread::spawn(move || listener.incoming().take(2).collect::<Vec<_>>());
    let programs = || Programs::new(fixture.programs.path(), fixture.programs.path().join("helix-worker"));
    let limit = Duration::from_secs(1);
    let key = fixture.sshd.other_key().display().to_string();
    let silent =
        WorkerTarget::Russh { user: "me".to_owned(), host: "127.0.0.1".to_owned(), port, key, host_key: "SHA256:x".to_owned() };
    let options = ["-F", "/dev/null", "-p", &port.to_string()].map(str::to_owned);
    let ways: [(Box<dyn WorkerTransport>, WorkerTarget); 2] = [
        (
            Box::new(SystemSsh::new(programs(), "n1", limit).options(options)),
            WorkerTarget::Ssh { destination: "127.0.0.1".to_owned() },
        ),
        (Box::new(Russh::new(programs(), "n1", limit)), silent),
    ];
    for (way, target) in ways {
        let start = Instant::now();
        assert_eq!(unreachable(way.connect(&target).await).code, Code::WorkerUnreachable, "{target}");
        assert!(start.elapsed() < limit * 4, "{target}: {:?}", start.elapsed());
    }
    drop(held.join().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_is_unreachable_not_dead() {
    let mut fixture = Fixture::new();
    let ways = fixture.ways();
    fixture.sshd.stop();
    for (way, target) in ways {
        assert_eq!(unreachable(way.connect(&target).await).code, Code::WorkerUnreachable, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_of_installing_is_named() {
    let fixture = Fixture::new();
    let path = |name: &str| fixture.programs.path().join(name);
    let put = |name: &str, script: &str| {
        fs::create_dir_all(path("bin")).unwrap();
        let file = path("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let forced = format!("PATH={}:$PATH; export PATH; eval \"$SSH_ORIGINAL_COMMAND\"", path("bin").display());
    fixture.sshd.force(&forced).unwrap();
    for (way, target) in fixture.ways() {
        // A machine for which there is no program.
        put("uname", "[ \"$1\" = -m ] && echo riscv64 || echo Linux");
        let architecture = refusal(way.install(&target).await);
        assert_eq!(architecture.code, Code::InstallFailed);
        assert!(architecture.message.contains("riscv64"), "{}", architecture.message);
        // Another system.
        put("uname", "[ \"$1\" = -m ] && echo x86_64 || echo Darwin");
        assert!(refusal(way.install(&target).await).message.contains("Darwin"));
        fs::remove_file(path("bin").join("uname")).unwrap();
        // A program whose loader the host lacks.
        fixture.program("#!/nowhere/ld-strange.so.1\n");
        let loader = refusal(way.install(&target).await);
        assert!(loader.message.contains("loader"), "{}", loader.message);
        // A program for another machine.
        fs::write(path("helix-worker"), foreign_elf()).unwrap();
        let foreign = refusal(way.install(&target).await);
        assert!(foreign.message.contains("is not for"), "{}", foreign.message);
        fixture.program(PROGRAM);
        // A full disk.
        put("df", "echo; echo x x x 0 x x");
        assert_eq!(refusal(way.install(&target).await).code, Code::DiskFull);
        fs::remove_file(path("bin").join("df")).unwrap();
        // A home that cannot be written: a file lies where the folder should be.
        fs::remove_dir_all(fixture.sshd.home().join(".local")).unwrap();
        fs::write(fixture.sshd.home().join(".local"), "").unwrap();
        let unwritable = refusal(way.install(&target).await);
        assert!(
            unwritable.message.contains("permission") && unwritable.message.contains("cannot be written"),
            "{}",
            unwritable.message
        );
        fs::remove_file(fixture.sshd.home().join(".local")).unwrap();
        assert!(leftovers(&fixture.sshd.home()).is_empty(), "{:?}", leftovers(&fixture.sshd.home()));
    }
}

/// A static program for a machine that this one is not.
fn foreign_elf() -> Vec<u8> {
    let mut elf = vec![0; 64];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    elf[16] = 2;
    elf[18] = 0xf3;
    elf[20] = 1;
    elf
}

fn leftovers(home: &Path) -> Vec<String> {
    fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_share_an_account_and_its_program() {
    let fixture = Fixture::new();
    let (one, target) = fixture.ways().remove(0);
    let programs = Programs::new(fixture.programs.path(), fixture.programs.path().join("helix-worker"));
    let two = SystemSsh::new(programs, "n2", LIMIT).options(fixture.sshd.options());
    one.install(&target).await.unwrap();
    one.start(&target).await.unwrap();
    assert!(two.install(&target).await.unwrap().present);
    two.start(&target).await.unwrap();
    one.remove(&target).await.unwrap();
    let mut stream = two.connect(&target).await.unwrap();
    echoes(&mut stream).await;
    drop(stream);
    two.remove(&target).await.unwrap();
    assert!(!fixture.base().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_never_taken_for_an_option() {
    let fixture = Fixture::new();
    let (way, _) = fixture.ways().remove(0);
    let target = WorkerTarget::Ssh { destination: "-oProxyCommand=touch /tmp/x".to_owned() };
    assert_eq!(refusal(way.connect(&target).await).code, Code::InvalidRequest);
}
