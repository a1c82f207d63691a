//! Workers on another machine, played by a real sshd: installed from nothing, cut, restored, removed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use helix_adapter_http::api::LogPage;
use helix_adapter_ssh::testing::TestSshd;
use helix_messages::WorkerView;
use helix_protocol::{EventKind, TaskStatus, WorkerTarget};

use crate::external::{free_port, i_am_the_model, spec};
use crate::harness::{HELIX, Product, Setup, Verdict, end_everything_in, not_run, rounds, transcript};

/// Another machine. Whatever still runs there at the end is ended.
struct Machine(TestSshd);

impl Machine {
    fn start() -> Self {
        Self(TestSshd::start().expect("OpenSSH's server and ssh-keygen are installed"))
    }

    /// Where everything that Helix installs there lies.
    fn installed(&self) -> PathBuf {
        self.0.home().join(".local/share/helix")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        end_everything_in(&self.0.home());
    }
}

fn helix(product: &Product, arguments: &[&str]) -> Output {
    let mut command = Command::new(HELIX);
    command.arg("--data").arg(product.node.folder().root()).arg("--json").args(arguments);
    tokio::task::block_in_place(|| command.output()).expect("the program runs")
}

fn answer<T: serde::de::DeserializeOwned>(output: &Output) -> T {
    let said = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// Adds a machine as a worker by the built-in client, which is told what `pinned` makes of its host key.
fn add(product: &Product, machine: &Machine, pinned: impl FnOnce(String) -> String) -> Output {
    let target = machine.0.russh_target().expect("its host key can be read");
    let WorkerTarget::Russh { user, host, port, key, host_key } = target else { panic!("another target") };
    let address = format!("ssh://{user}@{host}:{port}");
    helix(product, &["worker", "add", &address, "--key", &key, "--host-key", &pinned(host_key), "--name", "attic"])
}

/// Runs a command whose connection is cut in the middle of its output, and removes the worker.
async fn installed_cut_restored_and_removed(product: &Product, machine: &Machine, view: &WorkerView) {
    const LINES: usize = 3_000;
    assert!(view.ready && machine.installed().exists());
    let (half, go) = (product.folder().join("half"), product.folder().join("go"));
    let count = format!("i=0; while [ $i -lt {LINES} ]; do echo line-$i; i=$((i+1)); done");
    let command = format!("{count}; touch {}; while [ ! -e {} ]; do sleep 0.01; done; {count}", half.display(), go.display());
    let mut trail = product.oracle.trail();
    let task = product.command(&["echo before > file", &command]).await;
    product.until("half of the output is written", async || half.exists()).await;
    machine.0.cut();
    trail.until("the cut is noticed", |event| event.event.kind == EventKind::WorkerDisconnected).await;
    std::fs::write(&go, "").expect("the folder is writable");
    product.completed(task).await;

    let page: LogPage = product.client.query(&format!("/tasks/{task}/log"), &[("whole", "true")]).await.expect("its log");
    let output = &page.steps[1].runs[0].output;
    let once: String = (0..LINES).map(|line| format!("line-{line}\n")).collect();
    assert!(*output == format!("{once}{once}"), "the output has {} bytes, not {}", output.len(), 2 * once.len());
    let told = product.oracle.heard_of(task);
    assert!(told.iter().all(|event| event.event.kind != EventKind::TaskReassigned), "nothing moves within the lease");
    let now = product.worker(view.record.id).await;
    assert_eq!((now.incarnation, now.pid), (view.incarnation, view.pid), "the worker outlived its connection");
    assert_eq!(product.judge().await, Verdict::default());

    let removed = helix(product, &["worker", "remove", &view.record.name]);
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    assert!(!machine.installed().exists(), "nothing is left there");
    assert_eq!(crate::harness::processes_in(&machine.0.home()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_behind_the_built_in_client_is_installed_from_nothing_cut_restored_and_removed() {
    for _ in 0..rounds(1) {
        let machine = Machine::start();
        let product = Setup::workers(0).patient_leases().start().await;
        assert!(!machine.installed().exists());
        let output = add(&product, &machine, |host_key| host_key);
        installed_cut_restored_and_removed(&product, &machine, &answer(&output)).await;
    }
}

/// `helix`, for a person whose `ssh` reads this configuration.
fn with_private_ssh(folder: &Path, machine: &Machine) -> PathBuf {
    let script = |path: &Path, text: String| {
        std::fs::write(path, text).expect("the folder is writable");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("the script is ours");
    };
    let found = Command::new("sh").args(["-c", "command -v ssh"]).output().expect("a shell runs").stdout;
    let ssh = String::from_utf8(found).expect("a path").trim().to_owned();
    assert!(!ssh.is_empty(), "OpenSSH's client is installed");
    let programs = folder.join("programs");
    std::fs::create_dir(&programs).expect("the folder is writable");
    script(&programs.join("ssh"), format!("#!/bin/sh\nexec {ssh} -F {} \"$@\"\n", machine.0.config().display()));
    let helix = folder.join("helix");
    script(&helix, format!("#!/bin/sh\nPATH={}:$PATH exec {HELIX} \"$@\"\n", programs.display()));
    helix
}

/// What `scripts/dist.sh worker` builds, where it was run just now.
fn static_worker() -> Option<PathBuf> {
    std::env::var_os("HELIX_CAMPAIGN")?;
    let built = Path::new(HELIX).parent()?.parent()?.join("dist/helix-worker");
    built.is_file().then_some(built)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_static_worker_is_installed_runs_what_it_is_given_and_is_removed() {
    let Some(program) = static_worker() else {
        return not_run("the static worker", "`scripts/dist.sh worker` builds it, which `make campaign` does");
    };
    let machine = Machine::start();
    let product = Setup::workers(0).patient_leases().set("workers.program", program.display().to_string()).start().await;
    let output = add(&product, &machine, |host_key| host_key);
    let view: WorkerView = answer(&output);
    let installed = std::fs::read_link(format!("/proc/{}/exe", view.pid.expect("it runs here"))).expect("it runs");
    assert!(installed.starts_with(machine.installed()), "{}", installed.display());
    assert!(std::fs::read(&installed).expect("readable") == std::fs::read(&program).expect("readable"));
    let said = Command::new("ldd").arg(&installed).output().expect("ldd runs");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(!said.contains("=>"), "{said}");
    installed_cut_restored_and_removed(&product, &machine, &view).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_behind_an_alias_of_the_systems_ssh_is_installed_from_nothing_cut_restored_and_removed() {
    for _ in 0..rounds(1) {
        let machine = Machine::start();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = with_private_ssh(folder.path(), &machine);
        let product = Setup::workers(0).patient_leases().program(&program).start().await;
        assert!(!machine.installed().exists());
        let output = helix(&product, &["worker", "add", "box"]);
        installed_cut_restored_and_removed(&product, &machine, &answer(&output)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_another_key_than_the_pinned_one_is_refused() {
    let machine = Machine::start();
    let product = Setup::workers(0).start().await;
    let output = add(&product, &machine, |host_key| format!("SHA256:{}", "A".repeat(host_key.len() - "SHA256:".len())));
    let said: serde_json::Value = serde_json::from_slice(&output.stderr).expect("a failure in JSON");
    assert_eq!((output.status.code(), said["error"]["code"].as_str()), (Some(6), Some("host_key_changed")), "{said}");
    assert!(!machine.installed().exists(), "nothing was sent there");
    assert_eq!(product.workers().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_on_another_machine_reaches_its_models_where_that_machine_reaches_the_gateway() {
    let port = free_port();
    for address in [String::new(), format!("http://127.0.0.2:{port}/")] {
        let machine = Machine::start();
        // What listens for other machines listens on this one's every address.
        let setup = Setup::workers(0).patient_leases().model(transcript(i_am_the_model()));
        let setup = setup.set("gateway.listen", format!("0.0.0.0:{port}")).set("gateway.address", address.as_str());
        let product = setup.start().await;
        let _: WorkerView = answer(&add(&product, &machine, |host_key| host_key));
        let task = product.external(spec(&product, "model")).await;
        if address.is_empty() {
            let record = product.ended(task).await;
            assert_eq!(record.status, TaskStatus::Failed);
            assert!(record.reason.contains("does not reach this node's gateway"), "{}", record.reason);
            continue;
        }
        product.completed(task).await;
        assert!(product.said(task).await[0].contains("The model says: I am the model."), "{:?}", product.said(task).await);
        assert_eq!((product.record(task).await.tokens, product.keys().await), (940, 0));
        assert_eq!(product.judge().await, Verdict::default());
    }
}
